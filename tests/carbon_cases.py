"""Carbon's environments and crystals that tests of generators on the tabular form share."""

from __future__ import annotations

import numpy as np

from campaign.crystals.so3 import PowerSpectrum
from campaign.protocols import GenerationContext
from campaign.types import Candidate, LabelledCandidate, Objective, SearchSpace
from generators.cvae.environment import Environment, Spectrum, prototype
from generators.cvae.feasible import SiteLimits
from generators.cvae.free_variables import Batch, batch_of
from generators.cvae.plugin import (
    RandomEnvironment,
    RandomEnvironmentConfig,
)
from generators.cvae.sites import (
    random_condition,
    random_table,
)

CARBON = 6
GRAPHITE = Environment((prototype("graphite"),), {"C-C": 1.872})
LIMITS = SiteLimits((CARBON,), (3,), (1,), atoms=(4, 60), sites=(1, 4))
SPACE = SearchSpace(("C",))
ENERGY = Objective("energy_per_atom", "minimize")


def random_batch(n: int, seed: int, limits: SiteLimits = LIMITS) -> Batch:
    rng = np.random.default_rng(seed)
    return batch_of(
        [random_table(random_condition(limits, rng), (7.0, 11.0), rng) for _ in range(n)],
        limits.species,
    )


def nothing(spectrum: PowerSpectrum) -> Spectrum:
    return Spectrum(spectrum, np.zeros((1, spectrum.size)), (CARBON,))


TARGET = {"prototypes": ["graphite"], "bonds": {"C-C": 1.872}}
QUICK = {"sites": {"atoms": [4, 60], "sites": [1, 4]}, "refine": {"restarts": 2}}


def context(labelled: list[LabelledCandidate] | None = None, **more: object) -> GenerationContext:
    return GenerationContext(space=SPACE, objective=ENERGY, labelled=tuple(labelled or ()), **more)  # type: ignore[arg-type]


def labelled_crystals(n: int) -> list[LabelledCandidate]:
    generator = RandomEnvironment(
        RandomEnvironmentConfig.model_validate({"target": TARGET, **QUICK})
    )
    made = [
        crystal
        for crystal, _ in generator.generate(n, rng=np.random.default_rng(2), context=context())
    ]
    return [
        LabelledCandidate(candidate=Candidate(crystal), values={"energy_per_atom": -7.0 + 0.01 * k})
        for k, crystal in enumerate(made)
    ]
