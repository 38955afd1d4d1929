"""Surrogate-guided local search: many swap and mutation steps on the model's posterior for each label that is paid for.

Lineages start from the best labels and from random occupations of labelled crystals' sites. At each step every lineage draws
neighbours (two unlike atoms exchanged, or one site's element changed) and moves to the one with the highest upper confidence bound,
mean + beta deviation, where that is an improvement; lineages differ in beta, from pure exploitation to exploration. What they passed
through, the most promising first, are the proposals; acquisition decides which of them are labelled.

One round costs starts x neighbours x steps evaluations of the posterior, about 2 s for 20,000 of them with 100 labels on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from campaign.crystals.lattice import atomic_volume
from campaign.protocols import FittedSurrogate, GenerationContext
from campaign.types import Candidate, Crystal, FloatArray, LabelledCandidate, Proposal, SearchSpace
from generators.local_search import mutate, swap_unlike
from generators.random_alloy import draw_counts

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 512


class GuidedSearchConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    starts: int = Field(12, ge=1, description="Lineages.")
    random_starts: float = Field(0.5, ge=0, le=1, description="Share (1) of lineages that start from a random occupation.")
    steps: int = Field(60, ge=1, description="Steps of each lineage.")
    neighbours: int = Field(24, ge=1, description="Neighbours drawn at each step of a lineage.")
    mutation: float = Field(0.25, ge=0, le=1, description="Share (1) of neighbours that change one site's element; the others swap two.")
    betas: tuple[float, ...] = Field(
        (0.0, 0.5, 1.0, 2.0), min_length=1, description="Weights of the posterior's standard deviation, dealt out among the lineages."
    )


class GuidedSearch:
    Config = GuidedSearchConfig

    def __init__(self, config: GuidedSearchConfig) -> None:
        self.config = config

    def generate(self, n: int, *, rng: np.random.Generator, context: GenerationContext) -> Iterator[tuple[Crystal, Proposal]]:
        """What the lineages passed through; none before there is a model."""
        quantity, sign = context.objective.quantity, context.objective.sign
        known = [item for item in context.labelled if quantity in item.values]
        if context.surrogate is None or not known:
            return
        search = _Search(self.config, context.surrogate, sign, context.space, rng)
        lineages = search.run(_starts(known, quantity, sign, self.config, context.space, rng))
        found = {crystal.id: (value, start, crystal) for value, start, crystal in lineages}
        labelled = {item.candidate.id for item in context.labelled} | {candidate.id for candidate in context.pending}
        ranked = sorted((item for identity, item in found.items() if identity not in labelled), key=lambda item: -item[0])
        for _, start, crystal in ranked[:n]:
            yield crystal, Proposal(parents=(start,), condition={"move": "guided"})


def _starts(
    known: Sequence[LabelledCandidate],
    quantity: str,
    sign: int,
    config: GuidedSearchConfig,
    space: SearchSpace,
    rng: np.random.Generator,
) -> list[tuple[str, Crystal]]:
    """The id of a labelled candidate, and the crystal that its lineage begins with: itself, or a random occupation of its sites."""
    ranked = sorted(known, key=lambda item: (-sign * item.values[quantity], item.candidate.id))
    n_random = round(config.random_starts * config.starts)
    found = [(item.candidate.id, item.candidate.crystal) for item in ranked[: config.starts - n_random]]
    for _ in range(config.starts - len(found)):
        origin = known[int(rng.integers(len(known)))].candidate
        counts = draw_counts(space, len(origin.crystal), rng)
        symbols = rng.permutation(np.repeat(space.elements, counts))
        found.append((origin.id, reoccupied(origin.crystal, np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8))))
    return found


def reoccupied(crystal: Crystal, numbers: NDArray[np.uint8]) -> Crystal:
    """Other elements on a crystal's sites, its volume scaled by the ratio of the elements' own atomic volumes (Vegard)."""
    ratio = _vegard(numbers) / _vegard(crystal.numbers)
    return Crystal(crystal.lattice * ratio ** (1 / 3), crystal.fractional, numbers)


def _vegard(numbers: NDArray[np.uint8]) -> float:
    return float(np.mean([atomic_volume(chemical_symbols[number]) for number in numbers.tolist()]))


class _Search:
    """Hill climbs side by side on the posterior."""

    def __init__(
        self, config: GuidedSearchConfig, surrogate: FittedSurrogate, sign: int, space: SearchSpace, rng: np.random.Generator
    ) -> None:
        self.config, self.surrogate, self.sign, self.space, self.rng = config, surrogate, sign, space, rng
        self.kinds = np.array([atomic_numbers[element] for element in space.elements], dtype=np.uint8)

    def run(self, starts: Sequence[tuple[str, Crystal]]) -> list[tuple[float, str, Crystal]]:
        """What each lineage moved to: mean + deviation, the id that it began with, and the crystal."""
        beta = np.resize(np.array(self.config.betas), len(starts))
        bases = [crystal for _, crystal in starts]
        occupied = [crystal.numbers for crystal in bases]
        mean, deviation = self._posterior(bases)
        best = mean + beta * deviation
        found: list[tuple[float, str, Crystal]] = []
        for _ in range(self.config.steps):
            children = [self._neighbours(numbers) for numbers in occupied]
            owner = np.repeat(np.arange(len(starts)), [len(rows) for rows in children])
            if not len(owner):
                break
            crystals = [bases[i].with_numbers(row) for i, rows in enumerate(children) for row in rows]
            mean, deviation = self._posterior(crystals)
            value = mean + beta[owner] * deviation
            for i in range(len(starts)):
                rows = np.flatnonzero(owner == i)
                if len(rows) and value[top := rows[value[rows].argmax()]] > best[i]:
                    best[i], occupied[i] = value[top], crystals[top].numbers
                    found.append((float(mean[top] + deviation[top]), starts[i][0], reoccupied(bases[i], occupied[i])))
        return found

    def _neighbours(self, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(m, atoms): neighbours inside the search space."""
        n_mutated = round(self.config.mutation * self.config.neighbours) if len(self.kinds) > 1 else 0
        swapped = swap_unlike(numbers, self.config.neighbours - n_mutated, self.rng)
        drawn = np.concatenate([swapped, mutate(numbers, n_mutated, self.kinds, self.rng)])
        inside: NDArray[np.uint8] = drawn[self.space.holds(drawn, self.kinds) & (drawn != numbers).any(1)]
        return inside

    def _posterior(self, crystals: Sequence[Crystal]) -> tuple[FloatArray, FloatArray]:
        """Mean (n,), larger is better, and standard deviation (n,), crystal by crystal."""
        means, deviations = [], []
        for start in range(0, len(crystals), _CHUNK):
            mean, deviation = _marginal(self.surrogate, crystals[start : start + _CHUNK])
            means.append(mean)
            deviations.append(deviation)
        return self.sign * np.concatenate(means), np.concatenate(deviations)


def _marginal(surrogate: FittedSurrogate, crystals: Sequence[Crystal]) -> tuple[FloatArray, FloatArray]:
    posterior = surrogate.posterior([Candidate(crystal) for crystal in crystals])

    def plain(values: Tensor) -> FloatArray:
        found: FloatArray = values.detach().reshape(-1).numpy()
        return found

    return plain(posterior.mean), plain(posterior.variance.clamp_min(0).sqrt())
