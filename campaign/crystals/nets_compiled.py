"""Compiled loops of ``campaign.crystals.topology``: bonds, components, distances in bonds, and
rings of periodic nets.

They run as plain Python, slower, in an interpreter without numba: an oracle's own need not have it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

try:
    from numba import njit
except ImportError:
    _compiled: Any = lambda function: function  # noqa: E731
else:
    _compiled = njit(cache=True, error_model="numpy")


@_compiled
def find_bonds(lattice, fractional, kinds, longest, cutoff, found):
    n = len(fractional)
    r = np.empty(3)
    inverse = np.linalg.inv(lattice)
    for k in range(3):
        r[k] = cutoff * math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
    m = 0
    for i in range(n):
        for j in range(n):
            d0 = fractional[j, 0] - fractional[i, 0]
            d1 = fractional[j, 1] - fractional[i, 1]
            d2 = fractional[j, 2] - fractional[i, 2]
            limit = longest[kinds[i], kinds[j]] ** 2
            for a in range(math.ceil(-r[0] - d0), math.floor(r[0] - d0) + 1):
                for b in range(math.ceil(-r[1] - d1), math.floor(r[1] - d1) + 1):
                    for c in range(math.ceil(-r[2] - d2), math.floor(r[2] - d2) + 1):
                        x = (
                            (d0 + a) * lattice[0, 0]
                            + (d1 + b) * lattice[1, 0]
                            + (d2 + c) * lattice[2, 0]
                        )
                        y = (
                            (d0 + a) * lattice[0, 1]
                            + (d1 + b) * lattice[1, 1]
                            + (d2 + c) * lattice[2, 1]
                        )
                        z = (
                            (d0 + a) * lattice[0, 2]
                            + (d1 + b) * lattice[1, 2]
                            + (d2 + c) * lattice[2, 2]
                        )
                        if x * x + y * y + z * z >= limit or (
                            i == j and a == 0 and b == 0 and c == 0
                        ):
                            continue
                        if m < len(found):
                            found[m, 0], found[m, 1], found[m, 2], found[m, 3], found[m, 4] = (
                                i,
                                j,
                                a,
                                b,
                                c,
                            )
                        m += 1
    return m


@_compiled
def starts_of(n, bonds):
    start = np.zeros(n + 1, np.int64)
    for k in range(len(bonds)):
        start[bonds[k, 0] + 1] += 1
    for k in range(n):
        start[k + 1] += start[k]
    return start


@_compiled
def find_components(n, bonds):
    """(components, 2): how many vertices and the rank of each component."""
    start = starts_of(n, bonds)
    cell = np.zeros((n, 3), np.int64)
    seen = np.zeros(n, np.int64)
    queue = np.empty(n, np.int64)
    found = np.zeros((n, 2), np.int64)
    components = 0
    for first in range(n):
        if seen[first]:
            continue
        seen[first] = 1
        queue[0] = first
        low, high = 0, 1
        basis = np.zeros((3, 3))
        rank = 0
        while low < high:
            i = queue[low]
            low += 1
            for k in range(start[i], start[i + 1]):
                j = bonds[k, 1]
                if not seen[j]:
                    seen[j] = 1
                    for a in range(3):
                        cell[j, a] = cell[i, a] + bonds[k, 2 + a]
                    queue[high] = j
                    high += 1
                elif rank < 3:
                    v = np.empty(3)
                    for a in range(3):
                        v[a] = cell[i, a] + bonds[k, 2 + a] - cell[j, a]
                    for b in range(rank):
                        v -= (v @ basis[b]) * basis[b]
                    size = math.sqrt(v @ v)
                    if size > 1e-6:
                        basis[rank] = v / size
                        rank += 1
        found[components, 0], found[components, 1] = high, rank
        components += 1
    return found[:components]


@_compiled
def find_reach(n, bonds, depth):
    """(3,) the farthest cell that a path of ``depth`` bonds gets to."""
    best = np.zeros((n, 3), np.int64)
    for _ in range(depth):
        after = best.copy()
        for k in range(len(bonds)):
            for a in range(3):
                # bonds are listed each way, so one sign is enough
                after[bonds[k, 0], a] = max(
                    after[bonds[k, 0], a], best[bonds[k, 1], a] + bonds[k, 2 + a]
                )
        best = after
    reach = np.zeros(3, np.int64)
    for i in range(n):
        for a in range(3):
            reach[a] = max(reach[a], best[i, a])
    return reach


@_compiled
def find_distances(n, bonds, start, kinds, root, depth, reach, distance, queue, sequence):
    """Bonds from the root's vertex in the first cell, by vertex and cell, into ``distance`` (-1
    beyond depth).

    ``sequence`` (depth, kinds): how many vertices of each kind are so many bonds away.
    """
    sequence[:] = 0
    distance[:] = -1
    distance[root, reach[0], reach[1], reach[2]] = 0
    queue[0, 0], queue[0, 1], queue[0, 2], queue[0, 3] = root, reach[0], reach[1], reach[2]
    low, high = 0, 1
    while low < high:
        i, x, y, z = queue[low]
        low += 1
        far = distance[i, x, y, z]
        if far == depth:
            break
        for k in range(start[i], start[i + 1]):
            j, u, v, w = bonds[k, 1], x + bonds[k, 2], y + bonds[k, 3], z + bonds[k, 4]
            if distance[j, u, v, w] < 0:
                distance[j, u, v, w] = far + 1
                sequence[far, kinds[j]] += 1
                queue[high, 0], queue[high, 1], queue[high, 2], queue[high, 3] = j, u, v, w
                high += 1


@_compiled
def is_apart(table, reach, one, other, expected):
    """Whether two vertices with cells are as many bonds apart as ``expected``."""
    i, j = one[0], other[0]
    u, v, w = (
        other[1] - one[1] + reach[0],
        other[2] - one[2] + reach[1],
        other[3] - one[3] + reach[2],
    )
    if u < 0 or v < 0 or w < 0 or u > 2 * reach[0] or v > 2 * reach[1] or w > 2 * reach[2]:
        return False
    return table[i, j, u, v, w] == expected


@_compiled
def fits(size, level, mine, others, table, reach, root, n_others):
    """Whether the newest vertex of a branch, ``level + 1`` bonds from the root, is as far from all
    others as a ring of the size asks.
    """
    if not is_apart(table, reach, root, mine[level], level + 1):
        return False
    for row in range(level):
        if not is_apart(table, reach, mine[row], mine[level], level - row):
            return False
    for row in range(n_others):
        around = row + level + 2
        if not is_apart(table, reach, others[row], mine[level], min(around, size - around)):
            return False
    return True


@_compiled
def extend(branch, level, bond):
    branch[level, 0] = bond[1]
    for a in range(3):
        branch[level, 1 + a] = branch[level - 1, 1 + a] + bond[2 + a]


@_compiled
def count_rings(size, one, other, bonds, start, table, reach, root, place):
    """How many rings of a size go through two branches from the root, which are grown bond by bond;
    row 0 of each is its first vertex.
    """
    half = size // 2
    is_odd = size % 2 == 1
    total = 0
    level = 1
    place[1] = 0
    while level >= 1:
        if level == half:
            # both branches have half the ring; an odd one closes by a bond between their ends
            if is_odd and is_apart(table, reach, one[level - 1], other[level - 1], 1):
                total += 1
            level -= 1
            continue
        first, second = start[one[level - 1, 0]], start[other[level - 1, 0]]
        width = start[other[level - 1, 0] + 1] - second
        is_end = not is_odd and level == half - 1
        if is_end:
            width = 1
        if place[level] == (start[one[level - 1, 0] + 1] - first) * width:
            level -= 1
            continue
        k, m = first + place[level] // width, second + place[level] % width
        place[level] += 1
        extend(one, level, bonds[k])
        if not fits(size, level, one, other, table, reach, root, level):
            continue
        if is_end:
            total += 1
            continue
        extend(other, level, bonds[m])
        if fits(size, level, other, one, table, reach, root, level + 1):
            level += 1
            place[level] = 0
    return total


@_compiled
def sequences_and_symbols(n, bonds, kinds, roots, depth, largest):
    """Coordination sequences by kind (roots, depth, kinds).

    And size and number of the smallest rings in each angle (roots, angles, 2), 0 where none.
    """
    start = starts_of(n, bonds)
    most = 0
    for i in range(n):
        most = max(most, start[i + 1] - start[i])
    sequences = np.zeros((len(roots), depth, kinds.max() + 1), np.int64)
    symbols = np.zeros((len(roots), most * (most - 1) // 2, 2), np.int64)
    reach = find_reach(n, bonds, depth)
    box = n * (2 * reach[0] + 1) * (2 * reach[1] + 1) * (2 * reach[2] + 1)
    distance = np.empty((n, 2 * reach[0] + 1, 2 * reach[1] + 1, 2 * reach[2] + 1), np.int8)
    queue = np.empty((box, 4), np.int64)
    for r in range(len(roots)):
        find_distances(
            n, bonds, start, kinds, roots[r], depth, reach, distance, queue, sequences[r]
        )
    if largest < 3:
        return sequences, symbols
    half = largest // 2
    reach = find_reach(n, bonds, half)
    shape = (2 * reach[0] + 1, 2 * reach[1] + 1, 2 * reach[2] + 1)
    table = np.empty((n, n, shape[0], shape[1], shape[2]), np.int8)
    queue = np.empty((n * shape[0] * shape[1] * shape[2], 4), np.int64)
    sequence = np.empty((half, kinds.max() + 1), np.int64)
    for i in range(n):
        find_distances(n, bonds, start, kinds, i, half, reach, table[i], queue, sequence)
    one, other = np.zeros((half + 1, 4), np.int64), np.zeros((half + 1, 4), np.int64)
    place = np.zeros(half + 2, np.int64)
    root = np.zeros(4, np.int64)
    for r in range(len(roots)):
        root[0] = roots[r]
        angle = 0
        for k in range(start[roots[r]], start[roots[r] + 1]):
            for m in range(start[roots[r]], k):
                one[0, 0], other[0, 0] = bonds[k, 1], bonds[m, 1]
                for a in range(3):
                    one[0, 1 + a], other[0, 1 + a] = bonds[k, 2 + a], bonds[m, 2 + a]
                for size in range(3, largest + 1):
                    if not is_apart(table, reach, one[0], other[0], min(2, size - 2)):
                        continue
                    count = count_rings(size, one, other, bonds, start, table, reach, root, place)
                    if count:
                        symbols[r, angle, 0], symbols[r, angle, 1] = size, count
                        break
                angle += 1
    return sequences, symbols
