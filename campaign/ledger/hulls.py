"""Energies above the hull as functions of the labels: worked out when they are asked for, and anew
for all when a phase moves the hull.

One hull for each oracle, of its labels alone. eV per atom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from campaign.seeds import content_hash
from campaign.types import ENERGY_ABOVE_HULL, FORMATION_ENERGY, FloatArray, counts_of

if TYPE_CHECKING:
    from campaign.crystals.hull import LowerHull
    from campaign.ledger.state import LabelRecord


@dataclass(frozen=True)
class Move:
    """A label that moved the hull: how far below the hull before it lies (eV/atom), and how many
    phases lie on the hull after it.
    """

    sequence: int
    candidate: str
    fall: float
    n_stable: int


class Hull:
    """The hull of labels with formation energies at one oracle.

    ``elements``: those that have a reference; ``given``: those of them whose chemical potential is
    stated, which stands for the element. ``formula_of`` a candidate. ``on_move`` is called when the
    hull moved.
    """

    def __init__(
        self,
        elements: Sequence[str],
        formula_of: Callable[[str], str],
        labels: Iterable[LabelRecord] = (),
        on_move: Callable[[], None] = lambda: None,
        given: frozenset[str] = frozenset(),
    ) -> None:
        self.elements = tuple(sorted(elements))
        self._formula_of, self._on_move = formula_of, on_move
        self._labels: list[LabelRecord] = []
        self._given = given
        self._fresh: list[LabelRecord] = [label for label in labels if self.takes(label)]
        self._fractions = np.array(
            [[float(element == one) for one in self.elements] for element in sorted(given)]
        )
        self._fractions = self._fractions.reshape(-1, len(self.elements))
        self._energies = np.zeros(len(given))
        self._hull: LowerHull | None = None

    def takes(self, label: LabelRecord) -> bool:
        """Whether a label lies on the diagram: crystals of an element alone do not where its
        chemical potential is given in their place.
        """
        counts = counts_of(self._formula_of(label.candidate))
        return not (len(counts) == 1 and self._given.issuperset(counts))

    def add(self, label: LabelRecord) -> None:
        self._fresh.append(label)

    @property
    def lower(self) -> LowerHull:
        """The hull of all labels as they stand."""
        self.settle()
        assert self._hull is not None
        return self._hull

    @property
    def labels(self) -> list[LabelRecord]:
        """All that lie on the diagram, with their values."""
        self.settle()
        return self._labels

    @property
    def stable(self) -> list[LabelRecord]:
        """The labels on the hull."""
        rows = self.lower.vertices - len(self._given)
        return [self._labels[row] for row in rows if row >= 0]

    @property
    def version(self) -> str:
        """A hash over the phases on the hull and their energies: it changes when the hull moves."""
        phases = sorted(
            (label.candidate, label.observed[FORMATION_ENERGY.name]) for label in self.stable
        )
        return content_hash(phases)[:16]

    def fractions_of(self, compositions: Sequence[Mapping[str, float]]) -> FloatArray:
        """(n, elements) atomic fractions."""
        return np.array(
            [[one.get(element, 0.0) for element in self.elements] for one in compositions]
        ).reshape(-1, len(self.elements))

    def settle(self) -> None:
        """Values of the labels that came in; of all where one of these lies below the hull."""
        from campaign.crystals.hull import lower_hull

        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        fractions = np.array(
            [_row(self._formula_of(label.candidate), self.elements) for label in fresh]
        )
        energies = np.array([label.observed[FORMATION_ENERGY.name] for label in fresh], dtype=float)
        self._labels += fresh
        self._fractions, self._energies = (
            np.vstack([self._fractions, fractions]),
            np.append(self._energies, energies),
        )
        above = self._hull.above(fractions, energies) if self._hull is not None else None
        if above is not None and above.min() >= 0:
            _set(fresh, above)
            return
        self._hull = lower_hull(self._fractions, self._energies)
        n = len(self._given)
        _set(self._labels, self._hull.above(self._fractions[n:], self._energies[n:]))
        self._on_move()

    def moves(self) -> list[Move]:
        """How the hull came down, label by label in the order in which they came, once each element
        had one.
        """
        from campaign.crystals.hull import lower_hull

        self.settle()
        n = len(self._given)
        order = np.argsort([label.sequence for label in self._labels], kind="stable")
        order = np.append(np.arange(n), order + n)
        fractions, energies = self._fractions[order], self._energies[order]
        first = int(max(np.flatnonzero(column > 1 - 1e-9)[0] for column in fractions.T)) + 1
        hull = lower_hull(fractions[:first], energies[:first])
        members = hull.vertices
        found: list[Move] = []
        done = first
        while done < len(order):
            above = hull.above(fractions[done:], energies[done:])
            lower = np.flatnonzero(above < 0)
            if not len(lower):
                break
            row = done + int(lower[0])
            among = np.append(members, row)
            hull = lower_hull(fractions[among], energies[among])
            members = among[hull.vertices]
            label = self._labels[order[row] - n]
            found.append(
                Move(label.sequence, label.candidate, float(-above[lower[0]]), len(members))
            )
            done = row + 1
        return found


def _set(labels: Sequence[LabelRecord], above: FloatArray) -> None:
    for label, value in zip(labels, np.maximum(above, 0.0).tolist(), strict=True):
        label.derive(ENERGY_ABOVE_HULL.name, value)


@lru_cache(maxsize=65_536)
def _row(formula: str, elements: tuple[str, ...]) -> list[float]:
    counts = counts_of(formula)
    total = sum(counts.values())
    return [counts.get(element, 0) / total for element in elements]
