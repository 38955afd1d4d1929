"""Local search around the best labels: transpositions of unlike atoms and mutations of single
sites.

Without a model it draws neighbours at random, as in A. D. Naghdi et al., "Efficient Autoencoder
Pipeline for Discovering High Entropy Alloys with Molecular Dynamics Data" (2024), section 4.1. With
one it draws many more and keeps those with the highest upper confidence bound. Each child names its
parent, so chains are lineages in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from pydantic import Field

from campaign.parameters import Parameters
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Proposal


class LocalSearchConfig(Parameters):
    parents: int = Field(5, ge=1, description="Best labelled candidates to start from.")
    mutation: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share (1) of neighbours that change one site's element; the others swap two.",
    )
    start_from: Literal["candidate", "relaxed"] = Field(
        "candidate", description="The parent's cell as proposed, or as the oracle relaxed it."
    )
    oversampling: int = Field(
        10, ge=1, description="With a model: neighbours drawn for each one proposed."
    )
    beta: float = Field(
        1.0, ge=0, description="With a model: weight of the posterior's standard deviation."
    )
    use_surrogate: bool = Field(
        True, description="Whether the model, where there is one, chooses among the neighbours."
    )


def swap_unlike(numbers: NDArray[np.uint8], n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(n, atoms): copies of ``numbers`` with one random pair of unlike atoms exchanged; unchanged
    where all are alike.
    """
    children = np.tile(numbers, (n, 1))
    rows = np.arange(n)
    first = rng.integers(len(numbers), size=n)
    chance = rng.random((n, len(numbers))) * (numbers != numbers[first][:, None])
    second = chance.argmax(1)
    children[rows, first], children[rows, second] = numbers[second], numbers[first]
    return children


def mutate(
    numbers: NDArray[np.uint8], n: int, kinds: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(n, atoms): copies of ``numbers`` with one random site given another of the elements
    ``kinds``.
    """
    children = np.tile(numbers, (n, 1))
    site = rng.integers(len(numbers), size=n)
    chance = rng.random((n, len(kinds))) * (kinds != numbers[site][:, None])
    children[np.arange(n), site] = kinds[chance.argmax(1)]
    return children


class LocalSearch:
    Config = LocalSearchConfig

    def __init__(self, config: LocalSearchConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Neighbours of the best labels; none before there are labels."""
        parents = self._parents(context)
        if not parents:
            return
        guided = context.surrogate is not None and self.config.use_surrogate
        n_drawn = n * (self.config.oversampling if guided else 1)
        drawn: dict[str, tuple[Crystal, Proposal]] = {}
        for parent, share in zip(
            parents, np.array_split(np.arange(n_drawn), len(parents)), strict=True
        ):
            for crystal, move in self._neighbours(parent, len(share), rng, context):
                drawn.setdefault(
                    crystal.id,
                    (crystal, Proposal(parents=(parent.candidate.id,), condition={"move": move})),
                )
        children = list(drawn.values())
        if guided and len(children) > n:
            children = self._most_promising(children, n, context)
        yield from children

    def _parents(self, context: GenerationContext) -> list[LabelledCandidate]:
        objective, quantity = context.objective, context.objective.quantity
        known = [item for item in context.labelled if quantity in item.values]
        return sorted(
            known, key=lambda item: (-objective.gain(item.values[quantity]), item.candidate.id)
        )[: self.config.parents]

    def _neighbours(
        self,
        parent: LabelledCandidate,
        n: int,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Iterator[tuple[Crystal, str]]:
        base = (
            parent.relaxed
            if self.config.start_from == "relaxed" and parent.relaxed is not None
            else parent.candidate.crystal
        )
        kinds = np.array(
            [atomic_numbers[element] for element in context.space.elements], dtype=np.uint8
        )
        n_mutated = int(rng.binomial(n, self.config.mutation)) if len(kinds) > 1 else 0
        moves = (
            ("mutation", mutate(base.numbers, n_mutated, kinds, rng)),
            ("swap", swap_unlike(base.numbers, n - n_mutated, rng)),
        )
        for move, children in moves:
            for numbers in children[
                context.space.holds(children, kinds) & (children != base.numbers).any(1)
            ]:
                yield base.with_numbers(numbers), move

    def _most_promising(
        self, children: list[tuple[Crystal, Proposal]], n: int, context: GenerationContext
    ) -> list[tuple[Crystal, Proposal]]:
        assert context.surrogate is not None
        posterior = context.surrogate.posterior([Candidate(crystal) for crystal, _ in children])
        mean, deviation = (
            posterior.mean.reshape(-1).numpy(),
            posterior.variance.clamp_min(0).sqrt().reshape(-1).numpy(),
        )
        bound = context.objective.gain(mean) + self.config.beta * deviation
        return [children[row] for row in np.argsort(-bound, kind="stable")[:n]]
