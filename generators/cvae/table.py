"""Crystals as a table: a space group, a cell, and Wyckoff sites; and what is free in it.

A site is a Wyckoff position by its index in PyXtal's list of the group, 0 the general one, a point
on it and an element. The 39 columns of the paper are spg, a, b, c (angstrom), alpha, beta, gamma
(radians), then eight times (wp, x, y, z), -1 where there is no site (O. G. Ridwan et al., section
3.1). The free variables of a crystal are the free parameters of its cell, then the free coordinates
of each site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import spglib
from ase.geometry import cell_to_cellpar

from campaign.crystals.neighbours import length_scale
from campaign.errors import InputError
from campaign.types import Crystal, FloatArray
from generators.wyckoff import group_of

MOST_SITES = 8
COLUMNS = (
    "spg",
    "a",
    "b",
    "c",
    "alpha",
    "beta",
    "gamma",
    *(f"{name}{k}" for k in range(MOST_SITES) for name in ("wp", "x", "y", "z")),
)
FAMILIES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
_RIGHT, _WIDE = math.pi / 2, 2 * math.pi / 3
# rows of each free parameter: which of a, b, c, alpha, beta, gamma follow it; then the fixed values
_FREE: dict[str, tuple[list[list[int]], list[float]]] = {
    "triclinic": ([[0], [1], [2], [3], [4], [5]], [0, 0, 0, 0, 0, 0]),
    "monoclinic": ([[0], [1], [2], [4]], [0, 0, 0, _RIGHT, 0, _RIGHT]),
    "orthorhombic": ([[0], [1], [2]], [0, 0, 0, _RIGHT, _RIGHT, _RIGHT]),
    "tetragonal": ([[0, 1], [2]], [0, 0, 0, _RIGHT, _RIGHT, _RIGHT]),
    "hexagonal": ([[0, 1], [2]], [0, 0, 0, _RIGHT, _RIGHT, _WIDE]),
    "cubic": ([[0, 1, 2]], [0, 0, 0, _RIGHT, _RIGHT, _RIGHT]),
}


@dataclass(frozen=True, eq=False)
class Site:
    """A Wyckoff position as the compiled loops take it: atoms at rotations (m, 3, 3) @ free +
    shifts (m, 3).

    The first ``degrees_of_freedom`` columns of the rotations count, the others are zero. inverse:
    (m, 3, 3), the free coordinates nearest to a point, as inverse @ (point - shift).
    """

    degrees_of_freedom: int
    rotations: FloatArray
    shifts: FloatArray
    inverse: FloatArray


@dataclass(frozen=True)
class TabularCrystal:
    """cell: a, b, c (angstrom), alpha, beta, gamma (radians). sites: index of the position. points:
    (n, 3). numbers: atomic numbers.
    """

    space_group: int
    cell: tuple[float, ...]
    sites: tuple[int, ...]
    points: tuple[tuple[float, float, float], ...]
    numbers: tuple[int, ...]

    @property
    def n_atoms(self) -> int:
        """In the conventional cell."""
        positions = group_of(self.space_group).positions
        return sum(positions[site].multiplicity for site in self.sites)


def family_of(space_group: int) -> str:
    family = group_of(space_group).family
    return "hexagonal" if family in ("trigonal", "rhombohedral") else family


@lru_cache(maxsize=6)
def cell_map(family: str) -> FloatArray:
    """(6, 7): a, b, c, alpha, beta, gamma as a linear map of the free parameters, and its constant
    in the last column.
    """
    rows, fixed = _FREE[family]
    found = np.zeros((6, 7))
    found[:, 6] = fixed
    for column, row in enumerate(rows):
        found[row, column] = 1.0
    return found


def free_cell(family: str, cell: Sequence[float]) -> list[float]:
    """The free parameters of a cell: means of the lengths and angles that the family makes
    equal.
    """
    return [float(np.mean([cell[k] for k in row])) for row in _FREE[family][0]]


@lru_cache(maxsize=4096)
def site_of(space_group: int, index: int) -> Site:
    """Raises InputError where the group has no such position."""
    positions = group_of(space_group).positions
    if not 0 <= index < len(positions):
        raise InputError(
            f"space group {space_group} ({group_of(space_group).symbol}) has no Wyckoff "
            f"position {index}",
            hint=f"take one from 0 (general) to {len(positions) - 1}",
        )
    operations = positions[index].operations
    used = [axis for axis in range(3) if np.abs(operations[:, :3, axis]).max() > 1e-9]
    rotations = np.zeros((len(operations), 3, 3))
    rotations[:, :, : len(used)] = operations[:, :3, used]
    inverse = np.zeros_like(rotations)
    for k, rotation in enumerate(rotations):
        inverse[k, : len(used)] = (
            np.linalg.pinv(rotation[:, : len(used)]) if used else np.zeros((0, 3))
        )
    return Site(len(used), rotations, np.ascontiguousarray(operations[:, :3, 3]), inverse)


def free_point(space_group: int, index: int, point: Sequence[float]) -> tuple[FloatArray, float]:
    """Free coordinates of the site whose atoms come nearest to a point, and how far that is
    (fractional).

    Every point is taken to some site: to the nearest of the lines, planes or points that the
    position is made of, in any cell.
    """
    site = site_of(space_group, index)
    d = site.degrees_of_freedom
    # images of the point that lie in other cells project onto other places of a line or plane
    images = (
        np.asarray(point, dtype=np.float64) % 1.0 + _CELLS
        if d < 3
        else np.asarray(point, dtype=np.float64)[None] % 1.0
    )
    apart = images[:, None] - site.shifts
    free = np.einsum("mda,nma->nmd", site.inverse, apart)
    left = apart - np.einsum("mad,nmd->nma", site.rotations, free)
    distance = (left**2).sum(-1)
    best = np.unravel_index(distance.argmin(), distance.shape)
    return free[best][:d], float(np.sqrt(distance[best]))


_CELLS = (
    np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1)
    .reshape(-1, 3)
    .astype(np.float64)
)


def encode(crystal: Crystal, precision: float = 0.01) -> TabularCrystal:
    """The table of a crystal in the standard setting of its space group, one row per set of
    symmetric atoms.

    Raises InputError where spglib finds no symmetry within ``precision`` (angstrom).
    """
    cell = (crystal.lattice, crystal.fractional, crystal.numbers.astype(int))
    found = spglib.get_symmetry_dataset(cell, symprec=precision)
    if found is not None:
        found = spglib.get_symmetry_dataset(
            cell, symprec=precision, hall_number=_hall_number(found.number)
        )
    if found is None:
        raise InputError(
            f"no space group found for a crystal of {len(crystal)} atoms within {precision} "
            "angstrom"
        )
    lattice, fractional, numbers = found.std_lattice, found.std_positions, found.std_types
    group, operations = found.number, group_of(found.number).positions[0].operations
    tolerance = precision / length_scale(lattice, len(fractional))
    left = np.ones(len(fractional), dtype=bool)
    sites, points, elements = [], [], []
    while left.any():
        first = int(left.argmax())
        images = (operations @ np.append(fractional[first], 1.0))[:, :3]
        apart = images[:, None] - fractional
        near = (np.linalg.norm((apart - np.round(apart)) @ lattice, axis=2) < 10 * precision) & (
            numbers == numbers[first]
        )
        orbit = near.any(0)
        left &= ~orbit
        index, free = _position_of(group, int(orbit.sum()), fractional[orbit], tolerance)
        site = site_of(group, index)
        point = site.rotations[0, :, : len(free)] @ free + site.shifts[0]
        sites.append(index)
        points.append(_triple(point))
        elements.append(int(numbers[first]))
    return TabularCrystal(
        group,
        tuple(cell_to_cellpar(lattice, radians=True).tolist()),
        tuple(sites),
        tuple(points),
        tuple(elements),
    )


def _triple(point: FloatArray) -> tuple[float, float, float]:
    x, y, z = (point % 1.0).tolist()
    return x, y, z


def _position_of(
    group: int, multiplicity: int, atoms: FloatArray, tolerance: float
) -> tuple[int, FloatArray]:
    best: tuple[float, int, FloatArray] | None = None
    for index in range(len(group_of(group).positions) - 1, -1, -1):
        if group_of(group).positions[index].multiplicity == multiplicity:
            free, distance = free_point(group, index, atoms[0])
            if distance < tolerance:
                return index, free
            if best is None or distance < best[0]:
                best = (distance, index, free)
    if best is None:
        raise InputError(f"no Wyckoff position of space group {group} has {multiplicity} atoms")
    return best[1], best[2]


@lru_cache(maxsize=230)
def _hall_number(space_group: int) -> int:
    from pyxtal.symmetry import Group

    return int(Group(space_group).hall_number)


def variables_of(table: TabularCrystal) -> FloatArray:
    """(f,) the free variables: of the cell, then of each site. Points off their position are taken
    to the nearest place on it.
    """
    values = free_cell(family_of(table.space_group), table.cell)
    for index, point in zip(table.sites, table.points, strict=True):
        values += free_point(table.space_group, index, point)[0].tolist()
    return np.array(values)


def with_variables(table: TabularCrystal, variables: FloatArray) -> TabularCrystal:
    """The same sites with other free variables (f,)."""
    family = family_of(table.space_group)
    place = len(_FREE[family][0])
    mapped = cell_map(family)
    cell = mapped[:, :place] @ variables[:place] + mapped[:, 6]
    points = []
    for index in table.sites:
        site = site_of(table.space_group, index)
        free = variables[place : place + site.degrees_of_freedom]
        points.append(_triple(site.rotations[0, :, : len(free)] @ free + site.shifts[0]))
        place += len(free)
    return TabularCrystal(
        table.space_group, tuple(cell.tolist()), table.sites, tuple(points), table.numbers
    )


def decode(table: TabularCrystal) -> Crystal:
    """The conventional cell with all its atoms."""
    variables = variables_of(table)
    family = family_of(table.space_group)
    place = len(_FREE[family][0])
    a, b, c, alpha, beta, gamma = with_variables(table, variables).cell
    y = (math.cos(alpha) - math.cos(beta) * math.cos(gamma)) / math.sin(gamma)
    height = math.sqrt(max(1e-6, 1 - math.cos(beta) ** 2 - y**2))
    lattice = np.array(
        [
            [a, 0, 0],
            [b * math.cos(gamma), b * math.sin(gamma), 0],
            [c * math.cos(beta), c * y, c * height],
        ],
        dtype=np.float64,
    )
    fractional, numbers = [], []
    for index, number in zip(table.sites, table.numbers, strict=True):
        site = site_of(table.space_group, index)
        free = variables[place : place + site.degrees_of_freedom]
        fractional.append((site.rotations[:, :, : len(free)] @ free + site.shifts) % 1.0)
        numbers += [number] * len(site.shifts)
        place += len(free)
    return Crystal(lattice, np.concatenate(fractional), np.array(numbers))


def to_row(table: TabularCrystal) -> list[float]:
    """The 39 columns. Raises InputError for more than eight sites."""
    if len(table.sites) > MOST_SITES:
        raise InputError(f"expected at most {MOST_SITES} Wyckoff sites, got {len(table.sites)}")
    row = [float(table.space_group), *table.cell]
    for index, point in zip(table.sites, table.points, strict=True):
        row += [float(index), *point]
    return row + [-1.0] * (len(COLUMNS) - len(row))


def from_row(row: Sequence[float], number: int) -> TabularCrystal:
    """The table of 39 columns of one element. Raises InputError on wrong columns, groups or
    positions, or where there is no site.
    """
    if len(row) < len(COLUMNS):
        raise InputError(
            f"expected {len(COLUMNS)} columns ({', '.join(COLUMNS[:8])}, ..), got {len(row)}"
        )
    group = round(row[0])
    sites, points = [], []
    for k in range(7, len(COLUMNS), 4):
        index = round(row[k])
        if index >= 0:
            site_of(group, index)
            sites.append(index)
            points.append((float(row[k + 1]), float(row[k + 2]), float(row[k + 3])))
    if not sites:
        raise InputError(f"a crystal of space group {group} has no Wyckoff site")
    return TabularCrystal(
        group,
        tuple(float(value) for value in row[1:7]),
        tuple(sites),
        tuple(points),
        (number,) * len(sites),
    )


def tables_of_csv(path: Path, number: int) -> tuple[list[TabularCrystal], list[str]]:
    """Tables of a CSV file with the 39 columns by name, and why rows were refused. Raises
    InputError naming the first absent column.
    """
    import pandas as pd

    frame = pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]}",
            hint=f"the columns are {', '.join(COLUMNS[:11])}, .. up to z7",
        )
    tables, refused = [], []
    for row in frame[list(COLUMNS)].to_numpy(dtype=np.float64):
        try:
            tables.append(from_row(row, number))
        except InputError as error:
            refused.append(str(error))
    return tables, refused
