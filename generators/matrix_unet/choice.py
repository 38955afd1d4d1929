"""Which space group and Wyckoff positions to take under a formula and an energy: a conditional logit model of what known crystals took.

p(a) ~ exp(w . f(a)) over the assignments a that fit (D. McFadden, 1974), times the chance of the energy there (``SiteEnergies``).
f: whether and how often crystals of other formulas took the same positions, the number of sites and of free coordinates over the atoms,
and the mean logarithm of the sites' symmetry. The weights are fitted to each known crystal with the counts of the other formulas only,
so they say how far counts can be trusted on a new one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from campaign.types import FloatArray
from generators.formulas import Formula
from generators.matrix_unet.energies import SiteEnergies
from generators.polymorphs import PolymorphDataset
from generators.wyckoff import Assignment, assignments, degrees_of_freedom, group_of, name_of

N_FEATURES = 5
_MOST_FITTED, _RIDGE = 600, 1e-2


@dataclass(frozen=True)
class SiteChoice:
    """weights (5,); how many known crystals have each prototype; what energies to expect there."""

    weights: FloatArray
    counts: Mapping[str, int]
    energies: SiteEnergies = field(default_factory=SiteEnergies)

    @classmethod
    def fit(cls, data: PolymorphDataset, rng: np.random.Generator) -> SiteChoice:
        counts = Counter(item.cell.prototype for item in data.items)
        own: defaultdict[Formula, Counter[str]] = defaultdict(Counter)
        for item in data.items:
            own[item.formula.reduced][item.cell.prototype] += 1
        tables, taken = [], []
        for row in rng.permutation(len(data)).tolist()[:_MOST_FITTED]:
            item = data.items[row]
            group, shape = item.cell.space_group, item.formula.counts
            names = [name_of(group, shape, option) for option in assignments(group, shape)]
            if item.cell.prototype in names and len(names) > 1:
                others = {name: counts[name] - own[item.formula.reduced][name] for name in names}
                tables.append(_features(group, shape, names, others))
                taken.append(names.index(item.cell.prototype))
        return cls(_fitted(tables, taken), counts, SiteEnergies.fit(data))

    def probabilities(self, formula: Formula, space_group: int, energy: float | None = None) -> tuple[tuple[Assignment, ...], FloatArray]:
        """The assignments of the formula's atoms, and their chances (m,), at an energy (eV/atom) where one is given."""
        options, score = self._scores(formula, space_group, energy)
        return options, np.asarray(np.exp(score - logsumexp(score))) if options else score

    def draw_group(self, formula: Formula, groups: Mapping[int, float], energy: float, rng: np.random.Generator) -> int:
        """One of the space groups by their chances before the energy is known, times the chance of the energy on their sites."""
        names = sorted(group for group, chance in groups.items() if chance > 0)
        scores = []
        for group in names:
            _, known = self._scores(formula, group, None)
            _, asked = self._scores(formula, group, energy)
            scores.append(np.log(groups[group]) + (logsumexp(asked) - logsumexp(known) if len(asked) else 0.0))
        score = np.array(scores)
        return int(rng.choice(names, p=np.exp(score - logsumexp(score))))

    def _scores(self, formula: Formula, space_group: int, energy: float | None) -> tuple[tuple[Assignment, ...], FloatArray]:
        """The assignments, and the logarithms of their chances up to a constant."""
        options = assignments(space_group, formula.counts)
        if not options:
            return (), np.zeros(0)
        names = [name_of(space_group, formula.counts, option) for option in options]
        score = _features(space_group, formula.counts, names, self.counts) @ self.weights
        score = score - logsumexp(score)
        return options, score if energy is None else score + self.energies.log_chance(energy, formula, space_group, names)


def _features(space_group: int, counts: tuple[int, ...], names: Sequence[str], known: Mapping[str, int]) -> FloatArray:
    group, n = group_of(space_group), sum(counts)
    general = group.positions[0].multiplicity
    rows = []
    for name, option in zip(names, assignments(space_group, counts), strict=True):
        sites = [group.positions[site] for part in option for site in part]
        atoms = np.array([site.multiplicity for site in sites], dtype=float)
        symmetry = np.log(general / atoms)
        times = known.get(name, 0)
        free = degrees_of_freedom(space_group, option) / n
        rows.append([np.log1p(times), float(times > 0), len(sites) / n, free, float(np.average(symmetry, weights=atoms))])
    return np.array(rows)


def _fitted(tables: Sequence[FloatArray], taken: Sequence[int]) -> FloatArray:
    start = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    if not tables:
        return start

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = 0.5 * _RIDGE * float(weights @ weights), _RIDGE * weights
        for table, row in zip(tables, taken, strict=True):
            score = table @ weights
            chance = np.exp(score - logsumexp(score))
            value -= float(np.log(chance[row] + 1e-300)) / len(tables)
            gradient = gradient - (table[row] - chance @ table) / len(tables)
        return value, gradient

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
