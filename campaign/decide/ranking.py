"""The one ranking of labels: those that hold the constraints first, the Pareto front where there
are several objectives.

Best values, targets, stagnation, gates, tables, exports, reports and trackers ask here. Where an
oracle states noise of the first objective, labels rank by what is believed after them
(``campaign.ledger.beliefs``). Pure functions of state and config.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from campaign.config.schema import CampaignConfig, ConstraintConfig
from campaign.ledger import CampaignState
from campaign.ledger.leaders import Bound, Gains, Wanted, dominates
from campaign.ledger.state import LabelRecord
from campaign.types import ENERGY_ABOVE_HULL, FORMATION_ENERGY, FloatArray, Objective


@dataclass(frozen=True)
class Ranked:
    """A label with its rank from 1 and its front, 1 the best; ``holds``: it holds the constraints
    inside the space. Others come last.
    """

    rank: int
    front: int
    holds: bool
    label: LabelRecord


def wanted_of(config: CampaignConfig, oracle: str) -> Wanted:
    """What a config wants of the labels of its objective's oracle."""
    return Wanted(oracle, config.objectives, bounds_of(config.constraints), config.search_space)


def bounds_of(constraints: Sequence[ConstraintConfig]) -> tuple[Bound, ...]:
    return tuple(Bound(item.quantity, *item.bound) for item in constraints)


def best(state: CampaignState, wanted: Wanted) -> LabelRecord | None:
    """The label that leads: of several objectives the best of the first. None where no label holds
    the constraints.
    """
    return state.leaders(wanted).best


def front(state: CampaignState, wanted: Wanted) -> list[LabelRecord]:
    """The labels that no other beats in all objectives, among those that hold the constraints."""
    return state.leaders(wanted).front


def reached(state: CampaignState, wanted: Wanted) -> LabelRecord | None:
    """A label that holds the constraints and reaches every target that is stated, a noisy one by
    what is believed after it; None where none does, or none is stated.
    """
    aims = [objective for objective in wanted.objectives if objective.target is not None]
    leaders = state.leaders(wanted)
    for label in leaders.front if aims else ():
        values = leaders.believed(label)
        if all(objective.is_reached(values[objective.quantity]) for objective in aims):
            return label
    return None


def value_of(state: CampaignState, wanted: Wanted, label: LabelRecord) -> str:
    """A label's first objective for people; of a noisy one what is believed, with the standard
    error, and what the label says.
    """
    value = label.values[wanted.objective.quantity]
    belief = state.leaders(wanted).belief(label)
    if belief is None:
        return f"{value:.6g}"
    return f"{belief.mean:.6g} +- {belief.deviation:.2g} (label {value:.6g})"


def rounds_without_gain(state: CampaignState, wanted: Wanted) -> int:
    """Finished rounds since the best label came in, or the last one on the front, or on the hull; 0
    before there is one.
    """
    hull = (
        state.hull(wanted.oracle) if wanted.objective.quantity == ENERGY_ABOVE_HULL.name else None
    )
    leading = (
        [label for label in hull.stable if wanted.takes(label)]
        if hull is not None
        else front(state, wanted)
    )
    if not leading:
        return 0
    last = max(label.round for label in leading)
    return sum(1 for record in state.rounds if record.ended is not None and record.index > last)


def ranked(state: CampaignState, wanted: Wanted, n: int | None = None) -> list[Ranked]:
    """All labels with the objectives, or the n best: front by front, in a front by the first
    objective; then those that break a constraint, the nearest to holding it first, in units of each
    quantity's spread.
    """
    leaders = state.leaders(wanted)
    known = [
        (gains, label)
        for label in state.labels.values()
        if wanted.takes(label) and (gains := leaders.gains(label)) is not None
    ]
    holds = {
        id(label): wanted.holds(label.values, state.counts(label.candidate)) for _, label in known
    }
    found: list[Ranked] = []
    fronts = _fronts([pair for pair in known if holds[id(pair[1])]])
    number = 0
    for number, leading in enumerate(fronts, start=1):
        found += [
            Ranked(len(found) + i, number, True, label)
            for i, (_, label) in enumerate(leading, start=1)
        ]
        if n is not None and len(found) >= n:
            return found[:n]
    broken = [pair for pair in known if not holds[id(pair[1])]]
    distances = _distances(state, wanted, [label for _, label in broken])
    in_order = sorted(
        zip(distances, broken, strict=True), key=lambda row: (row[0], *_order(row[1]))
    )
    found += [
        Ranked(len(found) + i, number + 1, False, label)
        for i, (_, (_, label)) in enumerate(in_order, start=1)
    ]
    return found[:n]


