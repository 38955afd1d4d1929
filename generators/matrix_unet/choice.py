"""Which space group and Wyckoff positions to take under a formula and an energy: a conditional logit model of what known crystals took.

p(a) ~ exp(w . f(a)) over the assignments a that fit (D. McFadden, 1974), times the chance of the energy there (``SiteEnergies``).
f: whether and how often crystals of other formulas took the same positions, the number of sites and of free coordinates over the atoms,
and the mean logarithm of the sites' symmetry. The weights are fitted to each known crystal with the counts of the other formulas only,
so they say how far counts can be trusted on a new one. Sites that no known crystal has are chosen by weights of their own, without the
counts, fitted to one crystal of each prototype as though it were the newest.
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

N_FEATURES, N_COUNTS = 5, 2
"""The first features tell how often known crystals took the sites."""
_MOST_FITTED, _RIDGE = 600, 1e-2


@dataclass(frozen=True)
class SiteChoice:
    """weights (5,); those for sites that no known crystal has (3,); how many known crystals have each prototype; energies to expect."""

    weights: FloatArray
    counts: Mapping[str, int]
    energies: SiteEnergies = field(default_factory=SiteEnergies)
    new_weights: FloatArray = field(default_factory=lambda: np.zeros(N_FEATURES - N_COUNTS))

    @classmethod
    def fit(cls, data: PolymorphDataset, rng: np.random.Generator) -> SiteChoice:
        counts = Counter(item.cell.prototype for item in data.items)
        own: defaultdict[Formula, Counter[str]] = defaultdict(Counter)
        for item in data.items:
            own[item.formula.reduced][item.cell.prototype] += 1
        seen, alone = _Examples(), _Examples()
        met = set[str]()
        for row in rng.permutation(len(data)).tolist():
            item = data.items[row]
            group, shape, prototype = item.cell.space_group, item.formula.counts, item.cell.prototype
            if len(seen) >= _MOST_FITTED and (prototype in met or len(alone) >= _MOST_FITTED):
                continue
            names = [name_of(group, shape, option) for option in assignments(group, shape)]
            if prototype not in names:
                continue
            others = {name: counts[name] - own[item.formula.reduced][name] for name in names}
            table = _features(group, shape, names, others)
            if len(seen) < _MOST_FITTED:
                seen.add(table, names.index(prototype))
            if prototype not in met:
                met.add(prototype)
                new = [k for k, name in enumerate(names) if name == prototype or not counts[name]]
                alone.add(table[new, N_COUNTS:], new.index(names.index(prototype)))
        start = np.eye(N_FEATURES)[0]
        return cls(seen.fitted(start), counts, SiteEnergies.fit(data), alone.fitted(start[N_COUNTS:]))

    def probabilities(
        self, formula: Formula, space_group: int, energy: float | None = None, exploration: float = 0.0
    ) -> tuple[tuple[Assignment, ...], FloatArray]:
        """The assignments of the formula's atoms, and their chances (m,), at an energy (eV/atom) where one is given.

        ``exploration``: the share (1) of the chances that goes to sites which no known crystal has, if there are such.
        """
        options, score = self._scores(formula, space_group, energy)
        if not options:
            return options, score
        chances = np.exp(score - logsumexp(score))
        if not exploration:
            return options, chances
        names = [name_of(space_group, formula.counts, option) for option in options]
        is_new = np.array([not self.counts.get(name) for name in names])
        if is_new.any():
            new_score = _features(space_group, formula.counts, names, self.counts)[is_new, N_COUNTS:] @ self.new_weights
            chances *= 1 - exploration
            chances[is_new] += exploration * np.exp(new_score - logsumexp(new_score))
        return options, chances

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


@dataclass(frozen=True)
class _Examples:
    """Features (m, k) of the assignments that were possible, and which one was taken, of several crystals."""

    tables: list[FloatArray] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tables)

    def add(self, table: FloatArray, taken: int) -> None:
        """Where there is a choice."""
        if len(table) > 1:
            self.tables.append(table)
            self.taken.append(taken)

    def fitted(self, start: FloatArray) -> FloatArray:
        """(k,) the weights of the largest likelihood, under a ridge; ``start`` where there are no crystals."""
        if not self.tables:
            return start

        def loss(weights: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = 0.5 * _RIDGE * float(weights @ weights), _RIDGE * weights
            for table, row in zip(self.tables, self.taken, strict=True):
                score = table @ weights
                chance = np.exp(score - logsumexp(score))
                value -= float(np.log(chance[row] + 1e-300)) / len(self)
                gradient = gradient - (table[row] - chance @ table) / len(self)
            return value, gradient

        return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
