"""Crystals under wanted conditions from any of the trained models, in batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from campaign.crystals.neighbours import shortest_distance
from campaign.types import Crystal
from generators.formulas import Formula
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.matrix import conditions_of, matrices
from generators.matrix_unet.model import MatrixModel, Sampler
from generators.matrix_unet.symmetric_flow import SymmetricFlow
from generators.matrix_unet.symmetric_flow import sample as sample_symmetric
from generators.matrix_unet.wanted import Wanted, numbers_of
from generators.polymorphs import Polymorph, PolymorphDataset
from generators.prototypes import assigned_elements, chemical_distance, substituted
from generators.symmetry import SymmetricCell, symmetric_cell
from generators.wyckoff import name_of, random_cell

BATCH = 64
_TRIES, _NEAREST = 20, 3
Drawn = defaultdict[Formula, Counter[str]]
"""How often each prototype was drawn for a formula."""


@dataclass(frozen=True)
class Way:
    """How samples are taken.

    Steps; the sampler of a diffusion model; guidance; the share of sites drawn with equal chance; the factor on the chance of sites for
    each time that they were drawn for the formula before; and of the equivariant flow the share of samples that begin at time
    ``recall_time`` from a known crystal with the same sites, its elements exchanged, where there is one.
    """

    steps: int = 20
    sampler: Sampler = "euler"
    guidance: float = 1.0
    exploration: float = 0.1
    repetition: float = 0.2
    recall: float = 0.8
    recall_time: float = 0.85


@dataclass(frozen=True)
class Sample:
    """What came of a wish; no crystal where its cell has no volume or no sites fit. ``prototype``: the sites that were drawn."""

    wanted: Wanted
    crystal: Crystal | None
    prototype: str | None = None


def generate(
    model: MatrixModel | SymmetricFlow,
    choice: SiteChoice,
    wanted: Sequence[Wanted],
    way: Way,
    rng: np.random.Generator,
    known: PolymorphDataset | None = None,
) -> Iterator[Sample]:
    """One sample of each wish, in batches of 64 by size, so that memory does not grow with their number; in the order of the wishes
    within a batch. Draws from ``rng``, which also seeds torch's stream.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    recall = Recall.of(known) if known is not None else Recall({})
    drawn: Drawn = defaultdict(Counter)
    order = np.argsort([wish.formula.n_atoms for wish in wanted], kind="stable")
    for rows in np.array_split(order, max(1, -(-len(wanted) // BATCH))):
        wishes = [wanted[row] for row in rows]
        if isinstance(model, SymmetricFlow):
            yield from _symmetric(model, choice, wishes, way, rng, recall, drawn)
        else:
            yield from _matrix(model, wishes, way)


def _symmetric(
    model: SymmetricFlow, choice: SiteChoice, wanted: Sequence[Wanted], way: Way, rng: np.random.Generator, recall: Recall, drawn: Drawn
) -> Iterator[Sample]:
    cells = [draw_cell(choice, wish, way, rng, drawn[wish.formula]) for wish in wanted]
    begin = []
    for row, (wish, cell) in enumerate(zip(wanted, cells, strict=True)):
        if cell is not None:
            like = recall.nearest(wish, cell.prototype, rng) if rng.random() < way.recall else None
            cells[row] = like or cell
            begin.append(way.recall_time if like is not None else 0.0)
    kept = [cell for cell in cells if cell is not None]
    energy = torch.tensor([wish.energy for wish, cell in zip(wanted, cells, strict=True) if cell is not None], dtype=torch.float32)
    made = iter(sample_symmetric(model, kept, energy, rng, begin=np.array(begin), steps=way.steps, guidance=way.guidance) if kept else [])
    for wish, cell in zip(wanted, cells, strict=True):
        yield Sample(wish, None) if cell is None else Sample(wish, next(made), cell.prototype)


def draw_cell(choice: SiteChoice, wanted: Wanted, way: Way, rng: np.random.Generator, drawn: Counter[str]) -> SymmetricCell | None:
    """Sites by the choice's chances, or with equal chance for a share of ``exploration``, those ``drawn`` before less often; counts them.

    None where none fits the group alone.
    """
    options, chances = choice.probabilities(wanted.formula, wanted.space_group, wanted.energy)
    if not options:
        return None
    names = [name_of(wanted.space_group, wanted.formula.counts, option) for option in options]
    times = np.array([drawn[name] for name in names])
    seldom = way.repetition ** (times - times.min())
    for _ in range(_TRIES):
        weights = (np.ones(len(options)) if rng.random() < way.exploration else chances) * seldom
        row = int(rng.choice(len(options), p=weights / weights.sum()))
        cell = random_cell(wanted.space_group, options[row], wanted.formula.numbers, 12.0, rng)
        if cell is not None:
            drawn[names[row]] += 1
            return cell
    return None


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

    def nearest(self, wanted: Wanted, prototype: str, rng: np.random.Generator) -> SymmetricCell | None:
        """One of the three nearest in chemistry with these sites, its elements exchanged; None where there is none."""
        options = []
        for row, item in enumerate(self.by_prototype.get(prototype, ())):
            if item.formula.shape == wanted.formula.shape and item.cell.space_group == wanted.space_group:
                for symbols in assigned_elements(wanted.formula, item.formula):
                    options.append((chemical_distance(item.formula, symbols), row, symbols))
        options.sort(key=lambda option: option[:2])
        if not options:
            return None
        _, row, symbols = options[int(rng.integers(min(_NEAREST, len(options))))]
        made = substituted(self.by_prototype[prototype][row].crystal, symbols, wanted.formula)
        cell = symmetric_cell(made, precision=1e-2)
        return cell if cell is not None and cell.space_group == wanted.space_group else None


def _matrix(model: MatrixModel, wanted: Sequence[Wanted], way: Way) -> Iterator[Sample]:
    conditions = conditions_of(
        numbers_of([wish.formula for wish in wanted]), [wish.space_group for wish in wanted], [wish.energy for wish in wanted]
    )
    for wish, crystal in zip(wanted, model.sample(conditions, steps=way.steps, sampler=way.sampler, guidance=way.guidance), strict=True):
        yield Sample(wish, crystal)


def modify(
    model: MatrixModel, initial: Sequence[Crystal], space_groups: Sequence[int], differences: Sequence[float], way: Way, *, seed: int
) -> Iterator[Crystal | None]:
    """Each crystal, in its standard primitive cell, moved toward a space group and an energy lower by ``differences`` (eV/atom)."""
    torch.manual_seed(seed)
    for first in range(0, len(initial), BATCH):
        part = slice(first, first + BATCH)
        numbers = [crystal.numbers.tolist() for crystal in initial[part]]
        conditions = conditions_of(numbers, space_groups[part], differences[part])
        yield from model.sample(conditions, matrices(initial[part]), steps=way.steps, sampler=way.sampler, guidance=way.guidance)


def is_possible(crystal: Crystal, least_distance: float, volume_per_atom: tuple[float, float]) -> str:
    """Why a crystal cannot be: ``distance`` or ``volume``; empty where it can."""
    low, high = volume_per_atom
    if not low <= crystal.volume / len(crystal) <= high:
        return "volume"
    return "distance" if shortest_distance(crystal) < least_distance else ""
