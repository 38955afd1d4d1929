"""Structures and labels from files: CSV with a CIF column, a folder of CIF files, extxyz, an ASE database, another campaign.

``read`` gives what stands there, one entry a structure; ``imported`` turns a source into a set of ledger rows, one a crystal.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from campaign.crystals.matching import Matcher, equivalence_key
from campaign.errors import InputError
from campaign.ledger import LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.store import DATABASE
from campaign.reading.tables import Measure, Problems, Reader, is_gap, plain_facts, read_table
from campaign.schema import SourceConfig
from campaign.types import ENERGY_PER_ATOM, FORMATION_ENERGY, VOLUME_PER_ATOM, Crystal, Quantity

if TYPE_CHECKING:
    from ase import Atoms

_SAME_VALUE = 1e-9
_REPLICATE = Matcher(length=1e-3, site=1e-3, angle=0.05)
"""Two rows are one crystal where they agree so far; nearer copies than these are not told apart by any measurement."""
_SAME_VOLUME = 1e-3


@dataclass(frozen=True)
class Entry:
    """A structure of a source: its values by quantity, what it is called there, and what else is said of it."""

    crystal: Crystal
    values: Mapping[str, float]
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Import:
    """What a source holds: its rows by candidate, the crystals' bytes, and how many structures stood there."""

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
    """The rows of a source, values in their quantities' units and inside the oracle's sanity ``windows``, one row for each crystal.

    Raises InputError where the source cannot be read, names a quantity that the oracle does not measure, holds a value that no crystal
    has, or several values of one crystal that are not ``replicates``.
    """
    path = (folder / source.path).resolve()
    if not path.exists():
        raise InputError(f"{purpose}: there is no {path}", hint="relative paths start at the config's folder")
    for quantity in source.columns:
        if quantity not in quantities:
            raise InputError(f"{purpose} {source.path}: no oracle measures {quantity!r}", hint=f"they measure {', '.join(quantities)}")
    entries, problems = [], Problems()
    for entry in read(path, source, quantities=quantities, has_gaps=True):
        entries.append(entry)
        where = f"{purpose} {source.path}, {entry.name}"
        if purpose == "initial_data" and source.columns and not entry.values:
            problems.add(InputError(f"{where}: there is no {' and no '.join(source.columns)}", hint="fill one in, or leave the row out"))
        for quantity, value in entry.values.items():
            low, high = (windows or {}).get(quantity, (-math.inf, math.inf))
            if not low <= value <= high:
                message = f"{where}: {quantity} of {value:.6g} {quantities[quantity].unit} lies outside sanity, {low:g} to {high:g}"
                problems.add(InputError(message, hint="correct the value, its unit, or the oracle's sanity"))
    problems.check()
    if not entries:
        raise InputError(f"{purpose}: {path} holds no structures")
    rows: dict[str, ev.ImportedRow] = {}
    blobs: dict[str, bytes] = {}
    for key, group in _groups(entries):
        first = group[0]
        observations = tuple(_observations(group, source, quantities, f"{purpose} {source.path}", problems))
        rows[first.crystal.id] = ev.ImportedRow(first.crystal.id, key, observations, first.name, dict(first.facts))
        blobs[first.crystal.id] = first.crystal.to_bytes()
    problems.check()
    return Import(rows, blobs, len(entries))


