"""Runs a backtest: campaigns side by side, each saved when it ends; a second call goes on with what
is missing.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from campaign.backtest.config import Backtest
from campaign.backtest.figures import Run, Summary, summarise
from campaign.backtest.table import Table, rows_of
from campaign.config.loaded import LoadedConfig
from campaign.config.roles import objective_oracle
from campaign.decide import ranking
from campaign.files import write_whole
from campaign.ledger import CampaignState
from campaign.ledger.leaders import Wanted
from campaign.ledger.state import LabelRecord
from campaign.seeds import content_hash
from campaign.types import FloatArray, Objective

_FORM = 2
"""Of saved runs; those in another form are replayed again."""


@dataclass(frozen=True)
class Outcome:
    """All runs, the value to reach, the best value there is, how many rows reach the target, and
    the summaries by strategy.
    """

    objective: Objective
    runs: tuple[Run, ...]
    target: float
    best: float
    n_best: int
    summaries: tuple[Summary, ...]

    def of(self, strategy: str) -> list[Run]:
        return [run for run in self.runs if run.strategy == strategy]


def run_all(
    backtest: Backtest,
    folder: Path,
    on_done: Callable[[str, int], None] = lambda strategy, seed: None,
) -> Outcome:
    """Replay every strategy with every seed, several at once."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [key for key in backtest.runs if not _path(backtest, folder, *key).exists()]
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(backtest.config.workers, len(missing)), mp_context=context, initializer=_be_quiet
        ) as pool:
            jobs = {pool.submit(replay, backtest, *key): key for key in missing}
            for job in as_completed(jobs):
                key = jobs[job]
                write_whole(_path(backtest, folder, *key), _to_bytes(job.result()))
                on_done(*key)
    runs = [_from_bytes(_path(backtest, folder, *key).read_bytes()) for key in backtest.runs]
    return conclude(backtest, runs)


def _be_quiet() -> None:
    """Failures in replays are data, not news."""
    logging.getLogger("campaign").setLevel(logging.CRITICAL)


def replay(backtest: Backtest, strategy: str, seed: int) -> Run:
    """One strategy with one seed, in a folder of its own that is removed."""
    from campaign.api import Campaign

    loaded = backtest.campaign(strategy, seed)
    with tempfile.TemporaryDirectory(prefix="oreloop-backtest-") as name:
        campaign = Campaign(Path(name) / "campaign", loaded)
        campaign.run()
        return run_of(campaign.state(), strategy, seed, campaign.wanted, backtest.config.labels)


def run_of(state: CampaignState, strategy: str, seed: int, wanted: Wanted, limit: int) -> Run:
    """The oracle calls of a campaign in the order in which they ended; labels of the objective's
    oracle alone.
    """
    calls: list[tuple[int, LabelRecord | None, float, float]] = [
        (
            label.sequence,
            label if label.oracle == wanted.oracle else None,
            label.started + label.wall_seconds,
            label.wall_seconds,
        )
        for label in state.own_labels
    ]
    calls += [
        (sequence, None, event.started + event.wall_seconds, event.wall_seconds)
        for sequence, _, event in state.failures
    ]
    calls = sorted(calls, key=lambda call: call[0])[:limit]
    labels = [label for _, label, _, _ in calls]
    names = [objective.quantity for objective in wanted.objectives]
    found = {
        name: np.array(
            [label.values.get(name, np.nan) if label is not None else np.nan for label in labels]
        )
        for name in names
    }
    broken = tuple(
        i
        for i, label in enumerate(labels)
        if label is not None and not wanted.holds(label.values, state.counts(label.candidate))
    )
    main, *further = names
    ends, costs = np.array([call[2] for call in calls]), np.array([call[3] for call in calls])
    return Run(
        strategy, seed, found[main], ends, costs, {name: found[name] for name in further}, broken
    )


def conclude(backtest: Backtest, runs: list[Run]) -> Outcome:
    """Target and best from the table where there is one, else from the best of all runs."""
    loaded = backtest.campaign(backtest.config.baseline, backtest.config.first_seed)
    objective = loaded.config.objective.objective
    known = np.array(_values(loaded))
    n_best = max(1, round(backtest.config.top * len(known)))
    if not len(known):
        known, n_best = np.concatenate([run.wanted[~np.isnan(run.wanted)] for run in runs]), 1
    known = known[np.argsort(-objective.gain(known))]
    target = (
        backtest.config.target if backtest.config.target is not None else float(known[n_best - 1])
    )
    n_best = int((objective.gain(known) >= objective.gain(target)).sum())
    theirs = [run for run in runs if run.strategy == backtest.config.baseline]
    summaries = tuple(
        summarise(
            [run for run in runs if run.strategy == name],
            theirs,
            objective,
            target,
            float(known[0]),
            n_best,
        )
        for name in backtest.config.strategies
    )
    return Outcome(objective, tuple(runs), target, float(known[0]), n_best, summaries)


def known_best(backtest: Backtest) -> float | None:
    """The best value of the table; the target where there is no table; None where there is
    neither.
    """
    loaded = backtest.campaign(backtest.config.baseline, backtest.config.first_seed)
    objective = loaded.config.objective.objective
    values = _values(loaded)
    return max(values, key=objective.gain) if values else backtest.config.target


def _values(loaded: LoadedConfig) -> list[float]:
    """All values of a table that hold the constraints; none where the oracle is no table."""
    oracle = loaded.parts.oracles[objective_oracle(loaded)]
    if not isinstance(oracle, Table):
        return []
    wanted, quantity = (
        ranking.wanted_of(loaded.config, objective_oracle(loaded)),
        loaded.config.objective.quantity,
    )
    rows = rows_of(oracle.config).values()
    return [
        values[quantity]
        for crystal, values in rows
        if quantity in values and wanted.holds(values, Counter(crystal.symbols))
    ]


def _path(backtest: Backtest, folder: Path, strategy: str, seed: int) -> Path:
    """Named by settings and by what labels mean, a table's content included."""
    loaded = backtest.campaign(strategy, seed)
    digest = content_hash([loaded.resolved(), *backtest.meaning(loaded), _FORM])[:12]
    return folder / "runs" / f"{strategy.replace(' ', '_')}-{seed}-{digest}.json"


def _to_bytes(run: Run) -> bytes:
    def plain(values: FloatArray) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    arrays = {"values": plain(run.values), "ends": plain(run.ends), "costs": plain(run.costs)}
    further = {name: plain(values) for name, values in run.further.items()}
    return json.dumps(
        {
            "strategy": run.strategy,
            "seed": run.seed,
            **arrays,
            "further": further,
            "broken": run.broken,
        }
    ).encode()


def _from_bytes(data: bytes) -> Run:
    found = json.loads(data)

    def array(values: list[float | None]) -> FloatArray:
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    further = {name: array(values) for name, values in found["further"].items()}
    values, ends, costs = (array(found[name]) for name in ("values", "ends", "costs"))
    return Run(
        found["strategy"], found["seed"], values, ends, costs, further, tuple(found["broken"])
    )
