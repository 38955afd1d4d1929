"""Surrogate-guided local search: many swap and mutation steps on the model's posterior for each
label that is paid for.

Lineages start from the best labels and from random occupations of labelled crystals' sites. At each
step every lineage draws neighbours (two unlike atoms exchanged, or one site's element changed) and
moves to the one with the highest upper confidence bound, mean + beta deviation, where that is an
improvement; lineages differ in beta, from pure exploitation to exploration. What they passed
through, the most promising first, are the proposals; acquisition decides which of them are
labelled.

One round costs starts x neighbours x steps evaluations of the posterior, about 2 s for 20,000 of
them with 100 labels on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_ndtr

from campaign.crystals.lattice import atomic_volume
from campaign.parameters import Parameters
from campaign.protocols import FittedSurrogate, GenerationContext
from campaign.types import Candidate, Crystal, FloatArray, LabelledCandidate, Proposal
from campaign.units import Standard
from generators.local_search import mutate, swap_unlike
from generators.random_alloy import draw_counts

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 512
_RANDOM_STARTS = 0.5
"""Share (1) of lineages that start from a random occupation."""
_MUTATION = 0.25
"""Share (1) of neighbours that change one site's element; the others swap two."""
_BETAS = (0.0, 0.5, 1.0, 2.0)
"""Weights of the posterior's standard deviation, dealt out among the lineages: from the mean alone
to an upper bound that explores. Ours, as the two shares; no study moved them.
"""


class GuidedSearchConfig(Parameters):
    gone: ClassVar[Mapping[str, Any]] = {
        "random_starts": _RANDOM_STARTS,
        "mutation": _MUTATION,
        "betas": list(_BETAS),
    }

    starts: int = Field(12, ge=1, description="Lineages.")
    steps: int = Field(60, ge=1, description="Steps of each lineage.")
    neighbours: int = Field(24, ge=1, description="Neighbours drawn at each step of a lineage.")


class GuidedSearch:
    Config = GuidedSearchConfig

    def __init__(self, config: GuidedSearchConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """What the lineages passed through; none before there is a model."""
        known = [
            item
            for item in context.labelled
            if context.objective.quantity in item.values
            and not context.space.violation(item.candidate.crystal.symbols)
        ]
        if context.surrogate is None or not known:
            return
        lineages = _Search(self.config, context, rng).run(_starts(known, self.config, context, rng))
        found = {crystal.id: (value, start, crystal) for value, start, crystal in lineages}
        labelled = {item.candidate.id for item in context.labelled} | {
            candidate.id for candidate in context.pending
        }
        ranked = sorted(
            (item for identity, item in found.items() if identity not in labelled),
            key=lambda item: -item[0],
        )
        for _, start, crystal in ranked[:n]:
            yield crystal, Proposal(parents=(start,), condition={"move": "guided"})


def _starts(
    known: Sequence[LabelledCandidate],
    config: GuidedSearchConfig,
    context: GenerationContext,
    rng: np.random.Generator,
) -> list[tuple[str, Crystal]]:
    """The id of a labelled candidate, and the crystal that its lineage begins with: itself, or a
    random occupation of its sites.
    """
    objective, space = context.objective, context.space
    ranked = sorted(
        known,
        key=lambda item: (-objective.gain(item.values[objective.quantity]), item.candidate.id),
    )
    n_random = round(_RANDOM_STARTS * config.starts)
    found = [
        (item.candidate.id, item.candidate.crystal) for item in ranked[: config.starts - n_random]
    ]
    for _ in range(config.starts - len(found)):
        origin = known[int(rng.integers(len(known)))].candidate
        counts = draw_counts(space, len(origin.crystal), rng)
        symbols = rng.permutation(np.repeat(space.elements, counts))
        found.append(
            (
                origin.id,
                reoccupied(
                    origin.crystal,
                    np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8),
                ),
            )
        )
    return found


def reoccupied(crystal: Crystal, numbers: NDArray[np.uint8]) -> Crystal:
    """Other elements on a crystal's sites, its volume scaled by the ratio of the elements' own
    atomic volumes (Vegard).
    """
    ratio = _vegard(numbers) / _vegard(crystal.numbers)
    return Crystal(crystal.lattice * ratio ** (1 / 3), crystal.fractional, numbers)


def _vegard(numbers: NDArray[np.uint8]) -> float:
    return float(np.mean([atomic_volume(chemical_symbols[number]) for number in numbers.tolist()]))


