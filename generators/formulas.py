"""Formulas of a cell: read from text, or all those that a search space and a number of atoms allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd
from typing import Annotated

import numpy as np
from ase.data import atomic_numbers
from pydantic import AfterValidator

from campaign.crystals.lattice import atomic_volume
from campaign.errors import InputError
from campaign.types import Crystal, SearchSpace

MOST_ATOMS = 60


@dataclass(frozen=True, order=True)
class Formula:
    """Elements by symbol, in alphabetical order, and how many atoms each has in a cell."""

    symbols: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def n_atoms(self) -> int:
        return sum(self.counts)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        return tuple(atomic_numbers[symbol] for symbol in self.symbols)

    @property
    def reduced(self) -> Formula:
        """Of the smallest whole numbers."""
        divisor = reduce(gcd, self.counts)
        return Formula(self.symbols, tuple(count // divisor for count in self.counts))

    @property
    def shape(self) -> tuple[int, ...]:
        """The counts alone, in rising order."""
        return tuple(sorted(self.counts))

    def __str__(self) -> str:
        return "".join(f"{symbol}{count}" for symbol, count in zip(self.symbols, self.counts, strict=True))


def formula_of(crystal: Crystal) -> Formula:
    symbols, counts = np.unique(crystal.symbols, return_counts=True)
    return Formula(tuple(symbols.tolist()), tuple(counts.tolist()))


def check_formula(text: str) -> Formula:
    """Raises InputError where it is no formula of known elements with whole numbers and at most 60 atoms."""
    from pymatgen.core import Composition

    hint = "write it as Ni3Al"
    try:
        composition = Composition(text)
        amounts = {element.symbol: float(amount) for element, amount in composition.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{text!r} is no chemical formula: {error}", hint=hint) from error
    unknown = sorted(set(amounts) - set(atomic_numbers))
    if unknown or not amounts:
        raise InputError(f"{text!r} holds no known element{': ' + ', '.join(unknown) if unknown else ''}", hint=hint)
    if any(amount != round(amount) or amount < 1 for amount in amounts.values()):
        raise InputError(f"expected whole numbers of atoms in a cell, got {text!r}", hint=hint)
    symbols = tuple(sorted(amounts))
    formula = Formula(symbols, tuple(round(amounts[symbol]) for symbol in symbols))
    if formula.n_atoms > MOST_ATOMS:
        raise InputError(f"expected at most {MOST_ATOMS} atoms in a cell, got {formula.n_atoms} in {text}", hint="take a smaller cell")
    return formula


def _readable(text: str) -> str:
    check_formula(text)
    return text


FormulaText = Annotated[str, AfterValidator(_readable)]
"""A formula in a config, refused where ``check_formula`` refuses it."""


def mean_atomic_volume(formula: Formula) -> float:
    """Cubic angstrom, from the elements' own crystals."""
    return float(np.average([atomic_volume(symbol) for symbol in formula.symbols], weights=formula.counts))


def formulas_of(space: SearchSpace, atoms: tuple[int, int], shapes: Sequence[Sequence[int]] = ()) -> list[Formula]:
    """Every formula of ``atoms[0]`` to ``atoms[1]`` atoms inside the space, of at most three elements, and of the shapes if any are given.

    Raises InputError where there is none.
    """
    wanted = sorted({tuple(sorted(shape)) for shape in shapes}, key=lambda shape: (sum(shape), len(shape), shape))
    sizes = range(atoms[0], atoms[1] + 1)
    drawn = (_of_shape(space, shape) for shape in wanted if sum(shape) in sizes) if wanted else (_of_size(space, n) for n in sizes)
    found = [formula for formulas in drawn for formula in formulas]
    if not found:
        raise InputError(f"no formula of {atoms[0]} to {atoms[1]} atoms fits the search space", hint="widen its fractions or the sizes")
    return found


def _of_shape(space: SearchSpace, shape: tuple[int, ...]) -> Iterator[Formula]:
    for symbols in itertools.combinations(sorted(space.elements), len(shape)):
        for counts in sorted(set(itertools.permutations(shape))):
            if not space.violation([symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]):
                yield Formula(symbols, counts)


def _of_size(space: SearchSpace, n: int) -> Iterator[Formula]:
    for n_elements in range(1, 4):
        for symbols in itertools.combinations(sorted(space.elements), n_elements):
            for cuts in itertools.combinations(range(1, n), n_elements - 1):
                counts = tuple(np.diff((0, *cuts, n)).tolist())
                if not space.violation([symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]):
                    yield Formula(symbols, counts)
