"""Neighbours in periodic crystals.

Lattice rows and vectors in angstrom. All periodic images count, also where the cutoff exceeds the cell.
Linear-time cell lists come from matscipy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from campaign.types import FloatArray


@dataclass(frozen=True)
class NearestNeighbours:
    """The k nearest neighbours of each atom, sorted by distance: indices (n, k), distances (n, k), vectors (n, k, 3)."""

    indices: NDArray[np.int64]
    distances: FloatArray
    vectors: FloatArray


def length_scale(lattice: FloatArray, n: int) -> float:
    """Edge of the cube that holds one atom, (V / n)^(1/3), in angstrom."""
    return float((abs(np.linalg.det(lattice)) / n) ** (1 / 3))


def pairs(lattice: FloatArray, fractional: FloatArray, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray, FloatArray]:
    """Ordered pairs within the cutoff: first atom, second atom, distance (m,), vector (m, 3)."""
    first, second, distance, vector = neighbour_list(
        "ijdD", positions=fractional @ lattice, cell=lattice, pbc=np.ones(3, dtype=bool), cutoff=cutoff
    )
    return first.astype(np.int64), second.astype(np.int64), distance, vector


def shortest_distance(lattice: FloatArray, fractional: FloatArray) -> float:
    """The shortest distance between two atoms or images, in angstrom."""
    cutoff = 2.0 * length_scale(lattice, len(fractional))
    _, _, distance, _ = pairs(lattice, fractional, cutoff)
    return float(distance.min()) if len(distance) else cutoff


def nearest(lattice: FloatArray, fractional: FloatArray, k: int) -> NearestNeighbours:
    """The k nearest neighbours of each atom; the cutoff grows until every atom has them."""
    n = len(fractional)
    cutoff = 1.3 * length_scale(lattice, n) * (3 * (k + 1) / (4 * math.pi)) ** (1 / 3)
    while True:
        first, second, distance, vector = pairs(lattice, fractional, cutoff)
        counts = np.bincount(first, minlength=n)
        if counts.min() >= k:
            break
        cutoff *= 1.3
    order = np.lexsort((second, np.round(distance, 9), first))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = order[starts[:, None] + np.arange(k)]
    return NearestNeighbours(second[chosen], distance[chosen], vector[chosen])
