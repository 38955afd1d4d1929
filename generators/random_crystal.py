"""The generator ``random_crystal``: random symmetric crystals of drawn or given formulas in drawn
or given space groups.

For each a set of Wyckoff positions that fits is drawn, all with equal chance, then free coordinates
and axes; crystals whose atoms stand too close are drawn again (A. R. Oganov and C. W. Glass, J.
Chem. Phys. 124 (2006) 244704 start their searches so).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from campaign.crystals.neighbours import shortest_distance
from campaign.parameters import Former, Formers, Parameters, Window
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal
from generators.formulas import Formula, FormulaText, check_formula, formulas_of, mean_atomic_volume
from generators.wyckoff import SpaceGroup, assignments, check_fits, spread_cell

_TRIES = 50


class RandomCrystalConfig(Parameters):
    former: ClassVar[Formers] = {
        "min_distance": Former("least_distance"),
    }

    atoms: tuple[int, int] = Field(
        (2, 12), description="Fewest and most atoms in the primitive cell of a drawn formula."
    )
    formulas: tuple[FormulaText, ...] = Field(
        (),
        description="Formulas of the primitive cell, such as Ni3Al; drawn in the search space "
        "where empty.",
    )
    shapes: tuple[tuple[int, ...], ...] = Field(
        (),
        description="Drawn formulas have these numbers of atoms of their elements; any where "
        "empty.",
    )
    space_groups: tuple[SpaceGroup, ...] = Field(
        (), description="Numbers of space groups, drawn with equal chance; all where empty."
    )
    volume: Window = Field(
        (0.9, 1.2), description="Minimum and maximum volume as a multiple (1) of the elements' own."
    )
    min_distance: float = Field(
        0.75, gt=0, description="Shortest distance in units of (volume per atom)^(1/3)."
    )


class RandomCrystal:
    Config = RandomCrystalConfig

    def __init__(self, config: RandomCrystalConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Raises InputError where a formula fits none of the space groups that are asked for."""
        given = [check_formula(formula) for formula in self.config.formulas]
        groups = self.config.space_groups or tuple(range(1, 231))
        if self.config.space_groups:
            for formula in given:
                if not any(assignments(group, formula.counts) for group in groups):
                    check_fits(groups[0], formula.symbols, formula.counts)
        drawn = given or formulas_of(context.space, self.config.atoms, self.config.shapes, rng=rng)
        for _ in range(n):
            found = self._one(drawn, groups, rng)
            if found is not None:
                yield found

    def _one(
        self, formulas: Sequence[Formula], groups: Sequence[int], rng: np.random.Generator
    ) -> tuple[Crystal, Proposal] | None:
        for _ in range(_TRIES):
            formula = formulas[int(rng.integers(len(formulas)))]
            group = groups[int(rng.integers(len(groups)))]
            fitting = assignments(group, formula.counts)
            if not fitting:
                continue
            volume = mean_atomic_volume(formula) * rng.uniform(*self.config.volume)
            chosen = fitting[int(rng.integers(len(fitting)))]
            cell = spread_cell(
                group, chosen, formula.numbers, volume, rng, self.config.min_distance
            )
            if cell is not None and shortest_distance(
                cell.crystal
            ) >= self.config.min_distance * volume ** (1 / 3):
                return cell.crystal, Proposal(
                    condition={"space_group": group, "prototype": cell.prototype}
                )
        return None
