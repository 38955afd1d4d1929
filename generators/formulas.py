"""Formulas of a cell: read from text, or those that a search space and a number of atoms allow, all
of them or drawn.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import comb, factorial, gcd, prod
from typing import Annotated

import numpy as np
from ase.data import atomic_numbers
from pydantic import AfterValidator

from campaign.crystals.chemistry import Counts, FixedRatio
from campaign.crystals.lattice import atomic_volume
from campaign.errors import InputError
from campaign.types import Crystal, SearchSpace

MOST_ATOMS = 60
MOST_FORMULAS = 100_000
_MOST_DRAWS, _DRAWS, _ENOUGH = 40_000, 4_000, 2_000
_KEPT = 16


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

    def times(self, n: int) -> Formula:
        """Of n such cells."""
        return Formula(self.symbols, tuple(n * count for count in self.counts))

    @property
    def shape(self) -> tuple[int, ...]:
        """The counts alone, in rising order."""
        return tuple(sorted(self.counts))

    def __str__(self) -> str:
        return "".join(
            f"{symbol}{count}" for symbol, count in zip(self.symbols, self.counts, strict=True)
        )


def formula_of(crystal: Crystal) -> Formula:
    symbols, counts = np.unique(crystal.symbols, return_counts=True)
    return Formula(tuple(symbols.tolist()), tuple(counts.tolist()))


def check_formula(text: str) -> Formula:
    """Raises InputError where it is no formula of known elements with whole numbers and at most 60
    atoms.
    """
    from pymatgen.core import Composition

    hint = "write it as Ni3Al"
    try:
        composition = Composition(text)
        amounts = {element.symbol: float(amount) for element, amount in composition.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{text!r} is no chemical formula: {error}", hint=hint) from error
    unknown = sorted(set(amounts) - set(atomic_numbers))
    if unknown or not amounts:
        raise InputError(
            f"{text!r} holds no known element{': ' + ', '.join(unknown) if unknown else ''}",
            hint=hint,
        )
    if any(amount != round(amount) or amount < 1 for amount in amounts.values()):
        raise InputError(f"expected whole numbers of atoms in a cell, got {text!r}", hint=hint)
    symbols = tuple(sorted(amounts))
    formula = Formula(symbols, tuple(round(amounts[symbol]) for symbol in symbols))
    if formula.n_atoms > MOST_ATOMS:
        raise InputError(
            f"expected at most {MOST_ATOMS} atoms in a cell, got {formula.n_atoms} in {text}",
            hint="take a smaller cell",
        )
    return formula


def _readable(text: str) -> str:
    check_formula(text)
    return text


FormulaText = Annotated[str, AfterValidator(_readable)]
"""A formula in a config, refused where ``check_formula`` refuses it."""


def mean_atomic_volume(formula: Formula) -> float:
    """Cubic angstrom, from the elements' own crystals."""
    return float(
        np.average([atomic_volume(symbol) for symbol in formula.symbols], weights=formula.counts)
    )


def formulas_of(
    space: SearchSpace,
    atoms: tuple[int, int],
    shapes: Sequence[Sequence[int]] = (),
    *,
    rng: np.random.Generator | None = None,
) -> list[Formula]:
    """The formulas of ``atoms[0]`` to ``atoms[1]`` atoms inside the space, and of the shapes if any
    are given.

    All of them where they are at most ``MOST_FORMULAS`` before the space's bounds and rules are
    asked; else a few thousand drawn at random with ``rng``, each number of elements as often as
    another. Raises InputError where none is found, or too many to list without ``rng``.
    """
    sizes = range(atoms[0], atoms[1] + 1)
    wanted = sorted(
        {tuple(sorted(shape)) for shape in shapes if sum(shape) in sizes},
        key=lambda shape: (sum(shape), len(shape), shape),
    )
    plan = _Shapes(space, wanted) if shapes else _Sizes(space, sizes)
    are_few = plan.n_formulas <= MOST_FORMULAS
    if not are_few and rng is None:
        raise InputError(
            f"{plan.n_formulas:.3g} formulas are too many to list",
            hint="name fewer elements, sizes or shapes, or draw some",
        )
    found = (
        _drawn(plan, rng)
        if rng is not None and not are_few
        else _enumerated(plan, f"{space!r} {atoms} {wanted if shapes else None}")
    )
    if not found:
        tried = "" if are_few else f", in {_MOST_DRAWS} drawn of {plan.n_formulas:.3g}"
        raise InputError(
            f"no formula of {atoms[0]} to {atoms[1]} atoms fits the search space{tried}",
            hint="widen its fractions and rules, or the sizes",
        )
    return found


