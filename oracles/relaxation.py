"""Relaxation with any ASE calculator behind the port of the static protocols.

Ions by L-BFGS, then FIRE where that gets stuck; ions and cell together through the logarithm of the
deformation (ASE's FrechetCellFilter) at a hydrostatic pressure. Angstrom, eV, GPa.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS
from ase.units import GPa

from campaign.types import Crystal, FloatArray
from oracles.mechanics import State


class AseMechanics:
    """Holds one crystal under a calculator; ``on_step`` is called with its atoms after each step of
    a relaxation.

    ``force_tolerance``: largest force on an atom (eV/angstrom) at which a relaxation stops;
    ``largest_step`` of an atom in angstrom. ``residual_force`` (eV/angstrom) and
    ``residual_pressure`` (GPa): largest components at which it may stop.
    """

    def __init__(
        self,
        calculator: Calculator,
        *,
        force_tolerance: float,
        max_steps: int,
        largest_step: float = 0.1,
        residual_force: float = math.inf,
        residual_pressure: float = math.inf,
        check: Callable[[Crystal], None] = lambda crystal: None,
    ) -> None:
        self.calculator, self._check = calculator, check
        self._force_tolerance, self._max_steps, self._largest_step = (
            force_tolerance,
            max_steps,
            largest_step,
        )
        self._residual_force, self._residual_pressure = residual_force, residual_pressure
        self.atoms = Atoms()
        self.on_step: Callable[[Atoms], None] = lambda atoms: None

    def load(self, crystal: Crystal) -> None:
        self._check(crystal)
        if np.linalg.det(crystal.lattice) <= 1e-6:
            raise ValueError("the cell's vectors are left-handed or span no volume")
        self.atoms = crystal.atoms
        self.atoms.calc = self.calculator

    def relax(self, *, cell: bool, pressure: float = 0.0) -> float:
        target = (
            FrechetCellFilter(self.atoms, scalar_pressure=pressure * GPa) if cell else self.atoms
        )
        for optimiser in (LBFGS, FIRE):
            steps = optimiser(target, logfile=None, maxstep=self._largest_step)
            steps.attach(lambda: self.on_step(self.atoms))
            for _ in steps.irun(fmax=0.0, steps=self._max_steps // 2):
                if self._is_converged(target, cell=cell, pressure=pressure):
                    break
        return float(np.abs(self.state().stress + pressure * np.eye(3)).max()) if cell else 0.0

    def _is_converged(
        self, target: Atoms | FrechetCellFilter, *, cell: bool, pressure: float
    ) -> bool:
        """By what a label is refused for, too: a filter counts the stress times the volume of one
        atom.
        """
        if np.linalg.norm(target.get_forces(), axis=1).max(initial=0.0) > self._force_tolerance:
            return False
        if np.abs(self.atoms.get_forces()).max(initial=0.0) > self._residual_force:
            return False
        return not cell or bool(
            np.abs(self.atoms.get_stress(voigt=False) / GPa + pressure * np.eye(3)).max()
            <= self._residual_pressure
        )

    def deform(self, gradient: FloatArray) -> None:
        self.atoms.set_cell(self.atoms.cell.array @ gradient, scale_atoms=True)

    def state(self) -> State:
        atoms = self.atoms
        stress = np.asarray(atoms.get_stress(voigt=False)) / GPa
        return State(
            Crystal.from_atoms(atoms),
            float(atoms.get_potential_energy()),
            np.asarray(atoms.get_forces()),
            stress,
        )
