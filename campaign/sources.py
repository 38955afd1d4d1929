"""Structures and labels: CSV with a CIF column, files of structures and folders of these, another campaign."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from campaign.crystals.matching import equivalence_key
from campaign.errors import InputError
from campaign.ledger import LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE
from campaign.reading.structures import Tally, read_structure_text, read_structures
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
    if (path / DATABASE).exists():
        yield from _from_campaign(path, source)
    elif path.suffix.lower() == ".csv":
        yield from _from_csv(path, source, has_gaps)
    else:
        yield from _from_structures(path, source, has_gaps)


def _number(text: object, where: str) -> float:
    try:
        return float(str(text))
    except ValueError as error:
        raise InputError(f"{where}: expected a number, found {text!r}") from error


def _from_csv(path: Path, source: SourceConfig, has_gaps: bool) -> Iterator[Entry]:
    csv.field_size_limit(2**31 - 1)
    tally = Tally(source.on_error, str(path))
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        there = reader.fieldnames or []
        for column in (source.structure_column, *source.columns.values()):
            if column not in there:
                raise InputError(f"{path}: there is no column {column!r}", hint=f"its columns are {', '.join(there)}")
        for i, row in enumerate(reader, start=1):
            where = f"{path}, row {i}"
            text = row[source.structure_column]
            crystals = tally.ask(where, lambda text=text, where=where: read_structure_text(text, where, disorder=source.disorder))  # type: ignore[misc]
            for crystal in crystals or ():
                yield crystal, _values(row, source, where, has_gaps)
    tally.tell()


def _from_structures(path: Path, source: SourceConfig, has_gaps: bool) -> Iterator[Entry]:
    for entry in read_structures(path, on_error=source.on_error, disorder=source.disorder):
        if source.columns and not entry.info:
            raise InputError(f"{entry.where}: the file holds no labels; give them as CSV or extxyz")
        yield entry.crystal, _values(entry.info, source, entry.where, has_gaps)


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
