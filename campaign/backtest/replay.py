"""Runs a backtest: campaigns side by side, each saved when it ends; a second call goes on with what is missing."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from campaign.artifacts import write_whole
from campaign.backtest.config import Backtest
from campaign.backtest.figures import Run, Summary, summarise
from campaign.backtest.table import Table, rows_of
from campaign.ledger import CampaignState
from campaign.seeds import content_hash
from campaign.types import Objective


@dataclass(frozen=True)
class Outcome:
    """All runs, the value to reach, the best value there is, how many rows reach the target, and the summaries by strategy."""

    objective: Objective
    runs: tuple[Run, ...]
    target: float
    best: float
    n_best: int
    summaries: tuple[Summary, ...]

    def of(self, strategy: str) -> list[Run]:
        return [run for run in self.runs if run.strategy == strategy]


def run_all(backtest: Backtest, folder: Path, on_done: Callable[[str, int], None] = lambda strategy, seed: None) -> Outcome:
    """Replay every strategy with every seed, several at once."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [key for key in backtest.runs if not _path(backtest, folder, *key).exists()]
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(backtest.config.workers, len(missing)), mp_context=context) as pool:
            jobs = {pool.submit(replay, backtest, *key): key for key in missing}
            for job in as_completed(jobs):
                key = jobs[job]
                write_whole(_path(backtest, folder, *key), _to_bytes(job.result()))
                on_done(*key)
    runs = [_from_bytes(_path(backtest, folder, *key).read_bytes()) for key in backtest.runs]
    return conclude(backtest, runs)


def replay(backtest: Backtest, strategy: str, seed: int) -> Run:
    """One strategy with one seed, in a folder of its own that is removed."""
    from campaign.api import Campaign
    from campaign.loop import objective_oracle

    loaded = backtest.campaign(strategy, seed)
    with tempfile.TemporaryDirectory(prefix="oreloop-backtest-") as name:
        campaign = Campaign(Path(name) / "campaign", loaded)
        campaign.run()
        return run_of(campaign.state(), strategy, seed, objective_oracle(loaded), loaded.config.objective.quantity, backtest.config.labels)


def run_of(state: CampaignState, strategy: str, seed: int, oracle: str, quantity: str, limit: int) -> Run:
    """The oracle calls of a campaign in the order in which they ended."""
    calls = [
        (label.sequence, label.values.get(quantity, np.nan) if label.oracle == oracle else np.nan, label.started + label.wall_seconds)
        for label in state.own_labels
    ]
    calls += [(sequence, np.nan, event.started + event.wall_seconds) for sequence, _, event in state.failures]
    rows = np.array([call[1:] for call in sorted(calls)], dtype=float).reshape(-1, 2)[:limit]
    return Run(strategy, seed, rows[:, 0], rows[:, 1])


def conclude(backtest: Backtest, runs: list[Run]) -> Outcome:
    """Target and best from the table where there is one, else from the best of all runs."""
    loaded = backtest.campaign(backtest.config.baseline, backtest.config.first_seed)
    objective = loaded.config.objective.objective
    known = np.array(sorted(_values(loaded.parts.oracles.values(), objective.quantity), key=lambda value: -objective.gain(value)))
    if not len(known):
        known = np.concatenate([run.values[~np.isnan(run.values)] for run in runs])
        known = known[np.argsort(-objective.gain(known))]
        n_best = 1
    else:
        n_best = max(1, round(backtest.config.top * len(known)))
    target = backtest.config.target if backtest.config.target is not None else float(known[n_best - 1])
    n_best = int((objective.gain(known) >= objective.gain(target)).sum())
    theirs = [run for run in runs if run.strategy == backtest.config.baseline]
    summaries = tuple(
        summarise([run for run in runs if run.strategy == name], theirs, objective, target, float(known[0]), n_best)
        for name in backtest.config.strategies
    )
    return Outcome(objective, tuple(runs), target, float(known[0]), n_best, summaries)


def _values(oracles: object, quantity: str) -> Iterator[float]:
    for oracle in oracles:  # type: ignore[attr-defined]
        if isinstance(oracle, Table) and quantity in oracle.config.columns:
            yield from (values[quantity] for _, values in rows_of(oracle.config.path, oracle.config.source).values() if quantity in values)
            return


def _path(backtest: Backtest, folder: Path, strategy: str, seed: int) -> Path:
    digest = content_hash(backtest.campaign(strategy, seed).resolved())[:12]
    return folder / "runs" / f"{strategy.replace(' ', '_')}-{seed}-{digest}.json"


def _to_bytes(run: Run) -> bytes:
    values = [None if np.isnan(value) else float(value) for value in run.values]
    return json.dumps({"strategy": run.strategy, "seed": run.seed, "values": values, "ends": run.ends.tolist()}).encode()


def _from_bytes(data: bytes) -> Run:
    found = json.loads(data)
    values = np.array([np.nan if value is None else value for value in found["values"]], dtype=float)
    return Run(found["strategy"], found["seed"], values, np.array(found["ends"], dtype=float))