def _groups(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Equivalence key and entries of each crystal, in their order. Without a label a crystal in another setting is left to the screens."""
    by_key: defaultdict[str, list[list[Entry]]] = defaultdict(list)
    order: list[tuple[str, list[Entry]]] = []
    keys: dict[str, str] = {}
    for entry in entries:
        key = keys.setdefault(entry.crystal.id, "") or equivalence_key(entry.crystal)
        keys[entry.crystal.id] = key
        group = next((group for group in by_key[key] if _is_one(group[0], entry)), None)
        if group is None:
            by_key[key].append([])
            group = by_key[key][-1]
            order.append((key, group))
        group.append(entry)
    yield from order


def _is_one(one: Entry, other: Entry) -> bool:
    if one.crystal.id == other.crystal.id:
        return True
    if not (one.values and other.values):
        return False
    return is_same_size(one.crystal, other.crystal) and _REPLICATE.is_same(one.crystal, other.crystal)


def is_same_size(one: Crystal, other: Crystal) -> bool:
    """Whether the volumes per atom agree to a thousandth."""
    return math.isclose(one.volume / len(one), other.volume / len(other), rel_tol=_SAME_VOLUME)


def _observations(
    group: Sequence[Entry], source: SourceConfig, quantities: Mapping[str, Quantity], where: str, problems: Problems
) -> Iterator[ev.ObservationRow]:
    for name in source.columns:
        found = [entry.values[name] for entry in group if name in entry.values]
        if not found:
            continue
        unit = quantities[name].unit
        if all(math.isclose(value, found[0], rel_tol=_SAME_VALUE) for value in found):
            yield ev.ObservationRow(name, found[0], unit)
        elif source.replicates == "mean":
            yield ev.ObservationRow(name, fmean(found), unit, stdev(found))
        else:
            places = ", ".join(entry.name for entry in group if name in entry.values)
            values = ", ".join(f"{value:.6g}" for value in found)
            message = f"{where}: {places} are one crystal, {group[0].crystal.formula}, with several values of {name}: {values} {unit}"
            problems.add(InputError(message, hint="keep one of them, or set replicates: mean"))


def read(
    path: Path,
    source: SourceConfig,
    *,
    quantities: Mapping[str, Quantity] | None = None,
    has_gaps: bool = False,
    has_nan: bool = False,
) -> Iterator[Entry]:
    """What stands in a source. ``quantities``: those whose units are known, to which values are converted.

    ``has_gaps``: values may be missing; ``has_nan``: NaN counts as missing. Raises InputError for everything else that is no value.
    """
    known = dict(quantities or {})
    if path.is_dir():
        yield from _from_campaign(path, source, known) if (path / DATABASE).exists() else _from_cif_folder(path, source)
        return
    readers: dict[str, Callable[[Path, SourceConfig, Values], Iterator[Entry]]] = {
        ".csv": _from_csv,
        ".xyz": _from_extxyz,
        ".extxyz": _from_extxyz,
        ".db": _from_ase_database,
        ".cif": _from_cif,
    }
    reader = readers.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if reader is None:
        raise InputError(
            f"cannot tell what {path.name} holds", hint=f"expected a campaign's or CIF folder, or a file ending in {', '.join(readers)}"
        )
    values = Values.of_source(source, known, has_gaps=has_gaps, has_nan=has_nan)
    yield from reader(path, source, values)
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
        cls, source: SourceConfig, quantities: Mapping[str, Quantity], *, has_gaps: bool = False, has_nan: bool = False
    ) -> Values:
        return cls(Reader(source.located, quantities), has_gaps, has_nan)

    def of(self, found: Mapping[str, object], n_atoms: int, where: str, stated: Mapping[str, str]) -> dict[str, float]:
        """The values of a row of a file without a header, whose keys may differ from row to row and ``stated`` units stand beside them."""
        there = [key for key, value in found.items() if not is_gap(value)]
        missing = [quantity for quantity, column in self.reader.columns.items() if column.name not in there]
        if missing and not self.has_gaps:
            column = self.reader.columns[missing[0]].name
            self.problems.add(InputError(f"{where}: there is no {column!r}", hint=f"it has {', '.join(there) or 'no values'}"))
            return {}
        columns = {quantity: column for quantity, column in self.reader.columns.items() if quantity not in missing}
        measures = Reader(columns, self.reader.quantities).measures(there, where, stated) if missing else None
        return self.measured(measures or self.reader.measures(there, where, stated) if columns else {}, found, n_atoms, where)

    def measured(self, measures: Mapping[str, Measure], found: Mapping[str, object], n_atoms: int, where: str) -> dict[str, float]:
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
    from pymatgen.core import Structure

    table = read_table(path)
    if source.structure_column not in table.header:
        raise InputError(f"{path}: there is no column {source.structure_column!r}", hint=f"its columns are {', '.join(table.header)}")
    measures = values.reader.measures(table.header, str(path))
    taken = {source.structure_column, *(measure.key for measure in measures.values())}
    for row in table:
        where = f"{path}, row {row.number}"
        try:
            structure = Structure.from_str(row.cells[source.structure_column], fmt="cif")
        except ValueError as error:
            raise InputError(f"{where}: no readable CIF: {error}") from error
        crystal = Crystal.from_structure(structure)
        found = values.measured(measures, row.cells, len(crystal), where)
        yield Entry(crystal, found, f"row {row.number}", plain_facts(row.cells, taken))


def _from_cif(path: Path, source: SourceConfig, values: Values | None = None) -> Iterator[Entry]:
    from pymatgen.core import Structure

    if source.columns:
        raise InputError(f"{path}: CIF files hold no labels; give them as CSV or extxyz")
    try:
        yield Entry(Crystal.from_structure(Structure.from_file(path)), {}, path.name)
    except ValueError as error:
        raise InputError(f"{path}: no readable CIF: {error}") from error


def _from_cif_folder(path: Path, source: SourceConfig) -> Iterator[Entry]:
    for item in sorted(path.glob("*.cif")):
        yield from _from_cif(item, source)


def _from_extxyz(path: Path, source: SourceConfig, values: Values) -> Iterator[Entry]:
    from ase.io import iread

    yield from of_images(iread(path, format="extxyz"), path, source, values)


def of_images(images: Iterable[Atoms], path: Path, source: SourceConfig, values: Values) -> Iterator[Entry]:
    """Entries of structures as ASE reads them, values in their ``info`` or in their calculators' results."""
    for i, atoms in enumerate(images, start=1):
        results = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
        where = f"structure {i}"
        found = values.of(results, len(atoms), f"{path}, {where}", _stated_units(atoms.info.get("units")))
        yield Entry(Crystal.from_atoms(atoms), found, where, plain_facts(atoms.info, _taken(source)))


def _from_ase_database(path: Path, source: SourceConfig, values: Values) -> Iterator[Entry]:
    from ase.db import connect

    for row in connect(path).select():
        known = {**row.key_value_pairs, "energy": row.get("energy"), "free_energy": row.get("free_energy")}
        where = f"row {row.id}"
        found = values.of(known, row.natoms, f"{path}, {where}", _stated_units(row.data.get("units")))
        facts = {**row.key_value_pairs, **row.data.get("facts", {})}
        yield Entry(Crystal.from_atoms(row.toatoms()), found, where, plain_facts(facts, _taken(source)))


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


def _from_campaign(path: Path, source: SourceConfig, quantities: Mapping[str, Quantity]) -> Iterator[Entry]:
    """Labelled candidates of another campaign; ``columns`` maps quantity to quantity. Without columns: its structures.

    Raises InputError where several of its oracles gave such labels and ``from_oracle`` names none.
    """
    reader = LedgerReader(path)
    try:
        state = reader.fold()
        wanted = [column.name for column in source.located.values()]
        labels = [label for label in state.labels.values() if not wanted or any(name in label.values for name in wanted)]
        oracles = sorted({label.oracle for label in labels})
        if source.from_oracle is not None:
            if source.from_oracle not in oracles:
                raise InputError(
                    f"{path}: {source.from_oracle} gave no labels of {', '.join(wanted) or 'any kind'}",
                    hint=f"there are {', '.join(oracles) or 'none'}",
                )
            labels = [label for label in labels if label.oracle == source.from_oracle]
        elif wanted and len(oracles) > 1:
            raise InputError(
                f"{path}: {', '.join(oracles)} gave labels of {', '.join(wanted)}; those of several levels are never mixed",
                hint="say whose are meant: from_oracle: NAME",
            )
        found: dict[str, dict[str, float]] = {}
        for label in labels:
            if wanted and not state.is_of_its_level(label):
                continue
            stated = {row.quantity: row.unit for row in label.observations} | _DERIVED_UNITS
            measured = Values.of_source(source, quantities, has_gaps=True)
            found[label.candidate] = measured.of(label.values, 1, f"{path}, {label.candidate}", stated)
            measured.problems.check()
        order = sorted(found)
        for identity, crystal in zip(order, reader.crystals(order), strict=True):
            record = state.candidates[identity]
            yield Entry(crystal, found[identity], record.name or identity, record.facts)
    finally:
        reader.close()


_DERIVED_UNITS = {FORMATION_ENERGY.name: FORMATION_ENERGY.unit}
HOUSE_UNITS = {quantity.name: quantity.unit for quantity in (ENERGY_PER_ATOM, FORMATION_ENERGY, VOLUME_PER_ATOM)}
"""Units of quantities that have one meaning everywhere."""