def standing(item: Ranked, wanted: Wanted) -> str:
    """What the ranking says beside the rank: that it is on the front, or breaks a constraint; empty
    where there is nothing to say.
    """
    if not item.holds:
        return "breaks a constraint"
    return "Pareto front" if len(wanted.objectives) > 1 and item.front == 1 else ""


def _order(pair: tuple[Gains, LabelRecord]) -> tuple[list[float], str]:
    return [-gain for gain in pair[0]], pair[1].candidate


def _fronts(
    pairs: Sequence[tuple[Gains, LabelRecord]],
) -> Iterator[list[tuple[Gains, LabelRecord]]]:
    """Front by front those that no other left beats; with one objective each label is one."""
    left = sorted(pairs, key=_order)
    if left and len(left[0][0]) == 1:
        yield from ([pair] for pair in left)
        return
    while left:
        leading: list[tuple[Gains, LabelRecord]] = []
        rest: list[tuple[Gains, LabelRecord]] = []
        for pair in left:  # nothing later in this order beats an earlier one
            (rest if any(dominates(other, pair[0]) for other, _ in leading) else leading).append(
                pair
            )
        yield leading
        left = rest


def _distances(state: CampaignState, wanted: Wanted, labels: Sequence[LabelRecord]) -> list[float]:
    """How far each is from holding: shortfalls of all bounds, in the quantity's standard deviation;
    infinite outside the space.
    """
    total = np.array(
        [0.0 if wanted.is_inside(state.counts(label.candidate)) else np.inf for label in labels]
    )
    for bound in wanted.bounds:
        values = np.array([label.values.get(bound.quantity, np.nan) for label in labels])
        known = values[np.isfinite(values)]
        spread = float(known.std()) if len(known) else 0.0
        total = total + np.array([bound.shortfall(label.values) for label in labels]) / (
            spread or 1.0
        )
    return [float(value) for value in total]


def is_on_front(gains: FloatArray) -> NDArray[np.bool_]:
    """(n,) which of n points (n, k), larger is better in each, no other point beats in all."""
    order = np.lexsort(-gains.T[::-1])
    found = np.zeros(len(gains), dtype=bool)
    leading = np.empty((0, gains.shape[1]))
    for row in order:
        beaten = np.all(leading >= gains[row], axis=1) & np.any(leading > gains[row], axis=1)
        if not beaten.any():
            found[row] = True
            leading = np.vstack([leading, gains[row]])
    return found


def best_so_far(state: CampaignState, wanted: Wanted) -> list[tuple[LabelRecord, float | None]]:
    """Each label with the first objective, in the order in which they came, and the best value up
    to it that holds the constraints, of noisy labels what is believed now.
    """
    found: list[tuple[LabelRecord, float | None]] = []
    best_value: float | None = None
    objective, leaders = wanted.objective, state.leaders(wanted)
    alone = Wanted(wanted.oracle, (objective,), wanted.bounds, wanted.space)
    for label in state.labels.values():
        if not wanted.takes(label) or alone.gains(label.values) is None:
            continue
        value = leaders.believed(label)[objective.quantity]
        if wanted.holds(label.values, state.counts(label.candidate)) and (
            best_value is None or objective.is_better(value, best_value)
        ):
            best_value = value
        found.append((label, best_value))
    return found


def objective_of(config: CampaignConfig, quantity: str) -> Objective:
    """How a quantity is judged: as an objective that names it, stability by less, others as the
    first objective is.
    """
    named = next(
        (objective for objective in config.objectives if objective.quantity == quantity), None
    )
    if named is not None:
        return named
    if quantity in (ENERGY_ABOVE_HULL.name, FORMATION_ENERGY.name):
        return Objective(quantity, "minimize")
    return replace(config.objective.objective, quantity=quantity)


def at_level(
    state: CampaignState, config: CampaignConfig, oracle: str, quantity: str, before: int
) -> list[tuple[str, float, bool]]:
    """Of a level's labels before an event: candidate, value of a quantity, and whether it may be
    wanted; these first, the best first.

    It may be wanted where it breaks no constraint that the level measures, and lies inside the
    space. References are left out.
    """
    objective = objective_of(config, quantity)
    wanted = Wanted(oracle, (objective,), bounds_of(config.constraints), config.search_space)
    known = [
        (label.candidate, label.values[quantity], _may_be_wanted(state, wanted, label))
        for label in state.labels.values()
        if label.oracle == oracle
        and label.sequence < before
        and not label.purpose
        and wanted.gains(label.values) is not None
    ]
    return sorted(known, key=lambda row: (not row[2], -objective.gain(row[1]), row[0]))


def _may_be_wanted(state: CampaignState, wanted: Wanted, label: LabelRecord) -> bool:
    measured = [bound for bound in wanted.bounds if bound.quantity in label.values]
    return all(bound.shortfall(label.values) == 0 for bound in measured) and wanted.is_inside(
        state.counts(label.candidate)
    )
