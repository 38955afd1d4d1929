"""Guided search: it climbs the model's posterior, stays inside the space, proposes nothing twice,
and follows every aim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal

from campaign.crystals.lattice import supercell
from campaign.protocols import GenerationContext, ModelledBound
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.guided_search import GuidedSearch, GuidedSearchConfig, reoccupied
from generators.random_alloy import RandomAlloy, RandomAlloyConfig
from surrogates.descriptors import alloy

ELEMENTS = ("Cr", "Fe", "Ni")
NAMES = alloy.column_names(ELEMENTS)
SPACE = SearchSpace(ELEMENTS, {}, {"Fe": 0.5, "Ni": 0.5, "Cr": 0.5})


class Known:
    """A model that knows one descriptor column exactly, with a small standard deviation
    everywhere.
    """

    def __init__(self, column: str) -> None:
        self._column = NAMES.index(column)

    def values(self, crystals: list[Crystal]) -> np.ndarray:
        return alloy.describe(crystals, ELEMENTS)[:, self._column]

    def posterior(self, candidates: list[Candidate]) -> GPyTorchPosterior:
        mean = torch.from_numpy(self.values([candidate.crystal for candidate in candidates]))
        return GPyTorchPosterior(
            MultivariateNormal(mean, 1e-6 * torch.eye(len(mean), dtype=torch.float64))
        )


UNLIKE, NICKEL = Known("shell1_Fe-Ni"), Known("fraction_Ni")


def context(**more: Any) -> GenerationContext:
    blank = GenerationContext(space=SPACE, objective=Objective("x", "maximize"))
    generator = RandomAlloy(RandomAlloyConfig(lattices=("bcc",), repeats=(2, 2, 2)))
    crystals = [
        crystal
        for crystal, _ in generator.generate(12, rng=np.random.default_rng(0), context=blank)
    ]
    pairs = zip(crystals, UNLIKE.values(crystals), NICKEL.values(crystals), strict=True)
    labelled = [
        LabelledCandidate(candidate=Candidate(c), values={"x": float(x), "y": float(y)})
        for c, x, y in pairs
    ]
    return replace(blank, labelled=labelled, surrogate=UNLIKE, **more)  # type: ignore[arg-type]


def proposed(given: GenerationContext, n: int = 30, seed: int = 1, **config: Any) -> list[Crystal]:
    generator = GuidedSearch(GuidedSearchConfig(**config))
    return [
        crystal
        for crystal, _ in generator.generate(n, rng=np.random.default_rng(seed), context=given)
    ]


def test_it_finds_the_ordered_cell_that_the_model_promises() -> None:
    """Iron and nickel on the two halves of bcc: every first neighbour is unlike. Random cells reach
    half of that.
    """
    given = context()
    found = proposed(given)
    assert UNLIKE.values(found).max() == pytest.approx(1.0)
    assert max(item.values["x"] for item in given.labelled) < 0.6
    assert UNLIKE.values(found[:1])[0] == UNLIKE.values(found).max(), (
        "the most promising comes first"
    )


def test_it_stays_inside_and_repeats_nothing() -> None:
    given = context()
    found = proposed(given)
    assert all(SPACE.violation(crystal.symbols) == "" for crystal in found)
    assert len({crystal.id for crystal in found}) == len(found) <= 30
    assert [crystal.id for crystal in proposed(given)] == [crystal.id for crystal in found]
    pending = tuple(Candidate(crystal) for crystal in found[:5])
    assert not {crystal.id for crystal in proposed(replace(given, pending=pending))} & {
        item.id for item in pending
    }


def test_children_have_the_volume_of_their_elements() -> None:
    crystal = supercell("bcc", (2, 2, 2), ["Fe"] * 16)
    numbers = np.array([28] * 8 + [26] * 8, dtype=np.uint8)
    wanted = supercell("bcc", (2, 2, 2), ["Ni"] * 8 + ["Fe"] * 8)
    assert reoccupied(crystal, numbers).volume == pytest.approx(wanted.volume)


def test_without_a_model_it_proposes_nothing_and_elements_alone_are_no_start() -> None:
    assert proposed(replace(context(), surrogate=None)) == []
    element = LabelledCandidate(
        candidate=Candidate(supercell("bcc", (1, 1, 1), ["Fe"] * 2)), values={"x": 9.0}
    )
    given = context()
    assert proposed(replace(given, labelled=[*given.labelled, element]))
    assert proposed(replace(given, labelled=[element])) == []


def test_lineages_walk_along_the_front_of_two_objectives() -> None:
    both = proposed(replace(context(), further=((Objective("y", "minimize"), NICKEL),)), 200)
    unlike, nickel = UNLIKE.values(both), NICKEL.values(both)
    assert unlike.max() > 0.8
    assert nickel.min() < 0.1
    assert proposed(context(), 200)
    assert NICKEL.values(proposed(context(), 200)).min() > nickel.min()


def test_bounds_and_chances_of_success_are_heeded() -> None:
    bounded = proposed(replace(context(), bounds=(ModelledBound(NICKEL, -1, 0.26),)), 10)  # type: ignore[arg-type]
    assert NICKEL.values(bounded).max() <= 0.26

    class NoIron:
        hyperparameters: dict[str, Any] = {}  # noqa: RUF012

        def probability(self, candidates: list[Candidate]) -> np.ndarray:
            return np.array(
                [1e-5 if np.mean(item.crystal.numbers == 26) > 0.3 else 1.0 for item in candidates]
            )

    found = proposed(replace(context(), feasibility=NoIron()), 10)
    assert max(np.mean(crystal.numbers == 26) for crystal in found) <= 0.3
