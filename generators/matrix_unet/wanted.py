"""What is asked of a conditional generator: formulas, space groups and energies, from the config or
drawn from the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from campaign.crystals.hull import lower_hull
from campaign.parameters import Parameters, Window
from campaign.types import SearchSpace
from generators.formulas import Formula, FormulaText, check_formula, formulas_of
from generators.polymorphs import PolymorphDataset
from generators.wyckoff import SpaceGroup, assignments, check_fits


class WantedConfig(Parameters):
    """Where nothing is given, formulas have the shapes of the labelled ones, space groups come as
    often as there, energies are low.
    """

    formulas: tuple[FormulaText, ...] = Field(
        (), description="Formulas of the primitive cell, such as Ni3Al; drawn where empty."
    )
    space_groups: tuple[SpaceGroup, ...] = Field(
        (),
        description="Numbers of space groups; where empty those that labelled crystals of the "
        "formula's shape have, as the energy asks.",
    )
    energies: tuple[float, ...] = Field(
        (),
        description="Formation energies (eV/atom), such as a schedule from the hull downward; "
        "drawn between the bounds where empty.",
    )
    above: Literal["elements", "hull"] = Field(
        "elements",
        description="What energies are counted from: the elements' crystals, or the hull of the "
        "labelled crystals at each formula.",
    )
    energy_between: Window | None = Field(
        None,
        description="Minimum and maximum formation energy (eV/atom) drawn; the lowest fifth of "
        "the labelled ones by default.",
    )
    every: bool = Field(
        False,
        description="Every combination of formulas, space groups and energies in turn, in "
        "place of random ones.",
    )

    @model_validator(mode="after")
    def _complete(self) -> WantedConfig:
        if self.every and not (self.formulas and self.space_groups and self.energies):
            raise ValueError("every: give formulas, space_groups and energies to combine")
        if self.energy_between is not None and self.energy_between[0] > self.energy_between[1]:
            raise ValueError(
                f"energy_between: expected the lower energy first, got {list(self.energy_between)}"
            )
        return self


@dataclass(frozen=True)
class Wanted:
    """A formula of the primitive cell at a formation energy (eV/atom), in a space group or in any
    that known crystals have.
    """

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
    zero = _zeros(config, data)
    if config.every:
        combined = [
            Wanted(formula, group, start + energy)
            for formula, start in ((formula, zero(formula)) for formula in given)
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
        formula = formulas[int(row)]
        energy = float(rng.choice(config.energies) if config.energies else rng.uniform(low, high))
        found.append(Wanted(formula, _group(formula, config, rng), zero(formula) + energy))
    return found


def _zeros(config: WantedConfig, data: PolymorphDataset) -> Callable[[Formula], float]:
    """What the energies of a formula (eV/atom) are counted from."""
    if config.above == "elements" or not data.items:
        return lambda _: 0.0
    kinds = sorted({number for item in data.items for number in item.formula.numbers})
    known = np.array(
        [_fractions(item.formula, kinds) for item in data.items] + np.eye(len(kinds)).tolist()
    )
    hull = lower_hull(known, np.array([item.energy for item in data.items] + [0.0] * len(kinds)))

    def on_hull(formula: Formula) -> float:
        return (
            float(hull.at(np.array([_fractions(formula, kinds)]))[0])
            if set(formula.numbers) <= set(kinds)
            else 0.0
        )

    return on_hull


def _fractions(formula: Formula, kinds: Sequence[int]) -> list[float]:
    counts = dict(zip(formula.numbers, formula.counts, strict=True))
    return [counts.get(kind, 0) / formula.n_atoms for kind in kinds]


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
    return [
        sorted(
            number for number, count in zip(f.numbers, f.counts, strict=True) for _ in range(count)
        )
        for f in formulas
    ]
