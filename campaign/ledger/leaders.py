"""Which labels lead, kept while labels come: constant work a label for one objective, the length of the Pareto front for several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campaign.ledger.events import KNOWN_PHASE, REFERENCE
from campaign.types import ENERGY_ABOVE_HULL, Objective, SearchSpace

if TYPE_CHECKING:
    from campaign.ledger.state import LabelRecord

Gains = tuple[float, ...]


@dataclass(frozen=True)
class Bound:
    """What a quantity has to hold: ``sign`` +1 at least, -1 at most ``value``, in its unit."""

    quantity: str
    sign: int
    value: float

    def shortfall(self, values: Mapping[str, float]) -> float:
        """How far it is from holding, in the quantity's unit: 0 where it holds, infinite where the quantity is not known."""
        found = values.get(self.quantity, math.nan)
        return max(0.0, self.sign * (self.value - found)) if math.isfinite(found) else math.inf


@dataclass(frozen=True)
class Wanted:
    """What is wanted of an oracle's labels: objectives, the first leading, bounds that hold, and a composition inside the space."""

    oracle: str
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...] = ()
    space: SearchSpace | None = field(default=None, hash=False)
    _judged: dict[tuple[tuple[str, int], ...], bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def objective(self) -> Objective:
        return self.objectives[0]

    def takes(self, label: LabelRecord) -> bool:
        """Whether a label of its oracle may be a find. Known phases are none; nor are the elements, where stability is wanted."""
        is_stability = any(objective.quantity == ENERGY_ABOVE_HULL.name for objective in self.objectives)
        return label.oracle == self.oracle and label.purpose not in ((KNOWN_PHASE, REFERENCE) if is_stability else (KNOWN_PHASE,))

    def gains(self, values: Mapping[str, float]) -> Gains | None:
        """By objective, larger is better, in its unit; None where one is not known."""
        found = tuple(objective.gain(values.get(objective.quantity, math.nan)) for objective in self.objectives)
        return found if all(map(math.isfinite, found)) else None

    def holds(self, values: Mapping[str, float], counts: Mapping[str, int]) -> bool:
        """Whether every bound holds, and the composition (atoms by element) lies inside the space."""
        return all(bound.shortfall(values) == 0 for bound in self.bounds) and self.is_inside(counts)

    def is_inside(self, counts: Mapping[str, int]) -> bool:
        """Whether a composition lies inside the space; one that is not known does."""
        if self.space is None or not counts:
            return True
        key = tuple(counts.items())
        found = self._judged.get(key)
        if found is None:
            found = self._judged[key] = not self.space.violation([symbol for symbol, n in key for _ in range(n)])
        return found


def dominates(one: Gains, other: Gains) -> bool:
    """Whether gains are as good in each objective and better in one."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


class Leaders:
    """The labels that hold what is wanted and that no other beats in all objectives: one label, or the Pareto front."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._front: list[tuple[Gains, LabelRecord]] = []
        self.n_known = self.n_holding = 0

    def add(self, label: LabelRecord, counts: Mapping[str, int]) -> None:
        """Take a label in; ``counts`` are the atoms of its candidate by element."""
        if not self.wanted.takes(label):
            return
        gains = self.wanted.gains(label.values)
        if gains is None:
            return
        self.n_known += 1
        if not self.wanted.holds(label.values, counts):
            return
        self.n_holding += 1
        if len(gains) == 1:
            if not self._front or _order(gains, label) < _order(*self._front[0]):
                self._front = [(gains, label)]
        elif not any(dominates(other, gains) for other, _ in self._front):
            self._front = [(other, held) for other, held in self._front if not dominates(gains, other)]
            self._front.append((gains, label))

    @property
    def front(self) -> list[LabelRecord]:
        """The best of the first objective first."""
        return [label for _, label in sorted(self._front, key=lambda pair: _order(*pair))]

    @property
    def best(self) -> LabelRecord | None:
        found = min(self._front, key=lambda pair: _order(*pair), default=None)
        return None if found is None else found[1]


def _order(gains: Gains, label: LabelRecord) -> tuple[Sequence[float], str]:
    return [-gain for gain in gains], label.candidate
