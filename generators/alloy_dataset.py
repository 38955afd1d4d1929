"""The generator ``alloy_dataset``: a fixed table of random orderings, part of which a local search
then improves.

Compositions x random orderings on the parent lattice that a rule in the atomic fractions gives;
then, for a share of them, iterations that label random swaps of unlike atoms around the best
ordering so far and go on from the best of all. After A. D. Naghdi et al. (2024), section 3.2. The
table and each iteration's swaps depend on ``seed`` and on the crystals alone, so a campaign that
was cut off proposes the same ones again. For use with ``acquisition: all``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from campaign.crystals.lattice import ParentLattice, supercell
from campaign.crystals.matching import site_permutations
from campaign.errors import InputError
from campaign.parameters import Parameters
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal
from generators.local_search import swap_unlike
from generators.random_alloy import draw_counts

_DRAWS_PER_COMPOSITION = 200


class LatticeRule(Parameters):
    """A parent lattice, for compositions in which sum(when x atomic fraction) lies above a value;
    without ``when`` for all others.
    """

    lattice: ParentLattice
    when: dict[str, float] = Field(
        default_factory=dict, description="Factors of the atomic fractions (1) by element."
    )
    above: float = 0.0

    def holds(self, fractions: Mapping[str, float]) -> bool:
        return (
            not self.when
            or sum(factor * fractions.get(element, 0.0) for element, factor in self.when.items())
            > self.above
        )


class Improvement(Parameters):
    share: float = Field(0.1, gt=0, le=1, description="Share (1) of the table that is improved.")
    iterations: int = Field(20, ge=1, description="Steps of the local search.")
    swaps: int = Field(20, ge=1, description="Random swaps of unlike atoms labelled in each step.")


class AlloyDatasetConfig(Parameters):
    compositions: int = Field(
        115, ge=1, description="Distinct compositions, uniform in the search space."
    )
    orderings: int = Field(10, ge=1, description="Random orderings of each composition.")
    repeats: tuple[int, int, int] = Field((2, 2, 2), description="Repeats of the two-atom cell.")
    lattices: tuple[LatticeRule, ...] = Field(
        (LatticeRule(lattice="bcc"),), min_length=1, description="The first that holds is taken."
    )
    improve: Improvement | None = Field(
        None, description="The local search; none for random orderings alone."
    )
    seed: int = Field(0, ge=0, description="Of the table and of the swaps.")

    @field_validator("lattices")
    @classmethod
    def _last_holds_always(cls, rules: tuple[LatticeRule, ...]) -> tuple[LatticeRule, ...]:
        if rules[-1].when:
            raise ValueError(
                "lattices: the last rule should have no `when`, so that each composition has a "
                "lattice"
            )
        return rules


@dataclass(frozen=True)
class Row:
    """A crystal of the table: which composition, and whether the local search improves it."""

    crystal: Crystal
    lattice: ParentLattice
    composition: int
    is_improved: bool


class _Labels:
    """Gains by candidate, also of candidates that only equal a labelled one by symmetry, which the
    screens do not let pass twice.
    """

    def __init__(self, context: GenerationContext) -> None:
        objective = context.objective
        self.pending = {candidate.id for candidate in context.pending}
        self.by_id: dict[str, float] = {}
        self._by_ordering: defaultdict[str, dict[bytes, float]] = defaultdict(dict)
        for item in context.labelled:
            if objective.quantity in item.values:
                crystal, gain = (
                    item.candidate.crystal,
                    float(objective.gain(item.values[objective.quantity])),
                )
                self.by_id[item.candidate.id] = gain
                self._by_ordering[crystal.formula].setdefault(crystal.numbers.tobytes(), gain)

    def value(self, crystal: Crystal) -> float | None:
        known = self.by_id.get(crystal.id)
        if known is None and (others := self._by_ordering.get(crystal.formula)):
            forms = (form.tobytes() for form in crystal.numbers[site_permutations(crystal)])
            known = next((others[form] for form in forms if form in others), None)
        return known


class AlloyDataset:
    Config = AlloyDatasetConfig

    def __init__(self, config: AlloyDatasetConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Up to n that have not been tried: first of the table, then the next step of each local
        search.
        """
        tried = {item.candidate.id for item in context.labelled} | {
            candidate.id for candidate in context.pending
        }
        given = 0
        for crystal, proposal in self._wanted(context):
            if given == n:
                return
            if crystal.id not in tried:
                tried.add(crystal.id)
                given += 1
                yield crystal, proposal

    def _wanted(self, context: GenerationContext) -> Iterator[tuple[Crystal, Proposal]]:
        rows = self.table(context)
        for row in rows:
            yield (
                row.crystal,
                Proposal(
                    condition={
                        "set": "random",
                        "composition": row.composition,
                        "lattice": row.lattice,
                    }
                ),
            )
        labels = _Labels(context)
        for row in rows:
            if row.is_improved and labels.value(row.crystal) is not None:
                yield from self._next_step(row, labels)

    def _next_step(self, row: Row, labels: _Labels) -> list[tuple[Crystal, Proposal]]:
        """The step of the local search that waits for labels.

        A step is over when each child or a crystal like it has a label, or some have and none is
        pending: failures do not hold it up.
        """
        assert self.config.improve is not None
        best = row.crystal
        for iteration in range(1, self.config.improve.iterations + 1):
            children = self.swaps(best, iteration)
            values = [labels.value(child) for child in children]
            is_begun = any(child.id in labels.by_id for child in children) and not any(
                child.id in labels.pending for child in children
            )
            if None in values and not is_begun:
                condition = {
                    "set": "search",
                    "base": row.crystal.id,
                    "iteration": iteration,
                    "composition": row.composition,
                }
                return [
                    (child, Proposal(parents=(best.id,), condition=condition)) for child in children
                ]
            known = [
                (value, child)
                for value, child in zip(values, children, strict=True)
                if value is not None
            ]
            top, child = max(known, key=lambda pair: pair[0])
            best_value = labels.value(best)
            best = child if best_value is None or top > best_value else best
        return []

    def table(self, context: GenerationContext) -> list[Row]:
        """Raises InputError where the search space holds fewer compositions than asked for."""
        config, space = self.config, context.space
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 1]))
        n_sites = 2 * math.prod(config.repeats)
        compositions: dict[tuple[int, ...], None] = {}
        for _ in range(_DRAWS_PER_COMPOSITION * config.compositions):
            compositions.setdefault(tuple(int(count) for count in draw_counts(space, n_sites, rng)))
            if len(compositions) == config.compositions:
                break
        else:
            raise InputError(
                f"expected {config.compositions} compositions of {n_sites} atoms, found "
                f"{len(compositions)} in the search space",
                hint="ask for fewer compositions, larger repeats or a wider search space",
            )
        rows: dict[str, Row] = {}
        for index, counts in enumerate(compositions):
            fractions = {
                element: count / n_sites
                for element, count in zip(space.elements, counts, strict=True)
            }
            lattice = next(rule.lattice for rule in config.lattices if rule.holds(fractions))
            for _ in range(config.orderings):
                symbols = rng.permutation(np.repeat(space.elements, counts)).tolist()
                crystal = supercell(lattice, config.repeats, symbols)
                is_improved = (
                    config.improve is not None
                    and len(set(symbols)) > 1
                    and rng.random() < config.improve.share
                )
                rows.setdefault(crystal.id, Row(crystal, lattice, index, is_improved))
        return list(rows.values())

    def swaps(self, crystal: Crystal, iteration: int) -> list[Crystal]:
        """The distinct children of one step, in a fixed order."""
        assert self.config.improve is not None
        rng = np.random.default_rng(
            np.random.SeedSequence([self.config.seed, 2, iteration, int(crystal.id[:16], 16)])
        )
        found = {
            numbers.tobytes(): numbers
            for numbers in swap_unlike(crystal.numbers, self.config.improve.swaps, rng)
        }
        return [crystal.with_numbers(numbers) for numbers in found.values()]
