"""The primitive cell of a crystal whose atoms lie a little off their sites, its lattice reduced, in
units of (V/n)^(1/3).

Only pure translations are looked for, as a rattled crystal has no other symmetry left. The
translations of one cell form a group; in units of one over its order they are whole numbers and the
primitive lattice is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import spglib
from numpy.typing import NDArray

from campaign.crystals.neighbours import length_scale
from campaign.types import Crystal, FloatArray


@dataclass(frozen=True, eq=False)
class PrimitiveCell:
    """Atoms in blocks of one element each, the rarest first.

    metric: (3, 3) scalar products of the reduced lattice's rows. fractional: (n, 3). numbers: (s,),
    the element of each block. starts: (s + 1,), where the blocks begin, and n. volume: of one atom,
    in cubic angstrom.
    """

    metric: FloatArray
    fractional: FloatArray
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    volume: float


def reduced(lattice: FloatArray) -> FloatArray:
    """Rows of Niggli's reduced cell; the lattice as it is where none is found."""
    found = spglib.niggli_reduce(lattice)
    return lattice if found is None else np.ascontiguousarray(found)


def primitive_cell(crystal: Crystal, site: float) -> PrimitiveCell:
    """``site``: how far off a translation atoms may lie, root mean square, in units of
    (V/n)^(1/3).
    """
    from campaign.crystals.matching_compiled import find_translations

    n = len(crystal)
    scale = length_scale(crystal.lattice, n)
    lattice = reduced(crystal.lattice / scale)
    positions = crystal.fractional @ (crystal.lattice / scale)
    numbers, kind, count = np.unique(
        crystal.numbers.astype(np.int64), return_inverse=True, return_counts=True
    )
    blocks = np.argsort(count, kind="stable")
    rank = np.argsort(blocks)[kind]
    positions = positions[np.argsort(rank, kind="stable")]
    count = count[blocks]
    starts = np.concatenate([[0], np.cumsum(count)])
    if np.gcd.reduce(count) > 1:
        fractional = positions @ np.linalg.inv(lattice)
        partners, moves = np.empty((starts[1], n), dtype=np.int64), np.empty((starts[1], n, 3))
        order = find_translations(lattice @ lattice.T, fractional, starts, site, partners, moves)
        shifts = moves[:order].mean(1)
        basis = _basis(shifts, order) if order > 1 else None
        if basis is not None:
            kept = np.flatnonzero(partners[:order].min(0) == np.arange(n))
            positions = (fractional + (moves[:order] - shifts[:, None]).mean(0))[kept] @ lattice
            lattice = reduced(basis @ lattice)
            starts = np.concatenate([[0], np.cumsum(count // order)])
    return PrimitiveCell(
        lattice @ lattice.T, positions @ np.linalg.inv(lattice), numbers[blocks], starts, scale**3
    )


def _basis(shifts: FloatArray, order: int) -> FloatArray | None:
    """(3, 3) rows that generate the unit vectors and the translations of a group, fractional; None
    where they generate another group.
    """
    rows = np.concatenate(
        [order * np.eye(3, dtype=np.int64), np.round(order * shifts).astype(np.int64) % order]
    )
    basis = np.zeros((3, 3), dtype=np.int64)
    for column in range(3):
        while True:
            rows = rows[rows.any(1)]
            entries = np.abs(rows[:, column])
            pivot = int(np.where(entries > 0, entries, np.iinfo(np.int64).max).argmin())
            quotient = rows[:, column] // rows[pivot, column]
            quotient[pivot] = 0
            if not quotient.any():
                break
            rows = rows - quotient[:, None] * rows[pivot]
        basis[column] = rows[pivot]
        rows = np.delete(rows, pivot, axis=0)
    size = abs(int(np.prod(np.diag(basis))))
    return basis / order if size * order == order**3 else None
