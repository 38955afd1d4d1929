"""The ledger: events and blobs in a real database, mirrored in the journal, folded into the state.

Only the driver writes. A transaction is durable in the database (SQLite: WAL, ``synchronous=FULL``) before ``append`` returns;
the journal follows, and what it misses after a crash is written to it when the ledger is opened again.
Appending costs one commit (one fsync) whatever the number of events; folding reads events only and decodes no crystal.
"""

from __future__ import annotations

import time as clock
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from campaign.errors import CampaignLockedError, LedgerDamagedError, SurroundingsError
from campaign.ledger import events as ev
from campaign.ledger.journal import Journal, Transaction
from campaign.ledger.lock import FolderLock, refuse_network_file_system
from campaign.ledger.state import CampaignState, fold
from campaign.types import Crystal

SCHEMA_VERSION = 1
DATABASE, JOURNAL = "ledger.db", "journal.jsonl"
_ADVISORY_LOCK = 0x6F72656C6F6F70
_CACHED_CRYSTALS = 20_000

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


def create_engine(folder: Path, url: str | None = None) -> sa.Engine:
    """The database of a campaign folder, or the one behind ``url``."""
    if url is not None:
        return sa.create_engine(url)
    engine = sa.create_engine(f"sqlite:///{folder / DATABASE}")

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.close()

    return engine


def _explain(error: SQLAlchemyError, folder: Path) -> SurroundingsError:
    text = str(getattr(error, "orig", error))
    if any(sign in text for sign in ("malformed", "not a database", "corrupt")):
        return LedgerDamagedError(
            f"the ledger in {folder} is damaged ({text})", hint=f"rebuild it from its journal: oreloop recover {folder}"
        )
    if any(sign in text for sign in ("full", "disk I/O", "File too large", "readonly", "unable to open")):
        return SurroundingsError(
            f"the ledger in {folder} cannot be written ({text})",
            hint="free disk space or raise the limit, then run the same command again; everything recorded so far is kept",
        )
    return SurroundingsError(f"the ledger's database failed: {text}", hint="run the same command again once it answers")


