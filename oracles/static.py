"""Labels at zero temperature by any engine: relax a crystal, then measure what was asked for.

The same protocols for interatomic potentials, MACE and density functional theory, so that levels differ in their forces alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from campaign.crystals.phases import Phase, fractions
from campaign.types import (
    BULK_MODULUS,
    ENERGY_PER_ATOM,
    FORCES,
    FRACTION_BCC,
    FRACTION_FCC,
    FRACTION_HCP,
    PROPOSED_ENERGY,
    PROPOSED_FORCES,
    PROPOSED_STRESS,
    STRESS,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    Observation,
    Quantity,
)
from oracles import elastic, eos, mechanics
from oracles.mechanics import Mechanics, State

ELASTIC_TENSOR = Quantity("elastic_tensor", "GPa", (6, 6))
SHEAR_MODULUS = Quantity("shear_modulus", "GPa")
YOUNG_MODULUS = Quantity("young_modulus", "GPa")
PUGH_RATIO = Quantity("pugh_ratio", "1")
BULK_VOIGT, BULK_REUSS = Quantity("bulk_modulus_voigt", "GPa"), Quantity("bulk_modulus_reuss", "GPa")
SHEAR_VOIGT, SHEAR_REUSS = Quantity("shear_modulus_voigt", "GPa"), Quantity("shear_modulus_reuss", "GPa")
BORN_STABILITY = Quantity("smallest_elastic_eigenvalue", "GPa")

Measured = Literal["forces", "proposed", "bulk_modulus", "elastic_tensor"]
_BY_PHASE = {Phase.FCC: FRACTION_FCC, Phase.HCP: FRACTION_HCP, Phase.BCC: FRACTION_BCC}
_ELASTIC = (ELASTIC_TENSOR, SHEAR_MODULUS, YOUNG_MODULUS, PUGH_RATIO, BULK_VOIGT, BULK_REUSS, SHEAR_VOIGT, SHEAR_REUSS, BORN_STABILITY)
_NOT_IN_THE_LABEL = frozenset({"max_steps", "residual_pressure", "residual_force", "on_phase_change"})


class StaticConfig(BaseModel):
    """What is relaxed, what is measured, and when a label is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relax: Literal["cell", "ions", "none"] = Field("cell", description="What is relaxed before anything is measured.")
    measure: tuple[Measured, ...] = Field(
        (),
        description="What is measured beside energy, volume and phase; proposed: energy, forces, stress before relaxation.",
    )
    bulk_modulus_by: Literal["pressure", "elastic_tensor", "equation_of_state"] = Field(
        "pressure",
        description="At uniform strain: pressures of two cells, Voigt's average of the elastic tensor, or Birch-Murnaghan.",
    )
    strain: float = Field(1e-3, gt=0, le=0.02, description="Linear strain (1) of the cells whose pressures or stresses are taken.")
    window: float = Field(0.02, gt=0, le=0.1, description="Largest linear strain (1) of the equation of state.")
    points: int = Field(7, ge=5, description="Cells of the equation of state.")
    max_steps: int = Field(5000, gt=0, description="Most steps of one relaxation.")
    residual_pressure: float = Field(0.05, gt=0, description="Largest stress component (GPa) of a relaxed cell.")
    residual_force: float = Field(0.01, gt=0, description="Largest force component (eV/angstrom) of relaxed ions.")
    on_phase_change: Literal["report", "fail"] = Field(
        "report", description="A crystal whose phase changes on relaxation is reported as what it became, or is a failure."
    )


