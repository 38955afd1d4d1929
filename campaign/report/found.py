"""What a campaign found: which of its crystals are stable, unique and novel, by generator and by
round.

Stable: at most ``tolerance`` above the hull of the labels of one oracle, eV per atom, the hull
being that of all labels as they stand. Unique: no copy, by the matcher of the screens on relaxed
crystals, of one that was labelled before. Novel: no copy of a known crystal, at any volume. Shares
count all labelled proposals; with other hulls, tolerances or tables of the known they are other
figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from campaign.config.schema import SourceConfig
from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.errors import InputError
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.state import LabelRecord
from campaign.rounds import sources
from campaign.types import ENERGY_ABOVE_HULL, FORMATION_ENERGY, Crystal


@dataclass(frozen=True)
class Known:
    """A crystal that is known elsewhere, with what its table calls it."""

    name: str
    crystal: Crystal


@dataclass(frozen=True)
class Found:
    """A labelled proposal. ``copy_of``: the candidate labelled before that it is a copy of;
    ``known_as``: its name in the table of the known, empty where it is in none.
    """

    label: LabelRecord
    generator: str
    crystal: Crystal
    above_hull: float
    formation_energy: float
    copy_of: str
    known_as: str
    is_stable: bool

    @property
    def is_unique(self) -> bool:
        return not self.copy_of

    @property
    def is_new(self) -> bool:
        """Stable, unique and novel."""
        return self.is_stable and self.is_unique and not self.known_as

    @property
    def space_group(self) -> str:
        """Symbol and number, by spglib at 0.1 angstrom, as relaxed crystals are rarely exact."""
        import spglib

        cell = (self.crystal.lattice, self.crystal.fractional, self.crystal.numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=0.1)
        return f"{found.international} ({found.number})" if found is not None else ""

    @property
    def prototype(self) -> str:
        """Label of the prototype by AFLOW's convention, such as ``AB_cF8_225_a_b``; empty where it
        cannot be told.
        """
        from pymatgen.analysis.prototypes import get_protostructure_label_from_spglib

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                label = get_protostructure_label_from_spglib(
                    self.crystal.structure, init_symprec=0.1
                )
        except Exception:  # any of several kinds, for cells whose symmetry is not clear
            return ""
        return str(label).partition(":")[0] if label else ""


@dataclass
class Tally:
    """Counts of labelled proposals; the later ones are among the earlier."""

    labelled: int = 0
    stable: int = 0
    unique: int = 0
    novel: int = 0
    compositions: set[str] = field(default_factory=set)
    """Reduced formulas of the stable, unique and novel ones."""

    def add(self, item: Found) -> None:
        self.labelled += 1
        self.stable += item.is_stable
        self.unique += item.is_stable and item.is_unique
        self.novel += item.is_new
        if item.is_new:
            self.compositions.add(item.crystal.structure.composition.reduced_formula)

    @property
    def share(self) -> float:
        """Stable, unique and novel, of all labelled."""
        return self.novel / self.labelled if self.labelled else 0.0


def known_crystals(
    path: Path, elements: Sequence[str], *, structure_column: str = "cif"
) -> list[Known]:
    """Those of a table that hold only elements of the space: structure files, a folder of them, or
    a CSV with CIF texts.

    What cannot be read is left out: a table of the known is large, and no part of the campaign.
    Raises InputError where it is not there.
    """
    if not path.exists():
        raise InputError(f"there is no table of known crystals {path}", hint="check the path")
    wanted = set(elements)
    rows = []
    for entry in sources.read(
        path, SourceConfig(path=str(path), structure_column=structure_column, on_error="skip")
    ):
        if wanted.issuperset(entry.crystal.symbols):
            identity = next(
                (str(value) for key, value in entry.facts.items() if key.lower().endswith("id")), ""
            )
            rows.append(Known(identity or entry.name, entry.crystal))
    return rows


def found(
    state: CampaignState,
    reader: LedgerReader,
    oracle: str,
    *,
    tolerance: float = 0.0,
    known: Iterable[Known] = (),
) -> list[Found]:
    """All proposals that an oracle labelled, in the order in which their labels came; elements'
    references and competing phases are none.

    10 s for 10^4 crystals beside 10^4 known ones. Raises InputError where the oracle's labels make
    no hull.
    """
    shape = Matcher()
    table, seen = Distinct(shape), Distinct(shape)
    for item in known:
        table.add(item.name, equivalence_key(item.crystal), item.crystal)
    hull = state.hull(oracle)
    if hull is None:
        raise InputError(
            f"the labels of {oracle} make no hull: they hold no energy of an element, or "
            "nothing beside the elements",
            hint="set references: in the config, so that the elements are labelled",
        )
    labels = sorted(
        (label for label in hull.labels if not label.purpose and not label.source),
        key=lambda label: label.sequence,
    )
    crystals = reader.crystals([label.crystal or label.candidate for label in labels])
    rows = []
    for label, crystal in zip(labels, crystals, strict=True):
        key = equivalence_key(crystal)
        copy_of = seen.find(crystal, key) or ""
        if not copy_of:
            seen.add(label.candidate, key, crystal)
        above = label.values[ENERGY_ABOVE_HULL.name]
        rows.append(
            Found(
                label=label,
                generator=state.source_of(label.candidate),
                crystal=crystal,
                above_hull=above,
                formation_energy=label.values[FORMATION_ENERGY.name],
                copy_of=copy_of,
                known_as=table.find(crystal, key) or "",
                is_stable=above <= tolerance,
            )
        )
    return rows


def tallies(rows: Sequence[Found], of: Callable[[Found], str]) -> dict[str, Tally]:
    """By what ``of`` says of each, such as its generator or its round."""
    counted: dict[str, Tally] = {}
    for item in rows:
        counted.setdefault(of(item), Tally()).add(item)
    return counted
