"""Structures and labels from files: CSV with a CIF column, a folder of CIF files, extxyz, an ASE database, another campaign."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from campaign.crystals.matching import equivalence_key
from campaign.errors import InputError
from campaign.ledger import LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE
from campaign.schema import SourceConfig
from campaign.types import Crystal, Quantity

Entry = tuple[Crystal, dict[str, float]]


def imported(
    source: SourceConfig, *, folder: Path, purpose: str, quantities: Mapping[str, Quantity], fidelity: str
) -> tuple[ev.Imported, dict[str, bytes]]:
    """The event that takes a source into the ledger, under a key made of its content, and its crystals' bytes.

    Raises InputError where the source cannot be read or names a quantity that no oracle measures.
    """
    path = (folder / source.path).resolve()
    if not path.exists():
        raise InputError(f"{purpose}: there is no {path}", hint="relative paths start at the config's folder")
    for quantity in source.columns:
        if quantity not in quantities:
            raise InputError(f"{purpose} {source.path}: no oracle measures {quantity!r}", hint=f"they measure {', '.join(quantities)}")
    rows: dict[str, ev.ImportedRow] = {}
    blobs: dict[str, bytes] = {}
    for crystal, values in read(path, source):
        observations = tuple(ev.ObservationRow(name, value, quantities[name].unit) for name, value in values.items())
        rows[crystal.id] = ev.ImportedRow(crystal.id, equivalence_key(crystal), observations)
        blobs[crystal.id] = crystal.to_bytes()
    if not rows:
        raise InputError(f"{purpose}: {path} holds no structures")
    digest = hashlib.sha256("".join(sorted(f"{row.candidate}{row.observations}" for row in rows.values())).encode()).hexdigest()
    event = ev.Imported(
        key=f"import/{purpose}/{digest[:32]}/{fidelity}",
        source=source.path,
        sha256=digest,
        oracle=source.oracle or "",
        fidelity=fidelity if source.oracle else "",
        rows=tuple(rows.values()),
    )
    return event, blobs


def read(path: Path, source: SourceConfig, *, has_gaps: bool = False) -> Iterator[Entry]:
    """Crystals and values of a source. ``has_gaps``: a value may be absent or not finite; otherwise that raises InputError."""
    if path.is_dir():
        yield from _from_campaign(path, source) if (path / DATABASE).exists() else _from_cif_folder(path, source)
        return
    readers: dict[str, Callable[[Path, SourceConfig, bool], Iterator[Entry]]] = {
        ".csv": _from_csv,
        ".xyz": _from_extxyz,
        ".extxyz": _from_extxyz,
        ".db": _from_ase_database,
        ".cif": _from_cif,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"cannot tell what {path.name} holds", hint=f"expected a campaign's or CIF folder, or a file ending in {', '.join(readers)}"
        )
    yield from reader(path, source, has_gaps)


def _number(text: object, where: str) -> float:
    try:
        return float(str(text))
    except ValueError as error:
        raise InputError(f"{where}: expected a number, found {text!r}") from error


def _from_csv(path: Path, source: SourceConfig, has_gaps: bool) -> Iterator[Entry]:
    from pymatgen.core import Structure

    csv.field_size_limit(2**31 - 1)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        there = reader.fieldnames or []
        for column in (source.structure_column, *source.columns.values()):
            if column not in there:
                raise InputError(f"{path}: there is no column {column!r}", hint=f"its columns are {', '.join(there)}")
        for i, row in enumerate(reader, start=1):
            where = f"{path}, row {i}"
            try:
                structure = Structure.from_str(row[source.structure_column], fmt="cif")
            except ValueError as error:
                raise InputError(f"{where}: no readable CIF: {error}") from error
            values = _values(row, source, where, has_gaps)
            yield Crystal.from_structure(structure), values


def _from_cif(path: Path, source: SourceConfig, has_gaps: bool = False) -> Iterator[Entry]:
    from pymatgen.core import Structure

    if source.columns:
        raise InputError(f"{path}: CIF files hold no labels; give them as CSV or extxyz")
    try:
        yield Crystal.from_structure(Structure.from_file(path)), {}
    except ValueError as error:
        raise InputError(f"{path}: no readable CIF: {error}") from error


def _from_cif_folder(path: Path, source: SourceConfig) -> Iterator[Entry]:
    for item in sorted(path.glob("*.cif")):
        yield from _from_cif(item, source)


def _from_extxyz(path: Path, source: SourceConfig, has_gaps: bool) -> Iterator[Entry]:
    from ase.io import iread

    for i, atoms in enumerate(iread(path, format="extxyz"), start=1):
        results = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
        yield Crystal.from_atoms(atoms), _values(results, source, f"{path}, structure {i}", has_gaps)


def _from_ase_database(path: Path, source: SourceConfig, has_gaps: bool) -> Iterator[Entry]:
    from ase.db import connect

    for row in connect(path).select():
        known = {**row.key_value_pairs, "energy": row.get("energy")}
        yield Crystal.from_atoms(row.toatoms()), _values(known, source, f"{path}, row {row.id}", has_gaps)


def _values(found: Mapping[str, object], source: SourceConfig, where: str, has_gaps: bool) -> dict[str, float]:
    missing = [key for key in source.columns.values() if found.get(key) in (None, "")]
    if missing and not has_gaps:
        raise InputError(f"{where}: there is no {missing[0]!r}", hint=f"it has {', '.join(map(str, found)) or 'no values'}")
    values = {quantity: _number(found[key], where) for quantity, key in source.columns.items() if key not in missing}
    return {quantity: value for quantity, value in values.items() if math.isfinite(value) or not has_gaps}


def _from_campaign(path: Path, source: SourceConfig) -> Iterator[Entry]:
    """Labelled candidates of another campaign; ``columns`` maps quantity to quantity. Without columns: its structures."""
    reader = LedgerReader(path)
    state = reader.fold()
    found: dict[str, dict[str, float]] = {}
    for label in state.labels.values():
        values = {quantity: label.values[name] for quantity, name in source.columns.items() if name in label.values}
        if values or not source.columns:
            found[label.candidate] = values
    order = sorted(found)
    for identity, crystal in zip(order, reader.crystals(order), strict=True):
        yield crystal, found[identity]
    reader.close()
