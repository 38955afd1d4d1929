"""Equations of state: energies at scaled cells, and the third-order Birch-Murnaghan curve through
them.

Birch, Phys. Rev. 71, 809 (1947). Volumes in angstrom^3, energies in eV, moduli in GPa.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.eos import EquationOfState
from ase.units import GPa

from campaign.types import FloatArray
from oracles.mechanics import Mechanics


@dataclass(frozen=True)
class Curve:
    """Equilibrium volume (angstrom^3), energy (eV), bulk modulus and its error (GPa), root mean
    square of what the fit leaves (eV).

    The error is the jackknife's, where it was asked for: how the modulus changes as one point after
    the other is left out.
    """

    volume: float
    energy: float
    bulk_modulus: float
    residual: float
    bulk_modulus_error: float | None = None


def strains(window: float, points: int) -> FloatArray:
    """Linear strains from -window to +window."""
    return np.linspace(-window, window, points)


def fit(volumes: Sequence[float], energies: Sequence[float]) -> Curve:
    """Birch-Murnaghan. Raises ValueError where the energies have no minimum inside the window."""
    curve = _fit(volumes, energies)
    if not min(volumes) < curve.volume < max(volumes):
        raise ValueError(
            f"the energy has no minimum between {min(volumes):.2f} and {max(volumes):.2f} "
            "angstrom^3"
        )
    return curve


def jackknife(volumes: Sequence[float], energies: Sequence[float]) -> float:
    """Standard error (GPa) of the bulk modulus of n volumes from the curves of n - 1. Raises
    ValueError where one does not fit.
    """
    n = len(volumes)
    without = [[k for k in range(n) if k != i] for i in range(n)]
    moduli = np.array(
        [
            _fit([volumes[k] for k in kept], [energies[k] for k in kept]).bulk_modulus
            for kept in without
        ]
    )
    return math.sqrt((n - 1) * float(moduli.var()))


def _fit(volumes: Sequence[float], energies: Sequence[float]) -> Curve:
    equation = EquationOfState(list(volumes), list(energies), eos="birchmurnaghan")
    try:
        volume, energy, modulus = equation.fit(warn=False)
        left = equation.func(np.asarray(volumes), *equation.eos_parameters) - np.asarray(energies)
    except RuntimeError as error:
        raise ValueError(f"no equation of state fits these energies: {error}") from error
    return Curve(
        float(volume), float(energy), float(modulus / GPa), float(np.sqrt(np.mean(left**2)))
    )


def scan(mechanics: Mechanics, window: float, points: int) -> Curve:
    """The curve of the crystal that the engine holds, with the modulus' error, from ``points``
    cells with relaxed ions.
    """
    volumes, energies, edge = [], [], 1.0
    for strain in strains(window, points):
        mechanics.deform(np.eye(3) * ((1 + strain) / edge))
        edge = 1 + strain
        mechanics.relax(cell=False)
        state = mechanics.state()
        volumes.append(state.crystal.volume)
        energies.append(state.energy)
    return replace(fit(volumes, energies), bulk_modulus_error=jackknife(volumes, energies))