class StaticOracle(ABC):
    """Base of the oracles on an engine. The engine is made at the first evaluation and kept."""

    config: StaticConfig
    _mechanics: Mechanics | None = None

    @abstractmethod
    def make_mechanics(self) -> Mechanics: ...

    @property
    def mechanics(self) -> Mechanics:
        """The engine, made where there is none yet."""
        if self._mechanics is None:
            self._mechanics = self.make_mechanics()
        return self._mechanics

    @property
    @abstractmethod
    def level(self) -> Fidelity:
        """Name of the level of theory and the engine's own settings that change a label."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        measure = self.config.measure
        found: tuple[Quantity, ...] = (ENERGY_PER_ATOM, VOLUME_PER_ATOM, *_BY_PHASE.values())
        if "forces" in measure:
            found += (FORCES, STRESS)
        if "proposed" in measure:
            found += (PROPOSED_ENERGY, PROPOSED_FORCES, PROPOSED_STRESS)
        if "bulk_modulus" in measure:
            found += (BULK_MODULUS,)
        if "elastic_tensor" in measure:
            found += _ELASTIC
        return found

    @property
    def relaxes_volume(self) -> bool:
        """Not where something is measured of the crystal as proposed."""
        return self.config.relax == "cell" and "proposed" not in self.config.measure

    @property
    def fidelity(self) -> Fidelity:
        settings = {name: value for name, value in self.config.model_dump(mode="json").items() if name in StaticConfig.model_fields}
        kept = {name: value for name, value in settings.items() if name not in _NOT_IN_THE_LABEL}
        return Fidelity(self.level.name, {**kept, **self.level.settings, "protocol": 2})

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if len(crystal) == 0:
            return Evaluation.failed(FailureKind.UNPHYSICAL, "the crystal holds no atoms", retryable=False)
        engine = self.mechanics
        try:
            engine.load(crystal)
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error), retryable=False)
        proposed = engine.state() if "proposed" in self.config.measure else None
        stress = engine.relax(cell=self.config.relax == "cell") if self.config.relax != "none" else 0.0
        ground = engine.state()
        left = self._left(ground, stress)
        if left:
            return Evaluation.failed(FailureKind.NOT_CONVERGED, left)
        before, after = _phase(crystal), _phase(ground.crystal)
        if self.config.on_phase_change == "fail" and before != after:
            return Evaluation.failed(FailureKind.UNPHYSICAL, f"{before} became {after} on relaxation", retryable=False)
        try:
            observations = tuple(self._observations(engine, ground, proposed))
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error))
        return Evaluation(observations=observations, crystal=ground.crystal if self.config.relax != "none" else None)

    def _left(self, ground: State, stress: float) -> str:
        """What a relaxation left; empty where it converged."""
        config = self.config
        if config.relax == "none" or (stress <= config.residual_pressure and ground.largest_force <= config.residual_force):
            return ""
        return (
            f"after relaxation {stress:.3g} GPa and {ground.largest_force:.3g} eV/angstrom are left, "
            f"allowed {config.residual_pressure:g} and {config.residual_force:g}"
        )

    def _observations(self, engine: Mechanics, ground: State, proposed: State | None) -> Iterator[Observation]:
        config, n = self.config, len(ground.crystal)
        phase = fractions(ground.crystal)
        values: dict[Quantity, Any] = {ENERGY_PER_ATOM: ground.energy / n, VOLUME_PER_ATOM: ground.crystal.volume / n}
        values |= {quantity: phase[kind] for kind, quantity in _BY_PHASE.items()}
        if "forces" in config.measure:
            values |= {FORCES: ground.forces, STRESS: ground.stress}
        if proposed is not None:
            values |= {PROPOSED_ENERGY: proposed.energy / n, PROPOSED_FORCES: proposed.forces, PROPOSED_STRESS: proposed.stress}
        needs_tensor = "elastic_tensor" in config.measure or (
            "bulk_modulus" in config.measure and config.bulk_modulus_by == "elastic_tensor"
        )
        found = None
        if needs_tensor:
            tensor = elastic.elastic_tensor(engine, config.strain)
            found = elastic.moduli(tensor)
            if "elastic_tensor" in config.measure:
                figures = (
                    *(tensor, found.shear, found.young, found.pugh, found.bulk_voigt, found.bulk_reuss),
                    *(found.shear_voigt, found.shear_reuss, found.smallest_eigenvalue),
                )
                values |= dict(zip(_ELASTIC, figures, strict=True))
        if "bulk_modulus" in config.measure:
            if found is not None and config.bulk_modulus_by == "elastic_tensor":
                values[BULK_MODULUS] = found.bulk_voigt
            elif config.bulk_modulus_by == "equation_of_state":
                values[BULK_MODULUS] = eos.scan(engine, config.window, config.points).bulk_modulus
            else:
                values[BULK_MODULUS] = mechanics.bulk_modulus(engine, config.strain)
        return (Observation(quantity.name, value, quantity.unit) for quantity, value in values.items())


def _phase(crystal: Crystal) -> str:
    """The phase of more than half of the atoms, or ``no one phase``."""
    phase = fractions(crystal)
    kind = max(_BY_PHASE, key=lambda kind: phase[kind])
    return kind.name.lower() if phase[kind] > 0.5 else "no one phase"
