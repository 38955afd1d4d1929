"""The formation energy of a formula on given sites, roughly: what groups and sites are chosen by where an energy is asked.

E = sum over pairs of elements w_ij x_i x_j + a part of the prototype + a part of the space group, by ridge regression on the known
crystals (A. E. Hoerl and R. W. Kennard, Technometrics 12 (1970) 55). Half of its error on formulas that it did not see, from a split
by formula, is the width of p(energy | formula, sites), and as in Bayes' rule p(sites | formula, energy) ~ p(sites | formula) times it.
Time and memory grow with the number of crystals; 3,000 take a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsqr

from campaign.types import FloatArray
from generators.formulas import Formula
from generators.polymorphs import PolymorphDataset

_PAIR_SCALE, _DAMPING = 10.0, 1.0
_FOLDS, _LEAST_FORMULAS = 4, 4
_SHARPNESS = 2.0
"""By how much p(energy | formula, sites) is narrower than its error: with the full width what is common prevails over what is asked for."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation; few errors are large, and they count little."""


@dataclass(frozen=True)
class SiteEnergies:
    """weights: eV/atom by the name of each part. deviation: eV/atom; None where too little is known, and then nothing is told."""

    weights: Mapping[str, float] = field(default_factory=dict)
    deviation: float | None = None

    @classmethod
    def fit(cls, data: PolymorphDataset) -> SiteEnergies:
        """From the known crystals; tells nothing of fewer than four formulas."""
        formulas = sorted(data.groups)
        if len(formulas) < _LEAST_FORMULAS:
            return cls()
        errors: list[float] = []
        for fold in range(_FOLDS):
            held = [row for formula in formulas[fold::_FOLDS] for row in data.groups[formula]]
            learned = [row for row in range(len(data)) if row not in set(held)]
            part = cls(_fitted(data, learned), 1.0)
            for row in held:
                item = data.items[row]
                errors.append(item.energy - float(part.predict(item.formula, item.cell.space_group, [item.cell.prototype])[0]))
        return cls(_fitted(data, range(len(data))), NORMAL * float(np.median(np.abs(errors))))

    def predict(self, formula: Formula, space_group: int, prototypes: Sequence[str]) -> FloatArray:
        """(m,) eV/atom of the formula on the sites of each prototype in a space group."""
        common = sum(value * self.weights.get(name, 0.0) for name, value in _parts(formula, space_group))
        return np.array([common + self.weights.get(_of_prototype(name), 0.0) for name in prototypes])

    def log_chance(self, energy: float, formula: Formula, space_group: int, prototypes: Sequence[str]) -> FloatArray:
        """(m,) logarithm of p(energy | formula, sites), up to a constant; zeros where nothing is told."""
        if self.deviation is None:
            return np.zeros(len(prototypes))
        away = (self.predict(formula, space_group, prototypes) - energy) * (_SHARPNESS / self.deviation)
        found: FloatArray = -0.5 * away**2
        return found


def _of_prototype(name: str) -> str:
    return f"prototype {name}"


def _parts(formula: Formula, space_group: int) -> Iterator[tuple[str, float]]:
    """Names and sizes of the parts that do not depend on the sites."""
    yield f"group {space_group}", 1.0
    shares = np.array(formula.counts, dtype=float) / sum(formula.counts)
    for row, (one, x) in enumerate(zip(formula.numbers, shares, strict=True)):
        for other, y in zip(formula.numbers[row:], shares[row:], strict=True):
            yield f"pair {min(one, other)} {max(one, other)}", _PAIR_SCALE * float(x * y)


def _fitted(data: PolymorphDataset, rows: Sequence[int]) -> dict[str, float]:
    columns: dict[str, int] = {}
    place, value, ends = [], [], [0]
    for row in rows:
        item = data.items[row]
        for name, size in (*_parts(item.formula, item.cell.space_group), (_of_prototype(item.cell.prototype), 1.0)):
            place.append(columns.setdefault(name, len(columns)))
            value.append(size)
        ends.append(len(place))
    table = csr_matrix((value, place, ends), shape=(len(ends) - 1, len(columns)))
    weights = lsqr(table, np.array([data.items[row].energy for row in rows]), damp=_DAMPING)[0]
    return {name: float(weights[column]) for name, column in columns.items()}
