"""The oracle ``lennard_jones``: an energy in closed form, for trying things out and for tests.

E = 1/2 sum over pairs of 4 epsilon [(sigma/r)^12 - (sigma/r)^6], truncated and shifted to zero at
the cutoff; sigma of a pair is the mean of its elements' covalent diameters divided by 2^(1/6), so
that the minimum lies at touching spheres. eV, angstrom.
"""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from pydantic import Field

from campaign.crystals.neighbours import pairs
from campaign.parameters import Parameters
from campaign.types import ENERGY_PER_ATOM, Crystal, Evaluation, Fidelity


class LennardJonesConfig(Parameters):
    epsilon: float = Field(0.1, gt=0, description="Depth of the pair minimum (eV).")
    cutoff: float = Field(7.0, gt=0, description="Cutoff (angstrom).")


class LennardJones:
    Config = LennardJonesConfig
    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, config: LennardJonesConfig) -> None:
        self.config = config

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity("lennard-jones", self.config.model_dump())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        first, second, distance, _ = pairs(crystal.lattice, crystal.fractional, self.config.cutoff)
        diameter = covalent_radii[crystal.numbers[first]] + covalent_radii[crystal.numbers[second]]
        ratio = (diameter / distance) ** 6 / 2
        edge = (diameter / self.config.cutoff) ** 6 / 2
        energy = 2 * self.config.epsilon * float(np.sum((ratio**2 - ratio) - (edge**2 - edge)))
        return Evaluation.single(ENERGY_PER_ATOM, energy / len(crystal))
