"""Structures and labels: CSV with a CIF column, files of structures and folders of these, another
campaign.

``read`` gives what stands there, one entry a structure; ``imported`` turns a source into a set of
ledger rows, one a crystal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from campaign.config.schema import SourceConfig
from campaign.crystals.matching import KeyIndex, Matcher, key_or_none
from campaign.errors import InputError
from campaign.ledger import LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE
from campaign.reading.structures import Tally, read_structure_text, read_structures
from campaign.reading.tables import Measure, Problems, Reader, is_gap, plain_facts, read_table
from campaign.reading.text import is_there
from campaign.types import (
    DERIVED,
    ENERGY_PER_ATOM,
    FORMATION_ENERGY,
    VOLUME_PER_ATOM,
    Crystal,
    Quantity,
)

_SAME_VALUE = 1e-9
_REPLICATE = Matcher(length=1e-3, site=1e-3, angle=0.05, same="structure", volume=1e-3)
"""Two rows are one crystal where they agree so far; nearer copies than these are not told apart by
any measurement.
"""


@dataclass(frozen=True)
class Entry:
    """A structure of a source: its values by quantity, what it is called there, and what else is
    said of it.
    """

    crystal: Crystal
    values: Mapping[str, float]
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Import:
    """What a source holds: its rows by candidate, the crystals' bytes, and how many structures
    stood there.
    """

    rows: Mapping[str, ev.ImportedRow]
    blobs: Mapping[str, bytes]
    structures: int


def imported(
    source: SourceConfig,
    *,
    folder: Path,
    purpose: str,
    quantities: Mapping[str, Quantity],
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> Import:
    """The rows of a source, values in their quantities' units and inside the oracle's sanity
    ``windows``, one row for each crystal.

    Raises InputError where the source cannot be read, names a quantity that the oracle does not
    measure, holds a value that no crystal has, or several values of one crystal that are not
    ``replicates``.
    """
    path = (folder / source.path).resolve()
    if not is_there(path):
        raise InputError(
            f"{purpose}: there is no {path}", hint="relative paths start at the config's folder"
        )
    for quantity in source.columns:
        if quantity not in quantities:
            raise InputError(
                f"{purpose} {source.path}: no oracle measures {quantity!r}",
                hint=f"they measure {', '.join(quantities)}",
            )
    entries, problems = [], Problems()
    for entry in read(path, source, quantities=quantities, has_gaps=True):
        entries.append(entry)
        where = f"{purpose} {source.path}, {entry.name}"
        if purpose == "initial_data" and source.columns and not entry.values:
            problems.add(
                InputError(
                    f"{where}: there is no {' and no '.join(source.columns)}",
                    hint="fill one in, or leave the row out",
                )
            )
        for quantity, value in entry.values.items():
            low, high = (windows or {}).get(quantity, (-math.inf, math.inf))
            if not low <= value <= high:
                message = (
                    f"{where}: {quantity} of {value:.6g} {quantities[quantity].unit} "
                    f"lies outside sanity, {low:g} to {high:g}"
                )
                problems.add(
                    InputError(message, hint="correct the value, its unit, or the oracle's sanity")
                )
    problems.check()
    if not entries:
        raise InputError(f"{purpose}: {path} holds no structures")
    rows: dict[str, ev.ImportedRow] = {}
    blobs: dict[str, bytes] = {}
    for key, group in _groups(entries):
        first = group[0]
        observations = tuple(
            _observations(group, source, quantities, f"{purpose} {source.path}", problems)
        )
        rows[first.crystal.id] = ev.ImportedRow(
            first.crystal.id, key, observations, first.name, dict(first.facts)
        )
        blobs[first.crystal.id] = first.crystal.to_bytes()
    problems.check()
    return Import(rows, blobs, len(entries))


def _groups(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Equivalence key and entries of each crystal, in their order. Without a label a crystal in
    another setting is left to the screens.
    """
    groups: dict[str, tuple[str, list[Entry]]] = {}
    index = KeyIndex(_REPLICATE)
    for entry in entries:
        crystal = entry.crystal
        key = groups[crystal.id][0] if crystal.id in groups else key_or_none(crystal)
        same = [crystal.id] if crystal.id in groups else index.near(key) if entry.values else []
        rivals = (groups[name] for name in same)
        found = next((group for _, group in rivals if _is_one(group[0], entry)), None)
        if found is None:
            found = []
            groups[crystal.id] = key, found
            index.add(crystal.id, key)
        found.append(entry)
    yield from groups.values()


