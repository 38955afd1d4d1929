"""The generator ``prototypes``: known crystals with their elements exchanged and their volume
rescaled.

Two sources: ``labelled``, the labelled crystals whose formula has the wanted shape, nearest in
chemistry first and of those the lowest in energy first; and ``library``, the crystals of the AFLOW
library of prototypes that pymatgen carries (M. J. Mehl et al., Comput. Mater. Sci. 136 (2017) S1).
Elements are near where their Pettifor numbers are (D. G. Pettifor, J. Phys. C 19 (1986) 285, as
pymatgen has them).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from campaign.parameters import Parameters
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal
from generators.formulas import (
    Formula,
    FormulaText,
    check_formula,
    formula_of,
    formulas_of,
    mean_atomic_volume,
)
from generators.prototype_tables import aflow_structures
from generators.symmetry import space_group_of, symmetric_cell
from generators.wyckoff import SpaceGroup


class PrototypesConfig(Parameters):
    source: Literal["labelled", "library"] = Field(
        "labelled", description="Crystals that lend their structure."
    )
    atoms: tuple[int, int] = Field(
        (1, 12), description="Fewest and most atoms in the primitive cell."
    )
    formulas: tuple[FormulaText, ...] = Field(
        (),
        description="Formulas wanted, such as Ni3Al, in cells of one or several of them; drawn "
        "in the search space where empty.",
    )
    shapes: tuple[tuple[int, ...], ...] = Field(
        (),
        description="Drawn formulas have these numbers of atoms of their elements; any where "
        "empty.",
    )
    space_groups: tuple[SpaceGroup, ...] = Field(
        (), description="Only prototypes of these space groups; of any where empty."
    )


class Prototypes:
    Config = PrototypesConfig

    def __init__(self, config: PrototypesConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """None before there are labels, where the source is ``labelled``. Each crystal once."""
        low, high = self.config.atoms
        given = [check_formula(formula) for formula in self.config.formulas]
        multiples = [
            formula.times(n)
            for formula in given
            for n in range(1, max(1, high // formula.n_atoms) + 1)
        ]
        formulas = multiples or formulas_of(
            context.space, self.config.atoms, self.config.shapes, rng=rng
        )
        is_library = self.config.source == "library"
        known = (
            [Known(crystal, formula_of(crystal), name) for name, crystal in library()]
            if is_library
            else _labelled(context)
        )
        known = [item for item in known if low <= len(item.crystal) <= high]
        if self.config.space_groups:
            known = [
                item for item in known if space_group_of(item.crystal) in self.config.space_groups
            ]
        streams = [
            substitutions(formula, known, rng=rng if is_library else None) for formula in formulas
        ]
        order = rng.permutation(len(streams)).tolist()
        for crystal, name in itertools.islice(_in_turns([streams[row] for row in order]), n):
            yield (
                crystal,
                Proposal(condition={"prototype": name})
                if is_library
                else Proposal(parents=(name,)),
            )


@dataclass(frozen=True)
class Known:
    """A crystal that lends its structure. ``gain``: larger is taken first among equally near
    ones.
    """

    crystal: Crystal
    formula: Formula
    name: str
    gain: float = 0.0


def _labelled(context: GenerationContext) -> list[Known]:
    quantity, gain = context.objective.quantity, context.objective.gain
    found = []
    for item in context.labelled:
        crystal = item.relaxed or item.candidate.crystal
        worth = float(gain(item.values[quantity])) if quantity in item.values else -math.inf
        found.append(Known(crystal, formula_of(crystal), item.candidate.id, worth))
    return found


def _in_turns(streams: Sequence[Iterator[tuple[Crystal, str]]]) -> Iterator[tuple[Crystal, str]]:
    waiting = list(streams)
    while waiting:
        for stream in list(waiting):
            item = next(stream, None)
            if item is None:
                waiting.remove(stream)
            else:
                yield item


def substitutions(
    formula: Formula, known: Sequence[Known], *, rng: np.random.Generator | None = None
) -> Iterator[tuple[Crystal, str]]:
    """The known crystals of the formula's shape with its elements, and their names: the nearest
    first, or at random with ``rng``.

    A known crystal of the formula itself is left out, but for one of the library.
    """
    ranked = []
    for item in known:
        if item.formula.shape == formula.shape:
            for symbols in assigned_elements(formula, item.formula):
                distance = (
                    chemical_distance(item.formula, symbols) if rng is None else float(rng.random())
                )
                ranked.append((distance, -item.gain, item.name, item, symbols))
    for distance, _, name, item, symbols in sorted(ranked, key=lambda row: row[:3]):
        if distance > 0:
            yield substituted(item.crystal, symbols, formula), name


def assigned_elements(formula: Formula, other: Formula) -> list[dict[str, str]]:
    """Every way to put the formula's elements in the place of the other's, so that their numbers of
    atoms agree.
    """
    found = []
    for symbols in itertools.permutations(formula.symbols):
        count = dict(zip(formula.symbols, formula.counts, strict=True))
        if tuple(count[symbol] for symbol in symbols) == other.counts:
            found.append(dict(zip(other.symbols, symbols, strict=True)))
    return found


def chemical_distance(formula: Formula, symbols: dict[str, str]) -> float:
    """The difference of Pettifor numbers of the exchanged elements, summed over the atoms and
    divided by their number.
    """
    steps = [abs(pettifor_number(old) - pettifor_number(new)) for old, new in symbols.items()]
    return float(np.average(steps, weights=formula.counts))


@lru_cache(maxsize=120)
def pettifor_number(symbol: str) -> float:
    from pymatgen.core import Element

    return float(Element(symbol).mendeleev_no)


def substituted(crystal: Crystal, symbols: dict[str, str], formula: Formula) -> Crystal:
    """With the elements exchanged, and the volume changed by the ratio of the elements' own
    volumes.
    """
    from ase.data import atomic_numbers

    numbers = [atomic_numbers[symbols[symbol]] for symbol in crystal.symbols]
    ratio = mean_atomic_volume(formula) / mean_atomic_volume(formula_of(crystal))
    return Crystal(crystal.lattice * ratio ** (1 / 3), crystal.fractional, np.array(numbers))


@lru_cache(maxsize=1)
def library() -> tuple[tuple[str, Crystal], ...]:
    """Names and primitive cells, at the volume of the elements' own crystals, of the ordered
    prototypes of all sizes.
    """
    found = []
    for name, crystal in library_as_published():
        formula = formula_of(crystal)
        scale = (mean_atomic_volume(formula) * formula.n_atoms / crystal.volume) ** (1 / 3)
        found.append((name, Crystal(crystal.lattice * scale, crystal.fractional, crystal.numbers)))
    return tuple(found)


@lru_cache(maxsize=1)
def library_as_published() -> tuple[tuple[str, Crystal], ...]:
    """Names and primitive cells of the ordered prototypes."""
    found = {}
    for name, published in aflow_structures():
        structure = published.get_primitive_structure()
        cell = (
            symmetric_cell(Crystal.from_structure(structure), precision=0.01)
            if structure.is_ordered
            else None
        )
        if cell is not None:
            found[name] = cell.crystal
    return tuple(sorted(found.items()))
