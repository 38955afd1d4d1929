"""The oracle ``lammps_bulk_modulus``: relax a cell, then differentiate its pressure.

    B = -dP / d ln V = -(P(+e) - P(-e)) / (ln V(+e) - ln V(-e))

at zero temperature, with edges strained by e = +-0.1 % and ions relaxed in each strained cell. GPa, eV, angstrom.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

from campaign.crystals.phases import Phase, fractions
from campaign.types import (
    BULK_MODULUS,
    ENERGY_PER_ATOM,
    FRACTION_BCC,
    FRACTION_FCC,
    FRACTION_HCP,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    Observation,
)
from oracles.lammps import potentials
from oracles.lammps.engine import LammpsEngine, missing


class BulkModulusConfig(BaseModel):
    """Settings of the cheap protocol; the defaults reproduce the finite-strain elastic protocol to about 0.05 GPa."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    potential: str = Field("wu_lee_su_2017", description="Name of a built-in potential.")
    strain: float = Field(1e-3, gt=0, le=0.02, description="Linear strain of the cell edges (1) on both sides of the relaxed cell.")
    force_tolerance: float = Field(1e-6, gt=0, description="Norm of all force components (eV/angstrom) at which a relaxation stops.")
    max_steps: int = Field(5000, gt=0, description="Most steps of one relaxation.")
    residual_pressure: float = Field(0.05, gt=0, description="Largest pressure component (GPa) of a relaxed cell.")
    residual_force: float = Field(0.01, gt=0, description="Largest force component (eV/angstrom) of a relaxed cell.")


class LammpsBulkModulus:
    """Bulk modulus, energy, volume, relaxed crystal and its phase from LAMMPS.

    A 54-atom cell takes about 0.1 s on one core, nearly all of it inside LAMMPS; time grows linearly with atoms and with
    relaxation steps. One LAMMPS instance (about 80 MB) lives as long as the oracle.
    """

    Config = BulkModulusConfig
    quantities = (BULK_MODULUS, ENERGY_PER_ATOM, VOLUME_PER_ATOM, FRACTION_FCC, FRACTION_HCP, FRACTION_BCC)

    def __init__(self, config: BulkModulusConfig) -> None:
        self.config = config
        self.potential = potentials.load(config.potential)
        self._engine: LammpsEngine | None = None

    @staticmethod
    def unavailable() -> str:
        """Why this oracle cannot run here; empty where it can."""
        return missing()

    @property
    def elements(self) -> frozenset[str]:
        return frozenset(self.potential.elements)

    @property
    def fidelity(self) -> Fidelity:
        settings = self.config.model_dump(exclude={"max_steps", "residual_pressure", "residual_force"})
        return Fidelity("lammps-meam", settings | {"potential_sha256": self.potential.sha256, "protocol": 1})

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if self._engine is None:
            self._engine = LammpsEngine(self.potential, self.potential.species_order)
        engine, config = self._engine, self.config
        try:
            engine.load(crystal)
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error), retryable=False)
        engine.relax_cell(force_tolerance=config.force_tolerance, max_steps=config.max_steps)
        ground = engine.figures()
        pressure = max(abs(ground[name]) for name in ("pxx", "pyy", "pzz"))
        if not (pressure <= config.residual_pressure and ground["fmax"] <= config.residual_force):
            return Evaluation.failed(
                FailureKind.NOT_CONVERGED,
                f"after relaxation {pressure:.3g} GPa and {ground['fmax']:.3g} eV/angstrom are left, "
                f"allowed {config.residual_pressure:g} and {config.residual_force:g}",
            )
        relaxed = engine.crystal()
        modulus = self._bulk_modulus(engine)
        phase = fractions(relaxed)
        values = {
            BULK_MODULUS: modulus,
            ENERGY_PER_ATOM: ground["pe"] / len(crystal),
            VOLUME_PER_ATOM: ground["vol"] / len(crystal),
            FRACTION_FCC: phase[Phase.FCC],
            FRACTION_HCP: phase[Phase.HCP],
            FRACTION_BCC: phase[Phase.BCC],
        }
        observations = tuple(Observation(quantity.name, value, quantity.unit) for quantity, value in values.items())
        return Evaluation(observations=observations, crystal=relaxed)

    def _bulk_modulus(self, engine: LammpsEngine) -> float:
        """GPa, of the relaxed cell that the engine holds."""
        strain, pressures, edge = self.config.strain, [], 1.0
        for sign in (-1, 1):
            wanted = 1 + sign * strain
            engine.scale(wanted / edge)
            edge = wanted
            engine.relax_ions(force_tolerance=self.config.force_tolerance, max_steps=self.config.max_steps)
            pressures.append(engine.figures()["press"])
        log_volumes = 3 * math.log(1 - strain), 3 * math.log(1 + strain)
        return -(pressures[1] - pressures[0]) / (log_volumes[1] - log_volumes[0])
