"""The oracles ``lammps`` and ``lammps_bulk_modulus``: labels at zero temperature from LAMMPS and an
interatomic potential.

A 54-atom cell with its bulk modulus takes about 0.1 s on one core, nearly all of it inside LAMMPS;
time grows linearly with atoms and with relaxation steps. One LAMMPS instance (about 80 MB) lives as
long as the oracle.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from campaign.types import Crystal, Fidelity, FloatArray
from oracles.lammps import potentials
from oracles.lammps.engine import LammpsEngine, missing
from oracles.lammps.kim import KimPotential
from oracles.lammps.potentials import Potential, PotentialFileConfig
from oracles.mechanics import Mechanics, State
from oracles.relaxation import AseMechanics
from oracles.static import Measured, StaticConfig, StaticOracle


class LammpsConfig(StaticConfig):
    """Settings of the labels; the defaults of the bulk modulus reproduce the finite-strain elastic
    protocol to about 0.01 GPa.
    """

    potential: str | PotentialFileConfig = Field(
        "wu_lee_su_2017",
        description="Name of a potential (`oreloop potentials` lists them), or the user's own "
        "file.",
    )
    force_tolerance: float = Field(
        1e-6,
        gt=0,
        description="Norm of all force components (eV/angstrom) at which a relaxation stops.",
    )
    strain: float = Field(
        1e-4,
        gt=0,
        le=0.02,
        description="Linear strain (1) of the cells with relaxed ions whose pressures or "
        "stresses are taken.",
    )


class LammpsBulkModulusConfig(LammpsConfig):
    measure: tuple[Measured, ...] = Field(
        ("bulk_modulus",), description="What is measured beside energy, volume and phase."
    )


class LammpsMechanics:
    """LAMMPS behind the port of the static protocols."""

    def __init__(self, potential: Potential, config: LammpsConfig) -> None:
        self.engine, self._config, self._is_current = LammpsEngine(potential), config, False

    def load(self, crystal: Crystal) -> None:
        self.engine.load(crystal)
        self._is_current = False

    def relax(self, *, cell: bool, pressure: float = 0.0) -> float:
        tolerance, steps = self._config.force_tolerance, self._config.max_steps
        self._is_current = True
        if cell:
            return self.engine.relax_cell(
                force_tolerance=tolerance, max_steps=steps, pressure=pressure
            )
        self.engine.relax_ions(force_tolerance=tolerance, max_steps=steps)
        return 0.0

    def deform(self, gradient: FloatArray) -> None:
        self.engine.deform(gradient)
        self._is_current = False

    def state(self) -> State:
        if not self._is_current:
            self.engine.evaluate()
        engine = self.engine
        forces = engine.forces()
        return State(
            engine.crystal(),
            engine.figures()["pe"],
            forces if forces.size else np.zeros((0, 3)),
            engine.stress(),
        )


class Lammps(StaticOracle):
    """Energy, volume, relaxed crystal and its phase; forces, bulk modulus and elastic tensor where
    asked.
    """

    energy_zero = "free atoms"

    Config: type[LammpsConfig] = LammpsConfig
    config: LammpsConfig

    def __init__(self, config: LammpsConfig) -> None:
        self.config = config
        self.potential = potentials.load(config.potential)

    @staticmethod
    def unavailable() -> str:
        """Why this oracle cannot run here; empty where it can."""
        return missing()

    @property
    def elements(self) -> frozenset[str]:
        return frozenset(self.potential.elements)

    @property
    def level(self) -> Fidelity:
        settings = {
            "potential_sha256": self.potential.sha256,
            "force_tolerance": self.config.force_tolerance,
        }
        return Fidelity(f"lammps-{self.potential.style.split()[0].replace('/', '-')}", settings)

    def make_mechanics(self) -> Mechanics:
        if isinstance(self.potential, KimPotential):
            config = self.config
            return AseMechanics(
                self.potential.calculator(),
                force_tolerance=config.force_tolerance,
                max_steps=config.max_steps,
                residual_force=config.residual_force,
                residual_pressure=config.residual_pressure,
            )
        return LammpsMechanics(self.potential, self.config)


class LammpsBulkModulus(Lammps):
    """The same with the bulk modulus measured by default."""

    Config = LammpsBulkModulusConfig
