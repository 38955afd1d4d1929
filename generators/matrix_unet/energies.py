"""The formation energy of a formula on given sites, roughly: what groups and sites are chosen by
where an energy is asked.

A Gaussian process over the known crystals (C. E. Rasmussen and C. K. I. Williams, 2006). For
formulas with shares x, y of the elements at a chemical distance d, on prototypes p, q:

    k = a0 + a1 sum_(i <= j) x_i x_j y_i y_j + a2 exp(-d / l1) + [p = q] (a3 + a4 exp(-d / l2))

d is the mean difference of Pettifor numbers over the atoms under the best exchange of elements;
where no exchange fits the terms are 0. The settings have the least mean error (in absolute value,
as few are large) on each formula without its own crystals, which follows from blocks of the inverse
kernel (section 5.4.2). Half of that error is the width of p(energy | formula, sites), and as in
Bayes' rule p(sites | formula, energy) ~ p(sites | formula) times it. Time grows with n^3 and memory
with n^2 up to 3,000 crystals, which take about 5 seconds; where there are more, that many are
taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from campaign.types import FloatArray
from generators.formulas import Formula
from generators.polymorphs import PolymorphDataset
from generators.prototypes import pettifor_number

_LEAST_FORMULAS, _MOST_CRYSTALS, _MOST_FITTED = 4, 3_000, 600
_FIRST_VARIANCES, _FIRST_LENGTHS = (1.0, 10.0, 0.1, 0.05, 0.1, 0.05), (8.0, 8.0)
"""a0 to a4 and of the noise over the energies' variance; l1 and l2 in Pettifor numbers."""
_FITTING_STEPS, _HOLD = 25, 2e-3
_FAR = 200.0
_SHARPNESS = 2.0
"""By how much p(energy | formula, sites) is narrower than its error: with the full width what is
common prevails over what is asked for.
"""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation; few errors are
large, and they count little.
"""
Known = tuple[Formula, str]
"""A formula and the prototype that its atoms stand on."""


@dataclass(frozen=True)
class SiteEnergies:
    """known crystals, their weights (n,) in 1/eV and what they stand around, in eV/atom; variances
    (6,) in eV^2 and lengths (2,).

    deviation: eV/atom; None where too little is known, and then nothing is told.
    """

    known: Sequence[Known] = ()
    weights: FloatArray = field(default_factory=lambda: np.zeros(0))
    middle: float = 0.0
    settings: FloatArray = field(
        default_factory=lambda: np.ones(len(_FIRST_VARIANCES + _FIRST_LENGTHS))
    )
    deviation: float | None = None

    @classmethod
    def fit(cls, data: PolymorphDataset) -> SiteEnergies:
        """From the known crystals; tells nothing of fewer than four formulas."""
        if len({formula.reduced for formula in data.groups}) < _LEAST_FORMULAS:
            return cls()
        rows = np.unique(
            np.linspace(0, len(data) - 1, min(len(data), _MOST_CRYSTALS)).round().astype(int)
        ).tolist()
        known = [(data.items[row].formula, data.items[row].cell.prototype) for row in rows]
        energies = torch.tensor([data.items[row].energy for row in rows], dtype=torch.float64)
        middle = energies.median()
        away = energies - middle
        settings = _fitted(known, away)
        inverse = torch.linalg.inv(with_noise(likeness(known, known), settings))
        errors = errors_without(inverse, away, blocks_of(known))
        return cls(
            known,
            (inverse @ away).numpy(),
            float(middle),
            settings.numpy(),
            NORMAL * float(errors.abs().median()),
        )

    def predict(self, formula: Formula, prototypes: Sequence[str]) -> FloatArray:
        """(m,) eV/atom of the formula on the sites of each prototype."""
        if not len(self.weights):
            return np.zeros(len(prototypes))
        like = likeness([(formula, prototype) for prototype in prototypes], self.known)
        return np.asarray(
            self.middle + kernel(like, torch.as_tensor(self.settings)).numpy() @ self.weights
        )

    @property
    def width(self) -> float:
        """Of p(energy | formula, sites) in eV/atom; infinite where nothing is told."""
        return np.inf if self.deviation is None else self.deviation / _SHARPNESS


class Likeness(NamedTuple):
    """Of every two crystals (n, m): the sum over pairs of elements, the chemical distance, and
    whether they are of one prototype.
    """

    pairs: Tensor
    distance: Tensor
    is_same: Tensor


def likeness(these: Sequence[Known], those: Sequence[Known]) -> Likeness:
    formulas = [sorted({formula for formula, _ in known}) for known in (these, those)]
    places = [{formula: place for place, formula in enumerate(every)} for every in formulas]
    rows, columns = (
        [place[formula] for formula, _ in known]
        for place, known in zip(places, (these, those), strict=True)
    )
    shares = [_shares(every) for every in formulas]
    pairs = ((shares[0] @ shares[1].T) ** 2 + shares[0] ** 2 @ (shares[1] ** 2).T) / 2
    here, there = (np.array([prototype for _, prototype in known]) for known in (these, those))
    at = np.ix_(rows, columns)
    return Likeness(
        *(
            torch.as_tensor(array)
            for array in (pairs[at], distances(*formulas)[at], here[:, None] == there)
        )
    )


def _shares(formulas: Sequence[Formula]) -> FloatArray:
    """(n, 119) of the atoms, by atomic number."""
    found = np.zeros((len(formulas), 119))
    for row, formula in enumerate(formulas):
        found[row, list(formula.numbers)] = np.array(formula.counts) / formula.n_atoms
    return found


def distances(these: Sequence[Formula], those: Sequence[Formula]) -> FloatArray:
    """(n, m) chemical distances; far where elements cannot be exchanged."""
    found = np.full((len(these), len(those)), _FAR)
    for shape in {formula.shape for formula in these} & {formula.shape for formula in those}:
        rows, columns = (
            [row for row, formula in enumerate(part) if formula.shape == shape]
            for part in (these, those)
        )
        one, other = (
            np.array([_pettifor(part[row]) for row in chosen])
            for part, chosen in ((these, rows), (those, columns))
        )
        counts = np.array(shape)
        orders = [
            order
            for order in map(list, itertools.permutations(range(len(shape))))
            if (counts[order] == counts).all()
        ]
        steps = [
            np.abs(one[:, None] - other[None, :, order]) @ (counts / counts.sum())
            for order in orders
        ]
        found[np.ix_(rows, columns)] = np.min(steps, axis=0)
    return found


def _pettifor(formula: Formula) -> list[float]:
    """Of the elements, those with few atoms first."""
    return [
        pettifor_number(symbol)
        for _, symbol in sorted(zip(formula.counts, formula.symbols, strict=True))
    ]


def kernel(like: Likeness, settings: Tensor) -> Tensor:
    common, of_pairs, of_formula, of_prototype, of_both, _, long, short = settings.unbind()
    near = of_formula * torch.exp(-like.distance / long)
    on_same: Tensor = like.is_same * (of_prototype + of_both * torch.exp(-like.distance / short))
    return common + of_pairs * like.pairs + near + on_same


def with_noise(like: Likeness, settings: Tensor) -> Tensor:
    return kernel(like, settings) + settings[len(_FIRST_VARIANCES) - 1] * torch.eye(
        len(like.pairs), dtype=torch.float64
    )


def blocks_of(known: Sequence[Known]) -> list[list[int]]:
    """Rows of each formula, cells of other sizes counted with it."""
    found: dict[Formula, list[int]] = {}
    for row, (formula, _) in enumerate(known):
        found.setdefault(formula.reduced, []).append(row)
    return list(found.values())


def errors_without(inverse: Tensor, away: Tensor, blocks: Sequence[list[int]]) -> Tensor:
    """(n,) of each energy as the other formulas give it."""
    weights = inverse @ away
    return torch.cat(
        [torch.linalg.solve(inverse[block][:, block], weights[block]) for block in blocks]
    )


def _fitted(known: Sequence[Known], away: Tensor) -> Tensor:
    """Settings of the least mean error over the energies' scale, held near the first ones by their
    squared logarithmic differences.
    """
    rows: list[int] = []
    blocks = blocks_of(known)
    for k in np.random.default_rng(0).permutation(len(blocks)).tolist():
        if len(rows) < _MOST_FITTED:
            rows += blocks[k]
    chosen = [known[row] for row in rows]
    like, parts, energies = likeness(chosen, chosen), blocks_of(chosen), away[rows]
    scale = NORMAL * energies.abs().median().clamp_min(1e-3)
    first = torch.cat(
        [
            torch.tensor(_FIRST_VARIANCES, dtype=torch.float64) * scale**2,
            torch.tensor(_FIRST_LENGTHS, dtype=torch.float64),
        ]
    ).log()
    logs = first.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logs], max_iter=_FITTING_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        inverse = torch.linalg.inv(with_noise(like, logs.exp()))
        value = (
            errors_without(inverse, energies, parts).abs().mean() / scale
            + _HOLD * ((logs - first) ** 2).sum()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    found = logs.detach().exp()
    return found if bool(torch.isfinite(found).all()) else first.exp()
