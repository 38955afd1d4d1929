"""Harmonic vibrations of crystals: supercells, what counts as a mode, and what its frequencies add
up to.

Lattice rows in angstrom; frequencies in THz, an imaginary one as a negative number; energies in eV,
temperatures in kelvin. Frequencies are (q, m): m modes at each of q points of a mesh, whose weights
(q,) count the points that symmetry makes equal to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase.geometry import minkowski_reduce
from ase.units import _e, _hplanck, kB
from numpy.typing import NDArray

from campaign.types import FloatArray

EV_PER_THZ = 1e12 * _hplanck / _e
"""Energy of a quantum."""


def shortest_vector(lattice: FloatArray) -> float:
    """The least distance (angstrom) between an atom and its images."""
    return float(np.linalg.norm(minkowski_reduce(lattice)[0], axis=1).min())


def supercell(
    lattice: FloatArray,
    rotations: NDArray[np.intp],
    bases: Sequence[NDArray[np.intp]],
    length: float,
) -> NDArray[np.intp]:
    """(3, 3) whole rows S of the smallest cell S lattice that leaves images of an atom ``length``
    (angstrom) apart and has all rotations.

    ``rotations`` (r, 3, 3) turn columns of fractional coordinates. Tried are repeats along the rows
    of the lattice, and along those of ``bases`` (3, 3), such as the conventional cell's.
    """
    least_volume = length**3 / np.sqrt(2)
    tried = []
    for basis in (np.eye(3, dtype=np.intp), *bases):
        heights = 1 / np.linalg.norm(np.linalg.inv(basis @ lattice), axis=0)
        most = int(np.ceil(length / heights.min() - 1e-9))
        tried += [
            np.array(n)[:, None] * basis for n in itertools.product(range(1, most + 1), repeat=3)
        ]
    sizes = np.abs(np.linalg.det(np.array(tried)))
    order = [
        row
        for row in np.argsort(sizes, kind="stable")
        if sizes[row] * abs(np.linalg.det(lattice)) > least_volume * (1 - 1e-6)
    ]
    return next(
        tried[row]
        for row in order
        if is_kept(tried[row], rotations)
        and shortest_vector(tried[row] @ lattice) >= length * (1 - 1e-9)
    )


def is_kept(rows: NDArray[np.intp], rotations: NDArray[np.intp]) -> bool:
    """Whether rotations (r, 3, 3) of fractional coordinates map the lattice of whole rows (3, 3)
    onto itself.
    """
    turned = rows @ np.swapaxes(rotations, 1, 2) @ np.linalg.inv(rows)
    return bool(np.abs(turned - np.round(turned)).max() < 1e-6)


def is_gamma(points: FloatArray) -> NDArray[np.bool_]:
    """(q,) which of fractional q points (q, 3) are Gamma."""
    return np.asarray(np.abs(points - np.round(points)).max(1) < 1e-8)


def counted(frequencies: FloatArray, points: FloatArray) -> NDArray[np.bool_]:
    """(q, m) all modes but the three at Gamma that move the crystal as a whole: those nearest to
    zero there. ``points``: (q, 3).
    """
    found = np.ones(frequencies.shape, dtype=bool)
    for at in np.flatnonzero(is_gamma(points)):
        found[at, np.argsort(np.abs(frequencies[at]))[:3]] = False
    return found


def zero_point_energy(
    frequencies: FloatArray, weights: FloatArray, modes: NDArray[np.bool_]
) -> float:
    """eV a cell of the modes (q, m) that are real: sum of h f / 2, averaged over the mesh."""
    quanta = np.where(modes & (frequencies > 0), EV_PER_THZ * frequencies, 0.0)
    return float(weights @ (quanta / 2).sum(1) / weights.sum())


def free_energy(
    frequencies: FloatArray, weights: FloatArray, modes: NDArray[np.bool_], temperature: float
) -> float:
    """eV a cell of the modes (q, m) that are real: sum of h f / 2 + kT ln(1 - exp(-h f / kT)),
    averaged over the mesh.
    """
    zero_point = zero_point_energy(frequencies, weights, modes)
    if temperature == 0:
        return zero_point
    thermal = kB * temperature
    quanta = np.where(modes & (frequencies > 0), EV_PER_THZ * frequencies, np.inf)
    return zero_point + float(
        weights @ (thermal * np.log1p(-np.exp(-quanta / thermal))).sum(1) / weights.sum()
    )
