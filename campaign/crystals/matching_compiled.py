"""Compiled loops of ``campaign.crystals.primitive`` and ``campaign.crystals.matching``:
translations and matches of periodic sites.

Lengths in units of (V/n)^(1/3). ``metric`` (3, 3): scalar products of the rows of a reduced
lattice. ``fractional`` (n, 3): atoms in blocks of one element each, the rarest first; ``starts`` (s
+ 1,): where the blocks begin, and n.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_compiled: Any = njit(cache=True, error_model="numpy")

FARTHEST = 3.0
"""No atom may move more than this times the tolerance, which bounds the root mean square over all
atoms.
"""

_RANGE = 2
_CHOICES = (2 * _RANGE + 1) ** 3


@_compiled
def product(metric, a, b):
    """Of two vectors by their components in the lattice's rows."""
    total = 0.0
    for i in range(3):
        for j in range(3):
            total += a[i] * metric[i, j] * b[j]
    return total


@_compiled
def squared(metric, x, y, z):
    return (
        metric[0, 0] * x * x
        + metric[1, 1] * y * y
        + metric[2, 2] * z * z
        + 2 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
    )


@_compiled
def find_partners(metric, mine, theirs, starts, blocks, one, other, site, is_free, partners, moves):
    """Whether ``theirs`` of the first blocks lie on ``mine``, but for a common drift, once the atom
    ``other`` is shifted onto ``one``.

    Fills partners (n,) and moves (n, 3), the drift still in them. ``is_free`` (n,) is room for a
    note of who is taken.
    """
    n = starts[blocks]
    limit = len(mine) * site * site
    farthest = FARTHEST * site
    shift_x, shift_y, shift_z = (
        mine[one, 0] - theirs[other, 0],
        mine[one, 1] - theirs[other, 1],
        mine[one, 2] - theirs[other, 2],
    )
    drift_x = drift_y = drift_z = spread = 0.0
    is_free[:n] = True
    for block in range(blocks):
        for k in range(starts[block], starts[block + 1]):
            nearest = (2 * farthest) ** 2
            found = -1
            for m in range(starts[block], starts[block + 1]):
                if not is_free[m]:
                    continue
                x = mine[m, 0] - theirs[k, 0] - shift_x
                y = mine[m, 1] - theirs[k, 1] - shift_y
                z = mine[m, 2] - theirs[k, 2] - shift_z
                x -= math.floor(x + 0.5)
                y -= math.floor(y + 0.5)
                z -= math.floor(z + 0.5)
                distance = squared(metric, x, y, z)
                if distance < nearest:
                    nearest, found = distance, m
                    moves[k, 0], moves[k, 1], moves[k, 2] = x, y, z
            if found < 0:
                return False
            is_free[found] = False
            partners[k] = found
            share = 1.0 / (k + 1)
            x, y, z = moves[k, 0] - drift_x, moves[k, 1] - drift_y, moves[k, 2] - drift_z
            drift_x += share * x
            drift_y += share * y
            drift_z += share * z
            spread += (1.0 - share) * squared(metric, x, y, z)
            if spread > limit:
                return False
    for k in range(n):
        if (
            squared(metric, moves[k, 0] - drift_x, moves[k, 1] - drift_y, moves[k, 2] - drift_z)
            > farthest * farthest
        ):
            return False
    return True


@_compiled
def find_translations(metric, fractional, starts, site, partners, moves):
    """The order of the group of translations that move all atoms onto atoms; 1 where there is none
    but the one by nothing.

    Fills partners (m, n) and moves (m, n, 3), m the number of the rarest element's atoms: whom each
    atom moves onto, and by how much.
    """
    n = len(fractional)
    is_reached = np.zeros(starts[1], np.bool_)
    is_reached[0] = True
    partners[0] = np.arange(n)
    moves[0] = 0.0
    order = 1
    is_free, partner, move = np.empty(n, np.bool_), np.empty(n, np.int64), np.empty((n, 3))
    for j in range(1, starts[1]):
        if is_reached[j] or not find_partners(
            metric,
            fractional,
            fractional,
            starts,
            len(starts) - 1,
            j,
            0,
            site,
            is_free,
            partner,
            move,
        ):
            continue
        move += fractional[j] - fractional[0]
        known = order
        power, moved = partner.copy(), move.copy()
        while not is_reached[power[0]]:
            for h in range(known):
                if order == starts[1] or is_reached[partners[h, power[0]]]:
                    return 1
                for k in range(n):
                    partners[order, k] = partners[h, power[k]]
                    moves[order, k] = moved[k] + moves[h, power[k]]
                is_reached[partners[order, 0]] = True
                order += 1
            for k in range(n):
                moved[k] += move[power[k]]
                power[k] = partner[power[k]]
    return order