class LedgerReader:
    """Reads a ledger, also while a driver writes it."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        if url is None and not (folder / DATABASE).exists():
            raise SurroundingsError(f"there is no campaign in {folder}", hint="start one with `oreloop run CONFIG.yaml`")
        self.engine = create_engine(folder, url)
        self._crystals: OrderedDict[str, Crystal] = OrderedDict()

    def events(self, after: int = 0, *, until: int | None = None) -> Iterator[tuple[int, float, ev.Event]]:
        """(sequence, time, event) in order. Raises LedgerDamagedError where they cannot be read."""
        query = sa.select(event_table.c.sequence, event_table.c.time, event_table.c.payload)
        query = query.where(event_table.c.sequence > after).order_by(event_table.c.sequence)
        if until is not None:
            query = query.where(event_table.c.sequence <= until)
        try:
            with self.engine.connect() as connection:
                for sequence, time, payload in connection.execution_options(yield_per=1000).execute(query):
                    yield sequence, time, ev.decode(payload)
        except (SQLAlchemyError, ValueError) as error:
            if isinstance(error, SQLAlchemyError):
                raise _explain(error, self.folder) from error
            raise LedgerDamagedError(
                f"the ledger in {self.folder} holds an event that cannot be read: {error}",
                hint=f"rebuild it from its journal: oreloop recover {self.folder}",
            ) from error

    def fold(self, *, until: int | None = None) -> CampaignState:
        """The state as it stands, or as it stood after event ``until``."""
        return fold(self.events(until=until))

    def blob(self, identity: str) -> bytes:
        """Stored bytes by id. Raises LedgerDamagedError where they are missing."""
        return self.blobs([identity])[identity]

    def blobs(self, identities: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        try:
            with self.engine.connect() as connection:
                for start in range(0, len(identities), 500):
                    query = sa.select(blob_table).where(blob_table.c.id.in_(identities[start : start + 500]))
                    found.update((row.id, row.data) for row in connection.execute(query))
        except SQLAlchemyError as error:
            raise _explain(error, self.folder) from error
        missing = [identity for identity in identities if identity not in found]
        if missing:
            raise LedgerDamagedError(f"the ledger misses {len(missing)} stored blobs, the first {missing[0]}")
        return found

    def crystals(self, identities: Sequence[str]) -> list[Crystal]:
        """Crystals by id, in the order asked; decoded once and kept in a bounded cache."""
        missing = list({identity for identity in identities if identity not in self._crystals})
        fresh = {identity: Crystal.from_bytes(data) for identity, data in self.blobs(missing).items()}
        result = [fresh.get(identity) or self._crystals[identity] for identity in identities]
        self._crystals.update(fresh)
        while len(self._crystals) > _CACHED_CRYSTALS:
            self._crystals.popitem(last=False)
        return result

    def crystal(self, identity: str) -> Crystal:
        return self.crystals([identity])[0]

    def close(self) -> None:
        self.engine.dispose()


class Ledger(LedgerReader):
    """The driver's ledger: holds the lock, appends, and keeps the folded state beside the database."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        try:
            self._open(folder, url)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, folder: Path, url: str | None) -> None:
        if url is None:
            refuse_network_file_system(folder)
            if not (folder / DATABASE).exists() and (folder / JOURNAL).exists() and (folder / JOURNAL).stat().st_size:
                raise LedgerDamagedError(
                    f"the ledger's database is missing from {folder}, but its journal is there",
                    hint=f"rebuild it: oreloop recover {folder}",
                )
        self.folder, self._crystals = folder, OrderedDict()
        self.engine = create_engine(folder, url)
        try:
            if url is not None:
                self._hold_advisory_lock()
            metadata.create_all(self.engine)
            self._check_version()
        except SQLAlchemyError as error:
            raise _explain(error, folder) from error
        self.state = self.fold()
        try:
            self.journal = Journal(folder / JOURNAL)
            self._catch_up_journal()
        except OSError as error:
            raise SurroundingsError(
                f"the ledger's journal in {folder} cannot be written ({error})",
                hint="free disk space or raise the limit, then run the same command again; everything recorded so far is kept",
            ) from error

    def _hold_advisory_lock(self) -> None:
        self._lock_connection = self.engine.connect()
        if self.engine.dialect.name == "postgresql":
            held = self._lock_connection.execute(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))).scalar_one()
            if not held:
                raise CampaignLockedError("another driver holds this campaign's database", hint="wait for it or stop it")

    def _check_version(self) -> None:
        with self.engine.begin() as connection:
            version = connection.execute(sa.select(meta_table.c.value).where(meta_table.c.name == "schema_version")).scalar_one_or_none()
            if version is None:
                connection.execute(sa.insert(meta_table).values(name="schema_version", value=str(SCHEMA_VERSION)))
            elif int(version) > SCHEMA_VERSION:
                raise SurroundingsError(
                    f"this ledger has schema version {version}, this oreloop reads up to {SCHEMA_VERSION}",
                    hint="install the newer oreloop that wrote it",
                )

    def _catch_up_journal(self) -> None:
        if self.journal.last > self.state.sequence:
            raise LedgerDamagedError(
                f"the journal in {self.folder} knows {self.journal.last} events, the database only {self.state.sequence}",
                hint=f"rebuild the database: oreloop recover {self.folder}",
            )
        for sequence, time, event in self.events(self.journal.last):
            blobs = self.blobs(sorted(blob_ids(event)))
            self.journal.append(Transaction(sequence, time, (event,), blobs))  # type: ignore[arg-type]

    def append(self, events: Sequence[ev.Event], blobs: Mapping[str, bytes] | None = None) -> list[ev.Event]:
        """Commit events with the blobs that they name, and fold them in; returns those that were new.

        An event under a key that the ledger knows is dropped: a result that arrives twice is stored once.
        Raises SurroundingsError where the disk does not take it; then nothing of the transaction is stored.
        """
        seen: set[str] = set()
        fresh: list[ev.Event] = []
        for event in map(ev.storable, events):
            if event.key is not None and (event.key in self.state.keys or event.key in seen):
                continue
            seen.add(event.key or "")
            fresh.append(event)
        if not fresh:
            return []
        first, time = self.state.sequence + 1, clock.time()
        rows = [
            {"sequence": first + i, "time": time, "kind": type(event).__name__, "key": event.key, "payload": ev.encode(event)}
            for i, event in enumerate(fresh)
        ]
        try:
            with self.engine.begin() as connection:
                self._insert_blobs(connection, blobs or {})
                connection.execute(sa.insert(event_table), rows)
        except (OperationalError, DatabaseError) as error:
            raise _explain(error, self.folder) from error
        for i, event in enumerate(fresh):
            self.state.apply(first + i, time, event)
        try:
            self.journal.append(Transaction(first, time, tuple(fresh), dict(blobs or {})))  # type: ignore[arg-type]
        except OSError as error:
            raise SurroundingsError(
                f"the ledger's journal in {self.folder} cannot be written ({error})",
                hint="free disk space or raise the limit, then run the same command again; everything recorded so far is kept",
            ) from error
        return fresh

    def _insert_blobs(self, connection: sa.Connection, blobs: Mapping[str, bytes]) -> None:
        """Store the blobs that are not there yet; a blob's id is made of its content, so those that are need no comparison."""
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        if blobs:
            rows = [{"id": identity, "data": data} for identity, data in blobs.items()]
            connection.execute(dialect.insert(blob_table).on_conflict_do_nothing(index_elements=["id"]), rows)

    def close(self) -> None:
        self.journal.close()
        if hasattr(self, "_lock_connection"):
            self._lock_connection.close()
        super().close()
        self._lock.release()


def blob_ids(event: ev.Event) -> set[str]:
    """The ids of the blobs that an event names."""
    match event:
        case ev.Imported():
            return {row.candidate for row in event.rows}
        case ev.Proposed():
            return {row.candidate for row in event.proposals}
        case ev.Decided(table=str(table)):
            return {table}
        case ev.Labelled(crystal=str(crystal)):
            return {crystal}
    return set()
