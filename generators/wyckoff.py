"""Which Wyckoff positions the atoms of a formula can take in a space group, and random crystals on
them.

The tables are PyXtal's (S. Fredericks et al., Comput. Phys. Commun. 261 (2021) 107810). An
assignment names, for each element, the positions that its atoms take by their index in the group's
list, 0 the general one; positions without a free coordinate are taken once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from campaign.crystals.neighbours import shortest_distance
from campaign.errors import InputError
from campaign.types import Crystal, FloatArray
from generators.symmetry import SymmetricCell, prototype_name, symmetric_cell

Assignment = tuple[tuple[int, ...], ...]
MOST_ASSIGNMENTS = 1000
_CENTRING = {"P": 1, "A": 2, "B": 2, "C": 2, "I": 2, "R": 3, "F": 4}
_GENERIC_TRIES = 4


@dataclass(frozen=True)
class Position:
    """A Wyckoff position of the conventional cell. operations: (multiplicity, 4, 4), each takes a
    point to one of its atoms.
    """

    letter: str
    multiplicity: int
    degrees_of_freedom: int
    operations: FloatArray


@dataclass(frozen=True)
class Group:
    number: int
    symbol: str
    family: str
    centring: int
    """Primitive cells in the conventional one."""
    positions: tuple[Position, ...]


@lru_cache(maxsize=230)
def group_of(number: int) -> Group:
    """Raises InputError where there is no such space group."""
    if not 1 <= number <= 230:
        raise InputError(f"expected a space group from 1 to 230, got {number}")
    from pyxtal.symmetry import Group as Table

    table = Table(number)
    positions = tuple(
        Position(
            item.letter,
            item.multiplicity,
            item.get_dof(),
            np.array([operation.affine_matrix for operation in item.ops]),
        )
        for item in table
    )
    return Group(
        number, str(table.symbol), str(table.lattice_type), _CENTRING[table.symbol[0]], positions
    )


def _known(number: int) -> int:
    return group_of(number).number


SpaceGroup = Annotated[int, AfterValidator(_known)]
"""The number of a space group in a config, refused outside 1 to 230."""


@lru_cache(maxsize=20_000)
def assignments(space_group: int, counts: tuple[int, ...]) -> tuple[Assignment, ...]:
    """The assignments of ``counts`` atoms of each element in the primitive cell; none where the
    formula does not fit the group.

    Of those that differ by the choice of origin or axes one is given. Where there are more than
    ``MOST_ASSIGNMENTS``, that many.
    """
    group = group_of(space_group)
    order = list(range(len(group.positions)))
    random.Random(space_group).shuffle(order)
    found: dict[str, Assignment] = {}
    for n_seen, assignment in enumerate(
        _fill(group, order, [count * group.centring for count in counts], frozenset())
    ):
        found.setdefault(name_of(space_group, counts, assignment), assignment)
        if n_seen >= MOST_ASSIGNMENTS:
            break
    return tuple(found[name] for name in sorted(found))


def _fill(
    group: Group, order: Sequence[int], counts: Sequence[int], taken: frozenset[int]
) -> Iterator[Assignment]:
    if not counts:
        yield ()
        return
    for sites in _split(group, order, counts[0], taken, 0):
        fixed = frozenset(site for site in sites if not group.positions[site].degrees_of_freedom)
        for rest in _fill(group, order, counts[1:], taken | fixed):
            yield (tuple(sorted(sites)), *rest)


def _split(
    group: Group, order: Sequence[int], count: int, taken: frozenset[int], first: int
) -> Iterator[tuple[int, ...]]:
    if count == 0:
        yield ()
        return
    for place in range(first, len(order)):
        site = order[place]
        position = group.positions[site]
        if position.multiplicity <= count and site not in taken:
            is_fixed = not position.degrees_of_freedom
            for rest in _split(
                group, order, count - position.multiplicity, taken, place + is_fixed
            ):
                yield (site, *rest)


def name_of(space_group: int, counts: Sequence[int], assignment: Assignment) -> str:
    """The prototype's name, as ``generators.symmetry`` gives it for a crystal; ``counts`` as in the
    primitive cell.
    """
    positions = group_of(space_group).positions
    letters = [Counter(positions[site].letter for site in sites) for sites in assignment]
    return prototype_name(space_group, list(zip(counts, letters, strict=True)))


def degrees_of_freedom(space_group: int, assignment: Assignment) -> int:
    """Free coordinates of all sites."""
    positions = group_of(space_group).positions
    return sum(positions[site].degrees_of_freedom for sites in assignment for site in sites)


def check_fits(space_group: int, symbols: Sequence[str], counts: Sequence[int]) -> None:
    """Raises InputError where the atoms of the formula fit no set of Wyckoff positions of the
    group.
    """
    if not assignments(space_group, tuple(counts)):
        formula = "".join(f"{symbol}{count}" for symbol, count in zip(symbols, counts, strict=True))
        group = group_of(space_group)
        raise InputError(
            f"no Wyckoff positions of space group {space_group} ({group.symbol}) hold "
            f"{formula} in its primitive cell",
            hint="take another space group, or more formula units",
        )


def random_lattice(family: str, volume: float, rng: np.random.Generator) -> FloatArray:
    """Rows (3, 3) of a conventional cell of the crystal family, its axes in the setting of the
    tables, of a volume in cubic angstrom.
    """
    a, b, c = np.exp(rng.normal(0.0, 0.25, 3))
    alpha, beta, gamma = np.pi / 2 + rng.uniform(-0.45, 0.45, 3)
    if family == "cubic":
        a, b, c, alpha, beta, gamma = 1.0, 1.0, 1.0, np.pi / 2, np.pi / 2, np.pi / 2
    elif family in ("hexagonal", "trigonal", "rhombohedral"):
        b, alpha, beta, gamma = a, np.pi / 2, np.pi / 2, 2 * np.pi / 3
    elif family == "tetragonal":
        b, alpha, beta, gamma = a, np.pi / 2, np.pi / 2, np.pi / 2
    elif family == "orthorhombic":
        alpha, beta, gamma = np.pi / 2, np.pi / 2, np.pi / 2
    elif family == "monoclinic":
        alpha, gamma = np.pi / 2, np.pi / 2
    x = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    rows = np.array(
        [
            [a, 0.0, 0.0],
            [b * np.cos(gamma), b * np.sin(gamma), 0.0],
            [c * np.cos(beta), c * x, c * np.sqrt(max(0.05, 1 - np.cos(beta) ** 2 - x**2))],
        ]
    )
    return np.asarray(rows * (volume / np.linalg.det(rows)) ** (1 / 3))


def random_crystal(
    space_group: int,
    assignment: Assignment,
    numbers: Sequence[int],
    atomic_volume: float,
    rng: np.random.Generator,
) -> Crystal:
    """The conventional cell of an assignment with free coordinates and axes drawn at random.

    ``numbers``: the element of each part of the assignment. ``atomic_volume`` in cubic angstrom.
    """
    group = group_of(space_group)
    fractional, elements = [], []
    for number, sites in zip(numbers, assignment, strict=True):
        for site in sites:
            position = group.positions[site]
            atoms = position.operations @ np.append(rng.random(3), 1.0)
            fractional.append(atoms[:, :3] % 1.0)
            elements += [number] * position.multiplicity
    lattice = random_lattice(group.family, atomic_volume * len(elements), rng)
    return Crystal(lattice, np.concatenate(fractional), np.array(elements))


def random_cell(
    space_group: int,
    assignment: Assignment,
    numbers: Sequence[int],
    atomic_volume: float,
    rng: np.random.Generator,
) -> SymmetricCell | None:
    """The same as a primitive cell with its operations; None where the positions, left free, have
    more symmetry than the group.
    """
    for _ in range(_GENERIC_TRIES):
        cell = _cell_of(
            random_crystal(space_group, assignment, numbers, atomic_volume, rng), space_group
        )
        if cell is not None:
            return cell
    return None


def _cell_of(crystal: Crystal, space_group: int) -> SymmetricCell | None:
    """The primitive cell of a conventional one; None where it has another symmetry than the
    group.
    """
    cell = symmetric_cell(crystal, precision=1e-4)
    is_of_group = cell is not None and cell.space_group == space_group
    return (
        cell
        if cell is not None
        and is_of_group
        and len(cell.crystal) * group_of(space_group).centring == len(crystal)
        else None
    )


def spread_cell(
    space_group: int,
    assignment: Assignment,
    numbers: Sequence[int],
    atomic_volume: float,
    rng: np.random.Generator,
    least: float = 0.75,
    tries: int = 8,
) -> SymmetricCell | None:
    """A random cell whose atoms are at least ``least`` (atomic volume)^(1/3) apart; the most spread
    one of the tries where none is.

    Symmetry is sought in the spread ones alone, as that is the costly part.
    """
    crowded: list[tuple[float, Crystal]] = []
    for _ in range(tries):
        crystal = random_crystal(space_group, assignment, numbers, atomic_volume, rng)
        distance = shortest_distance(crystal) / atomic_volume ** (1 / 3)
        if distance < least:
            crowded.append((distance, crystal))
        elif (cell := _cell_of(crystal, space_group)) is not None:
            return cell
    crowded.sort(key=lambda pair: -pair[0])
    return next(
        (cell for _, crystal in crowded if (cell := _cell_of(crystal, space_group)) is not None),
        None,
    )
