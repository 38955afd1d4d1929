"""What a config says about the target environment, the refinement and the conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ase.data import atomic_numbers
from pydantic import Field, model_validator

from campaign.crystals.so3 import PowerSpectrum
from campaign.errors import InputError
from campaign.parameters import ConfigPath, Former, Formers, Parameters, Window
from campaign.reading.structures import read_structures
from campaign.types import Crystal
from generators.cvae.environment import Environment, prototype, prototypes
from generators.cvae.feasible import Condition, SiteLimits
from generators.cvae.refine import Recipe
from generators.cvae.sites import check_condition
from generators.cvae.table import MOST_SITES
from generators.wyckoff import SpaceGroup

Positive = Annotated[float, Field(gt=0)]


class TargetConfig(Parameters):
    """The environment that every site should have."""

    prototypes: tuple[str, ...] = Field(
        (), description=f"Known crystals by name: {', '.join(prototypes())}."
    )
    files: tuple[ConfigPath, ...] = Field(
        (), description="Structure files, beside the prototypes or in their place."
    )
    bonds: dict[str, float] = Field(
        {},
        description="Longest bond (angstrom) of two elements, such as C-C: 1.872; 1.3 times "
        "the target's shortest where absent.",
    )
    cutoff: float = Field(2.1, gt=0, description="Radius (angstrom) of the power spectrum.")
    alpha: float = Field(1.5, gt=0, description="Width (1/angstrom^2) of the power spectrum.")
    n_max: int = Field(2, ge=1, le=6, description="Radial functions of the power spectrum.")
    l_max: int = Field(4, ge=0, le=8, description="Maximum angular momentum of the power spectrum.")

    @model_validator(mode="after")
    def _known(self) -> TargetConfig:
        if not self.prototypes and not self.files:
            raise ValueError("expected a target: prototypes, such as [graphite], or files")
        for name in self.prototypes:
            try:
                prototype(name)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self

    def environment(self) -> Environment:
        """Raises InputError where the targets have different elements, or atoms of one element
        different numbers of bonds.
        """
        references = [prototype(name) for name in self.prototypes] + [
            _read(path) for path in self.files
        ]
        spectrum = PowerSpectrum(self.cutoff, self.n_max, self.l_max, self.alpha)
        environment = Environment(tuple(references), dict(self.bonds), spectrum)
        assert environment.coordination
        return environment


def _read(path: Path) -> Crystal:
    try:
        entries = list(read_structures(path))
    except InputError as error:
        raise InputError(
            f"cannot read the target {path}: {error.message}", hint=error.hint
        ) from error
    if len(entries) != 1:
        raise InputError(
            f"expected one crystal in the target {path}, found {len(entries)}",
            hint="give each target a file of its own",
        )
    return entries[0].crystal


class RefineConfig(Parameters):
    former: ClassVar[Formers] = {
        "max_loss": Former("largest_loss"),
    }

    variant: Literal["paper", "oreloop"] = Field(
        "oreloop",
        description="paper: AdamW on the target's own spectrum, from each start once; a CVAE's "
        "latent descent takes that spectrum too.",
    )
    steps: int = Field(500, ge=1, description="paper: steps of AdamW.")
    learning_rate: float = Field(
        2e-3, gt=0, description="paper: rate of AdamW, variables of about one."
    )
    restarts: int = Field(
        4,
        ge=0,
        description="oreloop: how often a crystal that is not accepted begins again, moved at "
        "random.",
    )
    again: Literal["shells", "spectra"] = Field(
        "spectra",
        description="First stages of those: distances find bonds at the least cost, spectra "
        "come nearer to the target.",
    )
    volume: Window = Field(
        (6.0, 12.0), description="Minimum and maximum volume per atom (angstrom^3) at each start."
    )
    volumes: tuple[Positive, ...] = Field(
        (),
        description="Volumes per atom (angstrom^3) at which a start that is not accepted is "
        "taken again, before any restart.",
    )
    cutoffs: tuple[tuple[float, float], ...] = Field(
        ((3.0, 1.0),),
        description="Longer radii (angstrom) and widths (1/angstrom^2) of the spectra before "
        "the target's own.",
    )
    max_loss: float = Field(
        5.0,
        gt=0,
        description="Maximum distance S (1) from the target's power spectrum that is accepted.",
    )
    dimension: int = Field(
        3,
        ge=0,
        le=3,
        description="Minimum dimension of the net: 3 for frameworks, 2 for layers, 0 for any.",
    )

    @model_validator(mode="after")
    def _of_the_variant(self) -> RefineConfig:
        foreign = _OF_OURS if self.variant == "paper" else _OF_THE_PAPER
        given = [name for name in foreign if name in self.model_fields_set]
        if given:
            other = "oreloop" if self.variant == "paper" else "paper"
            raise ValueError(
                f"{', '.join(given)}: expected with variant: {other} only, got variant: "
                f"{self.variant}; leave out the one or the other"
            )
        return self

    def recipe(self) -> Recipe:
        return Recipe(
            volume=self.volume,
            volumes=self.volumes,
            cutoffs=self.cutoffs,
            restarts=self.restarts,
            again=self.again,
            largest_loss=self.max_loss,
            dimension=self.dimension,
            variant=self.variant,
            descent_steps=self.steps,
            descent_rate=self.learning_rate,
        )


_OF_OURS = ("restarts", "again", "volumes", "cutoffs")
_OF_THE_PAPER = ("steps", "learning_rate")


class SitesConfig(Parameters):
    """Which space groups and Wyckoff sites crystals are made on."""

    formula: dict[str, int] = Field(
        {},
        description="Atoms of each element in the formula, such as {Si: 1, O: 2}; equal where "
        "absent.",
    )
    space_groups: tuple[SpaceGroup, ...] = Field(
        (), description="Numbers of space groups; 2 to 230 where empty."
    )
    atoms: tuple[int, int] = Field(
        (4, 160), description="Fewest and most atoms of the conventional cell."
    )
    sites: tuple[int, int] = Field(
        (1, 6), description=f"Fewest and most Wyckoff sites, up to {MOST_SITES}."
    )
    given: tuple[tuple[SpaceGroup, tuple[int, ...]], ...] = Field(
        (),
        description="Space groups with their sites, such as [229, [0, 0, 0]]: only these are "
        "taken, each as often. One element only.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> SitesConfig:
        if not 1 <= self.sites[0] <= self.sites[1] <= MOST_SITES:
            raise ValueError(
                f"sites: expected from 1 to {MOST_SITES}, the smaller first, got {list(self.sites)}"
            )
        if not 1 <= self.atoms[0] <= self.atoms[1]:
            raise ValueError(
                f"atoms: expected at least 1, the smaller first, got {list(self.atoms)}"
            )
        return self

    def limits(self, environment: Environment) -> SiteLimits:
        """Raises InputError where the formula has other elements than the target, or a given set of
        sites cannot be.
        """
        species = environment.species
        ratios = {
            atomic_numbers.get(symbol, 0): count for symbol, count in self.formula.items()
        } or dict.fromkeys(species, 1)
        if set(ratios) != set(species):
            raise InputError(
                "formula: expected the elements of the target (atomic numbers "
                f"{list(species)}), got {', '.join(self.formula)}"
            )
        chosen = tuple(ratios[number] for number in species)
        limits = SiteLimits(
            species,
            environment.coordination,
            chosen,
            self.space_groups,
            self.atoms,
            self.sites,
            environment.apart,
        )
        for condition in self.conditions(environment):
            check_condition(condition, limits)
        return limits

    def conditions(self, environment: Environment) -> list[Condition]:
        if self.given and len(environment.species) > 1:
            raise InputError("sites given by number are for targets of one element")
        return [
            (group, tuple((index, environment.species[0]) for index in sorted(sites)))
            for group, sites in self.given
        ]
