"""Polymorphs: crystals of one formula with their formation energies, as data for conditional
generators.

The filters, the split by formula and the pairs follow L. Novitskiy et al. (2024), section 2:
formulas of both sides share no crystal, and a pair leads from a crystal to one of lower energy with
the same atoms.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from campaign.crystals.matching import Matcher
from campaign.errors import InputError
from campaign.types import FORMATION_ENERGY, Crystal, LabelledCandidate
from generators.formulas import Formula, formula_of
from generators.symmetry import SymmetricCell, symmetric_cell

_KEPT = 2
_made: dict[tuple[Any, ...], PolymorphDataset] = {}
_SAME_ENERGY = 0.005
_SAME = Matcher(length=0.1, site=0.1, angle=3.0)


@dataclass(frozen=True, eq=False)
class Polymorph:
    """A crystal in its standard primitive cell, with its formation energy (eV/atom) and where it
    came from.
    """

    cell: SymmetricCell
    energy: float
    source: str = ""

    @property
    def crystal(self) -> Crystal:
        return self.cell.crystal

    @cached_property
    def formula(self) -> Formula:
        """Of the primitive cell."""
        return formula_of(self.crystal)


@dataclass(frozen=True)
class Filters:
    """What is kept, from the last to the first: energies, sizes (atoms), shares of elements and
    space groups (1), sizes of groups.
    """

    atoms: tuple[int, int] = (4, 60)
    least_group: int = 7
    least_share: float = 0.01
    most_energy: float = 5.0


class PolymorphDataset:
    """Polymorphs in groups of one reduced formula."""

    def __init__(self, items: Sequence[Polymorph]) -> None:
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def groups(self) -> Mapping[Formula, tuple[int, ...]]:
        """Rows by reduced formula, each group by rising energy."""
        found: defaultdict[Formula, list[int]] = defaultdict(list)
        for row in np.argsort([item.energy for item in self.items], kind="stable").tolist():
            found[self.items[row].formula.reduced].append(row)
        return {formula: tuple(found[formula]) for formula in sorted(found)}

    def subset(self, rows: Sequence[int]) -> PolymorphDataset:
        return PolymorphDataset([self.items[row] for row in rows])

    def filtered(self, filters: Filters) -> PolymorphDataset:
        """Raises InputError where nothing is left, or no formula has two polymorphs."""
        low, high = filters.atoms
        kept = [
            item
            for item in self.items
            if abs(item.energy) <= filters.most_energy and low <= len(item.crystal) <= high
        ]
        elements = Counter(symbol for item in kept for symbol in item.formula.symbols)
        groups = Counter(item.cell.space_group for item in kept)
        least = filters.least_share * len(kept)
        kept = [
            item
            for item in kept
            if groups[item.cell.space_group] >= least
            and all(elements[symbol] >= least for symbol in item.formula.symbols)
        ]
        sizes = Counter(item.formula.reduced for item in kept)
        kept = [item for item in kept if sizes[item.formula.reduced] >= filters.least_group]
        if not kept:
            raise InputError(
                f"of {len(self)} polymorphs none passes: {low} to {high} atoms, groups of at "
                f"least {filters.least_group}, "
                f"elements and space groups of at least {filters.least_share:.0%}",
                hint="label more crystals of each formula, or widen the filters",
            )
        return PolymorphDataset(kept)

    def split_by_formula(
        self, share: float, rng: np.random.Generator
    ) -> tuple[PolymorphDataset, PolymorphDataset]:
        """To learn from and to judge by; no reduced formula is on both sides, and each element has
        about its share on the second.
        """
        return self._split(
            [(formula, rows, frozenset(formula.symbols)) for formula, rows in self.groups.items()],
            share,
            rng,
        )

    def split_by_prototype(
        self, share: float, rng: np.random.Generator
    ) -> tuple[PolymorphDataset, PolymorphDataset]:
        """The same by prototype: no prototype is on both sides, and each element has about its
        share on the second.
        """
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row, item in enumerate(self.items):
            found[item.cell.prototype].append(row)
        return self._split(
            [(name, found[name], frozenset[str]()) for name in sorted(found)], share, rng
        )

    def _split(
        self,
        groups: Sequence[tuple[object, Sequence[int], frozenset[str]]],
        share: float,
        rng: np.random.Generator,
    ) -> tuple[PolymorphDataset, PolymorphDataset]:
        if len(groups) < 2:
            raise InputError(
                "expected polymorphs of at least two formulas or prototypes to split, got "
                f"{len(groups)}"
            )
        total = Counter[str]()
        for _, rows, symbols in groups:
            total.update({symbol: len(rows) for symbol in symbols or ("",)})
        held: list[int] = []
        held_of = Counter[str]()
        for place in rng.permutation(len(groups)).tolist():
            _, rows, symbols = groups[place]
            names = symbols or frozenset([""])
            if all(held_of[name] + 0.5 * len(rows) < share * total[name] for name in names):
                held += rows
                held_of.update(dict.fromkeys(names, len(rows)))
        held = held or list(groups[int(rng.integers(len(groups)))][1])
        return self.subset(sorted(set(range(len(self))) - set(held))), self.subset(sorted(held))

    def pairs(self, rng: np.random.Generator, per_group: int = 8) -> list[tuple[int, int]]:
        """Rows (from, to), each to a lower energy with the same atoms: half lead to a cell's lowest
        polymorph and half to another.

        At most ``per_group`` of either kind for each formula, drawn anew at each call.
        """
        found: list[tuple[int, int]] = []
        for rows in self._same_cell():
            lowest = [(row, rows[0]) for row in rows[1:]]
            others = [(high, low) for low, high in itertools.combinations(rows[1:], 2)]
            n = min(per_group, len(lowest))
            found += [lowest[k] for k in rng.permutation(len(lowest))[:n]]
            found += [others[k] for k in rng.permutation(len(others))[:n]]
        return [found[k] for k in rng.permutation(len(found))]

    @property
    def has_pairs(self) -> bool:
        """Whether any formula has two polymorphs with as many atoms."""
        return max(Counter(item.formula for item in self.items).values(), default=0) > 1

    def _same_cell(self) -> list[list[int]]:
        found: defaultdict[Formula, list[int]] = defaultdict(list)
        for rows in self.groups.values():
            for row in rows:
                found[self.items[row].formula].append(row)
        groups = [rows for rows in found.values() if len(rows) > 1]
        if not groups:
            raise InputError(
                "expected formulas with at least two polymorphs of as many atoms, got none",
                hint="label more crystals",
            )
        return groups

    def targets(self, rng: np.random.Generator) -> list[int]:
        """One row for each formula, of its two lowest, rarer sizes with a higher chance (1 over how
        many have them).
        """
        sizes = Counter(len(item.crystal) for item in self.items)
        found = []
        for rows in self.groups.values():
            two = rows[:2]
            weight = np.array([1 / sizes[len(self.items[row].crystal)] for row in two])
            found.append(int(rng.choice(two, p=weight / weight.sum())))
        return found

    @property
    def key(self) -> str:
        """SHA-256 over crystals and energies."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.crystal.id} {item.energy!r};".encode())
        return digest.hexdigest()


