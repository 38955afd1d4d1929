"""The step label: what an oracle's answer becomes in the ledger. Nothing unbelievable becomes a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from campaign.artifacts import ArtifactStore
from campaign.crystals.neighbours import shortest_distance
from campaign.ledger import events as ev
from campaign.protocols import EvaluationJob, FinishedJob, Oracle
from campaign.schema import FailurePolicyConfig, OracleConfig
from campaign.seeds import content_hash
from campaign.types import Candidate, Crystal, Evaluation, Failure, FailureKind, Observation

_OVERLAP = 0.5
_VOLUME_FACTOR = 2.0


def evaluation_job(
    candidate: Candidate, oracle: OracleConfig, fidelity: str, policy: FailurePolicyConfig, *, attempt: int, last: str | None
) -> EvaluationJob:
    """One attempt under a key made of candidate, fidelity and attempt; a retry takes the softer settings for the last failure's kind."""
    softer: Mapping[str, Any] = {}
    if attempt and last is not None:
        ladder = policy.of(FailureKind(last)).softer
        softer = ladder[min(attempt, len(ladder)) - 1] if ladder else {}
    return EvaluationJob(
        key=work_key(candidate.id, fidelity, attempt), oracle=oracle.label, candidate=candidate, attempt=attempt, softer=softer
    )


def work_key(candidate: str, fidelity: str, attempt: int) -> str:
    return f"evaluate/{content_hash([candidate, fidelity, attempt])[:32]}"


def check(evaluation: Evaluation, job: EvaluationJob, oracle: Oracle, config: OracleConfig) -> Failure | None:
    """Why an answer is no label: missing quantities, wrong units, NaN, values outside the sanity window, or a cell that fell apart."""
    if evaluation.failure is not None:
        return evaluation.failure
    found = {observation.quantity: observation for observation in evaluation.observations}
    for quantity in oracle.quantities:
        observation = found.get(quantity.name)
        if observation is None:
            return Failure(FailureKind.CRASH, f"the oracle promised {quantity.name} and did not give it", retryable=False)
        problem = _problem(observation, quantity.unit, config.sanity.get(quantity.name))
        if problem:
            return Failure(FailureKind.UNPHYSICAL, problem)
    if evaluation.crystal is not None:
        problem = _fell_apart(job.candidate.crystal, evaluation.crystal)
        if problem:
            return Failure(FailureKind.UNPHYSICAL, problem)
    return None


def _problem(observation: Observation, unit: str, window: tuple[float, float] | None) -> str:
    if observation.unit != unit:
        return f"{observation.quantity} came in {observation.unit}, expected {unit}"
    if not observation.is_finite:
        return f"{observation.quantity} is {observation.value}"
    if window is not None and not window[0] <= observation.scalar <= window[1]:
        return f"{observation.quantity} of {observation.scalar:.6g} {unit} lies outside {window[0]:g} to {window[1]:g}"
    return ""


def _fell_apart(before: Crystal, after: Crystal) -> str:
    if sorted(before.numbers.tolist()) != sorted(after.numbers.tolist()):
        return f"the relaxed crystal is {after.formula}, the candidate was {before.formula}"
    ratio = after.volume / before.volume
    if not 1 / _VOLUME_FACTOR <= ratio <= _VOLUME_FACTOR:
        return f"the cell's volume changed by a factor of {ratio:.2f} on relaxation"
    distance = shortest_distance(after.lattice, after.fractional)
    if distance < _OVERLAP:
        return f"two atoms are {distance:.2f} angstrom apart after relaxation"
    return ""


def outcome(
    finished: FinishedJob,
    *,
    oracle: Oracle,
    config: OracleConfig,
    fidelity: str,
    policy: FailurePolicyConfig,
    artifacts: ArtifactStore,
) -> tuple[ev.Labelled | ev.Failed, dict[str, bytes]]:
    """The event of an attempt, with the relaxed crystal's bytes. Artifacts are on disk before the event names them."""
    job, evaluation = finished.job, finished.evaluation
    cost = evaluation.cost
    failure = check(evaluation, job, oracle, config)
    if failure is not None:
        is_last = not failure.retryable or job.attempt >= policy.of(failure.kind).retries
        return ev.Failed(
            key=job.key,
            candidate=job.candidate.id,
            oracle=job.oracle,
            fidelity=fidelity,
            attempt=job.attempt,
            kind=failure.kind.value,
            message=failure.message[:2000],
            is_retryable=failure.retryable,
            is_quarantined=is_last,
            wall_seconds=cost.wall_seconds,
            cpu_seconds=cost.cpu_seconds,
            started=cost.started,
            worker=cost.worker,
        ), {}
    blobs = {evaluation.crystal.id: evaluation.crystal.to_bytes()} if evaluation.crystal is not None else {}
    return ev.Labelled(
        key=job.key,
        candidate=job.candidate.id,
        oracle=job.oracle,
        fidelity=fidelity,
        attempt=job.attempt,
        observations=tuple(_row(observation) for observation in evaluation.observations),
        crystal=evaluation.crystal.id if evaluation.crystal is not None else None,
        artifacts={name: artifacts.write(data) for name, data in evaluation.artifacts.items()},
        wall_seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        started=cost.started,
        worker=cost.worker,
    ), blobs


def _row(observation: Observation) -> ev.ObservationRow:
    value = observation.value
    plain = float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=float).tolist()
    return ev.ObservationRow(observation.quantity, plain, observation.unit, observation.noise)
