"""What a campaign will take: timings measured on a handful of structures, and a short rehearsal of
its decisions.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from statistics import median

from campaign.config.loaded import LoadedConfig
from campaign.config.roles import asking_committee
from campaign.config.schema import CampaignConfig
from campaign.decide import budget
from campaign.errors import OreloopError
from campaign.executors import make_executor
from campaign.ledger.dataset import Dataset
from campaign.protocols import EvaluationJob
from campaign.rounds.propose import propose
from campaign.rounds.rehearsal import Deciding, deciding
from campaign.rounds.survey import Survey, survey
from campaign.seeds import stream_key
from campaign.types import Candidate, Crystal

_ROWS_PER_CANDIDATE = 250
_BYTES_PER_LABEL = 2500


@dataclass(frozen=True)
class OraclePlan:
    """Of one oracle: evaluations tried, failed, median seconds, and what to expect of all labels:
    the seconds on its workers, the cost in its currency where it has a price.
    """

    oracle: str
    tried: int
    failed: int
    seconds: float
    labels: int | None
    wall_seconds: float | None
    cost: float | None = None
    currency: str = ""


@dataclass(frozen=True)
class Plan:
    """``wall_seconds``: from the start of the workers to the last label, deciding included; None
    where the budget has no such limit.

    ``deciding``: None where it could not be rehearsed, for the reason in ``note``.
    """

    atoms: int
    oracles: tuple[OraclePlan, ...]
    rounds: int | None
    candidates: int | None
    disk_bytes: int | None
    start_seconds: float
    deciding: Deciding | None
    wall_seconds: float | None
    note: str = ""


def expected_candidates(config: CampaignConfig, pools: list[Survey]) -> int | None:
    """Candidates selected at most, by the budget of labels or of rounds or what pools hold; None
    where nothing limits them.
    """
    acquisition = config.acquisition
    limits = []
    if config.budget.labels is not None:
        limits.append(config.budget.labels // budget.labels_per_candidate(config))
    if config.budget.rounds is not None:
        limits.append(
            acquisition.initial_labels + (config.budget.rounds - 1) * acquisition.batch_size
        )
    if not config.generators:
        limits.append(sum(pool.n_passing for pool in pools))
    return min(limits) if limits else None


def expected_labels(config: CampaignConfig, candidates: int | None) -> dict[str, int | None]:
    """Labels at most by oracle: one of each candidate, on a ladder as many as the gates and limits
    of the levels let pass.
    """
    if config.fidelities is None:
        return {oracle.label: candidates for oracle in config.oracles}
    found: dict[str, int | None] = {}
    below = candidates
    for level in config.fidelities.levels:
        if below is not None and level.gate is not None and level.gate.best_fraction is not None:
            below = math.ceil(level.gate.best_fraction * below)
        below = min((limit for limit in (below, level.labels) if limit is not None), default=None)
        found[level.oracle] = below
    return found


def measure(
    loaded: LoadedConfig, n: int = 3, *, workers: int | None = None, labels: int | None = None
) -> Plan:
    """Label n structures of pools and generators for real, outside the ledger, rehearse some
    decisions, and extrapolate: to the config's workers and budget, or to so many ``workers`` of
    each oracle and so many ``labels``.
    """
    config = _changed(loaded.config, workers, labels)
    found = survey(loaded)
    pools = [item for item in found if item.purpose == "candidate_pools"]
    crystals = _structures(loaded, pools, n)
    candidates = expected_candidates(config, pools)
    n_labels = expected_labels(config, candidates)
    seconds, failed, start = _timed(loaded, crystals)
    plans = []
    for oracle in config.oracles:
        spent = seconds[oracle.label]
        typical, most = median(spent) if spent else 0.0, n_labels[oracle.label]
        wall = most * typical / oracle.at_once if most is not None and spent else None
        row = OraclePlan(oracle.label, len(spent), failed[oracle.label], typical, most, wall)
        if oracle.cost is not None and most is not None and spent:
            row = replace(
                row,
                cost=oracle.cost.per_hour * most * typical / 3600,
                currency=oracle.cost.currency,
            )
        plans.append(row)
    note = ""
    try:
        rehearsed: Deciding | None = deciding(loaded)
    except OreloopError as error:
        rehearsed, note = None, error.message
    rounds = proposed = disk = None
    if candidates is not None:
        rounds = 1 + math.ceil(
            max(0, candidates - config.acquisition.initial_labels) / config.acquisition.batch_size
        )
        proposed = rounds * sum(generator.count for generator in config.generators) + sum(
            len(pool.crystals) for pool in pools
        )
        blob = len(crystals[0].to_bytes()) if crystals else 0
        disk = 3 * round(
            proposed * (blob + _ROWS_PER_CANDIDATE)
            + sum(count or 0 for count in n_labels.values()) * _BYTES_PER_LABEL
        )
    wall_seconds = _wall_seconds(config, tuple(plans), rounds, start, rehearsed)
    atoms = len(crystals[0]) if crystals else 0
    return Plan(atoms, tuple(plans), rounds, proposed, disk, start, rehearsed, wall_seconds, note)


def _changed(config: CampaignConfig, workers: int | None, labels: int | None) -> CampaignConfig:
    if workers is not None:
        oracles = tuple(oracle.model_copy(update={"workers": workers}) for oracle in config.oracles)
        config = config.model_copy(update={"oracles": oracles})
    if labels is not None:
        config = config.model_copy(
            update={"budget": config.budget.model_copy(update={"labels": labels, "rounds": None})}
        )
    return config


def _structures(loaded: LoadedConfig, pools: list[Survey], n: int) -> list[Crystal]:
    """The first n, of pools and generators in turn."""
    config = loaded.config
    sources = [deque(pool.crystals[:n]) for pool in pools]
    for generator in config.generators:
        stream = stream_key(config.seed, f"plan:{generator.label}", 0)
        made = propose(
            loaded.spec("generators", generator), n, stream, config, None, (), Dataset(()), None
        )
        sources.append(deque(Crystal.from_bytes(data) for data in made.blobs.values()))
    crystals: dict[str, Crystal] = {}
    while len(crystals) < n and any(sources):
        for source in sources:
            if source and len(crystals) < n:
                crystal = source.popleft()
                crystals[crystal.id] = crystal
    return list(crystals.values())


def _timed(
    loaded: LoadedConfig, crystals: list[Crystal]
) -> tuple[dict[str, list[float]], dict[str, int], float]:
    """By oracle the seconds of its evaluations and how many failed, and the seconds until the
    workers had started.
    """
    config = loaded.config
    away = {*config.queues, *config.pilots}
    without = {*asking_committee(loaded), *loaded.waiting_for_people, *away}
    seconds: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    names = [oracle.label for oracle in config.oracles if oracle.label not in without]
    waiting = deque((name, crystal) for crystal in crystals for name in names)
    if not waiting:
        return seconds, failed, 0.0
    executor = make_executor(
        config.executor, module_folder=loaded.folder if loaded.has_user_modules else None
    )
    began, start, n_running = time.monotonic(), math.inf, 0
    try:
        executor.start(
            [loaded.oracle_spec(oracle) for oracle in config.oracles if oracle.label not in away]
        )
        while waiting or n_running:
            for _ in range(len(waiting)):
                name, crystal = waiting.popleft()
                if executor.free_workers(name):
                    key = f"plan/{name}/{crystal.id}"
                    executor.submit(
                        EvaluationJob(key=key, oracle=name, candidate=Candidate(crystal))
                    )
                    n_running += 1
                else:
                    waiting.append((name, crystal))
            for item in executor.wait(0.2):
                n_running -= 1
                cost = item.evaluation.cost.wall_seconds
                seconds[item.job.oracle].append(cost)
                failed[item.job.oracle] += item.evaluation.failure is not None
                start = min(start, max(0.0, time.monotonic() - began - cost))
    finally:
        executor.shutdown()
    return seconds, failed, start


def _wall_seconds(
    config: CampaignConfig,
    plans: tuple[OraclePlan, ...],
    rounds: int | None,
    start: float,
    rehearsed: Deciding | None,
) -> float | None:
    """Rounds that wait for their labels: deciding and labelling one after the other; streaming:
    side by side, after the first decision.
    """
    if rounds is None or rehearsed is None:
        return config.budget.wall_time
    labelling = [plan.wall_seconds or 0.0 for plan in plans]
    decisions = (rounds - 1) * rehearsed.later
    if config.mode == "streaming":
        found = start + rehearsed.first + max(decisions, *labelling)
    else:
        found = (
            start
            + rehearsed.first
            + decisions
            + sum(_in_batches(config, plan, rounds) for plan in plans)
        )
    return min(found, config.budget.wall_time or math.inf)


def _in_batches(config: CampaignConfig, plan: OraclePlan, rounds: int) -> float:
    """Seconds that an oracle's workers take for the batches of all rounds, each waited for."""
    if plan.labels is None:
        return 0.0
    workers = next(oracle.at_once for oracle in config.oracles if oracle.label == plan.oracle)
    first = min(plan.labels, config.acquisition.initial_labels)
    turns = math.ceil(first / workers) + (rounds - 1) * math.ceil(
        (plan.labels - first) / max(1, rounds - 1) / workers
    )
    return turns * plan.seconds
