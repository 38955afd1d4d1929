"""The ledger: events and blobs in a real database, mirrored in the journal, folded into the state.

Only the driver writes. A transaction is durable in the database (SQLite: WAL, ``synchronous=FULL``)
before ``append`` returns; the journal follows, and what it misses after a crash is written to it
when the ledger is opened again. Appending costs one commit (one fsync) whatever the number of
events; folding reads events only and decodes no crystal.

Neither side is believed blindly. A fold compares each of the database's events with the one in the
journal, whose lines carry checksums: 0.2 s for 10^4 events with their crystals, 2 s for 10^5 (0.05
and 0.6 s of it to read the journal), where folding takes 0.5 and 5.4 s (two shared cores). A blob
is compared with its id whenever it is read, in less than 0.1 ms.
"""

from __future__ import annotations

import contextlib
import logging
import time as clock
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import Executable

from campaign.clock import awake_seconds
from campaign.errors import CampaignLockedError, InputError, LedgerDamagedError, SurroundingsError
from campaign.ledger import blobs as blob_ids
from campaign.ledger import contradictions
from campaign.ledger import events as ev
from campaign.ledger import journal as journals
from campaign.ledger.engines import (
    DATABASE,
    JOURNAL,
    create_engine,
    explain,
    reading_engine,
    remains,
)
from campaign.ledger.journal import Journal, Transaction
from campaign.ledger.lock import FolderLock, cannot_write, refuse_network_file_system
from campaign.ledger.state import CampaignState, fold
from campaign.types import Crystal

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_ADVISORY_LOCK = 0x6F72656C6F6F70
_CACHED_CRYSTALS = 20_000
_REMEMBERED_BLOBS = 4096
_CHECK_SECONDS = 1.0

