"""Harmonic vibrations of crystals: supercells, what counts as a mode, and what its frequencies add up to.

Lattice rows in angstrom; frequencies in THz, an imaginary one as a negative number; energies in eV, temperatures in kelvin.
Frequencies are (q, m): m modes at each of q points of a mesh, whose weights (q,) count the points that symmetry makes equal to it.
"""

from __future__ import annotations

import itertools

import numpy as np
from ase.units import _e, _hplanck, kB
from numpy.typing import NDArray

from campaign.types import FloatArray

EV_PER_THZ = 1e12 * _hplanck / _e
"""Energy of a quantum."""
_NEIGHBOURS = np.array([c for c in itertools.product((-1, 0, 1), repeat=3) if any(c)])


def shortest_vector(lattice: FloatArray) -> float:
    """Of a reduced cell, or one that is near to one: the least distance (angstrom) between an atom and its images."""
    return float(np.linalg.norm(_NEIGHBOURS @ lattice, axis=1).min())


def repeats(lattice: FloatArray, length: float) -> tuple[int, int, int]:
    """The fewest repeats of a reduced cell that leave every image of an atom at least ``length`` (angstrom) away."""
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    most = np.ceil(length / heights).astype(int)
    several = sorted(itertools.product(*(range(1, n + 1) for n in most.tolist())), key=lambda n: (n[0] * n[1] * n[2], max(n), n))
    return next(n for n in several if shortest_vector(lattice * np.array(n)[:, None]) >= length * (1 - 1e-9))


def counted(frequencies: FloatArray, points: FloatArray) -> NDArray[np.bool_]:
    """(q, m) all modes but the three at Gamma that move the crystal as a whole: those nearest to zero there. ``points``: (q, 3)."""
    found = np.ones(frequencies.shape, dtype=bool)
    for at in np.flatnonzero(np.all(points == 0, axis=1)):
        found[at, np.argsort(np.abs(frequencies[at]))[:3]] = False
    return found


def zero_point_energy(frequencies: FloatArray, weights: FloatArray, modes: NDArray[np.bool_]) -> float:
    """eV a cell of the modes (q, m) that are real: sum of h f / 2, averaged over the mesh."""
    quanta = np.where(modes & (frequencies > 0), EV_PER_THZ * frequencies, 0.0)
    return float(weights @ (quanta / 2).sum(1) / weights.sum())


def free_energy(frequencies: FloatArray, weights: FloatArray, modes: NDArray[np.bool_], temperature: float) -> float:
    """eV a cell of the modes (q, m) that are real: sum of h f / 2 + kT ln(1 - exp(-h f / kT)), averaged over the mesh."""
    zero_point = zero_point_energy(frequencies, weights, modes)
    if temperature == 0:
        return zero_point
    thermal = kB * temperature
    quanta = np.where(modes & (frequencies > 0), EV_PER_THZ * frequencies, np.inf)
    return zero_point + float(weights @ (thermal * np.log1p(-np.exp(-quanta / thermal))).sum(1) / weights.sum())
