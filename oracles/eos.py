"""Equations of state: energies at scaled cells, and the third-order Birch-Murnaghan curve through them.

Birch, Phys. Rev. 71, 809 (1947). Volumes in angstrom^3, energies in eV, moduli in GPa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.eos import EquationOfState
from ase.units import GPa

from campaign.types import FloatArray
from oracles.mechanics import Mechanics


@dataclass(frozen=True)
class Curve:
    """Equilibrium volume (angstrom^3), energy (eV), bulk modulus (GPa), and the root mean square of what the fit leaves (eV)."""

    volume: float
    energy: float
    bulk_modulus: float
    residual: float


def strains(window: float, points: int) -> FloatArray:
    """Linear strains from -window to +window."""
    return np.linspace(-window, window, points)


def fit(volumes: Sequence[float], energies: Sequence[float]) -> Curve:
    """Birch-Murnaghan. Raises ValueError where the energies have no minimum inside the window."""
    equation = EquationOfState(list(volumes), list(energies), eos="birchmurnaghan")
    try:
        volume, energy, modulus = equation.fit(warn=False)
        left = equation.func(np.asarray(volumes), *equation.eos_parameters) - np.asarray(energies)
    except RuntimeError as error:
        raise ValueError(f"no equation of state fits these energies: {error}") from error
    if not min(volumes) < volume < max(volumes):
        raise ValueError(f"the energy has no minimum between {min(volumes):.2f} and {max(volumes):.2f} angstrom^3")
    return Curve(float(volume), float(energy), float(modulus / GPa), float(np.sqrt(np.mean(left**2))))


def scan(mechanics: Mechanics, window: float, points: int) -> Curve:
    """The curve of the crystal that the engine holds, from ``points`` cells with relaxed ions."""
    volumes, energies, edge = [], [], 1.0
    for strain in strains(window, points):
        mechanics.deform(np.eye(3) * ((1 + strain) / edge))
        edge = 1 + strain
        mechanics.relax(cell=False)
        state = mechanics.state()
        volumes.append(state.crystal.volume)
        energies.append(state.energy)
    return fit(volumes, energies)