metadata = sa.MetaData()
meta_table = sa.Table(
    "oreloop_meta",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
event_table = sa.Table(
    "oreloop_events",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("key", sa.String, unique=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)
blob_table = sa.Table(
    "oreloop_blobs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


_INSERT_EVENTS = sa.insert(event_table)

_IN_ONE_TURN = sa.text("""
WITH stored AS (
    INSERT INTO oreloop_blobs (id, data)
    SELECT * FROM unnest(CAST(:blob AS text[]), CAST(:data AS bytea[]))
    ON CONFLICT (id) DO NOTHING
)
INSERT INTO oreloop_events (sequence, time, kind, key, payload)
SELECT * FROM unnest(
    CAST(:sequence AS integer[]), CAST(:time AS double precision[]), CAST(:kind AS text[]), CAST(:key AS text[]), CAST(:payload AS bytea[])
)
""")  # noqa: E501
"""PostgreSQL: a transaction as one statement, one turn to the server in place of one for each
table, the beginning and the end.
"""

Row = tuple[int, float, bytes]
"""Sequence, time, text of an event."""


def row_of(sequence: int, time: float, event: ev.Event, payload: bytes) -> dict[str, object]:
    """An event as the database's table holds it."""
    return {
        "sequence": sequence,
        "time": time,
        "kind": type(event).__name__,
        "key": _column(event.key),
        "payload": payload,
    }


def _column(key: str | None) -> str | None:
    """A key as a database can store it; one that holds no text of Unicode goes in with escapes."""
    return key if key is None or (key.isprintable() and "\\" not in key) else ascii(key)


class LedgerReader:
    """Reads a ledger, also while a driver writes it, and where nothing can be written."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        if url is None and not (folder / DATABASE).exists():
            if remains(folder):
                raise _database_missing(folder)
            raise SurroundingsError(
                f"there is no campaign in {folder}", hint="start one with `oreloop run CONFIG.yaml`"
            )
        self.engine = reading_engine(folder, url)
        self._crystals: OrderedDict[str, Crystal] = OrderedDict()
        self._remembered: OrderedDict[str, bytes] = OrderedDict()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise explain(error, self.folder) from error

    def _rows(self, after: int = 0, until: int | None = None) -> Iterator[Row]:
        query = sa.select(event_table.c.sequence, event_table.c.time, event_table.c.payload)
        query = query.where(event_table.c.sequence > after).order_by(event_table.c.sequence)
        if until is not None:
            query = query.where(event_table.c.sequence <= until)
        with self._explained(), self.engine.connect() as connection:
            for sequence, time, payload in connection.execution_options(yield_per=1000).execute(
                query
            ):
                yield sequence, time, bytes(payload)

    def events(
        self, after: int = 0, *, until: int | None = None
    ) -> Iterator[tuple[int, float, ev.Event]]:
        """(sequence, time, event) in order. Raises LedgerDamagedError where they cannot be read."""
        for sequence, time, payload in self._rows(after, until):
            yield sequence, time, self._decoded(sequence, payload)

    def _decoded(self, sequence: int, payload: bytes) -> ev.Event:
        try:
            return ev.decode(payload)
        except ValueError as error:
            raise self._damaged(
                f"holds an event, number {sequence}, that cannot be read: {error}"
            ) from error

    def _damaged(self, what: str) -> LedgerDamagedError:
        return LedgerDamagedError(
            f"the ledger in {self.folder} {what}",
            hint=f"rebuild it from its journal: oreloop recover {self.folder}",
        )

    @cached_property
    def _journal_index(self) -> journals.Index:
        """What the journal held when it was first asked for: before the database is read, which is
        never behind it.
        """
        try:
            return journals.index(self.folder / JOURNAL)
        except OSError as error:
            raise SurroundingsError(
                f"the journal in {self.folder} cannot be read ({error})",
                hint="give this user the right to read it",
            ) from error

    def _verified(self, until: int | None) -> Iterator[tuple[int, float, ev.Event]]:
        """The events, each compared with the journal, none missing."""
        known = self._journal_index.events
        sequence = 0
        for sequence, (found, time, payload) in enumerate(self._rows(until=until), start=1):
            if found != sequence:
                raise self._damaged(f"misses event {sequence} in its database")
            there = known.get(sequence)
            if there is not None and there != (time, zlib.crc32(payload)):
                self._compare(sequence, time, payload)
            yield sequence, time, self._decoded(sequence, payload)
        last = self._journal_index.last
        if until is None and last > sequence:
            raise LedgerDamagedError(
                f"the journal in {self.folder} knows {last} events, the database only {sequence}",
                hint=f"rebuild the database: oreloop recover {self.folder}",
            )

    def _compare(self, sequence: int, time: float, payload: bytes) -> None:
        """Raises where an event differs from the journal's in more than how it is written."""
        lines = (
            line
            for line, _ in journals.read(self.folder / JOURNAL)
            if line.first <= sequence <= line.last
        )
        for line in lines:
            theirs = line.events[sequence - line.first]
            event = self._decoded(sequence, payload)
            if (
                isinstance(theirs, ev.CampaignCreated)
                and isinstance(event, ev.CampaignCreated)
                and theirs.campaign != event.campaign
            ):
                raise InputError(
                    f"the database holds campaign {event.name!r}, but {self.folder} is the "
                    f"folder of another one, {theirs.name!r}",
                    hint="give each campaign a database of its own with ledger.url, or leave "
                    "it out",
                )
            if line.time != time or ev.encode(theirs) != ev.encode(event):
                raise self._damaged(
                    f"differs from its journal in event {sequence} ({type(event).__name__}), "
                    "and the journal's checksum holds"
                )

    def fold(self, *, until: int | None = None) -> CampaignState:
        """The state as it stands, or as it stood after event ``until``; each event compared with
        the journal.

        Raises LedgerDamagedError where the two differ, where events are missing, or where they
        cannot follow one another.
        """
        try:
            return fold(self._verified(until))
        except (LookupError, TypeError, OverflowError) as error:
            raise self._damaged(
                f"holds events that cannot follow one another ({type(error).__name__}: {error})"
            ) from error

    def blob(self, identity: str) -> bytes:
        """Stored bytes by id. Raises LedgerDamagedError where they are missing or not what the id
        says.
        """
        return self.blobs([identity])[identity]

    def blobs(self, identities: Sequence[str]) -> dict[str, bytes]:
        """Stored bytes by id, each checked against its id. Raises LedgerDamagedError as ``blob``
        does.
        """
        found = self._stored(identities)
        for identity, data in found.items():
            if identity not in self._remembered and not blob_ids.is_whole(identity, data):
                raise self._damaged(f"holds {identity} with other content than its id says")
        return found

    def _stored(self, identities: Sequence[str]) -> dict[str, bytes]:
        found = {
            identity: self._remembered[identity]
            for identity in identities
            if identity in self._remembered
        }
        others = [identity for identity in identities if identity not in found]
        if not others:
            return found
        with self._explained(), self.engine.connect() as connection:
            for start in range(0, len(others), 500):
                query = sa.select(blob_table).where(
                    blob_table.c.id.in_(others[start : start + 500])
                )
                found.update((row.id, bytes(row.data)) for row in connection.execute(query))
        missing = [identity for identity in identities if identity not in found]
        if missing:
            raise self._damaged(f"misses {len(set(missing))} stored blobs, the first {missing[0]}")
        return found

    def crystals(self, identities: Sequence[str]) -> list[Crystal]:
        """Crystals by id, in the order asked; decoded once and kept in a bounded cache."""
        missing = list({identity for identity in identities if identity not in self._crystals})
        fresh = {
            identity: self._crystal(identity, data)
            for identity, data in self._stored(missing).items()
        }
        result = [fresh.get(identity) or self._crystals[identity] for identity in identities]
        self._crystals.update(fresh)
        while len(self._crystals) > _CACHED_CRYSTALS:
            self._crystals.popitem(last=False)
        return result

    def _crystal(self, identity: str, data: bytes) -> Crystal:
        try:
            crystal = Crystal.from_bytes(data)
        except InputError as error:
            raise self._damaged(f"holds {identity} with other content than its id says") from error
        if crystal.id != identity:
            raise self._damaged(f"holds {identity} with other content than its id says")
        return crystal

    def crystal(self, identity: str) -> Crystal:
        return self.crystals([identity])[0]

    def close(self) -> None:
        self.engine.dispose()


def _database_missing(folder: Path) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"the ledger's database is missing from {folder}, but its journal is there",
        hint=f"rebuild it: oreloop recover {folder}",
    )


class Ledger(LedgerReader):
    """The driver's ledger: holds the lock, appends, and keeps the folded state beside the database.

    Everything is written over one connection. In PostgreSQL that session holds the advisory lock
    too, outside of any transaction, so that whoever lost the lock cannot write, and each statement
    is a transaction of its own.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        with ExitStack() as opened:
            self._lock = FolderLock(folder)
            opened.callback(self._lock.release)
            self._open(folder, url, opened)
            self._opened = opened.pop_all()

    def _open(self, folder: Path, url: str | None, opened: ExitStack) -> None:
        if url is None:
            refuse_network_file_system(folder)
            if not (folder / DATABASE).exists() and remains(folder):
                raise _database_missing(folder)
        self.folder, self._crystals, self._remembered = folder, OrderedDict(), OrderedDict()
        try:
            self.engine = create_engine(folder, url)
        except OSError as error:
            raise cannot_write(folder / DATABASE, error) from error
        opened.callback(self.engine.dispose)
        with self._explained():
            self._connection = self.engine.connect()
            if self._is_remote:
                self._connection = self._connection.execution_options(isolation_level="AUTOCOMMIT")
            opened.callback(_close, self._connection)
            take_advisory_lock(self._connection)
            metadata.create_all(self.engine)
            self._check_version()
        self.state = self.fold()
        if self.state.sequence == 0 and remains(folder):
            raise _database_missing(folder)
        self._check_blobs()
        self._checked = clock.monotonic()
        self.journal = Journal(folder / JOURNAL)
        self._is_caught_up = False
        if self._journal_index.events:
            self._catch_up_journal()
        del self._journal_index

    @property
    def _is_remote(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def _check_version(self) -> None:
        with self._connection.begin():
            query = sa.select(meta_table.c.value).where(meta_table.c.name == "schema_version")
            version = self._connection.execute(query).scalar_one_or_none()
            if version is None:
                self._connection.execute(
                    sa.insert(meta_table).values(name="schema_version", value=str(SCHEMA_VERSION))
                )
            elif int(version) > SCHEMA_VERSION:
                raise SurroundingsError(
                    f"this ledger has schema version {version}, this oreloop reads up to "
                    f"{SCHEMA_VERSION}",
                    hint="install the newer oreloop that wrote it",
                )

    def _check_blobs(self) -> None:
        """Raises LedgerDamagedError where the crystal of a candidate is not there at all."""
        with self._explained(), self.engine.connect() as connection:
            there = set(connection.execute(sa.select(blob_table.c.id)).scalars())
        missing = self.state.candidates.keys() - there
        if missing:
            raise self._damaged(
                f"misses the crystals of {len(missing)} candidates, the first {min(missing)}"
            )

    def _catch_up_journal(self) -> None:
        """Write again what the journal misses: its end after a crash, or what stood on lines that
        are damaged.
        """
        self._is_caught_up = True
        known = self._journal_index
        missing = [n for n in range(1, self.state.sequence + 1) if n not in known.events]
        if missing and known.damaged:
            log.warning(
                "%d lines of the journal in %s are damaged; they are kept, and what they held "
                "is written to it again from the database",
                known.damaged,
                self.folder,
            )
        wanted = set(missing)
        for sequence, time, payload in self._rows(missing[0] - 1) if missing else ():
            if sequence in wanted:
                named = sorted(blob_ids.named_by(self._decoded(sequence, payload)))
                self._write_journal(Transaction(sequence, time, (payload,), self.blobs(named)))

    def _write_journal(self, transaction: Transaction) -> None:
        try:
            self.journal.append(transaction)
        except OSError as error:
            raise cannot_write(self.folder / JOURNAL, error) from error

    def append(
        self, events: Sequence[ev.Event], blobs: Mapping[str, bytes] | None = None
    ) -> list[ev.Event]:
        """Commit events with the blobs that they name, and fold them in; returns those that were
        new.

        An event under a key that the ledger knows is dropped: a result that arrives twice is stored
        once. Raises SurroundingsError where the disk does not take it (then nothing of the
        transaction is stored), and, once it is stored, where the folder is not in its place any
        more.
        """
        seen: set[str] = set()
        new: list[ev.Event] = []
        for event in map(ev.storable, events):
            if event.key is not None and (event.key in self.state.keys or event.key in seen):
                continue
            seen.add(event.key or "")
            new.append(event)
        if not new:
            return []
        contradictions.refuse(self.state, new)
        fresh = [
            ev.written(event)
            for event in (msgspec.structs.replace(new[0], awake=awake_seconds()), *new[1:])
        ]
        if not self._is_caught_up:
            self._catch_up_journal()
        first, time = self.state.sequence + 1, clock.time()
        rows = [row_of(first + i, time, event, payload) for i, (payload, event) in enumerate(fresh)]
        self._commit(rows, blobs or {})
        self._remember(blobs or {})
        for i, (_, event) in enumerate(fresh):
            self.state.apply(first + i, time, event)
            if isinstance(event, ev.Labelled):
                self._crystals.pop(event.candidate, None)
        self._write_journal(
            Transaction(first, time, tuple(payload for payload, _ in fresh), dict(blobs or {}))
        )
        self._lock.check()
        return [event for _, event in fresh]

    def _remember(self, blobs: Mapping[str, bytes]) -> None:
        """What was written last is asked for soon."""
        self._remembered.update(blobs)
        while len(self._remembered) > _REMEMBERED_BLOBS:
            self._remembered.popitem(last=False)

    def _commit(self, rows: Sequence[Mapping[str, object]], blobs: Mapping[str, bytes]) -> None:
        self._refuse_a_new_session()
        with self._explained(), self._connection.begin():
            if self._is_remote:
                columns = {name: [row[name] for row in rows] for name in rows[0]}
                self._connection.execute(
                    _IN_ONE_TURN, {**columns, "blob": list(blobs), "data": list(blobs.values())}
                )
                return
            insert_blobs(self._connection, blobs)
            self._connection.execute(_INSERT_EVENTS, rows)

    def _refuse_a_new_session(self) -> None:
        """A connection that broke would come back without the lock."""
        if self._connection.invalidated or self._connection.closed:
            raise SurroundingsError(
                "the ledger's database ended the connection that holds this campaign's lock",
                hint="run the same command again once it answers; everything recorded so far "
                "is kept",
            )

    def check(self) -> None:
        """Raises SurroundingsError where the folder is not in its place any more, or the database
        let go of the lock.

        Costs a look at a file; asks a database behind a URL at most once a second.
        """
        self._lock.check()
        if self._is_remote and clock.monotonic() - self._checked > _CHECK_SECONDS:
            self._checked = clock.monotonic()
            self._refuse_a_new_session()
            with self._explained(), self._connection.begin():
                self._connection.execute(sa.select(1))

    def close(self) -> None:
        """Raises SurroundingsError where the disk does not take the journal's end."""
        try:
            self.journal.close()
        except OSError as error:
            raise cannot_write(self.folder / JOURNAL, error) from error
        finally:
            self._opened.close()


def _close(connection: sa.Connection) -> None:
    """The lock is let go first: a server may notice the end of a session only when the next driver
    has asked already.
    """
    with contextlib.suppress(SQLAlchemyError):
        if connection.dialect.name == "postgresql" and not (
            connection.closed or connection.invalidated
        ):
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_LOCK)))
    with contextlib.suppress(SQLAlchemyError):
        connection.close()


def take_advisory_lock(connection: sa.Connection) -> None:
    """Hold a PostgreSQL database for as long as the session lasts. Raises CampaignLockedError where
    another driver does.
    """
    if connection.dialect.name == "postgresql":
        with connection.begin():
            held = connection.execute(
                sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))
            ).scalar_one()
        if not held:
            raise CampaignLockedError(
                "another driver holds this campaign's database", hint="wait for it or stop it"
            )


def insert_blobs(connection: sa.Connection, blobs: Mapping[str, bytes]) -> None:
    """Store the blobs that are not there yet; a blob's id is made of its content, so those that are
    need no comparison.
    """
    if blobs:
        rows = [{"id": identity, "data": data} for identity, data in blobs.items()]
        connection.execute(_insert_blobs_of(connection.dialect.name), rows)


@cache
def _insert_blobs_of(dialect: str) -> Executable:
    """PostgreSQL's dialect is loaded where it is used: it takes as long as a ledger of a thousand
    labels does to fold.
    """
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(blob_table).on_conflict_do_nothing(index_elements=["id"])
    return sqlite.insert(blob_table).on_conflict_do_nothing(index_elements=["id"])