class _Sizes:
    """All compositions of some sizes. Elements in a fixed ratio count as one, which is always
    there.
    """

    def __init__(self, space: SearchSpace, sizes: Sequence[int]) -> None:
        self.space, self.sizes = space, [size for size in sizes if size > 0]
        self.ratios = next(
            (dict(rule.ratios) for rule in space.rules if isinstance(rule, FixedRatio)), {}
        )
        self.unit = sum(self.ratios.values())
        self.symbols = sorted(space.elements)
        self.free = [symbol for symbol in self.symbols if symbol not in self.ratios]

    def _families(self) -> Iterator[tuple[int, int, int]]:
        """Units of the ratio, atoms of other elements, and how many of these elements."""
        for size in self.sizes:
            for units in range(1, size // self.unit + 1) if self.unit else (0,):
                left = size - units * self.unit
                yield from (
                    (units, left, n) for n in range(min(left, 1), min(left, len(self.free)) + 1)
                )

    @property
    def n_formulas(self) -> int:
        return sum(
            comb(len(self.free), n) * (comb(left - 1, n - 1) if n else 1)
            for _, left, n in self._families()
        )

    def every(self) -> Iterator[Counts]:
        """Blocks (m, elements) of atoms by element in alphabetical order, the fewest atoms and then
        the fewest elements first.
        """
        for units, left, n in self._families():
            inner = (
                np.array(list(itertools.combinations(range(1, left), n - 1)), dtype=np.int64)
                if n
                else None
            )
            for chosen in itertools.combinations(self.free, n):
                yield self._filled(units, [chosen], left, inner)

    def draw(self, n: int, rng: np.random.Generator) -> Iterator[Counts]:
        families = list(self._families())
        by_number: dict[int, list[tuple[int, int, int]]] = {}
        for family in families:
            by_number.setdefault(family[2], []).append(family)
        numbers = sorted(by_number)
        for _ in range(n):
            members = by_number[numbers[int(rng.integers(len(numbers)))]]
            units, left, k = members[int(rng.integers(len(members)))]
            chosen = tuple(
                self.free[row]
                for row in sorted(rng.choice(len(self.free), k, replace=False).tolist())
            )
            cuts = (
                np.sort(rng.choice(left - 1, max(k - 1, 0), replace=False) + 1)[None] if k else None
            )
            yield self._filled(units, [chosen], left, cuts)

    def _filled(
        self, units: int, chosen: Sequence[tuple[str, ...]], left: int, cuts: Counts | None
    ) -> Counts:
        rows = 1 if cuts is None else len(cuts)
        found = np.zeros((rows, len(self.symbols)), dtype=np.int64)
        for symbol, share in self.ratios.items():
            found[:, self.symbols.index(symbol)] = units * share
        if cuts is not None:
            columns = [self.symbols.index(symbol) for symbol in chosen[0]]
            found[:, columns] = np.diff(cuts, axis=1, prepend=0, append=left)
        return found


class _Shapes:
    """All ways to give the elements the numbers of atoms of some shapes."""

    def __init__(self, space: SearchSpace, shapes: Sequence[tuple[int, ...]]) -> None:
        self.space = space
        self.symbols = sorted(space.elements)
        self.shapes = [shape for shape in shapes if len(shape) <= len(self.symbols)]

    @property
    def n_formulas(self) -> int:
        orders = [
            factorial(len(shape)) // prod(map(factorial, Counter(shape).values()))
            for shape in self.shapes
        ]
        return sum(
            comb(len(self.symbols), len(shape)) * n
            for shape, n in zip(self.shapes, orders, strict=True)
        )

    def every(self) -> Iterator[Counts]:
        from sympy.utilities.iterables import multiset_permutations

        for shape in self.shapes:
            orders = np.array(list(multiset_permutations(list(shape))), dtype=np.int64)
            for chosen in itertools.combinations(range(len(self.symbols)), len(shape)):
                found = np.zeros((len(orders), len(self.symbols)), dtype=np.int64)
                found[:, list(chosen)] = orders
                yield found

    def draw(self, n: int, rng: np.random.Generator) -> Iterator[Counts]:
        for _ in range(n):
            shape = self.shapes[int(rng.integers(len(self.shapes)))]
            found = np.zeros((1, len(self.symbols)), dtype=np.int64)
            found[0, rng.choice(len(self.symbols), len(shape), replace=False)] = rng.permutation(
                np.array(shape)
            )
            yield found


_kept: dict[str, list[Formula]] = {}


def _enumerated(plan: _Sizes | _Shapes, key: str) -> list[Formula]:
    """Those that fit; kept, as a generator asks for the same ones each round."""
    if key not in _kept:
        blocks = list(plan.every())
        while len(_kept) >= _KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = _fitting(plan, np.concatenate(blocks)) if blocks else []
    return _kept[key]


def _drawn(plan: _Sizes | _Shapes, rng: np.random.Generator) -> list[Formula]:
    found: dict[Formula, None] = {}
    for _ in range(0, _MOST_DRAWS, _DRAWS):
        found |= dict.fromkeys(_fitting(plan, np.concatenate(list(plan.draw(_DRAWS, rng)))))
        if len(found) >= _ENOUGH:
            break
    return sorted(found, key=lambda formula: (formula.n_atoms, len(formula.symbols), formula))


def _fitting(plan: _Sizes | _Shapes, counts: Counts) -> list[Formula]:
    in_order = counts[:, [plan.symbols.index(symbol) for symbol in plan.space.elements]]
    rows = counts[plan.space.holds_counts(in_order)].tolist()
    return [
        Formula(
            tuple(symbol for symbol, count in zip(plan.symbols, row, strict=True) if count),
            tuple(count for count in row if count),
        )
        for row in rows
    ]
