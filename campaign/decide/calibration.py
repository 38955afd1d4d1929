"""How far a model's predictions can be believed, from labels that it had not seen when it chose
them.

They are the chosen ones, so the figures are of where the campaign looks, not of the whole space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from campaign.config.schema import CampaignConfig
from campaign.ledger import CampaignState
from campaign.ledger.stability import modelled_quantity
from campaign.ledger.state import RoundRecord
from campaign.types import ENERGY_ABOVE_HULL, FloatArray, Objective

_LEVELS = (50, 90, 95)
_RECENT, _LEAST = 60, 15
_RESOLUTION = 1e-12
"""The least standard deviation that counts, as a share of the largest value."""
_BELIEVED = 1.5
_LARGEST_SCALE = 5.0


@dataclass(frozen=True)
class Prediction:
    """A label that the deciding model had not seen, beside what it predicted. ``noise``: the
    standard deviation that the label's oracle states.
    """

    round: int
    candidate: str
    mean: float
    deviation: float
    value: float
    noise: float = 0.0


def predictions(
    record: RoundRecord, state: CampaignState, objective: Objective, oracle: str
) -> list[Prediction]:
    """Of the candidates that a round selected by a model: those that are labelled, at the level
    that the model is of.
    """
    found = []
    choices = record.decided.choices if record.decided else ()
    chosen = {(choice.candidate, choice.oracle) for choice in choices}
    for choice in choices:
        label = state.labels.get((choice.candidate, choice.oracle))
        if choice.oracle != oracle and (choice.candidate, oracle) in chosen:
            continue
        if label is None or choice.mean is None or choice.deviation is None:
            continue
        quantity = modelled_quantity(objective.quantity)
        if quantity in label.values:
            value = label.values[quantity]
            found.append(
                Prediction(
                    record.index,
                    choice.candidate,
                    choice.mean,
                    choice.deviation,
                    value,
                    label.noise.get(quantity, 0.0),
                )
            )
    return found


def chances(state: CampaignState) -> dict[str, float]:
    """By candidate that a choice by the hull chose: how likely it was to be stable, then."""
    found: dict[str, float] = {}
    for record in state.rounds:
        for choice in record.decided.choices if record.decided is not None else ():
            if choice.stable is not None:
                found.setdefault(choice.candidate, choice.stable)
    return found


def stability(state: CampaignState, oracle: str, tolerance: float) -> list[tuple[float, bool]]:
    """Of what a choice by the hull sent for labels, and a level has labelled since: how likely each
    was to be stable, and whether it is.

    It is where it lies at most ``tolerance`` (eV/atom) above the hull of all labels of the level as
    they stand.
    """
    found = chances(state)
    labels = (
        (chance, state.labels.get((candidate, oracle))) for candidate, chance in found.items()
    )
    name = ENERGY_ABOVE_HULL.name
    return [
        (chance, label.values[name] <= tolerance + 1e-9)
        for chance, label in labels
        if label is not None and name in label.values
    ]


@dataclass(frozen=True)
class Reliability:
    """Predictions whose chance lies in one bin: the mean chance, the share that came true, and how
    many there are.
    """

    chance: float
    share: float
    n: int


def reliability(found: Sequence[tuple[float, bool]], bins: int = 5) -> list[Reliability]:
    """By bins of equal width, empty ones left out: a model that can be believed has shares near its
    chances.
    """
    groups: dict[int, list[tuple[float, bool]]] = {}
    for chance, came_true in found:
        groups.setdefault(min(bins - 1, int(bins * chance)), []).append((chance, came_true))
    return [
        Reliability(
            float(np.mean([chance for chance, _ in group])),
            float(np.mean([hit for _, hit in group])),
            len(group),
        )
        for _, group in sorted(groups.items())
    ]


def calibration(found: Sequence[Prediction]) -> dict[str, float]:
    """Root mean square error, sharpness (mean standard deviation), mean negative log likelihood,
    and coverage: the share of labels inside the central 50, 90 and 95 % intervals.
    """
    columns = np.array(
        [[item.value, item.mean, math.hypot(item.deviation, item.noise)] for item in found]
    )
    return scored(*columns.T) if found else {}


def scored(value: FloatArray, mean: FloatArray, deviation: FloatArray) -> dict[str, float]:
    """``calibration`` of labels (n,) with predicted means (n,) and standard deviations (n,), n at
    least 1.
    """
    from scipy.special import ndtri

    error = value - mean
    resolution = _RESOLUTION * float(np.abs([value, mean]).max())
    deviation = np.maximum(deviation, resolution or 1.0)
    z = error / deviation
    figures = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "sharpness": float(deviation.mean()),
        "negative_log_likelihood": float(
            np.mean(0.5 * z**2 + np.log(deviation) + 0.5 * math.log(2 * math.pi))
        ),
    }
    return figures | {
        f"coverage_{level}": float(np.mean(np.abs(z) <= ndtri(0.5 + level / 200)))
        for level in _LEVELS
    }


def scale(state: CampaignState, objective: Objective, oracle: str, before: int) -> float:
    """The factor on the model's standard deviations that its last predictions ask for, from labels
    that stand before an event.

    Root mean square of (label - mean) / deviation over the last labels, the deviations as the model
    gave them; 1 while it lies within a factor of 1.5, or while there are fewer than 15.
    """
    scores: list[float] = []
    for record in reversed(state.rounds):
        if record.decided is None or len(scores) >= _RECENT:
            continue
        applied = record.decided.scales.get(objective.quantity, 1.0)
        for item in predictions(record, state, objective, oracle):
            label = state.labels.get((item.candidate, oracle))
            if label is not None and label.sequence < before and item.deviation > 0:
                deviation = math.hypot(item.deviation, applied * item.noise)
                scores.append(applied * (item.value - item.mean) / deviation)
    if len(scores) < _LEAST:
        return 1.0
    found = float(np.clip(np.sqrt(np.mean(np.square(scores))), 1 / _LARGEST_SCALE, _LARGEST_SCALE))
    return 1.0 if 1 / _BELIEVED <= found <= _BELIEVED else found


def scales(
    state: CampaignState, config: CampaignConfig, oracle: str, before: int
) -> dict[str, float]:
    """By quantity, the objective's alone: what the ledger records and the decision uses; empty
    where nothing is to be scaled.
    """
    if not config.acquisition.recalibrate:
        return {}
    objective = config.objective.objective
    found = scale(state, objective, oracle, before)
    return {} if found == 1.0 else {objective.quantity: found}
