"""Labels at zero temperature by any engine: relax a crystal, then measure what was asked for.

The same protocols for interatomic potentials, MACE and density functional theory, so that levels
differ in their forces alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from ase.units import GPa
from pydantic import Field, model_validator

from campaign.crystals.extent import lone_atoms, not_bulk
from campaign.crystals.lattice import atomic_volume
from campaign.crystals.phases import Phase, fractions
from campaign.parameters import Parameters
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
    enthalpy_at,
)
from oracles import elastic, eos
from oracles.mechanics import Mechanics, State

ELASTIC_TENSOR = Quantity("elastic_tensor", "GPa", (6, 6))
SHEAR_MODULUS = Quantity("shear_modulus", "GPa")
YOUNG_MODULUS = Quantity("young_modulus", "GPa")
PUGH_RATIO = Quantity("pugh_ratio", "1")
BULK_VOIGT, BULK_REUSS = (
    Quantity("bulk_modulus_voigt", "GPa"),
    Quantity("bulk_modulus_reuss", "GPa"),
)
SHEAR_VOIGT, SHEAR_REUSS = (
    Quantity("shear_modulus_voigt", "GPa"),
    Quantity("shear_modulus_reuss", "GPa"),
)
BORN_STABILITY = Quantity("smallest_elastic_eigenvalue", "GPa")

Measured = Literal["forces", "proposed", "bulk_modulus", "elastic_tensor"]
_BY_PHASE = {Phase.FCC: FRACTION_FCC, Phase.HCP: FRACTION_HCP, Phase.BCC: FRACTION_BCC}
_ELASTIC = {
    SHEAR_MODULUS: "shear",
    YOUNG_MODULUS: "young",
    PUGH_RATIO: "pugh",
    BULK_VOIGT: "bulk_voigt",
    BULK_REUSS: "bulk_reuss",
    SHEAR_VOIGT: "shear_voigt",
    SHEAR_REUSS: "shear_reuss",
    BORN_STABILITY: "smallest_eigenvalue",
}
_NOT_IN_THE_LABEL = frozenset(
    {"max_steps", "residual_pressure", "residual_force", "on_phase_change", "largest_modulus_error"}
)
_ROOMY, _GROWN, _STRETCH, _LEAST_RISE, _NO_STRESS = 1.5, 2.0, 0.02, 1e-5, 1e-7
"""A volume in those of the elements' crystals, and in the proposed one's; a linear strain; eV an
atom; GPa.
"""


class StaticConfig(Parameters):
    """What is relaxed, what is measured, and when a label is refused."""

    relax: Literal["cell", "ions", "none"] = Field(
        "cell", description="What is relaxed before anything is measured."
    )
    measure: tuple[Measured, ...] = Field(
        (),
        description="What is measured beside energy, volume and phase; proposed: energy, "
        "forces, stress before relaxation.",
    )
    bulk_modulus_by: Literal["pressure", "elastic_tensor", "equation_of_state"] = Field(
        "pressure",
        description="At uniform strain: pressures of strained cells, Voigt's average of the "
        "elastic tensor, or Birch-Murnaghan.",
    )
    pressure: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Pressure (GPa) at which the cell is relaxed; enthalpies decide where it "
        "is set.",
    )
    strain: float = Field(
        1e-3,
        gt=0,
        le=0.02,
        description="Linear strain (1) of the cells with relaxed ions whose pressures or "
        "stresses are taken.",
    )
    window: float = Field(
        0.02, gt=0, le=0.1, description="Maximum linear strain (1) of the equation of state."
    )
    points: int = Field(7, ge=5, description="Cells of the equation of state.")
    max_steps: int = Field(5000, gt=0, description="Maximum number of steps of one relaxation.")
    residual_pressure: float = Field(
        0.05,
        gt=0,
        description="By how much (GPa) a relaxed cell's stress components may miss the "
        "pressure at most.",
    )
    residual_force: float = Field(
        0.01, gt=0, description="Maximum force component (eV/angstrom) of relaxed ions."
    )
    largest_modulus_error: float = Field(
        0.05,
        gt=0,
        description="Maximum error of a modulus, as a share (1) of it, with which it is a "
        "label; the error is its noise.",
    )
    on_phase_change: Literal["report", "fail"] = Field(
        "report",
        description="A crystal whose phase changes on relaxation is reported as what it "
        "became, or is a failure.",
    )

    @model_validator(mode="after")
    def _is_possible_at_pressure(self) -> StaticConfig:
        if self.pressure and self.relax != "cell":
            raise ValueError(
                f"pressure: {self.pressure:g} GPa needs relax: cell, as only a cell that is "
                "free takes on a pressure"
            )
        if self.pressure and self.bulk_modulus_by == "equation_of_state":
            raise ValueError(
                "bulk_modulus_by: equation_of_state is that at no pressure; with pressure: "
                "take pressure or elastic_tensor"
            )
        return self


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
        if self.config.pressure:
            found += (enthalpy_at(self.config.pressure),)
        if "forces" in measure:
            found += (FORCES, STRESS)
        if "proposed" in measure:
            found += (PROPOSED_ENERGY, PROPOSED_FORCES, PROPOSED_STRESS)
        if "bulk_modulus" in measure:
            found += (BULK_MODULUS,)
        if "elastic_tensor" in measure:
            found += (ELASTIC_TENSOR, *_ELASTIC)
        return found

    @property
    def relaxes_volume(self) -> bool:
        """Not where something is measured of the crystal as proposed."""
        return self.config.relax == "cell" and "proposed" not in self.config.measure

    @property
    def fidelity(self) -> Fidelity:
        config = self.config
        settings = {
            name: value
            for name, value in config.model_dump(mode="json").items()
            if name in StaticConfig.model_fields
        }
        left_out = _NOT_IN_THE_LABEL | (frozenset() if config.pressure else {"pressure"})
        kept = {name: value for name, value in settings.items() if name not in left_out}
        name = f"{self.level.name}-{config.pressure:g}GPa" if config.pressure else self.level.name
        return Fidelity(name, {**kept, **self.level.settings, "protocol": 3})

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if len(crystal) == 0:
            return Evaluation.failed(
                FailureKind.UNPHYSICAL, "the crystal holds no atoms", retryable=False
            )
        engine = self.mechanics
        try:
            engine.load(crystal)
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error), retryable=False)
        proposed = engine.state() if "proposed" in self.config.measure else None
        stress = self._relax(engine)
        ground = engine.state()
        left = self._left(ground, stress)
        if self.config.relax == "cell":
            loose = unbound(engine, crystal, ground, is_relaxed=not left)
            if loose:
                return Evaluation.failed(FailureKind.UNPHYSICAL, loose, retryable=False)
        if left:
            return Evaluation.failed(FailureKind.NOT_CONVERGED, left)
        before, after = _phase(crystal), _phase(ground.crystal)
        if self.config.on_phase_change == "fail" and before != after:
            return Evaluation.failed(
                FailureKind.UNPHYSICAL, f"{before} became {after} on relaxation", retryable=False
            )
        try:
            observations = tuple(self._observations(engine, ground, proposed))
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error))
        return Evaluation(
            observations=observations,
            crystal=ground.crystal if self.config.relax != "none" else None,
        )

    def _relax(self, engine: Mechanics) -> float:
        """By how much (GPa) the stress misses the pressure."""
        if self.config.relax == "cell":
            return engine.relax(cell=True, pressure=self.config.pressure)
        return engine.relax(cell=False) if self.config.relax == "ions" else 0.0

    def _left(self, ground: State, stress: float) -> str:
        """What a relaxation left; empty where it converged."""
        config = self.config
        if config.relax == "none" or (
            stress <= config.residual_pressure and ground.largest_force <= config.residual_force
        ):
            return ""
        return (
            f"after relaxation {stress:.3g} GPa and {ground.largest_force:.3g} eV/angstrom are "
            "left, "
            f"allowed {config.residual_pressure:g} and {config.residual_force:g}"
        )

    def _observations(
        self, engine: Mechanics, ground: State, proposed: State | None
    ) -> Iterator[Observation]:
        """Raises ValueError for a modulus that the engine cannot tell."""
        config, n = self.config, len(ground.crystal)
        phase = fractions(ground.crystal)
        values: dict[Quantity, Any] = {
            ENERGY_PER_ATOM: ground.energy / n,
            VOLUME_PER_ATOM: ground.crystal.volume / n,
        }
        if config.pressure:
            values[enthalpy_at(config.pressure)] = (
                ground.energy + config.pressure * GPa * ground.crystal.volume
            ) / n
        values |= {quantity: phase[kind] for kind, quantity in _BY_PHASE.items()}
        if "forces" in config.measure:
            values |= {FORCES: ground.forces, STRESS: ground.stress}
        if proposed is not None:
            values |= {
                PROPOSED_ENERGY: proposed.energy / n,
                PROPOSED_FORCES: proposed.forces,
                PROPOSED_STRESS: proposed.stress,
            }
        yield from (
            Observation(quantity.name, value, quantity.unit) for quantity, value in values.items()
        )
        yield from self._moduli(engine)

    def _moduli(self, engine: Mechanics) -> Iterator[Observation]:
        """With their errors as noise."""
        config = self.config
        by_tensor = "bulk_modulus" in config.measure and config.bulk_modulus_by == "elastic_tensor"
        if by_tensor or "elastic_tensor" in config.measure:
            tensor = elastic.elastic_tensor(engine, config.strain, config.largest_modulus_error)
            found, errors = elastic.moduli(tensor.value), elastic.moduli_errors(tensor)
            if "elastic_tensor" in config.measure:
                yield Observation(
                    ELASTIC_TENSOR.name,
                    tensor.value,
                    ELASTIC_TENSOR.unit,
                    float(tensor.error.max()),
                )
                for quantity, name in _ELASTIC.items():
                    yield Observation(
                        quantity.name, getattr(found, name), quantity.unit, getattr(errors, name)
                    )
            if by_tensor:
                self._assert_lowest(found.bulk_voigt)
                yield Observation(
                    BULK_MODULUS.name, found.bulk_voigt, BULK_MODULUS.unit, errors.bulk_voigt
                )
        if "bulk_modulus" in config.measure and not by_tensor:
            if config.bulk_modulus_by == "equation_of_state":
                curve = eos.scan(engine, config.window, config.points)
                modulus, error = curve.bulk_modulus, curve.bulk_modulus_error
            else:
                measured = elastic.bulk_modulus(engine, config.strain, config.largest_modulus_error)
                modulus, error = measured.value, measured.error
            self._assert_lowest(modulus)
            yield Observation(BULK_MODULUS.name, modulus, BULK_MODULUS.unit, error)

    def _assert_lowest(self, modulus: float) -> None:
        """Raises ValueError where a cell that is relaxed would gain by another volume."""
        if self.config.relax == "cell" and modulus <= 0:
            raise ValueError(
                f"the bulk modulus of the relaxed cell is {modulus:.3g} GPa, expected more "
                "than 0: its energy is not lowest at its volume; "
                "the potential is rough there or does not reach from atom to atom"
            )


def unbound(engine: Mechanics, proposed: Crystal, ground: State, *, is_relaxed: bool = True) -> str:
    """Why what a crystal with a free cell came to is none, as nothing holds it together; empty
    where something does.

    Atoms out of each other's reach, a cell that doubled around molecules, chains or layers, or, of
    one that is relaxed, an energy that does not rise as the cell is stretched. Without any stress
    the potential may not reach from atom to atom at whatever volume: of bcc Cs neighbours are 5.3
    angstrom apart.
    """
    crystal = ground.crystal
    is_roomy = crystal.volume >= _ROOMY * sum(atomic_volume(symbol) for symbol in crystal.symbols)
    if not is_roomy and float(np.abs(ground.stress).max()) >= _NO_STRESS:
        return ""
    per_atom = (
        f"at {crystal.volume / len(crystal):.4g} angstrom^3 and "
        f"{ground.energy / len(crystal):.4g} eV an atom"
    )
    lone = lone_atoms(crystal) if is_roomy else 0
    if lone:
        return (
            f"the crystal is not bound: {lone} of {len(crystal)} atoms have no neighbour {per_atom}"
        )
    left = not_bulk(crystal) if crystal.volume > _GROWN * proposed.volume else ""
    if left:
        return f"the crystal is not bound: it fell apart into {left} {per_atom}"
    if not is_relaxed:
        return ""
    engine.deform(np.eye(3) * (1 + _STRETCH))
    rise = (engine.state().energy - ground.energy) / len(crystal)
    engine.deform(np.eye(3) / (1 + _STRETCH))
    if rise < _LEAST_RISE:
        return (
            f"the crystal is not bound: to stretch it by {100 * _STRETCH:g} % takes no "
            f"energy ({rise:.1g} eV an atom), {per_atom}"
        )
    return ""


def _phase(crystal: Crystal) -> str:
    """The phase of more than half of the atoms, or ``no one phase``."""
    phase = fractions(crystal)
    kind = max(_BY_PHASE, key=lambda kind: phase[kind])
    return kind.name.lower() if phase[kind] > 0.5 else "no one phase"
