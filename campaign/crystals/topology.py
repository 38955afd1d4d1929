"""The net that bonds make of a crystal: its dimensions, and a key that is the same for the same net
in whatever cell.

A net is a quotient graph: n vertices, and bonds (m, 5) each way as first vertex, second vertex, and
the cell of the second against the first's. Dimensions: the rank of the translations that a
component of bonded vertices reaches itself by (P. M. Larsen et al., Phys. Rev. Materials 3 (2019)
034003). Coordination sequence: how many vertices lie 1, 2, .. bonds away, in keys for each kind of
atom, so that orderings of an alloy differ. Vertex symbol: for each angle at a vertex the size of
the smallest ring in it and how many there are; a ring is a cycle in which no two vertices are
nearer through the rest of the net (M. O'Keeffe and S. T. Hyde, Zeolites 19 (1997) 370; D. S.
Franzblau, Phys. Rev. B 44 (1991) 4925). Cost for each vertex: linear in the vertices within
``depth`` bonds, about 0.2 ms at depth 14 in three dimensions. Rings grow in number with the bonds
of an atom: where one has more than six, as in metals, keys tell only rings of up to four bonds, 1
ms an atom.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.crystals import nets_compiled
from campaign.types import Crystal, FloatArray

IntArray = NDArray[np.int64]
DEPTH, LARGEST_RING = 14, 16
_MANY_BONDS, _LARGEST_RING_OF_MANY = 6, 4


def bonds_of(
    lattice: FloatArray, fractional: FloatArray, kinds: IntArray, longest: FloatArray
) -> IntArray:
    """(m, 5) bonds each way. ``kinds`` (n,) are rows of ``longest``, the longest bond (angstrom) of
    two kinds.
    """
    room = 8 * len(fractional) + 32
    while True:
        found = np.empty((room, 5), dtype=np.int64)
        m = nets_compiled.find_bonds(
            np.ascontiguousarray(lattice),
            np.ascontiguousarray(fractional),
            kinds,
            longest,
            float(longest.max()),
            found,
        )
        if m <= room:
            return found[:m]
        room = m


def dimensions(n: int, bonds: IntArray) -> tuple[int, ...]:
    """Of each component of the net, the largest component first: 0 molecules, 1 chains, 2 layers, 3
    frameworks.
    """
    found = nets_compiled.find_components(n, bonds)
    return tuple(int(rank) for _, rank in found[np.lexsort((-found[:, 1], -found[:, 0]))])


def coordination_sequences(
    n: int, bonds: IntArray, roots: Sequence[int], depth: int = DEPTH
) -> IntArray:
    """(roots, depth) vertices that are 1, 2, .. bonds away from each root."""
    kinds = np.zeros(n, dtype=np.int64)
    return np.asarray(
        nets_compiled.sequences_and_symbols(
            n, bonds, kinds, np.asarray(roots, dtype=np.int64), depth, 0
        )[0]
    )[:, :, 0]


def vertex_symbols(
    n: int, bonds: IntArray, roots: Sequence[int], largest: int = LARGEST_RING
) -> list[tuple[tuple[int, int], ...]]:
    """For each root and each angle at it (size, number) of the smallest rings, sorted; (0, 0) where
    none is up to ``largest``.
    """
    kinds = np.zeros(n, dtype=np.int64)
    _, found = nets_compiled.sequences_and_symbols(
        n, bonds, kinds, np.asarray(roots, dtype=np.int64), 1, largest
    )
    return [tuple(sorted((int(size), int(count)) for size, count in rows)) for rows in found]


def net_key(
    n: int,
    bonds: IntArray,
    kinds: IntArray,
    roots: Sequence[int],
    weights: Sequence[int],
    depth: int = DEPTH,
    largest: int = LARGEST_RING,
) -> str:
    """32 hexadecimal digits that are the same for one net in whatever cell, and differ where
    sequences, symbols or dimensions do.

    ``roots``: one vertex of each set of symmetric ones, ``weights`` how many are in each.
    """
    if np.bincount(bonds[:, 0], minlength=1).max() > _MANY_BONDS:
        largest = min(largest, _LARGEST_RING_OF_MANY)
    found, rings = nets_compiled.sequences_and_symbols(
        n, bonds, kinds, np.asarray(roots, dtype=np.int64), depth, largest
    )
    kept: Counter[tuple[Any, ...]] = Counter()
    for root, sequence, rows, weight in zip(roots, found, rings, weights, strict=True):
        kept[
            (
                int(kinds[root]),
                tuple(sequence.ravel().tolist()),
                tuple(sorted(map(tuple, rows.tolist()))),
            )
        ] += int(weight)
    common = reduce(math.gcd, kept.values())
    text = repr(
        (
            sorted(set(dimensions(n, bonds))),
            sorted((key, count // common) for key, count in kept.items()),
        )
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def net_of(crystal: Crystal, bonds: dict[tuple[int, int], float]) -> tuple[IntArray, IntArray]:
    """Bonds (m, 5) of a crystal and the kinds (n,) of its atoms; ``bonds``: longest bond (angstrom)
    of two atomic numbers.
    """
    species = sorted(set(crystal.numbers.tolist()))
    longest = np.array(
        [
            [bonds.get((one, other), bonds.get((other, one), 0.0)) for other in species]
            for one in species
        ]
    )
    kinds = np.searchsorted(species, crystal.numbers).astype(np.int64)
    return bonds_of(crystal.lattice, crystal.fractional, kinds, longest), kinds


def topology_key(
    crystal: Crystal,
    bonds: dict[tuple[int, int], float],
    depth: int = DEPTH,
    largest: int = LARGEST_RING,
) -> str:
    """``net_key`` of a crystal, with every atom as a root."""
    found, kinds = net_of(crystal, bonds)
    return net_key(
        len(crystal), found, kinds, range(len(crystal)), [1] * len(crystal), depth, largest
    )
