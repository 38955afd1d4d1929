"""Orbits of an atom's bonds under its site symmetry: their sizes, and which the group turns round.

An atom's bonds make whole orbits, so a site of symmetry -3 has two or six bonds and never three.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from campaign.types import FloatArray
from generators.cvae.table import site_of
from generators.wyckoff import group_of

_FARTHEST = 2
_CELLS = np.array(
    list(itertools.product(range(-_FARTHEST, _FARTHEST + 1), repeat=3)), dtype=np.float64
)


@lru_cache(maxsize=4096)
def stabiliser(space_group: int, index: int) -> tuple[FloatArray, FloatArray]:
    """A general point (3,) of a position, and the rotations (k, 3, 3) that leave it where it is."""
    operations = group_of(space_group).positions[0].operations
    site = site_of(space_group, index)
    point = site.rotations[0] @ np.array([0.1234, 0.2711, 0.3871]) + site.shifts[0]
    moved = operations[:, :3, :3] @ point + operations[:, :3, 3] - point
    stays = np.abs(moved - np.round(moved)).max(1) < 1e-6
    return point, np.unique(np.round(operations[stays][:, :3, :3]), axis=0)


@lru_cache(maxsize=4096)
def bond_orbits(space_group: int, index: int) -> tuple[int, ...]:
    """How many directions the site symmetry makes of one: all numbers that are possible."""
    _, rotations = stabiliser(space_group, index)
    directions = [np.array([0.31, 0.52, 0.79])]
    for chosen in itertools.chain(
        itertools.combinations(rotations, 1), itertools.combinations(rotations, 2)
    ):
        kept = _left_alone(np.concatenate([rotation - np.eye(3) for rotation in chosen]))
        for weights in itertools.product((-1.0, 0.37, 1.0), repeat=len(kept)):
            if len(kept):
                directions.append(np.array(weights) @ kept)
    return tuple(sorted({_size(rotations, direction) for direction in directions}))


@lru_cache(maxsize=4096)
def reversible_orbits(space_group: int, index: int) -> frozenset[int]:
    """Sizes of the orbits of bonds between two atoms of a position that an operation of the group
    exchanges.
    """
    operations = group_of(space_group).positions[0].operations
    turns, shifts = operations[:, :3, :3], operations[:, :3, 3]
    point, rotations = stabiliser(space_group, index)
    apart = turns @ point + shifts - point
    shifts = (shifts - np.round(apart))[:, None] + _CELLS
    other = (turns @ point)[:, None] + shifts
    back = np.einsum("oij,okj->oki", turns, other) + shifts
    exchanges = (np.abs(back - point).max(2) < 1e-6) & (np.abs(other - point).max(2) > 1e-6)
    return frozenset(
        _size(rotations, direction)
        for direction in np.unique(np.round((other - point)[exchanges], 6), axis=0)
    )


@lru_cache(maxsize=16384)
def allows(space_group: int, index: int, bonds: int) -> bool:
    """Whether ``bonds`` bonds can be made of whole orbits of the site's symmetry."""
    return bool(ways(bond_orbits(space_group, index), bonds))


@lru_cache(maxsize=4096)
def ways(sizes: tuple[int, ...], bonds: int) -> tuple[tuple[int, ...], ...]:
    """All multisets of the sizes that add up to ``bonds``."""
    if bonds == 0:
        return ((),)
    return tuple(
        (size, *rest)
        for k, size in enumerate(sizes)
        if size <= bonds
        for rest in ways(sizes[k:], bonds - size)
    )


def _size(rotations: FloatArray, direction: FloatArray) -> int:
    return len(np.unique(np.round(rotations @ direction, 5), axis=0))


def _left_alone(matrix: FloatArray) -> FloatArray:
    _, values, vectors = np.linalg.svd(matrix)
    return np.asarray(vectors[values < 1e-8])