class _Search:
    """Hill climbs side by side on the posterior.

    With several objectives each lineage has random weights of its own, so that together they walk
    along the whole Pareto front.
    """

    def __init__(
        self, config: GuidedSearchConfig, context: GenerationContext, rng: np.random.Generator
    ) -> None:
        assert context.surrogate is not None
        self.config, self.space, self.rng = config, context.space, rng
        self.kinds = np.array(
            [atomic_numbers[element] for element in context.space.elements], dtype=np.uint8
        )
        self.feasibility, self.bounds = context.feasibility, context.bounds
        self.aims = [(context.objective, context.surrogate), *context.further]
        known = [
            [
                item.values[objective.quantity]
                for item in context.labelled
                if objective.quantity in item.values
            ]
            for objective, _ in self.aims
        ]
        self.spreads = [Standard.of(values).spread for values in known]
        self.weights = rng.dirichlet(np.ones(len(self.aims)), size=config.starts)

    def run(self, starts: Sequence[tuple[str, Crystal]]) -> list[tuple[float, str, Crystal]]:
        """What each lineage moved to: its promise (upper bound with weight 1), the id that it began
        with, and the crystal.
        """
        beta = np.resize(np.array(_BETAS), len(starts))
        bases = [crystal for _, crystal in starts]
        occupied = [crystal.numbers for crystal in bases]
        mean, deviation = self._posterior(bases, np.arange(len(starts)))
        best = mean + beta * deviation
        found: list[tuple[float, str, Crystal]] = []
        for _ in range(self.config.steps):
            children = [self._neighbours(numbers) for numbers in occupied]
            owner = np.repeat(np.arange(len(starts)), [len(rows) for rows in children])
            if not len(owner):
                break
            crystals = [
                bases[i].with_numbers(row) for i, rows in enumerate(children) for row in rows
            ]
            mean, deviation = self._posterior(crystals, owner)
            value = mean + beta[owner] * deviation
            for i in range(len(starts)):
                rows = np.flatnonzero(owner == i)
                if len(rows) and value[top := rows[value[rows].argmax()]] > best[i]:
                    best[i], occupied[i] = value[top], crystals[top].numbers
                    found.append(
                        (
                            float(mean[top] + deviation[top]),
                            starts[i][0],
                            reoccupied(bases[i], occupied[i]),
                        )
                    )
        return found

    def _neighbours(self, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(m, atoms): neighbours inside the search space."""
        n_mutated = round(_MUTATION * self.config.neighbours) if len(self.kinds) > 1 else 0
        swapped = swap_unlike(numbers, self.config.neighbours - n_mutated, self.rng)
        drawn = np.concatenate([swapped, mutate(numbers, n_mutated, self.kinds, self.rng)])
        inside: NDArray[np.uint8] = drawn[
            self.space.holds(drawn, self.kinds) & (drawn != numbers).any(1)
        ]
        return inside

    def _posterior(
        self, crystals: Sequence[Crystal], owner: NDArray[np.int64]
    ) -> tuple[FloatArray, FloatArray]:
        """Mean (n,) and standard deviation (n,) of the gain, in standard deviations of the labels,
        as the lineages weigh the objectives.

        The mean is lowered by the logarithms of the chances that bounds hold and that the oracle
        succeeds.
        """
        mean, variance = np.zeros(len(crystals)), np.zeros(len(crystals))
        for k, (objective, surrogate) in enumerate(self.aims):
            weight = self.weights[owner, k] / self.spreads[k]
            for start in range(0, len(crystals), _CHUNK):
                part = slice(start, start + _CHUNK)
                found, deviation = _marginal(surrogate, crystals[part])
                mean[part] += weight[part] * objective.gain(found)
                variance[part] += (weight[part] * deviation) ** 2
        for bound in self.bounds:
            for start in range(0, len(crystals), _CHUNK):
                part = slice(start, start + _CHUNK)
                found, deviation = _marginal(bound.surrogate, crystals[part])
                mean[part] += log_ndtr(
                    bound.sign * (found - bound.value) / np.maximum(deviation, np.finfo(float).tiny)
                )
        if self.feasibility is not None:
            mean += np.log(
                np.clip(
                    self.feasibility.probability([Candidate(crystal) for crystal in crystals]),
                    1e-6,
                    1.0,
                )
            )
        return mean, np.sqrt(variance)


def _marginal(
    surrogate: FittedSurrogate, crystals: Sequence[Crystal]
) -> tuple[FloatArray, FloatArray]:
    posterior = surrogate.posterior([Candidate(crystal) for crystal in crystals])

    def plain(values: Tensor) -> FloatArray:
        found: FloatArray = values.detach().reshape(-1).numpy()
        return found

    return plain(posterior.mean), plain(posterior.variance.clamp_min(0).sqrt())
