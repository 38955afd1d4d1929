"""Crystals under wanted conditions from any of the trained models, in batches."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from campaign.crystals.neighbours import shortest_distance
from campaign.types import Crystal
from generators.formulas import Formula
from generators.matrix_unet.choice import SiteChoice, in_play
from generators.matrix_unet.matrix import conditions_of, matrices
from generators.matrix_unet.model import MatrixModel, Sampler
from generators.matrix_unet.symmetric_flow import SymmetricFlow, draw_paths, expected_energies
from generators.matrix_unet.symmetric_flow import sample as sample_symmetric
from generators.matrix_unet.wanted import Wanted, numbers_of
from generators.polymorphs import Polymorph, PolymorphDataset
from generators.prototypes import assigned_elements, chemical_distance, substituted
from generators.symmetry import SymmetricCell, group_of_prototype, symmetric_cell
from generators.wyckoff import random_cell

_LARGEST_BATCH, _PAIRS_PER_BATCH = 64, 5_000
_TRIES, _NEAREST = 20, 3
_MOST_STARTS = 16


@dataclass(frozen=True)
class Way:
    """How samples are taken.

    Steps; the sampler of a diffusion model; guidance. Of the equivariant flow: how many starts are
    drawn for each wish, of which one is taken by the energy that it is expected to end at, None for
    as many as sites are in play, at most 16; the share of samples whose sites no known crystal has;
    the factor on the chance of sites for each wish that they were drawn for before; and the share
    of starts that are a known crystal with the same sites, its elements exchanged, at time
    ``recall_time`` of its path, where there is one.
    """

    steps: int = 20
    sampler: Sampler = "euler"
    guidance: float = 1.0
    starts: int | None = None
    exploration: float = 0.1
    repetition: float = 0.1
    recall: float = 0.9
    recall_time: float = 0.95


@dataclass(frozen=True)
class Sample:
    """What came of a wish; no crystal where its cell has no volume or no sites fit.

    ``space_group``: that of the wish, or the one taken. ``prototype``: the sites that were drawn.
    """

    wanted: Wanted
    crystal: Crystal | None
    space_group: int | None = None
    prototype: str | None = None


def generate(
    model: MatrixModel | SymmetricFlow,
    choice: SiteChoice,
    wanted: Sequence[Wanted],
    way: Way,
    rng: np.random.Generator,
    known: PolymorphDataset | None = None,
) -> Iterator[Sample]:
    """One sample of each wish, the smallest cells first, in batches whose memory grows neither with
    their number nor with the cells' size; in the order of the wishes within a batch. Draws from
    ``rng``, which also seeds torch's stream.

    Raises InputError where a wish names no space group and its formula fits none of the known
    crystals' ones.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    starts = Starts(choice, way, Recall.of(known) if known is not None else Recall({}))
    for wishes in _batches(wanted):
        if isinstance(model, SymmetricFlow):
            yield from _symmetric(model, wishes, way, rng, starts)
        else:
            yield from _matrix(model, choice, wishes, way, rng)


