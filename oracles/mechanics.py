"""What the protocols of relaxation and strain need of an engine, whatever computes its forces.

Angstrom, eV; stress in GPa, tension positive. A deformation gradient F acts on rows: r -> r F.
"""

from __future__ import annotations

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

    def relax(self, *, cell: bool, pressure: float = 0.0) -> float:
        """Relax the ions, and the cell at ``pressure`` (GPa) where asked, as far as the engine
        gets.

        Returns by how much (GPa) the stress components that it relaxed miss that pressure at most;
        0 where the cell stays fixed.
        """
        ...

    def deform(self, gradient: FloatArray) -> None:
        """Deform the cell by a gradient (3, 3), ions with it."""
        ...

    def state(self) -> State: ...