def _is_one(one: Entry, other: Entry) -> bool:
    return one.crystal.id == other.crystal.id or (
        bool(one.values and other.values) and _REPLICATE.is_same(one.crystal, other.crystal)
    )


def _observations(
    group: Sequence[Entry],
    source: SourceConfig,
    quantities: Mapping[str, Quantity],
    where: str,
    problems: Problems,
) -> Iterator[ev.ObservationRow]:
    for name in source.columns:
        found = [entry.values[name] for entry in group if name in entry.values]
        if not found:
            continue
        unit = quantities[name].unit
        if all(math.isclose(value, found[0], rel_tol=_SAME_VALUE) for value in found):
            yield ev.ObservationRow(name, found[0], unit)
        elif source.replicates == "mean":
            yield ev.ObservationRow(name, fmean(found), unit, stdev(found) / math.sqrt(len(found)))
        else:
            places = ", ".join(entry.name for entry in group if name in entry.values)
            values = ", ".join(f"{value:.6g}" for value in found)
            message = (
                f"{where}: {places} are one crystal, {group[0].crystal.formula}, with "
                f"several values of {name}: {values} {unit}"
            )
            problems.add(InputError(message, hint="keep one of them, or set replicates: mean"))


def read(
    path: Path,
    source: SourceConfig,
    *,
    quantities: Mapping[str, Quantity] | None = None,
    has_gaps: bool = False,
    has_nan: bool = False,
) -> Iterator[Entry]:
    """What stands in a source. ``quantities``: those whose units are known, to which values are
    converted.

    ``has_gaps``: values may be missing; ``has_nan``: NaN counts as missing. Raises InputError for
    everything else that is no value.
    """
    known = dict(quantities or {})
    if (path / DATABASE).exists():
        yield from _from_campaign(path, source, known)
        return
    values = Values.of_source(source, known, has_gaps=has_gaps, has_nan=has_nan)
    is_table = Path(path.name.lower().removesuffix(".gz")).suffix == ".csv"
    yield from (
        _from_csv(path, source, values) if is_table else _from_structures(path, source, values)
    )
    values.problems.check()


@dataclass
class Values:
    """Reads the quantities of row after row and gathers what is wrong with them."""

    reader: Reader
    has_gaps: bool
    has_nan: bool
    problems: Problems = field(default_factory=Problems)

    @classmethod
    def of_source(
        cls,
        source: SourceConfig,
        quantities: Mapping[str, Quantity],
        *,
        has_gaps: bool = False,
        has_nan: bool = False,
    ) -> Values:
        return cls(Reader(source.located, quantities), has_gaps, has_nan)

    def of(
        self, found: Mapping[str, object], n_atoms: int, where: str, stated: Mapping[str, str]
    ) -> dict[str, float]:
        """The values of a row of a file without a header, whose keys may differ from row to row and
        ``stated`` units stand beside them.
        """
        there = [key for key, value in found.items() if not is_gap(value)]
        missing = [
            quantity for quantity, column in self.reader.columns.items() if column.name not in there
        ]
        if missing and not self.has_gaps:
            column = self.reader.columns[missing[0]].name
            self.problems.add(
                InputError(
                    f"{where}: there is no {column!r}",
                    hint=f"it has {', '.join(there) or 'no values'}",
                )
            )
            return {}
        columns = {
            quantity: column
            for quantity, column in self.reader.columns.items()
            if quantity not in missing
        }
        measures = (
            Reader(columns, self.reader.quantities).measures(there, where, stated)
            if missing
            else None
        )
        return self.measured(
            measures or self.reader.measures(there, where, stated) if columns else {},
            found,
            n_atoms,
            where,
        )

    def measured(
        self, measures: Mapping[str, Measure], found: Mapping[str, object], n_atoms: int, where: str
    ) -> dict[str, float]:
        values = {}
        for quantity, measure in measures.items():
            value = found[measure.key]
            if self.has_nan and _is_nan(value):
                continue
            if is_gap(value) and self.has_gaps:
                continue
            try:
                values[quantity] = measure.of(value, n_atoms, where)
            except InputError as error:
                self.problems.add(error)
        return values


