"""The generator ``ion_exchange``: known compounds with ions exchanged for others of the same
charge, as nature is known to exchange them.

How likely an exchange leaves a stable crystal is mined from known compounds (G. Hautier et al.,
Inorg. Chem. 50 (2011) 656, the table that pymatgen ships): the product over the ions of the chance
of the new one, given the old one. Charges of a known compound are the likeliest of its formula;
compounds without charges (alloys) are left out. Volumes follow the ions: by the third power of the
mean Shannon radius.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.errors import InputError
from campaign.parameters import ConfigPath, Parameters
from campaign.protocols import GenerationContext
from campaign.reading.structures import Tally, read_structure_text, read_structures
from campaign.reading.tables import read_table
from campaign.types import Crystal, Proposal, counts_of, reduced_formula
from generators.formulas import formula_of, mean_atomic_volume
from generators.prototypes import library_as_published

_CHOICE = 3
"""Exchanges gathered for each one that is proposed."""
_SAME = Matcher(length=0.05, site=0.05, angle=1.0)

_FORMULA = re.compile(r"_chemical_formula_sum\s+['\"]?([^'\"\n]+)")

Ion = tuple[str, int]
"""Symbol and charge."""


class IonExchangeConfig(Parameters):
    source: ConfigPath | None = Field(
        None,
        description="Known compounds: file of structures, folder, or CSV with a column of "
        "CIFs; the library of prototypes where absent.",
    )
    structure_column: str = Field("cif", description="CSV: the column that holds the CIF text.")
    atoms: tuple[int, int] = Field(
        (1, 40), description="Fewest and most atoms in the cell of a known compound."
    )
    min_probability: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="Minimum probability (1) of an exchange, the product over all ions.",
    )


@dataclass(frozen=True)
class Exchange:
    """A known crystal, what its file calls it, the new ion of each of its ions, and the probability
    of that.
    """

    crystal: Crystal
    name: str
    ions: Mapping[Ion, Ion]
    probability: float

    @property
    def told(self) -> str:
        """Such as ``Na1+ for Li1+``."""
        return ", ".join(
            f"{_name(new)} for {_name(old)}" for old, new in sorted(self.ions.items()) if old != new
        )

    @property
    def result(self) -> Crystal:
        """With the ions exchanged and the volume of the new ones."""
        from ase.data import atomic_numbers

        symbols = {old[0]: new[0] for old, new in self.ions.items()}
        numbers = np.array(
            [atomic_numbers[symbols[symbol]] for symbol in self.crystal.symbols], dtype=np.uint8
        )
        plain = self.crystal.with_numbers(numbers)
        return Crystal(plain.lattice * self._stretch(plain), plain.fractional, numbers)

    def _stretch(self, new: Crystal) -> float:
        """Of the edges: the ratio of mean ionic radii; of the elements' own volumes where a radius
        is not known.
        """
        counts = counts_of(self.crystal.formula)
        radii = [
            (counts[old[0]], ionic_radius(old), ionic_radius(replaced))
            for old, replaced in self.ions.items()
        ]
        if all(before and after for _, before, after in radii):
            return sum(n * after for n, _, after in radii) / sum(
                n * before for n, before, _ in radii
            )
        return float(
            (mean_atomic_volume(formula_of(new)) / mean_atomic_volume(formula_of(self.crystal)))
            ** (1 / 3)
        )


class IonExchange:
    Config = IonExchangeConfig

    def __init__(self, config: IonExchangeConfig) -> None:
        self.config = config
        if config.source is not None and not config.source.exists():
            raise InputError(
                f"source: there is no {config.source}",
                hint="relative paths start at the config's folder",
            )

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Drawn by their probabilities, each crystal once and none that is labelled or under way;
        fewer where no more are known.
        """
        found = list(itertools.islice(self._exchanges(rng, context), _CHOICE * n))
        weights = np.array([exchange.probability for exchange in found])
        order: list[int] = np.argsort(-(np.log(weights) + rng.gumbel(size=len(found)))).tolist()
        distinct = _Seen(context)
        given = 0
        for row in order:
            exchange = found[row]
            crystal = exchange.result
            if given < n and distinct.is_new(crystal):
                given += 1
                condition = {
                    "known": exchange.name,
                    "parent": exchange.crystal.id,
                    "parent_formula": exchange.crystal.formula,
                }
                yield (
                    crystal,
                    Proposal(
                        condition={
                            **condition,
                            "exchange": exchange.told,
                            "probability": round(exchange.probability, 6),
                        }
                    ),
                )

    def _exchanges(
        self, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[Exchange]:
        """Of known crystals in random order, those whose result lies inside the space."""
        known = self._known()
        low, high = self.config.atoms
        for row in rng.permutation(len(known)).tolist():
            counts = known[row].counts
            if not low <= sum(counts.values()) <= high or not 1 < len(counts) <= len(
                context.space.elements
            ):
                continue
            for ions, probability in exchanges(
                ions_of(reduced_formula(known[row].formula)), context.space.elements
            ):
                if probability < self.config.min_probability:
                    break
                symbols = [new[0] for old, new in ions for _ in range(counts[old[0]])]
                if context.space.violation(symbols):
                    continue
                crystal = known[row].read()
                if crystal is None or crystal.formula != known[row].formula:
                    break
                yield Exchange(crystal, known[row].name, dict(ions), probability)

    def _known(self) -> Sequence[Known]:
        source = self.config.source
        if source is None:
            return tuple(
                Known(name, crystal.formula, partial(_same, crystal))
                for name, crystal in library_as_published()
            )
        changed = source.stat().st_mtime_ns
        return (
            _from_table(source, self.config.structure_column, changed)
            if _is_table(source)
            else _from_file(source, changed)
        )


@dataclass(frozen=True)
class Known:
    """A known compound: what its source calls it, its formula such as ``Fe4O6``, and how its
    crystal is read; None where it is none.
    """

    name: str
    formula: str
    read: Callable[[], Crystal | None]

    @property
    def counts(self) -> Mapping[str, int]:
        return counts_of(self.formula)


def _same(crystal: Crystal) -> Crystal:
    return crystal


def _is_table(path: Path) -> bool:
    return Path(path.name.lower().removesuffix(".gz")).suffix == ".csv"


@lru_cache(maxsize=4)
def _from_file(path: Path, _changed: int) -> tuple[Known, ...]:
    found = read_structures(path, on_error="skip")
    return tuple(
        Known(
            entry.where.removeprefix(str(path.parent)).lstrip("/"),
            entry.crystal.formula,
            partial(_same, entry.crystal),
        )
        for entry in found
    )


@lru_cache(maxsize=4)
def _from_table(path: Path, column: str, _changed: int) -> tuple[Known, ...]:
    """By the formulas that the CIFs state; the crystals are read when they are asked for."""
    table = read_table(path)
    if column not in table.header:
        raise InputError(
            f"{path}: there is no column {column!r}",
            hint=f"its columns are {', '.join(table.header)}",
        )
    tally = Tally("skip", str(path))

    def reader(text: str, where: str) -> Callable[[], Crystal | None]:
        return lambda: next(
            iter(tally.ask(where, lambda: read_structure_text(text, where)) or ()), None
        )

    rows = [(f"{path.name}, row {row.number}", row.cells[column]) for row in table]
    return tuple(Known(where, _stated_formula(text), reader(text, where)) for where, text in rows)


def _stated_formula(text: str) -> str:
    """Of a CIF, with each element's number and in alphabetical order; empty where it states
    none.
    """
    stated = _FORMULA.search(text)
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", stated[1]) if stated else []
    return "".join(f"{symbol}{count or 1}" for symbol, count in sorted(parts))


class _Seen:
    """Crystals that were proposed, labelled or are under way, told from others as the screens tell
    them.
    """

    def __init__(self, context: GenerationContext) -> None:
        self.distinct = Distinct(_SAME)
        self.others: dict[str, list[Crystal]] = {}
        for crystal in [
            *(item.candidate.crystal for item in context.labelled),
            *(candidate.crystal for candidate in context.pending),
        ]:
            self.others.setdefault(reduced_formula(crystal.formula), []).append(crystal)

    def is_new(self, crystal: Crystal) -> bool:
        """Whether it has not been seen; from then on it has. A cell too broken to be told from
        others is not new.
        """
        try:
            for other in self.others.pop(reduced_formula(crystal.formula), ()):
                self.distinct.add(other.id, equivalence_key(other), other)
            key = equivalence_key(crystal)
        except (ValueError, RuntimeError, FloatingPointError):
            return False
        if self.distinct.find(crystal, key) is not None:
            return False
        self.distinct.add(crystal.id, key, crystal)
        return True


@lru_cache(maxsize=65_536)
def ions_of(formula: str) -> tuple[Ion, ...]:
    """The likeliest whole charges of a reduced formula; none where there are no such charges."""
    from pymatgen.core import Composition

    try:
        guesses = Composition(formula).oxi_state_guesses(max_sites=-50)
    except ValueError:
        return ()
    for guess in guesses:
        if all(charge == round(charge) and charge for charge in guess.values()):
            return tuple(sorted((symbol, round(charge)) for symbol, charge in guess.items()))
    return ()


@lru_cache(maxsize=65_536)
def exchanges(
    ions: tuple[Ion, ...], elements: tuple[str, ...]
) -> tuple[tuple[tuple[tuple[Ion, Ion], ...], float], ...]:
    """Every way to exchange the ions for others of the elements with the same charges, at least one
    of them, the likeliest first.
    """
    found = []
    options = [
        [(symbol, charge) for symbol in elements if (symbol, charge) in _table()[0]]
        for _, charge in ions
    ]
    for chosen in itertools.product(*options) if ions else ():
        if len({symbol for symbol, _ in chosen}) == len(ions) and chosen != ions:
            probability = float(
                np.prod([_chance(new, old) for new, old in zip(chosen, ions, strict=True)])
            )
            found.append((tuple(zip(ions, chosen, strict=True)), probability))
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))


@lru_cache(maxsize=1)
def _table() -> tuple[Mapping[Ion, Any], Any]:
    """The ions that the mined table holds, and the table."""
    from pymatgen.analysis.structure_prediction.substitution_probability import (
        SubstitutionProbability,
    )

    table = SubstitutionProbability()
    return {(species.symbol, round(species.oxi_state)): species for species in table.species}, table


@lru_cache(maxsize=65_536)
def _chance(new: Ion, old: Ion) -> float:
    """Of the new ion, given the old one; 0 where the table does not hold the old one."""
    species, table = _table()
    return float(table.cond_prob(species[new], species[old])) if old in species else 0.0


@lru_cache(maxsize=4096)
def ionic_radius(ion: Ion) -> float:
    """Shannon's mean over coordinations (angstrom); 0 where it is not known."""
    import warnings

    from pymatgen.core import Species

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Species(*ion).ionic_radius
    return float(found) if found else 0.0


def _name(ion: Ion) -> str:
    return f"{ion[0]}{abs(ion[1])}{'+' if ion[1] > 0 else '-'}"