def _batches(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    waiting = deque(sorted(wanted, key=lambda wish: wish.formula.n_atoms))
    while waiting:
        width = int(np.clip(_PAIRS_PER_BATCH // waiting[0].formula.n_atoms ** 2, 1, _LARGEST_BATCH))
        yield [waiting.popleft() for _ in range(min(width, len(waiting)))]


def _symmetric(
    model: SymmetricFlow,
    wanted: Sequence[Wanted],
    way: Way,
    rng: np.random.Generator,
    starts: Starts,
) -> Iterator[Sample]:
    drawn = [(row, start) for row, wish in enumerate(wanted) for start in starts.draw(wish, rng)]
    chosen: dict[int, int] = {}
    made: list[Crystal] = []
    if drawn:
        time = np.array([start.time for _, start in drawn])
        here = draw_paths([start.cell for _, start in drawn], model, rng, time).here
        asked = np.array([wanted[row].energy for row, _ in drawn])
        score = model.log_chance(expected_energies(model, here, time), asked, time) + rng.gumbel(
            size=len(drawn)
        )
        for row, group in itertools.groupby(range(len(drawn)), key=lambda k: drawn[k][0]):
            taken = starts.taken[wanted[row].formula]
            chosen[row] = max(
                group,
                key=lambda k: (
                    score[k] + math.log(way.repetition) * taken[drawn[k][1].cell.prototype]
                ),
            )
            taken[drawn[chosen[row]][1].cell.prototype] += 1
        kept = list(chosen.values())
        energy = torch.as_tensor(asked[kept], dtype=torch.float32)
        made = sample_symmetric(
            model, here.taken(kept), time[kept], energy, steps=way.steps, guidance=way.guidance
        )
    crystals = dict(zip(chosen, made, strict=True))
    for row, wish in enumerate(wanted):
        if row in crystals:
            cell = drawn[chosen[row]][1].cell
            yield Sample(wish, crystals[row], cell.space_group, cell.prototype)
        else:
            yield Sample(wish, None, wish.space_group)


@dataclass(frozen=True)
class Start:
    """A cell whose sites a sample will have, and the time on its path at which it begins."""

    cell: SymmetricCell
    time: float


class Starts:
    """Where samples begin. ``drawn``: how often sites were among the starts of each formula, a
    sample's starts counting as one; ``taken``: how often its samples had them.
    """

    def __init__(self, choice: SiteChoice, way: Way, recall: Recall) -> None:
        self._choice, self._way, self._recall = choice, way, recall
        self.drawn: defaultdict[Formula, defaultdict[str, float]] = defaultdict(
            lambda: defaultdict(float)
        )
        self.taken: defaultdict[Formula, Counter[str]] = defaultdict(Counter)
        self._cells: dict[tuple[Formula, str], SymmetricCell | None] = {}

    def draw(self, wanted: Wanted, rng: np.random.Generator) -> list[Start]:
        """As many as ``way`` says; none where no sites fit.

        Sites come by the choice's chances, those drawn before less often. Left to the choice there
        are as many starts as sites are in play: one where known crystals leave no doubt, the most
        where none is known.
        """
        way, formula = self._way, wanted.formula
        options = self._choice.options(formula, wanted.space_group)
        chances = options.chances(wanted.energy, new=rng.random() < way.exploration)
        drawn = self.drawn[formula]
        n = way.starts or int(np.clip(round(in_play(chances)), 1, _MOST_STARTS))
        found: list[Start] = []
        for _ in range(_TRIES + n if options.sites else 0):
            times = np.array([drawn[sites.prototype] for sites in options.sites])
            weights = chances * way.repetition ** (times - times.min())
            sites = options.sites[int(rng.choice(len(weights), p=weights / weights.sum()))]
            key = (formula, sites.prototype)
            if key not in self._cells:
                self._cells[key] = random_cell(
                    sites.space_group, sites.assignment, formula.numbers, 12.0, rng
                )
            cell = self._cells[key]
            if cell is not None:
                drawn[sites.prototype] += 1 / n
                like = (
                    self._recall.nearest(formula, sites.prototype, rng)
                    if rng.random() < way.recall
                    else None
                )
                found.append(Start(cell, 0.0) if like is None else Start(like, way.recall_time))
            if len(found) == n:
                break
        return found


@dataclass(frozen=True)
class Recall:
    """Known crystals by prototype."""

    by_prototype: Mapping[str, Sequence[Polymorph]]

    @classmethod
    def of(cls, data: PolymorphDataset) -> Recall:
        found: defaultdict[str, list[Polymorph]] = defaultdict(list)
        for item in data.items:
            found[item.cell.prototype].append(item)
        return cls(found)

    def nearest(
        self, formula: Formula, prototype: str, rng: np.random.Generator
    ) -> SymmetricCell | None:
        """One of the three nearest in chemistry with these sites, its elements exchanged; None
        where there is none.
        """
        options = []
        for row, item in enumerate(self.by_prototype.get(prototype, ())):
            for symbols in assigned_elements(formula, item.formula):
                options.append((chemical_distance(item.formula, symbols), row, symbols))
        options.sort(key=lambda option: option[:2])
        if not options:
            return None
        _, row, symbols = options[int(rng.integers(min(_NEAREST, len(options))))]
        cell = _symmetric_cell(
            substituted(self.by_prototype[prototype][row].crystal, symbols, formula)
        )
        return (
            cell if cell is not None and cell.space_group == group_of_prototype(prototype) else None
        )


@lru_cache(maxsize=5_000)
def _symmetric_cell(crystal: Crystal) -> SymmetricCell | None:
    return symmetric_cell(crystal, precision=1e-2)


def _matrix(
    model: MatrixModel,
    choice: SiteChoice,
    wanted: Sequence[Wanted],
    way: Way,
    rng: np.random.Generator,
) -> Iterator[Sample]:
    groups = [
        wish.space_group or choice.options(wish.formula).draw_group(wish.energy, rng)
        for wish in wanted
    ]
    conditions = conditions_of(
        numbers_of([wish.formula for wish in wanted]), groups, [wish.energy for wish in wanted]
    )
    made = model.sample(conditions, steps=way.steps, sampler=way.sampler, guidance=way.guidance)
    for wish, group, crystal in zip(wanted, groups, made, strict=True):
        yield Sample(wish, crystal, group)


def modify(
    model: MatrixModel,
    initial: Sequence[Crystal],
    space_groups: Sequence[int],
    differences: Sequence[float],
    way: Way,
    *,
    seed: int,
) -> Iterator[Crystal | None]:
    """Each crystal, in its standard primitive cell, moved toward a space group and an energy lower
    by ``differences`` (eV/atom).
    """
    torch.manual_seed(seed)
    for first in range(0, len(initial), _LARGEST_BATCH):
        part = slice(first, first + _LARGEST_BATCH)
        numbers = [crystal.numbers.tolist() for crystal in initial[part]]
        conditions = conditions_of(numbers, space_groups[part], differences[part])
        yield from model.sample(
            conditions,
            matrices(initial[part]),
            steps=way.steps,
            sampler=way.sampler,
            guidance=way.guidance,
        )


def is_possible(
    crystal: Crystal, least_distance: float, volume_per_atom: tuple[float, float]
) -> str:
    """Why a crystal cannot be: ``distance`` or ``volume``; empty where it can."""
    low, high = volume_per_atom
    if not low <= crystal.volume / len(crystal) <= high:
        return "volume"
    return "distance" if shortest_distance(crystal) < least_distance else ""
