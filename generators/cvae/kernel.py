"""Compiled loops: crystals from their free variables, and the residuals of local environments with
exact derivatives.

One crystal is a row of variables (the free parameters of its cell, then the free coordinates of
each site) and a list of Wyckoff positions. Angstrom and radians; lattice vectors are rows;
coordinates are fractional. Two kinds of residual per site:

spectrum   P_nn'l - target, P_nn'l = sum_m c_nlm c_n'lm with real solid harmonics S_lm and c_nlm =
sum_j w_j R_nl(r_j) S_lm(r_j), R_nl
           divided by r^l and tabulated in r^2 as cubic pieces (A. P. Bartok et al., Phys. Rev. B 87
           (2013) 184115).
shells     the k nearest distances - target. It has no range, so that atoms far from all others feel
it too.

Q_lm = r^(l-m) d^m P_l(u) / du^m with u = z / r obeys (l - m) Q_lm = (2 l - 1) z Q_(l-1)m - (l + m -
1) r^2 Q_(l-2)m, and its gradient is (-x Q_(l-1)(m+1), -y Q_(l-1)(m+1), (l + m) Q_(l-1)m). Cost:
linear in sites, neighbours and free variables of the neighbour's site.

All loops are in this one file, as the compiler's cache of a function is not renewed when a function
of another file changes.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from numba import njit, prange
from numba.core import event

log = logging.getLogger(__name__)

MOST_VARIABLES = 30
_LENGTHS, _ANGLES = (1.5, 50.0), (math.pi / 6, 5 * math.pi / 6)
_MOST_DAMPING = 1e10
_compiled: Any = njit(
    cache=True, fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy"
)
_compiled_parallel: Any = njit(
    cache=True, parallel=True, fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy"
)


@_compiled
def lattice_of(six, lattice, derivative):
    """Rows (3, 3) of the cell (a, b, c, alpha, beta, gamma) and their derivatives (6, 3, 3); False
    where there is no such cell.
    """
    a, b, c = six[0], six[1], six[2]
    ca, cb, cg = math.cos(six[3]), math.cos(six[4]), math.cos(six[5])
    sa, sb, sg = math.sin(six[3]), math.sin(six[4]), math.sin(six[5])
    y = (ca - cb * cg) / sg
    square = 1.0 - cb * cb - y * y
    if square < 1e-4:
        return False
    w = math.sqrt(square)
    lattice[:] = 0.0
    lattice[0, 0] = a
    lattice[1, 0] = b * cg
    lattice[1, 1] = b * sg
    lattice[2, 0] = c * cb
    lattice[2, 1] = c * y
    lattice[2, 2] = c * w
    derivative[:] = 0.0
    derivative[0, 0, 0] = 1.0
    derivative[1, 1, 0] = cg
    derivative[1, 1, 1] = sg
    derivative[2, 2, 0] = cb
    derivative[2, 2, 1] = y
    derivative[2, 2, 2] = w
    y_alpha = -sa / sg
    derivative[3, 2, 1] = c * y_alpha
    derivative[3, 2, 2] = -c * y * y_alpha / w
    y_beta = sb * cg / sg
    derivative[4, 2, 0] = -c * sb
    derivative[4, 2, 1] = c * y_beta
    derivative[4, 2, 2] = c * (cb * sb - y * y_beta) / w
    y_gamma = (cb * sg - (ca - cb * cg) * cg / sg) / sg
    derivative[5, 1, 0] = -b * sg
    derivative[5, 1, 1] = b * cg
    derivative[5, 2, 1] = c * y_gamma
    derivative[5, 2, 2] = -c * y * y_gamma / w
    return True


@_compiled
def six_of(family, x, cell_map, six):
    """The six parameters of a cell of a crystal family from its free ones; returns how many those
    are.
    """
    free = int(cell_map[family, 0, 7])
    for k in range(6):
        six[k] = cell_map[family, k, 6]
        for q in range(free):
            six[k] += cell_map[family, k, q] * x[q]
    return free


@_compiled
def build(family, sites, x, tables, space):
    """Fills ``space`` with the lattice, its derivative to the free parameters, and the atoms;
    returns the number of atoms, 0 where none.
    """
    cell_map, start, count, free_of, rotations, shifts = tables
    six, lattice, of_six, of_free, fractional, moved, atom_site, offset = space[:8]
    free = six_of(family, x, cell_map, six)
    if not lattice_of(six, lattice, of_six):
        return 0
    for q in range(free):
        for a in range(3):
            for b in range(3):
                total = 0.0
                for k in range(6):
                    total += cell_map[family, k, q] * of_six[k, a, b]
                of_free[q, a, b] = total
    n = 0
    place = free
    for s in range(len(sites)):
        position = sites[s]
        offset[s] = place
        d = free_of[position]
        for j in range(start[position], start[position] + count[position]):
            for a in range(3):
                value = shifts[j, a]
                for k in range(d):
                    value += rotations[j, a, k] * x[place + k]
                fractional[n, a] = value
            for k in range(d):
                for b in range(3):
                    moved[n, k, b] = (
                        rotations[j, 0, k] * lattice[0, b]
                        + rotations[j, 1, k] * lattice[1, b]
                        + rotations[j, 2, k] * lattice[2, b]
                    )
            atom_site[n] = s
            n += 1
        place += d
    return n


@_compiled
def heights_of(lattice, heights):
    """Distances (3,) between opposite faces; returns the volume."""
    volume = 0.0
    for k in range(3):
        p, q = (k + 1) % 3, (k + 2) % 3
        cx = lattice[p, 1] * lattice[q, 2] - lattice[p, 2] * lattice[q, 1]
        cy = lattice[p, 2] * lattice[q, 0] - lattice[p, 0] * lattice[q, 2]
        cz = lattice[p, 0] * lattice[q, 1] - lattice[p, 1] * lattice[q, 0]
        volume = abs(lattice[k, 0] * cx + lattice[k, 1] * cy + lattice[k, 2] * cz)
        heights[k] = volume / math.sqrt(cx * cx + cy * cy + cz * cz)
    return volume


@_compiled
def neighbours(centre, n, cutoff, lattice, heights, fractional, atom, apart, vector, square):
    """All atoms of all images within the cutoff of one atom: which, fractional and Cartesian
    vectors; returns how many, -1 if too many.
    """
    found = 0
    limit = cutoff * cutoff
    r0, r1, r2 = cutoff / heights[0], cutoff / heights[1], cutoff / heights[2]
    for j in range(n):
        d0 = fractional[j, 0] - fractional[centre, 0]
        d1 = fractional[j, 1] - fractional[centre, 1]
        d2 = fractional[j, 2] - fractional[centre, 2]
        low0, high0 = math.ceil(-r0 - d0), math.floor(r0 - d0)
        if high0 < low0:
            continue
        low1, high1 = math.ceil(-r1 - d1), math.floor(r1 - d1)
        if high1 < low1:
            continue
        low2, high2 = math.ceil(-r2 - d2), math.floor(r2 - d2)
        for i0 in range(low0, high0 + 1):
            u0 = d0 + i0
            for i1 in range(low1, high1 + 1):
                u1 = d1 + i1
                for i2 in range(low2, high2 + 1):
                    u2 = d2 + i2
                    x = u0 * lattice[0, 0] + u1 * lattice[1, 0] + u2 * lattice[2, 0]
                    y = u1 * lattice[1, 1] + u2 * lattice[2, 1]
                    z = u2 * lattice[2, 2]
                    rr = x * x + y * y + z * z
                    if rr >= limit or (j == centre and i0 == 0 and i1 == 0 and i2 == 0):
                        continue
                    if found == len(atom):
                        return -1
                    atom[found] = j
                    apart[found, 0], apart[found, 1], apart[found, 2] = u0, u1, u2
                    vector[found, 0], vector[found, 1], vector[found, 2] = x, y, z
                    square[found] = rr
                    found += 1
    return found


@_compiled
def solid_harmonics(x, y, z, l_max, norm, legendre, angle, value, gradient):
    """Real solid harmonics r^l Y_lm, l by l and m = 0, 1c, 1s, ..: value ((l_max+1)^2,) and
    gradient ((l_max+1)^2, 3).
    """
    rr = x * x + y * y + z * z
    angle[0, 0], angle[1, 0] = 1.0, 0.0
    factor = 1.0
    for m in range(l_max + 1):
        if m > 0:
            angle[0, m] = x * angle[0, m - 1] - y * angle[1, m - 1]
            angle[1, m] = x * angle[1, m - 1] + y * angle[0, m - 1]
            factor *= 2 * m - 1
        legendre[m, m] = factor
        if m < l_max:
            legendre[m + 1, m] = (2 * m + 1) * z * factor
        for order in range(m + 2, l_max + 1):
            legendre[order, m] = (
                (2 * order - 1) * z * legendre[order - 1, m]
                - (order + m - 1) * rr * legendre[order - 2, m]
            ) / (order - m)
    for order in range(l_max + 1):
        first = order * order
        for m in range(order + 1):
            q = legendre[order, m]
            slope_z = (order + m) * legendre[order - 1, m] if m < order else 0.0
            slope_xy = -legendre[order - 1, m + 1] if m + 2 <= order else 0.0
            scale = norm[order, m]
            for part in range(2):
                if part == 1 and m == 0:
                    break
                k = first if m == 0 else first + 2 * m - 1 + part
                t = angle[part, m]
                dx, dy = 0.0, 0.0
                if m > 0:
                    if part == 0:
                        dx, dy = m * angle[0, m - 1], -m * angle[1, m - 1]
                    else:
                        dx, dy = m * angle[1, m - 1], m * angle[0, m - 1]
                value[k] = scale * q * t
                gradient[k, 0] = scale * (slope_xy * x * t + q * dx)
                gradient[k, 1] = scale * (slope_xy * y * t + q * dy)
                gradient[k, 2] = scale * slope_z * t


@_compiled
def spectrum_site(
    found,
    l_max,
    n_max,
    step,
    pieces,
    weights,
    norm,
    vector,
    square,
    work,
    target,
    weight,
    residual,
    slope,
    with_slope,
):
    """Residuals (n_pairs (l_max+1),) of one site, pair by pair, and their slopes to each
    neighbour's vector (found, n_rows, 3).
    """
    c, radial, radial_slope, value, gradient, legendre, angle, along, turned = work
    n_l = l_max + 1
    c[:] = 0.0
    for k in range(found):
        solid_harmonics(
            vector[k, 0],
            vector[k, 1],
            vector[k, 2],
            l_max,
            norm,
            legendre,
            angle,
            value[k],
            gradient[k],
        )
        s = square[k] / step
        piece = min(int(s), pieces.shape[0] - 1)
        t = s - piece
        for n in range(n_max):
            for order in range(n_l):
                p0, p1, p2, p3 = (
                    pieces[piece, n, order, 0],
                    pieces[piece, n, order, 1],
                    pieces[piece, n, order, 2],
                    pieces[piece, n, order, 3],
                )
                r = weights[k] * (p0 + t * (p1 + t * (p2 + t * p3)))
                radial[k, n, order] = r
                radial_slope[k, n, order] = (
                    weights[k] * (p1 + t * (2 * p2 + 3 * t * p3)) * 2.0 / step
                )
                for m in range(order * order, (order + 1) * (order + 1)):
                    c[n, m] += r * value[k, m]
    row = 0
    for n in range(n_max):
        for other in range(n + 1):
            for order in range(n_l):
                total = 0.0
                for m in range(order * order, (order + 1) * (order + 1)):
                    total += c[n, m] * c[other, m]
                residual[row] = weight * (total - target[row])
                row += 1
    if not with_slope:
        return
    for k in range(found):
        for n in range(n_max):
            for order in range(n_l):
                total, g0, g1, g2 = 0.0, 0.0, 0.0, 0.0
                for m in range(order * order, (order + 1) * (order + 1)):
                    total += c[n, m] * value[k, m]
                    g0 += c[n, m] * gradient[k, m, 0]
                    g1 += c[n, m] * gradient[k, m, 1]
                    g2 += c[n, m] * gradient[k, m, 2]
                along[n, order] = total
                turned[n, order, 0], turned[n, order, 1], turned[n, order, 2] = g0, g1, g2
        row = 0
        for n in range(n_max):
            for other in range(n + 1):
                for order in range(n_l):
                    outward = (
                        along[n, order] * radial_slope[k, other, order]
                        + along[other, order] * radial_slope[k, n, order]
                    )
                    for a in range(3):
                        slope[k, row, a] = weight * (
                            outward * vector[k, a]
                            + radial[k, other, order] * turned[n, order, a]
                            + radial[k, n, order] * turned[other, order, a]
                        )
                    row += 1


@_compiled
def shells_site(found, first, bonded, targets, vector, square, taken, weight, residual, slope):
    """Residuals of the k nearest distances of one site, from row ``first`` on: the bonded as they
    are, others only where they are too near.

    ``taken`` (k,) gets the neighbours in order; their slopes are (k, first + k, 3), filled on the
    diagonal.
    """
    for place in range(len(targets)):
        best = -1
        for j in range(found):
            if square[j] >= 0.0 and (best < 0 or square[j] < square[best]):
                best = j
        taken[place] = best
        r = math.sqrt(square[best])
        square[best] = -1.0
        apart = r - targets[place]
        is_free = place >= bonded and apart > 0.0
        row = first + place
        residual[row] = 0.0 if is_free else weight * apart
        for a in range(3):
            slope[place, row, a] = 0.0 if is_free else weight * vector[best, a] / max(r, 1e-6)


@_compiled
def add_neighbour(
    j, k, first, low, high, place, slope, sites, free_of, space, apart, stress, pulled, jacobian
):
    """Adds what the rows ``low`` to ``high`` of a site owe to its neighbour ``k``, which is atom
    ``j``.
    """
    moved, atom_site, offset = space[5], space[6], space[7]
    site = atom_site[j]
    d = free_of[sites[site]]
    begin = offset[site]
    u0, u1, u2 = apart[k, 0], apart[k, 1], apart[k, 2]
    for row in range(low, high):
        s0, s1, s2 = slope[place, row, 0], slope[place, row, 1], slope[place, row, 2]
        pulled[row, 0] += s0
        pulled[row, 1] += s1
        pulled[row, 2] += s2
        stress[row, 0, 0] += u0 * s0
        stress[row, 0, 1] += u0 * s1
        stress[row, 0, 2] += u0 * s2
        stress[row, 1, 0] += u1 * s0
        stress[row, 1, 1] += u1 * s1
        stress[row, 1, 2] += u1 * s2
        stress[row, 2, 0] += u2 * s0
        stress[row, 2, 1] += u2 * s1
        stress[row, 2, 2] += u2 * s2
        for q in range(d):
            jacobian[first + row, begin + q] += (
                s0 * moved[j, q, 0] + s1 * moved[j, q, 1] + s2 * moved[j, q, 2]
            )


@_compiled
def evaluate(
    family,
    sites,
    multiplicity,
    elements,
    x,
    tables,
    objective,
    space,
    memory,
    residual,
    jacobian,
    with_jacobian,
):
    """Residuals of all sites of one crystal and their Jacobian to x; returns 0.5 |residual|^2,
    infinity where there is no such crystal.
    """
    (
        cutoff,
        step,
        l_max,
        n_max,
        pieces,
        norm,
        pair_weights,
        targets,
        reach,
        bonded,
        distances,
        share,
    ) = objective
    lattice, of_free, fractional, moved, atom_site, offset, heights = (
        space[1],
        space[3],
        space[4],
        space[5],
        space[6],
        space[7],
        space[8],
    )
    atom, apart, vector, square, weights, slope, taken, work, stress, pulled = memory
    n = build(family, sites, x, tables, space)
    if n == 0:
        return np.inf
    volume = heights_of(lattice, heights)
    if volume < n * 0.5:
        return np.inf
    free_of = tables[3]
    n_free = int(tables[0][family, 0, 7])
    n_spectrum, n_shells = targets.shape[1], distances.shape[1]
    n_rows = n_spectrum + n_shells
    total = 0.0
    centre = 0
    n_variables = len(x)
    for s in range(len(sites)):
        weight = math.sqrt(multiplicity[s] / n)
        first = s * n_rows
        element = elements[s]
        own = residual[first : first + n_rows]
        if with_jacobian:
            jacobian[first : first + n_rows, :n_variables] = 0.0
            stress[:] = 0.0
            pulled[:] = 0.0
        if n_spectrum > 0:
            found = neighbours(
                centre, n, cutoff, lattice, heights, fractional, atom, apart, vector, square
            )
            if found < 0:
                return np.inf
            for k in range(found):
                weights[k] = pair_weights[element, elements[atom_site[atom[k]]]]
            spectrum_site(
                found,
                l_max,
                n_max,
                step,
                pieces,
                weights,
                norm,
                vector,
                square,
                work,
                targets[element],
                weight,
                own,
                slope,
                with_jacobian,
            )
            if with_jacobian:
                for k in range(found):
                    add_neighbour(
                        atom[k],
                        k,
                        first,
                        0,
                        n_spectrum,
                        k,
                        slope,
                        sites,
                        free_of,
                        space,
                        apart,
                        stress,
                        pulled,
                        jacobian,
                    )
        if n_shells > 0:
            within = reach
            found = neighbours(
                centre, n, within, lattice, heights, fractional, atom, apart, vector, square
            )
            for _ in range(8):
                if found < 0 or found >= n_shells:
                    break
                within *= 1.4
                found = neighbours(
                    centre, n, within, lattice, heights, fractional, atom, apart, vector, square
                )
            if found < n_shells:
                return np.inf
            shells_site(
                found,
                n_spectrum,
                bonded[element],
                distances[element],
                vector,
                square,
                taken,
                weight * share,
                own,
                slope,
            )
            if with_jacobian:
                for place in range(n_shells):
                    k = taken[place]
                    row = n_spectrum + place
                    add_neighbour(
                        atom[k],
                        k,
                        first,
                        row,
                        row + 1,
                        place,
                        slope,
                        sites,
                        free_of,
                        space,
                        apart,
                        stress,
                        pulled,
                        jacobian,
                    )
        for row in range(n_rows):
            total += own[row] * own[row]
        if with_jacobian:
            begin = offset[s]
            d = free_of[sites[s]]
            for row in range(n_rows):
                for q in range(d):
                    jacobian[first + row, begin + q] -= (
                        pulled[row, 0] * moved[centre, q, 0]
                        + pulled[row, 1] * moved[centre, q, 1]
                        + pulled[row, 2] * moved[centre, q, 2]
                    )
                for q in range(n_free):
                    value = 0.0
                    for a in range(3):
                        for b in range(3):
                            value += stress[row, a, b] * of_free[q, a, b]
                    jacobian[first + row, q] = value
        centre += multiplicity[s]
    return 0.5 * total


@_compiled
def workspace(most_atoms, most_sites, most_neighbours, n_rows, l_max, n_max):
    """Arrays that ``evaluate`` writes into."""
    n_m = (l_max + 1) ** 2
    space = (
        np.zeros(6),
        np.zeros((3, 3)),
        np.zeros((6, 3, 3)),
        np.zeros((6, 3, 3)),
        np.zeros((most_atoms, 3)),
        np.zeros((most_atoms, 3, 3)),
        np.zeros(most_atoms, np.int64),
        np.zeros(most_sites, np.int64),
        np.zeros(3),
    )
    work = (
        np.zeros((n_max, n_m)),
        np.zeros((most_neighbours, n_max, l_max + 1)),
        np.zeros((most_neighbours, n_max, l_max + 1)),
        np.zeros((most_neighbours, n_m)),
        np.zeros((most_neighbours, n_m, 3)),
        np.zeros((l_max + 2, l_max + 2)),
        np.zeros((2, l_max + 2)),
        np.zeros((n_max, l_max + 1)),
        np.zeros((n_max, l_max + 1, 3)),
    )
    memory = (
        np.zeros(most_neighbours, np.int64),
        np.zeros((most_neighbours, 3)),
        np.zeros((most_neighbours, 3)),
        np.zeros(most_neighbours),
        np.zeros(most_neighbours),
        np.zeros((most_neighbours, n_rows, 3)),
        np.zeros(max(1, n_rows), np.int64),
        work,
        np.zeros((n_rows, 3, 3)),
        np.zeros((n_rows, 3)),
    )
    return space, memory


@_compiled
def solve(normal, gradient, damping, n, factor, found):
    """(normal + damping diag(normal)) found = -gradient by Cholesky; False where it is not
    positive.
    """
    mean = 0.0
    for i in range(n):
        mean += normal[i, i] / n
    for i in range(n):
        for j in range(i + 1):
            value = normal[i, j]
            if i == j:
                value += damping * (normal[i, i] + 1e-3 * mean) + 1e-12
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            if i == j:
                if value <= 0.0:
                    return False
                factor[i, i] = math.sqrt(value)
            else:
                factor[i, j] = value / factor[j, j]
    for i in range(n):
        value = -gradient[i]
        for k in range(i):
            value -= factor[i, k] * found[k]
        found[i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = found[i]
        for k in range(i + 1, n):
            value -= factor[k, i] * found[k]
        found[i] = value / factor[i, i]
    return True


@_compiled
def keep_cell(family, x, cell_map):
    """Takes the free parameters of a cell back between the least and largest lengths and angles."""
    for q in range(int(cell_map[family, 0, 7])):
        is_length = cell_map[family, 0, q] + cell_map[family, 1, q] + cell_map[family, 2, q] > 0.5
        low, high = _LENGTHS if is_length else _ANGLES
        x[q] = min(max(x[q], low), high)


@_compiled
def least_squares(
    family,
    sites,
    multiplicity,
    elements,
    x,
    tables,
    objective,
    steps,
    goal,
    plateau,
    space,
    memory,
    solver,
):
    """Levenberg-Marquardt from x, in place; returns |residual|^2 and the calls of ``evaluate``.

    Ends when |residual|^2 is at most ``goal``, or has fallen by less than the share ``plateau`` in
    each of three steps taken.
    """
    residual, jacobian, trial_residual, trial_jacobian, normal, gradient, factor, found, trial = (
        solver
    )
    n = len(x)
    n_rows = len(sites) * (objective[7].shape[1] + objective[10].shape[1])
    value = evaluate(
        family,
        sites,
        multiplicity,
        elements,
        x,
        tables,
        objective,
        space,
        memory,
        residual,
        jacobian,
        True,
    )
    calls = 1
    damping = 1e-2
    still = 0
    if n == 0 or not np.isfinite(value):
        return 2 * value, calls
    while calls < steps and 2 * value > goal and still < 3 and damping < _MOST_DAMPING:
        normal[:n, :n] = 0.0
        gradient[:n] = 0.0
        for row in range(n_rows):
            for i in range(n):
                value_i = jacobian[row, i]
                if value_i != 0.0:
                    gradient[i] += value_i * residual[row]
                    for j in range(i + 1):
                        normal[i, j] += value_i * jacobian[row, j]
        is_better = False
        while not is_better and calls < steps and damping < _MOST_DAMPING:
            if solve(normal, gradient, damping, n, factor, found):
                for i in range(n):
                    trial[i] = x[i] + found[i]
                keep_cell(family, trial, tables[0])
                new = evaluate(
                    family,
                    sites,
                    multiplicity,
                    elements,
                    trial[:n],
                    tables,
                    objective,
                    space,
                    memory,
                    trial_residual,
                    trial_jacobian,
                    True,
                )
                calls += 1
                is_better = new < value
            if not is_better:
                damping *= 5.0
        if is_better:
            still = still + 1 if new > (1.0 - plateau) * value else 0
            value = new
            x[:] = trial[:n]
            residual[:n_rows] = trial_residual[:n_rows]
            jacobian[:n_rows, :n] = trial_jacobian[:n_rows, :n]
            damping = max(damping * 0.2, 1e-9)
    return 2 * value, calls


@_compiled_parallel
def refine_all(
    families,
    site_start,
    positions,
    multiplicities,
    elements,
    variables,
    counts,
    tables,
    objective,
    limits,
    parts,
    with_steps,
):
    """Refines each crystal, in place, or only evaluates it: |residual|^2 (B,), gradient of that (B,
    most variables), calls (B,).
    """
    steps, goal, plateau, most_atoms, most_sites, most_neighbours = limits
    total = len(families)
    loss = np.zeros(total)
    slopes = np.zeros(variables.shape)
    calls = np.zeros(total, np.int64)
    n_rows = objective[7].shape[1] + objective[10].shape[1]
    for part in prange(parts):
        space, memory = workspace(
            most_atoms, most_sites, most_neighbours, n_rows, objective[2], objective[3]
        )
        wide, tall = variables.shape[1], most_sites * n_rows
        solver = (
            np.zeros(tall),
            np.zeros((tall, wide)),
            np.zeros(tall),
            np.zeros((tall, wide)),
            np.zeros((wide, wide)),
            np.zeros(wide),
            np.zeros((wide, wide)),
            np.zeros(wide),
            np.zeros(wide),
        )
        for b in range(part, total, parts):
            low, high = site_start[b], site_start[b + 1]
            sites, multiplicity, element = (
                positions[low:high],
                multiplicities[low:high],
                elements[low:high],
            )
            x = variables[b, : counts[b]]
            if with_steps:
                loss[b], calls[b] = least_squares(
                    families[b],
                    sites,
                    multiplicity,
                    element,
                    x,
                    tables,
                    objective,
                    steps,
                    goal,
                    plateau,
                    space,
                    memory,
                    solver,
                )
            else:
                residual, jacobian = solver[0], solver[1]
                loss[b] = 2 * evaluate(
                    families[b],
                    sites,
                    multiplicity,
                    element,
                    x,
                    tables,
                    objective,
                    space,
                    memory,
                    residual,
                    jacobian,
                    True,
                )
                calls[b] = 1
                if np.isfinite(loss[b]):
                    for q in range(counts[b]):
                        value = 0.0
                        for row in range((high - low) * n_rows):
                            value += 2 * residual[row] * jacobian[row, q]
                        slopes[b, q] = value
    return loss, slopes, calls


@_compiled_parallel
def spectra_all(
    families,
    site_start,
    positions,
    multiplicities,
    elements,
    variables,
    counts,
    tables,
    objective,
    limits,
    parts,
):
    """The power spectrum (sites, n_rows) around the first atom of each site; not a number where
    there is no such crystal.
    """
    most_atoms, most_sites, most_neighbours = limits[3], limits[4], limits[5]
    n_rows = objective[7].shape[1]
    spectra = np.zeros((len(positions), n_rows))
    targets = objective[7]
    for part in prange(parts):
        space, memory = workspace(
            most_atoms, most_sites, most_neighbours, n_rows, objective[2], objective[3]
        )
        residual, jacobian = (
            np.zeros(most_sites * n_rows),
            np.zeros((most_sites * n_rows, variables.shape[1])),
        )
        for b in range(part, len(families), parts):
            low, high = site_start[b], site_start[b + 1]
            sites, multiplicity, element = (
                positions[low:high],
                multiplicities[low:high],
                elements[low:high],
            )
            value = evaluate(
                families[b],
                sites,
                multiplicity,
                element,
                variables[b, : counts[b]],
                tables,
                objective,
                space,
                memory,
                residual,
                jacobian,
                False,
            )
            n = multiplicity.sum()
            for s in range(high - low):
                weight = math.sqrt(multiplicity[s] / n)
                for row in range(n_rows):
                    spectra[low + s, row] = (
                        residual[s * n_rows + row] / weight + targets[element[s], row]
                        if np.isfinite(value)
                        else np.nan
                    )
    return spectra


@_compiled_parallel
def bonds_all(
    families,
    site_start,
    positions,
    multiplicities,
    elements,
    variables,
    counts,
    tables,
    bond_lengths,
    limits,
    parts,
):
    """Bonded neighbours of each site (sites,), the shortest distance (B,) and the volume per atom
    (B,) of each crystal.

    ``bond_lengths`` (elements, elements): longest bond of each pair.
    """
    most_atoms, most_sites, most_neighbours = limits[3], limits[4], limits[5]
    total = len(families)
    bonded = np.zeros(len(positions), np.int64)
    shortest = np.full(total, np.inf)
    volume = np.zeros(total)
    cutoff = bond_lengths.max()
    for part in prange(parts):
        space, memory = workspace(most_atoms, most_sites, most_neighbours, 1, 0, 1)
        lattice, fractional, atom_site, heights = space[1], space[4], space[6], space[8]
        atom, apart, vector, square = memory[0], memory[1], memory[2], memory[3]
        for b in range(part, total, parts):
            low, high = site_start[b], site_start[b + 1]
            n = build(families[b], positions[low:high], variables[b, : counts[b]], tables, space)
            if n == 0:
                continue
            volume[b] = heights_of(lattice, heights) / n
            centre = 0
            for s in range(low, high):
                found = neighbours(
                    centre, n, cutoff, lattice, heights, fractional, atom, apart, vector, square
                )
                bonded[s] = found
                for k in range(found):
                    shortest[b] = min(shortest[b], math.sqrt(square[k]))
                    if (
                        square[k]
                        >= bond_lengths[elements[s], elements[low + atom_site[atom[k]]]] ** 2
                    ):
                        bonded[s] -= 1
                centre += multiplicities[s]
    return bonded, shortest, volume


@_compiled
def atoms_all(
    families, site_start, positions, multiplicities, elements, variables, counts, tables, limits
):
    """Lattices (B, 3, 3), fractional coordinates of all atoms one after the other (N, 3), and which
    crystals have a cell (B,).
    """
    total = len(families)
    lattices = np.zeros((total, 3, 3))
    fractional = np.zeros((multiplicities.sum(), 3))
    found = np.zeros(total, np.bool_)
    space, _ = workspace(limits[3], limits[4], 1, 1, 0, 1)
    place = 0
    for b in range(total):
        low, high = site_start[b], site_start[b + 1]
        n = build(families[b], positions[low:high], variables[b, : counts[b]], tables, space)
        found[b] = n > 0
        lattices[b] = space[1]
        n = multiplicities[low:high].sum()
        if found[b]:
            fractional[place : place + n] = space[4][:n]
        place += n
    return lattices, fractional, found


class _Compilation(event.Listener):  # type: ignore[misc]
    """Says once what is waited for."""

    is_told = False

    def on_start(self, event: Any) -> None:
        if not self.is_told and event.data["dispatcher"].py_func.__module__ == __name__:
            self.is_told = True
            log.info("loops on local environments are compiled, once on a machine: up to a minute")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Compilation())
