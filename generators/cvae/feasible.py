"""Which conditions can be crystals at all: the handshake of bond orbits.

An orbit of o bonds on a site of m atoms has m o ends in a cell. The other ends are an orbit of as
many: on another site, another one on the same, or these themselves where an operation of the group
exchanges two atoms that are so bonded. Conditions whose orbits cannot pair off hold no crystal: a
primitive cell has no odd number of atoms of three bonds, and a single site of P2_1, whose screw
exchanges no two atoms, an even number of bonds. What pairs off may still be none: the test proves
what cannot be, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from generators.cvae.orbits import bond_orbits, reversible_orbits, ways
from generators.cvae.table import MOST_SITES
from generators.wyckoff import group_of

Condition = tuple[int, tuple[tuple[int, int], ...]]
"""A space group and its sites, each a position and an atomic number."""
Orbit = tuple[int, int, bool]
"""How many ends, the row of the element, and whether it may be its own other end."""
_MOST_STATES = 4096


@dataclass(frozen=True)
class SiteLimits:
    """What is drawn: space groups (all where empty), atoms of the conventional cell, sites, and the
    formula's ratios by atomic number.

    apart: pairs of atomic numbers, both ways round, that have no bonds.
    """

    species: tuple[int, ...]
    bonds: tuple[int, ...]
    ratios: tuple[int, ...]
    space_groups: tuple[int, ...] = ()
    atoms: tuple[int, int] = (2, 200)
    sites: tuple[int, int] = (1, MOST_SITES)
    apart: frozenset[tuple[int, int]] = frozenset()

    @property
    def groups(self) -> tuple[int, ...]:
        return self.space_groups or tuple(range(2, 231))

    def may_bond(self, row: int, other: int) -> bool:
        return (self.species[row], self.species[other]) not in self.apart


@lru_cache(maxsize=16384)
def is_feasible(condition: Condition, limits: SiteLimits) -> bool:
    """Whether the orbits of all sites' bonds can pair off; true where there are too many ways to
    tell.
    """
    group, sites = condition
    states: set[tuple[Orbit, ...]] = {()}
    for index, number in sites:
        choices = _orbits(group, index, limits.species.index(number), limits)
        states = {_reduced((*state, *orbits), limits) for state in states for orbits in choices}
        if len(states) > _MOST_STATES:
            return True
    return any(_pairs_off(state, limits) for state in states)


@lru_cache(maxsize=16384)
def _orbits(group: int, index: int, row: int, limits: SiteLimits) -> tuple[tuple[Orbit, ...], ...]:
    """The ways to make a site's bonds."""
    m = group_of(group).positions[index].multiplicity
    own = reversible_orbits(group, index) if limits.may_bond(row, row) else frozenset()
    return tuple(
        tuple((m * size, row, size in own) for size in sizes)
        for sizes in ways(bond_orbits(group, index), limits.bonds[row])
    )


def _reduced(orbits: tuple[Orbit, ...], limits: SiteLimits) -> tuple[Orbit, ...]:
    """In order; without pairs of one kind, where all elements bond with all."""
    if limits.apart:
        return tuple(sorted(orbits))
    counts = Counter(orbits)
    return tuple(sorted(kind for kind, count in counts.items() if kind[2] or count % 2))


def _pairs_off(orbits: tuple[Orbit, ...], limits: SiteLimits) -> bool:
    """Necessary: of each size an even number or one that is its own other end; of no element more
    than of those it bonds with.
    """
    for ends in {orbit[0] for orbit in orbits}:
        mine = [(row, is_own) for size, row, is_own in orbits if size == ends]
        if len(mine) % 2 and not any(is_own for _, is_own in mine):
            return False
        counts = Counter(row for row, _ in mine)
        for row, count in counts.items():
            if not limits.may_bond(row, row) and count > sum(
                counts[other] for other in counts if limits.may_bond(row, other)
            ):
                return False
    return True
