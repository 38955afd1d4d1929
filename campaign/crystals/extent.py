"""Whether a cell holds a bulk crystal: atoms that touch their neighbours along all three
directions, and none on another.

Lengths in angstrom. Two atoms are in contact where they are nearer than their covalent radii and
``REACH`` together: 4.5 for two carbon atoms (graphite's layers are 3.35 apart, molecules in their
crystals about 3), 5.5 for two nickel atoms. What is in contact with itself through fewer than three
directions is a slab or layer (2), a chain or wire (1) or a molecule or cluster (0) in vacuum. Pores
of open frameworks do not count: their walls hang together.
"""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from campaign.crystals.neighbours import pairs
from campaign.types import Crystal, FloatArray

REACH = 3.0
SAME_PLACE = 0.1
LEAST_VOLUME = 1.0
_LEAST_RADIUS = 0.7
_FARTHEST, _MOST_IMAGES = 8.0, 1e6
_KINDS = ("a molecule or cluster", "a chain or wire", "a slab or layers")


def not_bulk(crystal: Crystal) -> str:
    """What the cell holds where it is no bulk crystal; empty where it is one."""
    from campaign.crystals.topology import dimensions

    if not len(crystal):
        return "no atoms"
    if crystal.volume < LEAST_VOLUME * len(crystal):
        return f"a cell of {crystal.volume:.3g} angstrom^3 for {len(crystal)} atoms: they overlap"
    spacings = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    if np.prod(2 * _FARTHEST / spacings + 1) > _MOST_IMAGES:
        return (
            "a cell that is too flat or skewed: its planes are "
            f"{', '.join(f'{spacing:.3g}' for spacing in spacings)} angstrom apart"
        )
    contacts = _contacts(crystal)
    if len(contacts):
        fractional = crystal.fractional - np.floor(crystal.fractional)
        first, second, cells = contacts[:, 0], contacts[:, 1], contacts[:, 2:]
        distances = np.linalg.norm(
            (fractional[second] + cells - fractional[first]) @ crystal.lattice, axis=1
        )
        nearest = int(distances.argmin())
        if distances[nearest] < SAME_PLACE:
            return (
                f"atoms {first[nearest] + 1} and {second[nearest] + 1} at one place, "
                f"{distances[nearest]:.3f} angstrom apart"
            )
    dimension = max(dimensions(len(crystal), contacts))
    return f"{_KINDS[dimension]} in vacuum" if dimension < 3 else ""


def lone_atoms(crystal: Crystal) -> int:
    """How many atoms have no other in contact. Raises ValueError for a flat cell."""
    radii = _radii(crystal.numbers)
    first, second, distance, _ = pairs(
        crystal.lattice, crystal.fractional, float(2 * radii.max() + REACH)
    )
    return len(crystal) - len(np.unique(first[distance <= radii[first] + radii[second] + REACH]))


def _contacts(crystal: Crystal) -> NDArray[np.int64]:
    """(m, 5) as ``topology.bonds_of`` gives them, each way."""
    from campaign.crystals.topology import bonds_of

    fractional = crystal.fractional - np.floor(crystal.fractional)
    kinds, rows = np.unique(crystal.numbers, return_inverse=True)
    radii = _radii(kinds)
    return bonds_of(
        crystal.lattice, fractional, rows.astype(np.int64), radii[:, None] + radii + REACH
    )


def _radii(numbers: NDArray[np.uint8]) -> FloatArray:
    found: FloatArray = np.maximum(covalent_radii[numbers], _LEAST_RADIUS)
    return found
