"""What is asked of a conditional generator: formulas, space groups and energies, from the config or drawn from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from campaign.parameters import Window
from campaign.types import SearchSpace
from generators.formulas import Formula, FormulaText, check_formula, formulas_of
from generators.polymorphs import PolymorphDataset
from generators.wyckoff import SpaceGroup, assignments, check_fits


class WantedConfig(BaseModel):
    """Where nothing is given, formulas have the shapes of the labelled ones, space groups come as often as there, energies are low."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    formulas: tuple[FormulaText, ...] = Field((), description="Formulas of the primitive cell, such as Ni3Al; drawn where empty.")
    space_groups: tuple[SpaceGroup, ...] = Field(
        (), description="Numbers of space groups; where empty those that labelled crystals of the formula's shape have, as the energy asks."
    )
    energies: tuple[float, ...] = Field(
        (), description="Formation energies (eV/atom), such as a schedule from the hull downward; drawn between the bounds where empty."
    )
    energy_between: Window | None = Field(
        None, description="Least and largest formation energy (eV/atom) drawn; the lowest fifth of the labelled ones by default."
    )
    every: bool = Field(False, description="Every combination of formulas, space groups and energies in turn, in place of random ones.")

    @model_validator(mode="after")
    def _complete(self) -> WantedConfig:
        if self.every and not (self.formulas and self.space_groups and self.energies):
            raise ValueError("every: give formulas, space_groups and energies to combine")
        if self.energy_between is not None and self.energy_between[0] > self.energy_between[1]:
            raise ValueError(f"energy_between: expected the lower energy first, got {list(self.energy_between)}")
        return self


@dataclass(frozen=True)
class Wanted:
    """A formula of the primitive cell at a formation energy (eV/atom), in a space group or in any that known crystals have."""

    formula: Formula
    space_group: int | None
    energy: float


def draw(
    config: WantedConfig,
    n: int,
    data: PolymorphDataset,
    space: SearchSpace,
    rng: np.random.Generator,
    done: int = 0,
) -> list[Wanted]:
    """n of them; with ``every`` the n that follow the ``done`` ones that were asked for before.

    Raises InputError where a formula fits none of the space groups.
    """
    given = [check_formula(formula) for formula in config.formulas]
    if config.every:
        combined = [
            Wanted(formula, group, energy)
            for formula in given
            for group in config.space_groups
            if assignments(group, formula.counts)
            for energy in config.energies
        ]
        if not combined:
            check_fits(config.space_groups[0], given[0].symbols, given[0].counts)
        return [combined[(done + k) % len(combined)] for k in range(n)]
    shapes = sorted({item.formula.shape for item in data.items})
    atoms = (min(map(sum, shapes)), max(map(sum, shapes))) if shapes else (2, 8)
    formulas = given or formulas_of(space, atoms, shapes, rng=rng)
    low, high = config.energy_between or _lowest_fifth(data)
    found = []
    for row in rng.integers(len(formulas), size=n):
        energy = float(rng.choice(config.energies) if config.energies else rng.uniform(low, high))
        found.append(Wanted(formulas[int(row)], _group(formulas[int(row)], config, rng), energy))
    return found


def _lowest_fifth(data: PolymorphDataset) -> tuple[float, float]:
    energies = [item.energy for item in data.items]
    return (float(min(energies)), float(np.quantile(energies, 0.2))) if energies else (-1.0, 0.0)


def _group(formula: Formula, config: WantedConfig, rng: np.random.Generator) -> int | None:
    """One that the formula fits of those given, with equal chance."""
    if not config.space_groups:
        return None
    fitting = [group for group in config.space_groups if assignments(group, formula.counts)]
    if not fitting:
        check_fits(config.space_groups[0], formula.symbols, formula.counts)
    return int(rng.choice(fitting))


def numbers_of(formulas: Sequence[Formula]) -> list[list[int]]:
    """The elements of each cell's atoms by rising atomic number, as standard cells have them."""
    return [sorted(number for number, count in zip(f.numbers, f.counts, strict=True) for _ in range(count)) for f in formulas]
