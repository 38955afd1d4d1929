"""The screen ``local_environment``: refuses crystals whose atoms have not the target's bonds, or
whose net has too few dimensions.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field

from campaign.crystals.topology import dimensions, net_of
from campaign.parameters import Parameters
from campaign.types import Candidate, SearchSpace, Verdict
from generators.cvae.environment import Environment
from generators.cvae.settings import TargetConfig

_NAME = "local_environment"


class LocalEnvironmentConfig(Parameters):
    target: TargetConfig
    dimension: int = Field(
        3,
        ge=0,
        le=3,
        description="Minimum dimension of the net: 3 for frameworks, 2 for layers, 0 for any.",
    )


class LocalEnvironment:
    Config = LocalEnvironmentConfig

    def __init__(self, config: LocalEnvironmentConfig) -> None:
        self.config = config

    @cached_property
    def _environment(self) -> Environment:
        return self.config.target.environment()

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        """Bonds of every atom, then the dimensions of each component of the net."""
        environment, crystal = self._environment, candidate.crystal
        if not set(crystal.numbers.tolist()) <= set(environment.species):
            return Verdict(False, _NAME, "holds elements that the target has not")
        bonds, _ = net_of(crystal, environment.bonds_by_numbers)
        counts = np.bincount(bonds[:, 0], minlength=len(crystal))
        for number, wanted in zip(environment.species, environment.coordination, strict=True):
            other = sorted(set(counts[crystal.numbers == number].tolist()) - {wanted})
            if other:
                return Verdict(
                    False,
                    _NAME,
                    f"{chemical_symbols[number]} has {other[0]} bonds, wanted {wanted}",
                )
        least = min(dimensions(len(crystal), bonds))
        if least < self.config.dimension:
            return Verdict(
                False, _NAME, f"a net of {least} dimensions, wanted {self.config.dimension}"
            )
        return Verdict(True, "")