def tenth_of(formula: Formula) -> int:
    """0 to 9: which tenth of all formulas it belongs to, by a hash of the reduced formula, so that
    more labels move none to another.
    """
    return int(hashlib.sha256(str(formula.reduced).encode()).hexdigest(), 16) % 10


def polymorphs_of(crystals: Sequence[tuple[Crystal, float, str]]) -> PolymorphDataset:
    """Of crystals, formation energies (eV/atom) and sources. Equal crystals, and cells without a
    symmetry that holds, are left out.
    """
    found = []
    for crystal, energy, source in crystals:
        cell = _cell_of(crystal)
        if cell is not None:
            found.append(Polymorph(cell, energy, source))
    return PolymorphDataset(list(_distinct(found)))


@lru_cache(maxsize=20_000)
def _cell_of(crystal: Crystal) -> SymmetricCell | None:
    return symmetric_cell(crystal)


def _distinct(items: Sequence[Polymorph]) -> Iterator[Polymorph]:
    kept: defaultdict[Formula, list[Polymorph]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (item.energy, item.crystal.id)):
        rivals = kept[item.formula]
        near = (other for other in reversed(rivals) if item.energy - other.energy < _SAME_ENERGY)
        if not any(_SAME.is_same(item.crystal, other.crystal) for other in near):
            rivals.append(item)
            yield item


def polymorphs_of_labelled(
    labelled: Sequence[LabelledCandidate], quantity: str = FORMATION_ENERGY.name
) -> PolymorphDataset:
    """Of relaxed crystals; the last two data sets are kept.

    Another energy than the formation energy is taken against its best linear function of the
    composition.
    """
    known = tuple(item for item in labelled if quantity in item.values)
    key = (
        quantity,
        tuple(
            ((item.relaxed or item.candidate.crystal).id, item.values[quantity]) for item in known
        ),
    )
    if key not in _made:
        while len(_made) >= _KEPT:
            del _made[next(iter(_made))]
        _made[key] = _polymorphs_of_known(known, quantity)
    return _made[key]


def _polymorphs_of_known(known: Sequence[LabelledCandidate], quantity: str) -> PolymorphDataset:
    crystals = [item.relaxed or item.candidate.crystal for item in known]
    values = np.array([item.values[quantity] for item in known], dtype=float)
    if quantity != FORMATION_ENERGY.name and len(known):
        elements = np.unique(np.concatenate([crystal.numbers for crystal in crystals]))
        share = np.array(
            [[(crystal.numbers == number).mean() for number in elements] for crystal in crystals]
        )
        values = values - share @ np.linalg.lstsq(share, values, rcond=None)[0]
    return polymorphs_of(
        [
            (c, float(e), item.candidate.id)
            for c, e, item in zip(crystals, values, known, strict=True)
        ]
    )
