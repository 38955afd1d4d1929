"""Which labels lead, kept while labels come: constant work a label for one objective, the length of
the Pareto front for several.

Labels whose oracle states noise of the first objective lead by what is believed after them: from
what the model that chose the crystal expected, or, where none did, from what lies behind all such
labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from campaign.ledger.beliefs import Belief
from campaign.ledger.events import KNOWN_PHASE, REFERENCE
from campaign.types import ENERGY_ABOVE_HULL, Objective, SearchSpace
from campaign.units import Standard

if TYPE_CHECKING:
    from campaign.ledger.state import LabelRecord

Gains = tuple[float, ...]
Front = list[tuple[Gains, "LabelRecord"]]

_TELLING = 4
"""Labels from which on what lies behind them can be told."""

_REMEMBERED = 8192


@dataclass(frozen=True)
class Bound:
    """What a quantity has to hold: ``sign`` +1 at least, -1 at most ``value``, in its unit."""

    quantity: str
    sign: int
    value: float

    def shortfall(self, values: Mapping[str, float]) -> float:
        """How far it is from holding, in the quantity's unit: 0 where it holds, infinite where the
        quantity is not known.
        """
        found = values.get(self.quantity, math.nan)
        return max(0.0, self.sign * (self.value - found)) if math.isfinite(found) else math.inf


@dataclass(frozen=True)
class Wanted:
    """What is wanted of an oracle's labels: objectives, the first leading, bounds that hold, and a
    composition inside the space.
    """

    oracle: str
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...] = ()
    space: SearchSpace | None = field(default=None, hash=False)
    _judged: dict[tuple[tuple[str, int], ...], bool] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def objective(self) -> Objective:
        return self.objectives[0]

    def takes(self, label: LabelRecord) -> bool:
        """Whether a label of its oracle may be a find. Known phases are none; nor are the elements,
        where stability is wanted.
        """
        return label.oracle == self.oracle and label.purpose not in self._no_finds

    @cached_property
    def _no_finds(self) -> tuple[str, ...]:
        """Purposes of what is labelled and cannot be a find."""
        is_stability = any(
            objective.quantity == ENERGY_ABOVE_HULL.name for objective in self.objectives
        )
        return (KNOWN_PHASE, REFERENCE) if is_stability else (KNOWN_PHASE,)

    @cached_property
    def _elements(self) -> frozenset[str] | None:
        """Those of a space that bounds nothing else; None where it does."""
        space = self.space
        if space is None or space.together or space.rules:
            return None
        bounds = [space.bounds(element) for element in space.elements]
        is_free = all(low <= 0 and high >= 1 for low, high in bounds)
        return frozenset(space.elements) if is_free else None

    def gains(self, values: Mapping[str, float]) -> Gains | None:
        """By objective, larger is better, in its unit; None where one is not known."""
        found = tuple(
            [
                objective.gain(values.get(objective.quantity, math.nan))
                for objective in self.objectives
            ]
        )
        return found if all(map(math.isfinite, found)) else None

    def holds(self, values: Mapping[str, float], counts: Mapping[str, int]) -> bool:
        """Whether every bound holds, and the composition (atoms by element) lies inside the
        space.
        """
        return self.is_inside(counts) and all(bound.shortfall(values) == 0 for bound in self.bounds)

    def is_inside(self, counts: Mapping[str, int]) -> bool:
        """Whether a composition lies inside the space; one that is not known does."""
        if self.space is None or not counts:
            return True
        if self._elements is not None:
            return counts.keys() <= self._elements
        key = tuple(counts.items())
        found = self._judged.get(key)
        if found is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            found = self._judged[key] = not self.space.violation(
                [symbol for symbol, n in key for _ in range(n)]
            )
        return found


def dominates(one: Gains, other: Gains) -> bool:
    """Whether gains are as good in each objective and better in one."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


