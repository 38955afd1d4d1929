"""The oracle ``lammps_finite_temperature``: the isothermal bulk modulus of a crystal that moves,
with its error bar.

    B_T = -(<P(+e)> - <P(-e)>) / (ln V(+e) - ln V(-e))

A run at constant pressure (Nose-Hoover, zero pressure) gives the mean volume at the temperature;
two runs at constant volume (Langevin thermostat), with edges strained by e on both sides of it,
give mean pressures. Standard errors of means by blocks (Flyvbjerg and Petersen, J. Chem. Phys. 91,
461 (1989), with a fixed number of blocks). GPa, eV, angstrom, K, ps.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from pydantic import Field

from campaign.parameters import Parameters
from campaign.types import (
    BULK_MODULUS,
    ENERGY_PER_ATOM,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    FloatArray,
    Observation,
)
from campaign.units import GPA_PER_BAR
from oracles.lammps import potentials
from oracles.lammps.engine import LammpsEngine, missing
from oracles.lammps.potentials import PotentialFileConfig

_SAMPLE_STEPS, _BLOCKS, _LARGEST_SEED = 10, 10, 900_000_000


class FiniteTemperatureConfig(Parameters):
    potential: str | PotentialFileConfig = Field(
        "wu_lee_su_2017",
        description="Name of a potential (`oreloop potentials` lists them), or the user's own "
        "file.",
    )
    temperature: float = Field(300.0, gt=0, description="Temperature (K).")
    strain: float = Field(
        0.005, gt=0, le=0.03, description="Linear strain (1) of the two cells at constant volume."
    )
    time_step: float = Field(0.002, gt=0, le=0.01, description="Time step (ps).")
    equilibration: float = Field(
        10.0,
        gt=0,
        description="Time at constant pressure (ps); the second half gives the mean volume.",
    )
    production: float = Field(
        20.0, gt=0, description="Time at each constant volume (ps), after a tenth of it to settle."
    )


def block_error(samples: FloatArray, blocks: int = _BLOCKS) -> float:
    """Standard error of the mean of correlated samples (n,): the spread of the means of ``blocks``
    equal parts.
    """
    parts = np.array_split(np.asarray(samples, dtype=float), blocks)
    means = np.array([part.mean() for part in parts])
    return float(means.std(ddof=1) / math.sqrt(blocks))


class LammpsFiniteTemperature:
    """Bulk modulus with its standard error, and mean energy and volume, at a temperature.

    The random velocities come from the campaign's seed. A 54-atom cell takes about 10 s on one core
    with the defaults.
    """

    Config = FiniteTemperatureConfig
    quantities = (BULK_MODULUS, ENERGY_PER_ATOM, VOLUME_PER_ATOM)
    energy_zero = "free atoms"

    def __init__(self, config: FiniteTemperatureConfig) -> None:
        self.config = config
        self.potential = potentials.load(config.potential)
        self._engine: LammpsEngine | None = None

    unavailable = staticmethod(missing)

    @property
    def elements(self) -> frozenset[str]:
        return frozenset(self.potential.elements)

    @property
    def fidelity(self) -> Fidelity:
        settings = self.config.model_dump(mode="json", exclude={"potential"})
        return Fidelity(
            "lammps-md", settings | {"potential_sha256": self.potential.sha256, "protocol": 1}
        )

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if self._engine is None:
            self._engine = LammpsEngine(self.potential)
        engine, config = self._engine, self.config
        try:
            engine.load(crystal)
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, str(error), retryable=False)
        engine.relax_cell(force_tolerance=1e-4, max_steps=5000)
        before = engine.figures()["vol"]
        draw = partial(np.random.randint, 1, _LARGEST_SEED)
        t, dt = config.temperature, config.time_step
        engine.commands(
            f"timestep {dt:g}",
            f"velocity all create {2 * t:g} {draw()} mom yes rot no dist gaussian",
            f"fix hold all npt temp {t:g} {t:g} {100 * dt:g} "
            f"{'tri' if engine.is_triclinic else 'aniso'} 0 0 {1000 * dt:g}",
        )
        steps = max(_SAMPLE_STEPS * _BLOCKS, round(config.equilibration / dt))
        _run(engine, steps // 2)
        samples = _run(engine, steps // 2)
        volume, energy = samples[:, 0].mean(), samples[:, 2].mean()
        if not 0.7 < volume / before < 1.4:
            return Evaluation.failed(
                FailureKind.UNPHYSICAL,
                f"at {t:g} K the cell grew by a factor of {volume / before:.2f} from rest",
            )
        engine.commands("unfix hold")
        edge = (volume / engine.figures()["vol"]) ** (1 / 3)
        means, errors, now = [], [], 1.0
        for sign in (-1, 1):
            wanted = edge * (1 + sign * config.strain)
            engine.deform(np.eye(3) * (wanted / now))
            now = wanted
            engine.commands(
                "fix move all nve",
                f"fix hold all langevin {t:g} {t:g} {100 * dt:g} {draw()} zero yes",
            )
            steps = max(_SAMPLE_STEPS * _BLOCKS, round(config.production / dt))
            _run(engine, steps // 10)
            pressures = _run(engine, steps)[:, 1]
            engine.commands("unfix hold", "unfix move")
            means.append(float(pressures.mean()))
            errors.append(block_error(pressures))
        log_ratio = 3 * math.log((1 + config.strain) / (1 - config.strain))
        modulus, noise = -(means[1] - means[0]) / log_ratio, math.hypot(*errors) / log_ratio
        return Evaluation(
            observations=(
                Observation(BULK_MODULUS.name, modulus, BULK_MODULUS.unit, noise=noise),
                Observation(
                    ENERGY_PER_ATOM.name, float(energy) / len(crystal), ENERGY_PER_ATOM.unit
                ),
                Observation(
                    VOLUME_PER_ATOM.name, float(volume) / len(crystal), VOLUME_PER_ATOM.unit
                ),
            )
        )


def _run(engine: LammpsEngine, steps: int) -> FloatArray:
    """Run and sample: (n, 3) volume (angstrom^3), pressure (GPa) and potential energy (eV), every
    ten steps.
    """
    engine.commands(
        "variable vol equal vol",
        "variable pe equal pe",
        "variable press equal press",
        f"fix record all vector {_SAMPLE_STEPS} v_vol v_press v_pe",
        f"run {steps - steps % _SAMPLE_STEPS} post no",
    )
    n = steps // _SAMPLE_STEPS
    found = np.array(
        [
            [engine.lmp.extract_fix("record", 0, 2, row, column) for column in range(3)]
            for row in range(n)
        ]
    )
    engine.commands("unfix record")
    found[:, 1] *= GPA_PER_BAR
    return found
