"""Known crystals as starts: the positions of one of the predicted phase and size in the predicted
cell, whatever its elements.

A crystal of 54 atoms hardly forms out of uniform positions; near one of its phase it has only to
settle. Of the crystals of a phase that have the number of atoms, or the largest number that divides
it, tiled, the one is taken whose cell is most like the predicted one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from campaign.types import Crystal, FloatArray
from generators.pcdvae.model import cell_parameters

Tiling = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Templates:
    """Fractional positions (n, 3) of crystals, with their cells (t, 6) as lengths over N^(1/3)
    (angstrom) and angles (degrees), and their phases (t,).
    """

    positions: tuple[FloatArray, ...]
    cells: FloatArray
    phases: tuple[int, ...]

    @classmethod
    def of(cls, crystals: Sequence[Crystal], phases: Sequence[int]) -> Templates:
        return cls(
            tuple(crystal.fractional for crystal in crystals),
            np.array(
                [cell_parameters(crystal.lattice, len(crystal)) for crystal in crystals]
            ).reshape(-1, 6),
            tuple(phases),
        )

    def nearest(self, cell: FloatArray, phase: int, n_atoms: int) -> FloatArray | None:
        """(n_atoms, 3) fractional positions for a cell (6,); None where no crystal of the phase has
        a number of atoms that divides ``n_atoms``.
        """
        sizes = np.array([len(one) for one in self.positions])
        fitting = [
            row
            for row, size in enumerate(sizes.tolist())
            if self.phases[row] == phase and n_atoms % size == 0
        ]
        if not fitting:
            return None
        largest = int(sizes[fitting].max())
        rows = [row for row in fitting if sizes[row] == largest]
        options = [
            (_unlikeness(self._tiled(row, times), cell), row, times)
            for row in rows
            for times in tilings(n_atoms // largest)
        ]
        _, row, times = min(options)
        return tiled(self.positions[row], times)

    def _tiled(self, row: int, times: Tiling) -> FloatArray:
        """(6,) the cell of a crystal that is repeated."""
        cell: FloatArray = self.cells[row].copy()
        cell[:3] *= np.array(times) / np.prod(times) ** (1 / 3)
        return cell


def _unlikeness(one: FloatArray, other: FloatArray) -> float:
    """Of two cells (6,): the relative differences of lengths and the angles' in radians."""
    lengths = np.log(one[:3] / np.maximum(other[:3], 1e-6))
    return float(np.hypot(np.linalg.norm(lengths), np.linalg.norm(np.radians(one[3:] - other[3:]))))


@lru_cache(maxsize=256)
def tilings(n: int) -> tuple[Tiling, ...]:
    """All ways to repeat a cell n times along its axes."""
    divisors = [k for k in range(1, n + 1) if n % k == 0]
    return tuple(
        (a, b, n // (a * b)) for a, b in itertools.product(divisors, repeat=2) if n % (a * b) == 0
    )


def tiled(fractional: FloatArray, times: Tiling) -> FloatArray:
    """(n a b c, 3) positions (n, 3) in a cell that is repeated."""
    shifts = np.array(list(itertools.product(*map(range, times))))
    found: FloatArray = np.concatenate([(fractional + shift) / np.array(times) for shift in shifts])
    return found