def _is_nan(value: object) -> bool:
    text = str(value).strip().lower()
    return text in ("nan", "+nan", "-nan")


def _from_csv(path: Path, source: SourceConfig, values: Values) -> Iterator[Entry]:
    table = read_table(path)
    if source.structure_column not in table.header:
        raise InputError(
            f"{path}: there is no column {source.structure_column!r}",
            hint=f"its columns are {', '.join(table.header)}",
        )
    measures = values.reader.measures(table.header, str(path))
    taken = {source.structure_column, *(measure.key for measure in measures.values())}
    tally = Tally(source.on_error, str(path))
    for row in table:
        where = f"{path}, row {row.number}"
        text = row.cells[source.structure_column]
        crystals = tally.ask(
            where,
            partial(read_structure_text, text, where, disorder=source.disorder),
        )
        for crystal in crystals or ():
            found = values.measured(measures, row.cells, len(crystal), where)
            yield Entry(crystal, found, f"row {row.number}", plain_facts(row.cells, taken))
    tally.tell()


def _from_structures(path: Path, source: SourceConfig, values: Values) -> Iterator[Entry]:
    from ase.calculators.calculator import all_properties

    for entry in read_structures(path, on_error=source.on_error, disorder=source.disorder):
        info = entry.info
        if source.columns and not info:
            raise InputError(f"{entry.where}: the file holds no labels; give them as CSV or extxyz")
        found = values.of(info, len(entry.crystal), entry.where, _stated_units(info.get("units")))
        name = entry.where.removeprefix(str(path)).lstrip(", /").partition(" (line")[0] or path.name
        beside = {key: value for key, value in info.items() if key not in all_properties}
        yield Entry(
            entry.crystal,
            found,
            name,
            plain_facts({**beside, **info.get("facts", {})}, _taken(source)),
        )


def _stated_units(found: object) -> dict[str, str]:
    """Units by key as ``oreloop export`` writes them beside the values."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except json.JSONDecodeError:
            return {}
    return {str(key): str(unit) for key, unit in found.items()} if isinstance(found, dict) else {}


def _taken(source: SourceConfig) -> Collection[str]:
    return {"units", *(column.name for column in source.located.values())}


def _from_campaign(
    path: Path, source: SourceConfig, quantities: Mapping[str, Quantity]
) -> Iterator[Entry]:
    """Labelled candidates of another campaign; ``columns`` maps quantity to quantity. Without
    columns: its structures.

    Raises InputError where several of its oracles gave such labels and ``from_oracle`` names none.
    """
    with closing(LedgerReader(path)) as reader:
        state = reader.fold()
        wanted = [column.name for column in source.located.values()]
        labels = [
            label
            for label in state.labels.values()
            if not wanted or any(name in label.values for name in wanted)
        ]
        oracles = sorted({label.oracle for label in labels})
        if source.from_oracle is not None:
            if source.from_oracle not in oracles:
                raise InputError(
                    f"{path}: {source.from_oracle} gave no labels of "
                    f"{', '.join(wanted) or 'any kind'}",
                    hint=f"there are {', '.join(oracles) or 'none'}",
                )
            labels = [label for label in labels if label.oracle == source.from_oracle]
        elif wanted and len(oracles) > 1:
            raise InputError(
                f"{path}: {', '.join(oracles)} gave labels of {', '.join(wanted)}; those of "
                "several levels are never mixed",
                hint="say whose are meant: from_oracle: NAME",
            )
        found: dict[str, dict[str, float]] = {}
        for label in labels:
            if wanted and not state.is_of_its_level(label):
                continue
            stated = {row.quantity: row.unit for row in label.observations} | _DERIVED_UNITS
            measured = Values.of_source(source, quantities, has_gaps=True)
            found[label.candidate] = measured.of(
                label.values, 1, f"{path}, {label.candidate}", stated
            )
            measured.problems.check()
        order = sorted(found)
        for identity, crystal in zip(order, reader.crystals(order), strict=True):
            record = state.candidates[identity]
            yield Entry(crystal, found[identity], record.name or identity, record.facts)


_DERIVED_UNITS = {quantity.name: quantity.unit for quantity in DERIVED}
HOUSE_UNITS = {
    quantity.name: quantity.unit
    for quantity in (ENERGY_PER_ATOM, FORMATION_ENERGY, VOLUME_PER_ATOM)
}
"""Units of quantities that have one meaning everywhere."""