class Leaders:
    """The labels that hold what is wanted and that no other beats in all objectives: one label, or
    the Pareto front. Bounds are held, or not, by the labels as they are.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._front: Front = []
        self._unforeseen: list[LabelRecord] = []
        self._unforeseen_holding: list[LabelRecord] = []
        self._with_unforeseen: Front | None = None
        self._behind: Belief | None = None
        self.n_known = self.n_holding = 0

    def add(self, label: LabelRecord, counts: Mapping[str, int]) -> None:
        """Take a label in; ``counts`` are the atoms of its candidate by element."""
        if not self.wanted.takes(label):
            return
        values = label.values
        gains = self.wanted.gains(values)
        if gains is None:
            return
        self.n_known += 1
        holds = self.wanted.holds(values, counts)
        self.n_holding += holds
        self._with_unforeseen = None
        is_noisy = self._noise(label) > 0
        if is_noisy and self._expected(label) is None:
            self._behind = None
            self._unforeseen.append(label)
            if holds:
                self._unforeseen_holding.append(label)
        elif holds:
            self._front = _joined(self._front, self._pair(label) if is_noisy else (gains, label))

    def belief(self, label: LabelRecord) -> Belief | None:
        """What is believed of the first objective after a label; None where the label states no
        noise of it, and is taken at its word.
        """
        noise = self._noise(label)
        if not noise:
            return None
        value = label.values[self.wanted.objective.quantity]
        expected = self._expected(label) or self._behind_unforeseen()
        return Belief(value, noise) if expected is None else expected.after(value, noise)

    def believed(self, label: LabelRecord) -> Mapping[str, float]:
        """A label's values, the first objective's as it is believed."""
        belief = self.belief(label)
        if belief is None:
            return label.values
        return {**label.values, self.wanted.objective.quantity: belief.mean}

    def gains(self, label: LabelRecord) -> Gains | None:
        """By objective, of what is believed; None where one is not known."""
        return self.wanted.gains(self.believed(label))

    @property
    def front(self) -> list[LabelRecord]:
        """The best of the first objective first."""
        return [label for _, label in sorted(self._leading(), key=lambda pair: _order(*pair))]

    @property
    def best(self) -> LabelRecord | None:
        found = min(self._leading(), key=lambda pair: _order(*pair), default=None)
        return None if found is None else found[1]

    def _leading(self) -> Front:
        if not self._unforeseen_holding:
            return self._front
        if self._with_unforeseen is None:
            self._with_unforeseen = self._front
            for label in self._unforeseen_holding:
                self._with_unforeseen = _joined(self._with_unforeseen, self._pair(label))
        return self._with_unforeseen

    def _pair(self, label: LabelRecord) -> tuple[Gains, LabelRecord]:
        gains = self.gains(label)
        assert gains is not None
        return gains, label

    def _noise(self, label: LabelRecord) -> float:
        """Of the first objective; 0 where none is stated. Hulls are made of labels as they are."""
        quantity = self.wanted.objective.quantity
        return 0.0 if quantity == ENERGY_ABOVE_HULL.name else label.noise.get(quantity, 0.0)

    def _expected(self, label: LabelRecord) -> Belief | None:
        """Of the first objective, by the model that chose the label's candidate."""
        return label.expected.get(self.wanted.objective.quantity)

    def _behind_unforeseen(self) -> Belief | None:
        """What lies behind the labels that no model chose; None of too few to tell."""
        if self._behind is None and len(self._unforeseen) >= _TELLING:
            quantity = self.wanted.objective.quantity
            behind = Standard.of(
                [label.values[quantity] for label in self._unforeseen],
                [self._noise(label) for label in self._unforeseen],
            )
            self._behind = Belief(behind.center, behind.spread)
        return self._behind


def _joined(front: Front, pair: tuple[Gains, LabelRecord]) -> Front:
    """A front with one label more, in a new list where it changed."""
    gains, label = pair
    if len(gains) == 1:
        leads = not front or (gains >= front[0][0] and _order(gains, label) < _order(*front[0]))
        return [pair] if leads else front
    if any(dominates(other, gains) for other, _ in front):
        return front
    return [*((other, held) for other, held in front if not dominates(gains, other)), pair]


def _order(gains: Gains, label: LabelRecord) -> tuple[Sequence[float], str]:
    return [-gain for gain in gains], label.candidate
