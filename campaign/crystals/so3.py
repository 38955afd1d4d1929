"""The SO(3) power spectrum of atomic neighbourhoods: rotation-invariant, smooth in the positions.

Around an atom, with w_j the weight of neighbour j:

    c_nlm = sum_j w_j R_nl(r_j) Y_lm(r_j),   R_nl(r) = 4 pi exp(-alpha r^2) f(r) I_nl(r),
    I_nl(r) = int_0^cutoff s^2 g_n(s) exp(-alpha s^2) i_l(2 alpha r s) ds,
    p_nn'l = sum_m c_nlm c*_n'lm,

f(r) = (1 + cos(pi r / cutoff)) / 2, i_l the modified spherical Bessel function, g_n the orthonormal
combinations of (cutoff - r)^(n + 2). A. P. Bartok, R. Kondor, G. Csanyi, Phys. Rev. B 87 (2013)
184115. Angstrom; alpha in 1/angstrom^2. R_nl is tabulated once for each setting. Cost: O(n
neighbours (l + 1)^2 n_radial), about 0.1 ms an atom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import factorial2, sph_harm_y, spherical_in

from campaign.crystals.neighbours import pairs
from campaign.types import Crystal, FloatArray

_TABLE_POINTS, _NODES = 400, 200


@dataclass(frozen=True)
class PowerSpectrum:
    """Settings of a power spectrum: neighbourhood radius (angstrom), radial functions, largest l,
    width alpha (1/angstrom^2).
    """

    cutoff: float = 5.0
    n_max: int = 3
    l_max: int = 4
    alpha: float = 1.5

    @property
    def size(self) -> int:
        """Components p_nn'l with n <= n'."""
        return self.n_max * (self.n_max + 1) // 2 * (self.l_max + 1)

    @property
    def names(self) -> list[str]:
        upper = [(n, m) for n in range(1, self.n_max + 1) for m in range(n, self.n_max + 1)]
        return [f"p{n}{m}{order}" for order in range(self.l_max + 1) for n, m in upper]

    def of_atoms(self, crystal: Crystal, weights: FloatArray) -> FloatArray:
        """(n, size): the spectrum around each atom; ``weights`` (n,) of the atoms as neighbours."""
        first, second, distance, vector = pairs(crystal.lattice, crystal.fractional, self.cutoff)
        polar = np.arccos(np.clip(vector[:, 2] / distance, -1, 1))
        azimuth = np.arctan2(vector[:, 1], vector[:, 0])
        radial = radial_functions(self)(distance) * weights[second][:, None, None]
        upper = np.triu_indices(self.n_max)
        parts = []
        for order in range(self.l_max + 1):
            harmonics = np.stack(
                [sph_harm_y(order, m, polar, azimuth) for m in range(-order, order + 1)], axis=1
            )
            terms = radial[:, :, order, None] * harmonics[:, None, :]
            c = np.zeros((len(crystal), self.n_max, 2 * order + 1), dtype=complex)
            np.add.at(c, first, terms)
            p = np.einsum("inm,ikm->ink", c, c.conj()).real
            parts.append(p[:, *upper])
        return np.concatenate(parts, axis=1)


def radial_basis(r: FloatArray, n_max: int, cutoff: float) -> FloatArray:
    """(n_max, m) orthonormal functions g_n on [0, cutoff] with weight r^2, at r (m,)."""
    a = np.arange(1, n_max + 1)
    norm = np.sqrt(2 * cutoff ** (2 * a + 7.0) / ((2 * a + 5) * (2 * a + 6) * (2 * a + 7)))
    phi = (cutoff - r) ** (a[:, None] + 2) / norm[:, None]
    product = (2 * a + 5) * (2 * a + 6) * (2 * a + 7)
    total = a[:, None] + a
    overlap = np.sqrt(product[:, None] * product) / ((5 + total) * (6 + total) * (7 + total))
    values, vectors = np.linalg.eigh(overlap)
    found: FloatArray = vectors @ np.diag(values**-0.5) @ vectors.T @ phi
    return found


@cache
def radial_functions(settings: PowerSpectrum) -> CubicSpline:
    """R_nl as a spline: of distances (m,) it gives (m, n_max, l_max + 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    s = 0.5 * settings.cutoff * (nodes + 1)
    basis = radial_basis(s, settings.n_max, settings.cutoff) * (
        0.5 * settings.cutoff * weights * s**2
    )
    r = np.linspace(0.0, settings.cutoff, _TABLE_POINTS)
    orders = np.arange(settings.l_max + 1)
    x = 2 * settings.alpha * r[:, None] * s
    # exp(-alpha (r^2 + s^2)) i_l(x) taken together, as i_l alone overflows
    damped = np.stack([spherical_in(order, x) for order in orders]) * np.exp(
        -settings.alpha * (r[:, None] ** 2 + s**2)
    )
    smooth = 0.5 * (1 + np.cos(np.pi * r / settings.cutoff))
    table = 4 * np.pi * np.einsum("lrs,ns,r->rnl", damped, basis, smooth)
    return CubicSpline(r, table)


def solid_pieces(settings: PowerSpectrum, intervals: int = 512) -> FloatArray:
    """(intervals, n_max, l_max + 1, 4): R_nl(r) / r^l on equal intervals of r^2 up to cutoff^2 as
    p0 + p1 t + p2 t^2 + p3 t^3, 0 <= t <= 1.

    For c_nlm with solid harmonics r^l Y_lm. Each l is scaled by sqrt(2 sqrt(2) pi / sqrt(2 l + 1)),
    so that orders weigh alike in p.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    s = 0.5 * settings.cutoff * (nodes + 1)
    basis = radial_basis(s, settings.n_max, settings.cutoff) * (
        0.5 * settings.cutoff * weights * s**2
    )
    square = np.linspace(0.0, settings.cutoff**2, intervals + 1)
    r = np.sqrt(square)
    damping = np.exp(-settings.alpha * (square[:, None] + s**2))
    smooth = 0.5 * (1 + np.cos(np.pi * r / settings.cutoff))
    table = np.empty((intervals + 1, settings.n_max, settings.l_max + 1))
    x = 2 * settings.alpha * r[:, None] * s
    for order in range(settings.l_max + 1):
        scale = 4 * np.pi * np.sqrt(2 * np.sqrt(2) * np.pi / np.sqrt(2 * order + 1))
        small = x < 1e-2
        series = (1 + x**2 / (2 * (2 * order + 3))) / factorial2(2 * order + 1)
        bessel = np.where(small, series, spherical_in(order, x) / np.where(small, 1.0, x) ** order)
        table[:, :, order] = (
            scale
            * smooth[:, None]
            * np.einsum("rs,ns,s->rn", bessel * damping, basis, (2 * settings.alpha * s) ** order)
        )
    spline = CubicSpline(np.arange(intervals + 1), table)
    found: FloatArray = np.ascontiguousarray(np.moveaxis(spline.c[::-1], 0, -1))
    return found


def harmonic_norms(l_max: int) -> FloatArray:
    """(l_max + 1, l_max + 1) of l and m: what makes real harmonics of Q_lm = r^(l - m) d^m P_l /
    du^m orthonormal on the sphere.
    """
    found = np.zeros((l_max + 1, l_max + 1))
    for order in range(l_max + 1):
        for m in range(order + 1):
            ratio = math.factorial(order - m) / math.factorial(order + m)
            found[order, m] = math.sqrt((2 * order + 1) / (4 * math.pi) * ratio * (2 if m else 1))
    return found
