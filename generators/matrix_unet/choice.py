"""Which space group and Wyckoff positions to take under a formula and an energy: a conditional
logit model of what known crystals took.

p(a) ~ exp(w . f(a)) over the assignments a that fit (D. McFadden, 1974), times the chance of the
energy there (``SiteEnergies``). f: whether and how often crystals of other formulas took the same
positions, the number of sites and of free coordinates over the atoms, and the mean logarithm of the
sites' symmetry. The weights are fitted to each known crystal with the counts of the other formulas
only, so they say how far counts can be trusted on a new one. Sites that no known crystal has are
chosen by weights of their own, without the counts, fitted to one crystal of each prototype as
though it were the newest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import entr, log_softmax, logsumexp, softmax

from campaign.errors import InputError
from campaign.types import FloatArray
from generators.formulas import Formula
from generators.matrix_unet.energies import SiteEnergies
from generators.polymorphs import PolymorphDataset
from generators.symmetry import group_of_prototype
from generators.wyckoff import Assignment, assignments, degrees_of_freedom, group_of, name_of

N_FEATURES, N_COUNTS = 5, 2
"""The first features tell how often known crystals took the sites."""
_MOST_FITTED, _RIDGE = 600, 1e-2


class Sites(NamedTuple):
    """Wyckoff positions of a space group for the atoms of each element, and the prototype that they
    make.
    """

    space_group: int
    assignment: Assignment
    prototype: str


@dataclass(frozen=True)
class Options:
    """All that a formula's atoms can take, and what is known of it before an energy is asked for.

    log_chances (m,); log_chances_of_new (m,) among those that no known crystal has, -inf for the
    others; energies (m,) in eV/atom, and the width of what to expect around them, infinite where
    nothing is known.
    """

    sites: Sequence[Sites]
    log_chances: FloatArray
    log_chances_of_new: FloatArray
    energies: FloatArray
    width: float

    @classmethod
    def joined(cls, parts: Sequence[tuple[Options, float]]) -> Options:
        """Of several space groups with their chances."""
        sites = [one for options, _ in parts for one in options.sites]
        known, new = (
            [np.log(chance) + getattr(one, name) for one, chance in parts]
            for name in ("log_chances", "log_chances_of_new")
        )
        return cls(
            sites,
            np.concatenate(known),
            np.concatenate(new),
            np.concatenate([one.energies for one, _ in parts]),
            parts[0][0].width,
        )

    def chances(self, energy: float | None = None, *, new: bool = False) -> FloatArray:
        """(m,) at an energy (eV/atom) where one is given; ``new``: of those alone that no known
        crystal has, if there are such.
        """
        if not self.sites:
            return np.zeros(0)
        if new and np.isfinite(self.log_chances_of_new).any():
            return np.asarray(softmax(self.log_chances_of_new))
        asked = 0.0 if energy is None else -0.5 * ((self.energies - energy) / self.width) ** 2
        return np.asarray(softmax(self.log_chances + asked))

    def draw_group(self, energy: float, rng: np.random.Generator) -> int:
        """A space group by the chances of its sites at an energy (eV/atom)."""
        chances: defaultdict[int, float] = defaultdict(float)
        for sites, chance in zip(self.sites, self.chances(energy).tolist(), strict=True):
            chances[sites.space_group] += chance
        groups = sorted(chances)
        return int(rng.choice(groups, p=[chances[group] for group in groups]))


def in_play(chances: FloatArray) -> float:
    """How many sites of chances (m,) are in play: e to the power of their entropy, 1 where one has
    all chance, m where all are alike.
    """
    return float(np.exp(entr(chances).sum()))


@dataclass(frozen=True)
class SiteChoice:
    """weights (5,); those for sites that no known crystal has (3,); how many known crystals have
    each prototype; energies to expect.
    """

    weights: FloatArray
    counts: Mapping[str, int]
    energies: SiteEnergies = field(default_factory=SiteEnergies)
    new_weights: FloatArray = field(default_factory=lambda: np.zeros(N_FEATURES - N_COUNTS))
    _options: dict[tuple[Formula, int | None], Options] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
            group, shape, prototype = (
                item.cell.space_group,
                item.formula.counts,
                item.cell.prototype,
            )
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
        return cls(
            seen.fitted(start), counts, SiteEnergies.fit(data), alone.fitted(start[N_COUNTS:])
        )

    def groups(self, formula: Formula) -> dict[int, float]:
        """How often known crystals of the formula's shape have each space group; those of any shape
        that it fits where there are none.

        Raises InputError where no known crystal has a space group that it fits.
        """
        known: Counter[int] = Counter()
        for name, times in self.counts.items():
            known[group_of_prototype(name)] += times
        found = {}
        for group in sorted(known):
            times = sum(
                self.counts.get(name_of(group, formula.counts, option), 0)
                for option in assignments(group, formula.counts)
            )
            if times:
                found[group] = float(times)
        found = found or {
            group: float(known[group])
            for group in sorted(known)
            if assignments(group, formula.counts)
        }
        if not found:
            raise InputError(
                f"no labelled crystal has a space group that {formula} fits",
                hint="name space_groups",
            )
        return found

    def options(self, formula: Formula, space_group: int | None = None) -> Options:
        """What the formula's atoms can take in a space group, or in those of known crystals;
        reckoned once for each.
        """
        key = (formula, space_group)
        if key not in self._options:
            groups = self.groups(formula) if space_group is None else {space_group: 1.0}
            self._options[key] = Options.joined(
                [(self._within(formula, group), chance) for group, chance in groups.items()]
            )
        return self._options[key]

    def _within(self, formula: Formula, group: int) -> Options:
        taken = assignments(group, formula.counts)
        names = [name_of(group, formula.counts, one) for one in taken]
        sites = [Sites(group, one, name) for one, name in zip(taken, names, strict=True)]
        if not sites:
            return Options([], np.zeros(0), np.zeros(0), np.zeros(0), np.inf)
        table = _features(group, formula.counts, names, self.counts)
        is_known = np.array([self.counts.get(name, 0) > 0 for name in names])
        new = np.where(is_known, -np.inf, table[:, N_COUNTS:] @ self.new_weights)
        energies, width = self.energies.predict(formula, names), self.energies.width
        return Options(
            sites,
            log_softmax(table @ self.weights),
            new if is_known.all() else log_softmax(new),
            energies,
            width,
        )


def _features(
    space_group: int, counts: tuple[int, ...], names: Sequence[str], known: Mapping[str, int]
) -> FloatArray:
    group, n = group_of(space_group), sum(counts)
    general = group.positions[0].multiplicity
    rows = []
    for name, option in zip(names, assignments(space_group, counts), strict=True):
        sites = [group.positions[site] for part in option for site in part]
        atoms = np.array([site.multiplicity for site in sites], dtype=float)
        symmetry = np.log(general / atoms)
        times = known.get(name, 0)
        free = degrees_of_freedom(space_group, option) / n
        rows.append(
            [
                np.log1p(times),
                float(times > 0),
                len(sites) / n,
                free,
                float(np.average(symmetry, weights=atoms)),
            ]
        )
    return np.array(rows)


@dataclass(frozen=True)
class _Examples:
    """Features (m, k) of the assignments that were possible, and which one was taken, of several
    crystals.
    """

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
        """(k,) the weights of the largest likelihood, under a ridge; ``start`` where there are no
        crystals.
        """
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
