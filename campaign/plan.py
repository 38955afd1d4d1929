"""What a campaign will take, from timings measured on a handful of structures."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from campaign.config import LoadedConfig
from campaign.dataset import Dataset
from campaign.executors.worker import OracleWorker
from campaign.propose import propose
from campaign.protocols import EvaluationJob
from campaign.seeds import stream_key
from campaign.types import Candidate, Crystal

_ROWS_PER_CANDIDATE = 250
_BYTES_PER_LABEL = 2500


@dataclass(frozen=True)
class OraclePlan:
    """Of one oracle: evaluations tried, failed, median seconds, and the expected seconds for all labels on its workers."""

    oracle: str
    tried: int
    failed: int
    seconds: float
    labels: int | None
    wall_seconds: float | None


@dataclass(frozen=True)
class Plan:
    atoms: int
    oracles: tuple[OraclePlan, ...]
    candidates: int | None
    disk_bytes: int | None


def expected_labels(loaded: LoadedConfig) -> int | None:
    """Labels at most, by the budget of labels or of rounds; None where neither is set."""
    config = loaded.config
    acquisition = config.acquisition
    by_rounds = None
    if config.budget.rounds is not None:
        by_rounds = acquisition.initial_labels + (config.budget.rounds - 1) * acquisition.batch_size
    limits = [limit for limit in (config.budget.labels, by_rounds) if limit is not None]
    return min(limits) if limits else None


def measure(loaded: LoadedConfig, n: int = 3) -> Plan:
    """Label n proposed structures for real, outside the ledger, and extrapolate."""
    config = loaded.config
    crystals: list[Crystal] = []
    for generator in config.generators:
        stream = stream_key(config.seed, f"plan:{generator.label}", 0)
        found = propose(loaded.spec("generators", generator), n, stream, config, 1, None, (), Dataset(()), None)
        crystals += [Crystal.from_bytes(data) for data in found.blobs.values()]
    crystals = crystals[:n]
    labels = expected_labels(loaded)
    level_labels = {level.oracle: level.labels for level in config.fidelities.levels if level.labels} if config.fidelities else {}
    plans = []
    for oracle in config.oracles:
        worker = OracleWorker(loaded.oracle_spec(oracle), "plan", config.executor.threads)
        seconds, failed = [], 0
        for crystal in crystals:
            job = EvaluationJob(key="plan", oracle=oracle.label, candidate=Candidate(crystal))
            evaluation = worker.evaluate(job)
            seconds.append(evaluation.cost.wall_seconds)
            failed += evaluation.failure is not None
        typical = median(seconds) if seconds else 0.0
        most = level_labels.get(oracle.label, labels)
        wall = most * typical / oracle.workers if most is not None else None
        plans.append(OraclePlan(oracle.label, len(seconds), failed, typical, most, wall))
    candidates = disk = None
    if labels is not None:
        rounds = 1 + max(0, labels - config.acquisition.initial_labels) / config.acquisition.batch_size
        candidates = round(rounds * sum(generator.count for generator in config.generators))
        blob = len(crystals[0].to_bytes()) if crystals else 0
        disk = 3 * round(candidates * (blob + _ROWS_PER_CANDIDATE) + labels * len(config.oracles) * _BYTES_PER_LABEL)
    return Plan(len(crystals[0]) if crystals else 0, tuple(plans), candidates, disk)
