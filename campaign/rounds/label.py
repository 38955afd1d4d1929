"""The step label: the jobs that oracles get, and what their answers become in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from campaign.config.schema import FailurePolicyConfig, OracleConfig
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.protocols import EvaluationJob, FinishedJob
from campaign.seeds import content_hash
from campaign.types import Candidate, Crystal, FailureKind, FloatArray, Observation


def evaluation_job(
    candidate: Candidate,
    oracle: OracleConfig,
    fidelity: str,
    policy: FailurePolicyConfig,
    *,
    attempt: int = 0,
    tries: Sequence[str] = (),
    start: Crystal | None = None,
    committee: bytes | None = None,
) -> EvaluationJob:
    """One attempt under a key of candidate, oracle, fidelity, attempt and start.

    ``attempt`` counts all of the pair; ``tries`` are the kinds of the failures that still count
    against it: a retry takes the softer settings for the last one's kind, and one for which the
    surroundings are to blame to the end runs alone.
    """
    softer: Mapping[str, Any] = {}
    if tries and (ladder := policy.of(FailureKind(tries[-1])).softer):
        softer = ladder[min(tries.count(tries[-1]), len(ladder)) - 1]
    surroundings = FailureKind.INFRASTRUCTURE
    return EvaluationJob(
        key=work_key(
            candidate.id, oracle.label, fidelity, attempt, start.id if start is not None else None
        ),
        oracle=oracle.label,
        candidate=candidate,
        attempt=attempt,
        softer=softer,
        start=start,
        committee=committee,
        alone=tries.count(surroundings) >= max(1, policy.of(surroundings).retries),
    )


def work_key(
    candidate: str, oracle: str, fidelity: str, attempt: int, start: str | None = None
) -> str:
    return f"evaluate/{content_hash([candidate, oracle, fidelity, attempt, *([start] if start is not None else [])])[:32]}"  # noqa: E501


def outcome(
    finished: FinishedJob,
    *,
    fidelity: str,
    policy: FailurePolicyConfig,
    tries: Sequence[str],
    artifacts: ArtifactStore,
) -> tuple[ev.Labelled | ev.Failed, dict[str, bytes]]:
    """The event of an attempt, with the relaxed crystal's bytes. Artifacts are on disk before the
    event names them.

    ``tries``: kinds of the earlier failures that count. A candidate is never given up for what its
    surroundings did.
    """
    job, evaluation = finished.job, finished.evaluation
    cost = evaluation.cost
    failure = evaluation.failure
    if failure is not None:
        is_last = (
            not failure.retryable or tries.count(failure.kind) >= policy.of(failure.kind).retries
        )
        return ev.Failed(
            key=job.key,
            candidate=job.candidate.id,
            oracle=job.oracle,
            fidelity=fidelity,
            attempt=job.attempt,
            kind=failure.kind.value,
            message=failure.message[:2000],
            is_retryable=failure.retryable,
            is_quarantined=is_last and failure.kind is not FailureKind.INFRASTRUCTURE,
            wall_seconds=cost.wall_seconds,
            cpu_seconds=cost.cpu_seconds,
            started=cost.started,
            worker=cost.worker,
        ), {}
    blobs = (
        {evaluation.crystal.id: evaluation.crystal.to_bytes()}
        if evaluation.crystal is not None
        else {}
    )
    return ev.Labelled(
        key=job.key,
        candidate=job.candidate.id,
        oracle=job.oracle,
        fidelity=evaluation.fidelity or fidelity,
        attempt=job.attempt,
        observations=observation_rows(evaluation.observations),
        crystal=evaluation.crystal.id if evaluation.crystal is not None else None,
        artifacts={name: artifacts.write(data) for name, data in evaluation.artifacts.items()},
        wall_seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        started=cost.started,
        worker=cost.worker,
    ), blobs


def observation_rows(observations: Sequence[Observation]) -> tuple[ev.ObservationRow, ...]:
    """Observations as the ledger keeps them."""
    return tuple(
        ev.ObservationRow(o.quantity, _plain(o.value), o.unit, o.noise) for o in observations
    )


def _plain(value: float | FloatArray) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=float).tolist()
