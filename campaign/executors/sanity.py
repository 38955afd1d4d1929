"""Whether an oracle's answer can be believed. Runs in the worker, so that nothing unbelievable
leaves it as a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from campaign.crystals.neighbours import shortest_distance
from campaign.types import Crystal, Evaluation, Failure, FailureKind, Observation, Quantity

_OVERLAP = 0.5
_VOLUME_FACTOR = 2.0


def check(
    evaluation: Evaluation,
    candidate: Crystal,
    quantities: Sequence[Quantity],
    windows: Mapping[str, tuple[float, float]],
) -> Failure | None:
    """Why an answer is no label: missing quantities, wrong units, NaN, values outside the sanity
    window, or a cell that fell apart.
    """
    if evaluation.failure is not None:
        return evaluation.failure
    found = {observation.quantity: observation for observation in evaluation.observations}
    for quantity in quantities:
        observation = found.get(quantity.name)
        if observation is None:
            return Failure(
                FailureKind.CRASH,
                f"the oracle promised {quantity.name} and did not give it",
                retryable=False,
            )
        problem = _problem(observation, quantity.unit, windows.get(quantity.name))
        if problem:
            return Failure(FailureKind.UNPHYSICAL, problem)
    if evaluation.crystal is not None:
        problem = _fell_apart(candidate, evaluation.crystal)
        if problem:
            return Failure(FailureKind.UNPHYSICAL, problem)
    return None


def _problem(observation: Observation, unit: str, window: tuple[float, float] | None) -> str:
    if observation.unit != unit:
        return f"{observation.quantity} came in {observation.unit}, expected {unit}"
    if not observation.is_finite:
        return f"{observation.quantity} is {observation.value}"
    if window is not None and not window[0] <= observation.scalar <= window[1]:
        return (
            f"{observation.quantity} of {observation.scalar:.6g} {unit} lies outside "
            f"{window[0]:g} to {window[1]:g}"
        )
    return ""


def _fell_apart(before: Crystal, after: Crystal) -> str:
    if sorted(before.numbers.tolist()) != sorted(after.numbers.tolist()):
        return f"the relaxed crystal is {after.formula}, the candidate was {before.formula}"
    ratio = after.volume / before.volume
    if not 1 / _VOLUME_FACTOR <= ratio <= _VOLUME_FACTOR:
        return f"the cell's volume changed by a factor of {ratio:.2f} on relaxation"
    distance = shortest_distance(after)
    if distance < _OVERLAP:
        return f"two atoms are {distance:.2f} angstrom apart after relaxation"
    return ""