@_compiled
def angle(metric, a, b):
    """Degrees between two vectors."""
    cosine = product(metric, a, b) / math.sqrt(product(metric, a, a) * product(metric, b, b))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


@_compiled
def find_edges(metric, other_metric, length, edges):
    """How many vectors of the other lattice are as long as each of mine; fills edges (3, 125,
    3).
    """
    counts = np.zeros(3, np.int64)
    for a in range(-_RANGE, _RANGE + 1):
        for b in range(-_RANGE, _RANGE + 1):
            for c in range(-_RANGE, _RANGE + 1):
                long = squared(other_metric, a, b, c)
                for k in range(3):
                    ratio = math.sqrt(long / metric[k, k])
                    if 1 / (1 + length) <= ratio <= 1 + length:
                        edges[k, counts[k], 0], edges[k, counts[k], 1], edges[k, counts[k], 2] = (
                            a,
                            b,
                            c,
                        )
                        counts[k] += 1
    return counts


@_compiled
def invert(rows, inverse):
    """Fills the inverse (3, 3) of whole rows; whether their determinant is 1 or -1, as it is where
    both lattices have one volume.
    """
    determinant = 0.0
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        determinant += rows[0, i] * (rows[1, a] * rows[2, b] - rows[1, b] * rows[2, a])
    if abs(abs(determinant) - 1.0) > 0.5:
        return False
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            c, d = (j + 1) % 3, (j + 2) % 3
            inverse[j, i] = determinant * (rows[a, c] * rows[b, d] - rows[a, d] * rows[b, c])
    return True


@_compiled
def turn(inverse, fractional, first, last, turned):
    """Fills the coordinates of the atoms from first to last in another choice of the lattice's
    rows.
    """
    for k in range(first, last):
        x, y, z = fractional[k]
        for j in range(3):
            turned[k, j] = x * inverse[0, j] + y * inverse[1, j] + z * inverse[2, j]


@_compiled
def find_match(metric, other_metric, mine, theirs, starts, length, site, largest_angle):
    """Whether some choice of the other lattice's edges, and some translation, brings the other
    atoms onto mine.

    The rarest element's atoms are tried alone before the others.
    """
    n, blocks = len(mine), len(starts) - 1
    is_free, partners, moves, turned = (
        np.empty(n, np.bool_),
        np.empty(n, np.int64),
        np.empty((n, 3)),
        np.empty((n, 3)),
    )
    edges = np.empty((3, _CHOICES, 3))
    counts = find_edges(metric, other_metric, length, edges)
    unit = np.eye(3)
    wanted = (
        angle(metric, unit[1], unit[2]),
        angle(metric, unit[0], unit[2]),
        angle(metric, unit[0], unit[1]),
    )
    rows, inverse, mean = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for i in range(counts[0]):
        rows[0] = edges[0, i]
        for j in range(counts[1]):
            rows[1] = edges[1, j]
            if abs(angle(other_metric, rows[0], rows[1]) - wanted[2]) > largest_angle:
                continue
            for k in range(counts[2]):
                rows[2] = edges[2, k]
                if abs(angle(other_metric, rows[1], rows[2]) - wanted[0]) > largest_angle:
                    continue
                if abs(angle(other_metric, rows[0], rows[2]) - wanted[1]) > largest_angle:
                    continue
                if not invert(rows, inverse):
                    continue
                turn(inverse, theirs, 0, starts[1], turned)
                is_turned = False
                for a in range(3):
                    for b in range(3):
                        mean[a, b] = (metric[a, b] + product(other_metric, rows[a], rows[b])) / 2
                for atom in range(starts[1]):
                    if not find_partners(
                        mean, mine, turned, starts, 1, 0, atom, site, is_free, partners, moves
                    ):
                        continue
                    if not is_turned:
                        turn(inverse, theirs, starts[1], n, turned)
                        is_turned = True
                    if find_partners(
                        mean, mine, turned, starts, blocks, 0, atom, site, is_free, partners, moves
                    ):
                        return True
    return False
