"""Rebuild a damaged ledger from its journal and from what can still be read of its database."""

from __future__ import annotations

import contextlib
import sqlite3
import time as clock
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from campaign.errors import LedgerDamagedError, SurroundingsError
from campaign.ledger import events as ev
from campaign.ledger import journal
from campaign.ledger.lock import FolderLock
from campaign.ledger.store import (
    DATABASE,
    JOURNAL,
    SCHEMA_VERSION,
    blob_ids,
    blob_table,
    create_engine,
    event_table,
    meta_table,
    metadata,
)


@dataclass(frozen=True)
class Recovery:
    """What was found where. ``set_aside`` are the damaged files, kept under new names."""

    events: int
    from_journal: int
    from_database: int
    set_aside: tuple[Path, ...]


def _read_journal(path: Path) -> tuple[dict[int, tuple[float, ev.Event]], dict[str, bytes]]:
    events: dict[int, tuple[float, ev.Event]] = {}
    blobs: dict[str, bytes] = {}
    for transaction, _ in journal.read(path):
        blobs.update(transaction.blobs)
        for i, event in enumerate(transaction.events):
            events[transaction.first + i] = transaction.time, event
    return events, blobs


def _read_database(path: Path) -> tuple[dict[int, tuple[float, ev.Event]], dict[str, bytes]]:
    events: dict[int, tuple[float, ev.Event]] = {}
    blobs: dict[str, bytes] = {}
    if not path.exists():
        return events, blobs
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for sequence, time, payload in connection.execute(f"SELECT sequence, time, payload FROM {event_table.name} ORDER BY sequence"):
            events[sequence] = time, ev.decode(payload)
    except (sqlite3.Error, ValueError):
        pass
    with contextlib.suppress(sqlite3.Error):
        blobs.update(connection.execute(f"SELECT id, data FROM {blob_table.name}"))
    connection.close()
    return events, blobs


def recover(folder: Path) -> Recovery:
    """Write a new database and journal with every event that is whole in either, up to the first one that is in neither.

    The old files are kept under a new name. Raises LedgerDamagedError where nothing is left to recover.
    """
    if not folder.is_dir():
        raise SurroundingsError(f"there is no folder {folder}", hint="name the campaign's folder")
    lock = FolderLock(folder)
    try:
        from_journal, blobs = _read_journal(folder / JOURNAL)
        from_database, more_blobs = _read_database(folder / DATABASE)
        blobs.update(more_blobs)
        events: list[tuple[float, ev.Event]] = []
        while (found := from_database.get(len(events) + 1) or from_journal.get(len(events) + 1)) is not None:
            if not blob_ids(found[1]) <= blobs.keys():
                break
            events.append(found)
        if not events:
            raise LedgerDamagedError(
                f"neither the database nor the journal in {folder} holds a readable event", hint="restore the folder from a backup"
            )
        set_aside = _write_anew(folder, events, blobs)
        return Recovery(len(events), len(from_journal), len(from_database), set_aside)
    finally:
        lock.release()


def _write_anew(folder: Path, events: list[tuple[float, ev.Event]], blobs: dict[str, bytes]) -> tuple[Path, ...]:
    building = folder / "recovering"
    building.mkdir(exist_ok=True)
    for leftover in building.iterdir():
        leftover.unlink()
    engine = create_engine(building)
    metadata.create_all(engine)
    rows = [
        {"sequence": i, "time": time, "kind": type(event).__name__, "key": event.key, "payload": ev.encode(event)}
        for i, (time, event) in enumerate(events, start=1)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(meta_table).values(name="schema_version", value=str(SCHEMA_VERSION)))
        connection.execute(sa.insert(event_table), rows)
        if blobs:
            connection.execute(sa.insert(blob_table), [{"id": key, "data": data} for key, data in blobs.items()])
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    new_journal = journal.Journal(building / JOURNAL)
    for i, (time, event) in enumerate(events, start=1):
        named = {identity: blobs[identity] for identity in sorted(blob_ids(event))}
        new_journal.append(journal.Transaction(i, time, (event,), named))  # type: ignore[arg-type]
    new_journal.close()

    stamp = clock.strftime("%Y%m%d-%H%M%S", clock.gmtime())
    set_aside = []
    for name in (DATABASE, DATABASE + "-wal", DATABASE + "-shm", JOURNAL):
        if (folder / name).exists():
            kept = folder / f"damaged-{stamp}-{name}"
            (folder / name).rename(kept)
            set_aside.append(kept)
    (building / DATABASE).rename(folder / DATABASE)
    (building / JOURNAL).rename(folder / JOURNAL)
    for leftover in building.iterdir():
        leftover.unlink()
    building.rmdir()
    return tuple(set_aside)
