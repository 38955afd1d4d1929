"""Rebuild a damaged ledger from its journal and from what can still be read of its database.

The journal's lines carry checksums and win; the database fills in what no whole line holds. The new
journal, which holds all that was found, takes the old one's place before the database is touched:
killed at any point, ``recover`` is run again and loses nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import time as clock
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from campaign.errors import InputError, LedgerDamagedError, SurroundingsError
from campaign.ledger import blobs as blob_ids
from campaign.ledger import events as ev
from campaign.ledger import journal
from campaign.ledger.engines import (
    CONFIG_COPY,
    DATABASE,
    JOURNAL,
    RECOVERING,
    SET_ASIDE,
    create_engine,
    explain,
    reading_file,
)
from campaign.ledger.lock import FolderLock, cannot_write
from campaign.ledger.mend import Timed, mended
from campaign.ledger.store import (
    SCHEMA_VERSION,
    blob_table,
    event_table,
    insert_blobs,
    meta_table,
    metadata,
    row_of,
    take_advisory_lock,
)

_BLOB = re.compile(rb'"((?:table-)?[0-9a-f]{32})":"([A-Za-z0-9+/=]+)"')


@dataclass(frozen=True)
class Recovery:
    """What was found where. ``events`` is the new ledger's length, with the places of the
    ``missing`` sequences.

    ``only_journal`` and ``only_database`` are the sequences that one side alone had whole,
    ``contradicted`` those where the database's event was not the journal's, ``unusable`` those that
    were found and cannot stand; ``damaged_lines`` counts the journal's. ``set_aside`` are the old
    files (or tables), kept under new names.
    """

    events: int
    from_journal: int
    from_database: int
    set_aside: tuple[Path, ...]
    missing: tuple[int, ...] = ()
    only_journal: tuple[int, ...] = ()
    only_database: tuple[int, ...] = ()
    contradicted: tuple[int, ...] = ()
    unusable: tuple[int, ...] = ()
    lost_blobs: int = 0
    damaged_lines: int = 0

    def lines(self) -> list[str]:
        """What was found and what is missing, for people."""
        found = [f"recovered {self.events - len(self.missing)} events"]
        found[0] += (
            f" ({self.from_database} were readable in the database, {self.from_journal} in the "
            "journal)"
        )
        told = [
            (self.missing, "in neither, their places are marked"),
            (self.only_journal, "missing from the database, taken from the journal"),
            (self.only_database, "missing from the journal, taken from the database"),
            (
                self.contradicted,
                "changed in the database, taken from the journal, whose checksum holds",
            ),
            (self.unusable, "found, but cannot stand without what is lost; kept as text"),
        ]
        found += [f"events {ranges(sequences)}: {what}" for sequences, what in told if sequences]
        if self.damaged_lines:
            found.append(f"{self.damaged_lines} lines of the journal were damaged")
        if self.lost_blobs:
            found.append(f"{self.lost_blobs} crystals or score tables were damaged on both sides")
        return found


def ranges(sequences: Iterable[int]) -> str:
    """Numbers in order for people: 3, 5-9."""
    found: list[list[int]] = []
    for number in sequences:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, item)) for item in found)


@dataclass
class _Side:
    """What one side holds: events by sequence, blobs by id, all of them whole as far as that side
    can tell.
    """

    events: dict[int, Timed] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    damaged: int = 0

    def add(self, identity: str, data: bytes) -> None:
        if identity not in self.blobs and blob_ids.is_whole(identity, data):
            self.blobs[identity] = data

    def read_journal(self, path: Path) -> None:
        for found, _ in journal.scan(path):
            if isinstance(found, journal.Damage):
                self.damaged += not found.is_torn
                self._salvage(found.text)
                continue
            transaction = found.transaction()
            for identity, data in transaction.blobs.items():
                self.add(identity, data)
            for sequence, payload in enumerate(transaction.payloads, start=transaction.first):
                with suppress(ValueError):
                    self.events.setdefault(sequence, (transaction.time, ev.decode(payload)))

    def _salvage(self, text: bytes) -> None:
        """The blobs of a damaged line whose ids say that they are whole."""
        for match in _BLOB.finditer(text):
            with suppress(binascii.Error):
                self.add(match[1].decode(), base64.b64decode(match[2], validate=True))

    def read_database(self, engine: sa.Engine) -> None:
        """From both ends as far as the rows can be read; what lies between is lost to this side."""
        columns = sa.select(event_table.c.sequence, event_table.c.time, event_table.c.payload)
        for order in (event_table.c.sequence.asc(), event_table.c.sequence.desc()):
            with suppress(SQLAlchemyError, ValueError, TypeError), engine.connect() as connection:
                for sequence, time, payload in connection.execution_options(yield_per=1).execute(
                    columns.order_by(order)
                ):
                    if sequence in self.events:
                        break
                    with suppress(ValueError):
                        self.events[sequence] = time, ev.decode(bytes(payload))
        with suppress(SQLAlchemyError, ValueError, TypeError), engine.connect() as connection:
            for identity, data in connection.execution_options(yield_per=100).execute(
                sa.select(blob_table.c.id, blob_table.c.data)
            ):
                self.add(identity, bytes(data))

    def look_up(self, engine: sa.Engine, wanted: Iterable[str]) -> None:
        """Single blobs, where reading all of them broke off."""
        for identity in wanted:
            with suppress(SQLAlchemyError, ValueError, TypeError), engine.connect() as connection:
                data = connection.execute(
                    sa.select(blob_table.c.data).where(blob_table.c.id == identity)
                ).scalar_one_or_none()
                if data is not None:
                    self.add(identity, bytes(data))


def recorded_url(folder: Path) -> str | None:
    """The database behind a URL that a campaign's folder says it uses; it never holds a
    password.
    """
    with suppress(OSError, ValueError, LookupError, TypeError):
        return (
            str(json.loads((folder / CONFIG_COPY).read_bytes())["config"]["ledger"]["url"] or "")
            or None
        )
    side = _Side()
    side.read_journal(folder / JOURNAL)
    revisions = [event for _, event in side.events.values() if isinstance(event, ev.ConfigRevised)]
    url = (revisions[-1].config.get("ledger") or {}).get("url") if revisions else None
    return str(url) if url else None


def recover(folder: Path) -> Recovery:
    """``rebuild`` with the database that the folder names."""
    return rebuild(folder, recorded_url(folder) if folder.is_dir() else None)


def rebuild(folder: Path, url: str | None = None) -> Recovery:
    """Write a new journal and database with every event that is whole in either, and a mark where
    one is whole in neither.

    The old ones are kept under new names. Raises LedgerDamagedError where nothing is left to
    recover, CampaignLockedError where a driver is at work, InputError where the database is another
    campaign's, SurroundingsError where it does not answer or the disk is full.
    """
    if not folder.is_dir():
        raise SurroundingsError(f"there is no folder {folder}", hint="name the campaign's folder")
    with ExitStack() as opened:
        opened.callback(FolderLock(folder).release)
        remote = None
        try:
            if url is not None:
                remote = opened.enter_context(_hold(folder, url, opened))
            from_journal, from_database = _read(folder, remote)
            return _rebuild(folder, from_journal, from_database, remote)
        except OSError as error:
            raise cannot_write(Path(error.filename or folder), error) from error
        except SQLAlchemyError as error:
            raise explain(error, folder) from error


def _hold(folder: Path, url: str, opened: ExitStack) -> sa.Connection:
    engine = create_engine(folder, url)
    opened.callback(engine.dispose)
    connection = engine.connect()
    take_advisory_lock(connection)
    metadata.create_all(engine)
    return connection


def _read(folder: Path, remote: sa.Connection | None) -> tuple[_Side, _Side]:
    """Both sides as they stand in place, and as a recovery that was broken off left them."""
    from_journal, from_database = _Side(), _Side()
    journals, databases = [folder / JOURNAL], [folder / DATABASE]
    if (folder / RECOVERING).is_dir() or not any(path.exists() for path in (*journals, *databases)):
        stamps = sorted({path.name[: len(SET_ASIDE) + 15] for path in folder.glob(f"{SET_ASIDE}*")})
        journals += [
            folder / RECOVERING / JOURNAL,
            *(folder / f"{stamp}-{JOURNAL}" for stamp in stamps[-1:]),
        ]
        databases += [
            folder / RECOVERING / DATABASE,
            *(folder / f"{stamp}-{DATABASE}" for stamp in stamps[-1:]),
        ]
    for path in journals:
        from_journal.read_journal(path)
    with ExitStack() as opened:
        engines = [reading_file(path) for path in databases if path.exists()]
        for engine in engines:
            opened.callback(engine.dispose)
        if remote is not None:
            engines.insert(0, remote.engine)
        for engine in engines:
            from_database.read_database(engine)
        named = {
            identity
            for side in (from_journal, from_database)
            for _, event in side.events.values()
            for identity in blob_ids.named_by(event)
        }
        for engine in engines:
            from_database.look_up(
                engine, named - from_journal.blobs.keys() - from_database.blobs.keys()
            )
    return from_journal, from_database


def _rebuild(
    folder: Path, from_journal: _Side, from_database: _Side, remote: sa.Connection | None
) -> Recovery:
    ours, theirs = (side.events.get(1, (0.0, None))[1] for side in (from_journal, from_database))
    if (
        isinstance(ours, ev.CampaignCreated)
        and isinstance(theirs, ev.CampaignCreated)
        and ours.campaign != theirs.campaign
    ):
        raise InputError(
            f"the database holds campaign {theirs.name!r}, the journal in {folder} is of "
            f"another one, {ours.name!r}",
            hint="give each campaign a database of its own with ledger.url, or leave it out",
        )
    found = {**from_database.events, **from_journal.events}
    if not found:
        raise LedgerDamagedError(
            f"neither the database nor the journal in {folder} holds a readable event",
            hint="restore the folder from a backup",
        )
    blobs = {**from_database.blobs, **from_journal.blobs}
    events = mended(found, blobs)
    named = {identity for _, event in found.values() for identity in blob_ids.named_by(event)}
    set_aside = _write_anew(folder, events, blobs, remote)
    both = from_journal.events.keys() & from_database.events.keys()
    return Recovery(
        events=len(events),
        from_journal=len(from_journal.events),
        from_database=len(from_database.events),
        set_aside=set_aside,
        missing=tuple(n for n in range(1, len(events) + 1) if n not in found),
        only_journal=tuple(sorted(from_journal.events.keys() - both))
        if from_database.events
        else (),
        only_database=tuple(sorted(from_database.events.keys() - both))
        if from_journal.events
        else (),
        contradicted=tuple(
            n for n in sorted(both) if not _is_same(from_journal.events[n], from_database.events[n])
        ),
        unusable=tuple(
            n
            for n, (_, event) in enumerate(events, start=1)
            if n in found and isinstance(event, ev.Lost) and event != found[n][1]
        ),
        lost_blobs=len(named - blobs.keys()),
        damaged_lines=from_journal.damaged,
    )


def _is_same(one: Timed, other: Timed) -> bool:
    return one[0] == other[0] and ev.encode(one[1]) == ev.encode(other[1])


def _write_anew(
    folder: Path, events: list[Timed], blobs: dict[str, bytes], remote: sa.Connection | None
) -> tuple[Path, ...]:
    building = folder / RECOVERING
    stamp = _free_stamp(folder)
    in_place = [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", JOURNAL]
    building.mkdir(exist_ok=True)
    new = building / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    rows = [(time, *ev.written(event)) for time, event in events]
    _write_journal(new / JOURNAL, rows, blobs)
    if remote is None:
        engine = create_engine(new)
        metadata.create_all(engine)
        with engine.begin() as connection:
            _fill(connection, rows, blobs)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()

    set_aside = []
    for name in in_place:
        if (folder / name).exists():
            set_aside.append(folder / f"{SET_ASIDE}{stamp}-{name}")
            _link(folder / name, set_aside[-1])
    os.replace(new / JOURNAL, folder / JOURNAL)
    for name in in_place[:-1]:
        (folder / name).unlink(missing_ok=True)
    if remote is None:
        os.replace(new / DATABASE, folder / DATABASE)
    else:
        set_aside += [
            Path(name) for name in _replace_tables(remote, rows, blobs, stamp.replace("-", "_"))
        ]
    shutil.rmtree(building)
    return tuple(set_aside)


def _free_stamp(folder: Path) -> str:
    """The time in a name under which nothing is set aside yet."""
    seconds = clock.time()
    while any(
        folder.glob(
            f"{SET_ASIDE}{(stamp := clock.strftime('%Y%m%d-%H%M%S', clock.gmtime(seconds)))}*"
        )
    ):
        seconds += 1
    return stamp


Written = tuple[float, bytes, ev.Event]


def _write_journal(path: Path, rows: list[Written], blobs: dict[str, bytes]) -> None:
    new = journal.Journal(path)
    for sequence, (time, payload, event) in enumerate(rows, start=1):
        named = {
            identity: blobs[identity]
            for identity in sorted(blob_ids.named_by(event))
            if identity in blobs
        }
        new.append(journal.Transaction(sequence, time, (payload,), named))
    new.close()


def _fill(connection: sa.Connection, rows: list[Written], blobs: dict[str, bytes]) -> None:
    connection.execute(
        sa.insert(meta_table).values(name="schema_version", value=str(SCHEMA_VERSION))
    )
    table = [
        row_of(sequence, time, event, payload)
        for sequence, (time, payload, event) in enumerate(rows, start=1)
    ]
    connection.execute(sa.insert(event_table), table)
    insert_blobs(connection, blobs)


def _replace_tables(
    connection: sa.Connection, rows: list[Written], blobs: dict[str, bytes], stamp: str
) -> list[str]:
    """In one transaction; what stood in the tables is copied to others first."""
    kept = []
    with connection.begin():
        for table in (event_table, blob_table):
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                kept.append(f"{table.name}_damaged_{stamp}")
                connection.execute(
                    sa.text(f"CREATE TABLE {kept[-1]} AS SELECT * FROM {table.name}")
                )
        for table in (event_table, blob_table, meta_table):
            connection.execute(sa.delete(table))
        _fill(connection, rows, blobs)
    return kept


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
