"""The generator ``perturbed_alloy``: random alloys off their lattice sites, as data for models of
energies and forces.

Each crystal has its own size, a strain of its cell, and displacements from a normal distribution
whose width is drawn between two bounds, uniform in its logarithm: many crystals near their sites
and some far from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydantic import Field, model_validator

from campaign.crystals.lattice import ParentLattice, supercell
from campaign.parameters import Parameters, Window
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal
from generators.random_alloy import draw_counts


class PerturbedAlloyConfig(Parameters):
    lattices: tuple[ParentLattice, ...] = Field(
        ("bcc", "fcc"), min_length=1, description="Parent lattices, drawn with equal chance."
    )
    repeats: tuple[tuple[int, int, int], ...] = Field(
        ((2, 1, 1), (2, 2, 1), (2, 2, 2), (3, 2, 2)),
        min_length=1,
        description="Repeats of the two-atom cell, drawn with equal chance.",
    )
    displacement: Window = Field(
        (0.01, 0.2), description="Minimum and maximum width (angstrom) of the displacements."
    )
    strain: float = Field(0.015, ge=0, description="Width (1) of the components of the strain.")

    @model_validator(mode="after")
    def _ordered(self) -> PerturbedAlloyConfig:
        if not 0 < self.displacement[0] <= self.displacement[1]:
            raise ValueError(
                "displacement: expected two widths above 0, the smaller first, got "
                f"{list(self.displacement)}"
            )
        return self


class PerturbedAlloy:
    Config = PerturbedAlloyConfig

    def __init__(self, config: PerturbedAlloyConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        low, high = (math.log(width) for width in self.config.displacement)
        for _ in range(n):
            lattice = self.config.lattices[rng.integers(len(self.config.lattices))]
            repeats = self.config.repeats[rng.integers(len(self.config.repeats))]
            counts = draw_counts(context.space, 2 * math.prod(repeats), rng)
            ideal = supercell(
                lattice,
                repeats,
                rng.permutation(np.repeat(context.space.elements, counts)).tolist(),
            )
            width = math.exp(rng.uniform(low, high))
            strain = rng.normal(0.0, self.config.strain, (3, 3))
            cell = ideal.lattice @ (np.eye(3) + (strain + strain.T) / 2)
            moved = ideal.fractional @ cell + rng.normal(0.0, width, (len(ideal), 3))
            crystal = Crystal(cell, moved @ np.linalg.inv(cell), ideal.numbers)
            yield crystal, Proposal(condition={"lattice": lattice, "displacement": round(width, 4)})
