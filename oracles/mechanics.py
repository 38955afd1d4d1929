"""What the protocols of relaxation and strain need of an engine, whatever computes its forces.

Angstrom, eV; stress in GPa, tension positive. A deformation gradient F acts on rows: r -> r F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from campaign.types import Crystal, FloatArray


@dataclass(frozen=True)
class State:
    """A crystal with its energy (eV), forces (n, 3) in eV/angstrom and stress (3, 3) in GPa."""

    crystal: Crystal
    energy: float
    forces: FloatArray
    stress: FloatArray

    @property
    def pressure(self) -> float:
        """GPa."""
        return -float(np.trace(self.stress)) / 3

    @property
    def largest_force(self) -> float:
        """Largest component, eV/angstrom."""
        return float(np.abs(self.forces).max())


class Mechanics(Protocol):
    """An engine that holds one crystal at a time."""

    def load(self, crystal: Crystal) -> None:
        """Hold this crystal. Raises ValueError for an element or cell that cannot be."""
        ...

    def relax(self, *, cell: bool) -> float:
        """Relax the ions, and the cell at zero pressure where asked, as far as the engine gets.

        Returns the largest stress component (GPa) that is left of those that it relaxed; 0 where the cell stays fixed.
        """
        ...

    def deform(self, gradient: FloatArray) -> None:
        """Deform the cell by a gradient (3, 3), ions with it."""
        ...

    def state(self) -> State: ...


def bulk_modulus(mechanics: Mechanics, strain: float) -> float:
    """B = -dP / d ln V in GPa of the crystal that the engine holds, by two cells with edges strained by +-``strain`` and relaxed ions."""
    pressures, edge = [], 1.0
    for wanted in (1 - strain, 1 + strain):
        mechanics.deform(np.eye(3) * (wanted / edge))
        edge = wanted
        mechanics.relax(cell=False)
        pressures.append(mechanics.state().pressure)
    log_volumes = 3 * math.log(1 - strain), 3 * math.log(1 + strain)
    return -(pressures[1] - pressures[0]) / (log_volumes[1] - log_volumes[0])
