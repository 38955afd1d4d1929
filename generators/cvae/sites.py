"""Space groups and Wyckoff sites that can hold the wanted bonds: random ones, those like some
data's, and random tables on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from ase.geometry import cell_to_cellpar

from campaign.errors import InputError
from generators.cvae.feasible import Condition, SiteLimits, is_feasible
from generators.cvae.orbits import allows, bond_orbits
from generators.cvae.table import MOST_SITES, TabularCrystal, site_of
from generators.wyckoff import group_of, random_lattice


def random_condition(limits: SiteLimits, rng: np.random.Generator, tries: int = 2000) -> Condition:
    """A space group, then sites one by one that can hold the bonds, until the formula is met within
    the limits.

    Raises InputError where no draw meets them.
    """
    for _ in range(tries):
        group = int(rng.choice(limits.groups))
        n_sites = int(rng.integers(max(limits.sites[0], len(limits.species)), limits.sites[1] + 1))
        found = _draw_sites(group, n_sites, limits, rng)
        if found is not None:
            return group, found
    raise InputError(
        f"no sites with {limits.atoms[0]} to {limits.atoms[1]} atoms and {limits.sites[0]} to "
        f"{limits.sites[1]} sites were found in "
        f"{tries} draws",
        hint="allow other space groups, more atoms or more sites",
    )


def _draw_sites(
    group: int, n_sites: int, limits: SiteLimits, rng: np.random.Generator
) -> tuple[tuple[int, int], ...] | None:
    positions = group_of(group).positions
    chosen: list[tuple[int, int]] = []
    atoms: Counter[int] = Counter()
    for k in range(n_sites):
        element = (
            k % len(limits.species)
            if k < len(limits.species)
            else int(rng.integers(len(limits.species)))
        )
        number = limits.species[element]
        taken = {index for index, _ in chosen}
        fitting = [
            index
            for index, position in enumerate(positions)
            if allows(group, index, limits.bonds[element])
            and (position.degrees_of_freedom or index not in taken)
            and atoms.total() + position.multiplicity <= limits.atoms[1]
        ]
        if not fitting:
            return None
        # general positions are as likely as all special ones together, so that both kinds are met
        # in every group
        weights = np.array(
            [
                1.0 if positions[index].degrees_of_freedom < 3 else max(1.0, len(fitting) - 1.0)
                for index in fitting
            ]
        )
        index = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
        chosen.append((index, number))
        atoms[number] += positions[index].multiplicity
    unit = atoms[limits.species[0]] / limits.ratios[0]
    has_formula = all(
        atoms[number] == unit * ratio
        for number, ratio in zip(limits.species, limits.ratios, strict=True)
    )
    sites = tuple(sorted(chosen))
    return (
        sites
        if has_formula and atoms.total() >= limits.atoms[0] and is_feasible((group, sites), limits)
        else None
    )


def check_condition(condition: Condition, limits: SiteLimits) -> None:
    """Raises InputError where the sites do not exist in the group, hold another formula or cannot
    have the bonds, each or together.
    """
    group, sites = condition
    atoms: Counter[int] = Counter()
    for index, number in sites:
        site_of(group, index)
        if number not in limits.species:
            raise InputError(
                f"expected elements of the target (atomic numbers {list(limits.species)}), got "
                f"{number}"
            )
        atoms[number] += group_of(group).positions[index].multiplicity
        bonds = limits.bonds[limits.species.index(number)]
        if not allows(group, index, bonds):
            position = group_of(group).positions[index]
            raise InputError(
                f"Wyckoff position {position.multiplicity}{position.letter} of space group "
                f"{group} cannot have {bonds} bonds: its site "
                f"symmetry makes {' or '.join(map(str, bond_orbits(group, index)))} of each"
            )
    unit = atoms[limits.species[0]] / limits.ratios[0]
    for number, ratio in zip(limits.species, limits.ratios, strict=True):
        if atoms[number] != unit * ratio:
            raise InputError(
                f"the sites {list(sites)} of space group {group} hold {dict(atoms)} atoms, not "
                f"{list(limits.ratios)} of each"
            )
    if not is_feasible(condition, limits):
        positions = [group_of(group).positions[index] for index, _ in sites]
        letters = " ".join(f"{position.multiplicity}{position.letter}" for position in positions)
        raise InputError(
            f"the ends of the bonds of {letters} in space group {group} cannot pair off, so no "
            "crystal on them has the bonds"
        )


def random_table(
    condition: Condition, volume: tuple[float, float], rng: np.random.Generator
) -> TabularCrystal:
    """A random cell with a volume per atom (angstrom^3) in the range, and random points on the
    sites.
    """
    group, sites = condition
    positions = group_of(group).positions
    atoms = sum(positions[index].multiplicity for index, _ in sites)
    lattice = random_lattice(group_of(group).family, atoms * float(rng.uniform(*volume)), rng)
    points = tuple((float(x), float(y), float(z)) for x, y, z in rng.random((len(sites), 3)))
    cell = tuple(cell_to_cellpar(lattice, radians=True).tolist())
    return TabularCrystal(
        group,
        cell,
        tuple(index for index, _ in sites),
        points,
        tuple(number for _, number in sites),
    )


def condition_of(table: TabularCrystal) -> Condition:
    return table.space_group, tuple(zip(table.sites, table.numbers, strict=True))


class SiteModel:
    """Conditions like those of some data: a space group as often as there, then a chain of sites,
    each given the one before it.

    A small stand-in for what was learned with the others; ``fit`` is counting, with ``prior``
    counts of every position of the group.
    """

    def __init__(
        self,
        groups: Mapping[int, int],
        follows: Mapping[tuple[int, int], Mapping[int, int]],
        prior: float = 0.1,
    ) -> None:
        self.groups, self.follows, self.prior = (
            dict(groups),
            {key: dict(value) for key, value in follows.items()},
            prior,
        )

    @classmethod
    def fit(cls, tables: Sequence[TabularCrystal]) -> SiteModel:
        groups: Counter[int] = Counter()
        follows: dict[tuple[int, int], Counter[int]] = {}
        for table in tables:
            groups[table.space_group] += 1
            before = _BEGIN
            for index in [*sorted(table.sites), _END]:
                follows.setdefault((table.space_group, before), Counter())[index] += 1
                before = index
        return cls(groups, follows)

    def draw(self, limits: SiteLimits, rng: np.random.Generator, tries: int = 2000) -> Condition:
        """Of one element; of several, elements are drawn for the sites. Raises InputError where no
        draw meets the limits.
        """
        known = [
            group
            for group in self.groups
            if not limits.space_groups or group in limits.space_groups
        ]
        if not known:
            raise InputError(f"the data has none of the space groups {list(limits.space_groups)}")
        weights = np.array([self.groups[group] for group in known], dtype=np.float64)
        for _ in range(tries):
            group = int(rng.choice(known, p=weights / weights.sum()))
            sites = self._chain(group, rng)
            numbers = [
                limits.species[int(k)] for k in rng.integers(len(limits.species), size=len(sites))
            ]
            condition = (group, tuple(zip(sites, numbers, strict=True)))
            atoms = sum(group_of(group).positions[index].multiplicity for index in sites)
            if (
                limits.atoms[0] <= atoms <= limits.atoms[1]
                and limits.sites[0] <= len(sites) <= limits.sites[1]
            ):
                try:
                    check_condition(condition, limits)
                except InputError:
                    continue
                return condition
        raise InputError(
            f"no sites within the limits were found in {tries} draws of the data's own",
            hint="allow more atoms or sites",
        )

    def _chain(self, group: int, rng: np.random.Generator) -> tuple[int, ...]:
        positions = group_of(group).positions
        sites: list[int] = []
        before = _BEGIN
        while len(sites) < MOST_SITES:
            counts = self.follows.get((group, before), {})
            options = [
                k
                for k in range(len(positions))
                if k >= before and (k > before or positions[k].degrees_of_freedom)
            ]
            options += [_END] if sites else []
            if not options:
                break
            weights = np.array([counts.get(option, 0) + self.prior for option in options])
            chosen = options[int(rng.choice(len(options), p=weights / weights.sum()))]
            if chosen == _END:
                break
            sites.append(chosen)
            before = chosen
        return tuple(sites)


_BEGIN, _END = -1, 10_000
