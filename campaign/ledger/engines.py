"""The databases that a ledger can lie in, how each is opened, and what their errors mean for
people.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from campaign.errors import LedgerDamagedError, SurroundingsError
from campaign.reading.passwords import without_password

DATABASE, JOURNAL, CONFIG_COPY = "ledger.db", "journal.jsonl", "config.json"
RECOVERING, SET_ASIDE = "recovering", "damaged-"
_DAMAGED = (
    "malformed",
    "not a database",
    "corrupt",
    "no such table",
    "does not exist",
    "invalid page",
)
_UNWRITABLE = ("full", "disk I/O", "File too large", "readonly", "unable to open", "No space left")
_ENDED = (
    "terminating connection",
    "closed the connection",
    "connection is closed",
    "connection is lost",
    "connection failed",
    "refused",
    "Is the server running",
    "starting up",
    "shutting down",
    "timeout expired",
    "resolve host",
)
_NO_PASSWORD = ("no password supplied", "password authentication failed")


def remains(folder: Path) -> list[Path]:
    """What lies in a folder of a campaign's journal, in place, set aside or half recovered: where
    any does, no other may begin.
    """
    found = [folder / JOURNAL, *folder.glob(f"{RECOVERING}/*"), *folder.glob(f"{SET_ASIDE}*")]
    return [path for path in found if path.is_file() and path.stat().st_size]


def create_engine(folder: Path, url: str | None = None) -> sa.Engine:
    """The database of a campaign folder, or the one behind ``url``, to write to. Raises
    SurroundingsError where there is no driver.
    """
    if url is not None:
        return _remote(url)
    path = folder / DATABASE
    if not path.exists():
        path.touch()
    return _local(path, "rw")


def reading_engine(folder: Path, url: str | None = None) -> sa.Engine:
    """The same to read from, which also works where nothing can be written."""
    return _remote(url) if url is not None else reading_file(folder / DATABASE)


def reading_file(path: Path) -> sa.Engine:
    """A SQLite file to read from; in a folder where nothing can be written it is read as it stands.

    What a driver there left in the write-ahead log is read from a copy in a temporary folder.
    """
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        engine = _local(path, "rw")
        try:
            engine.connect().close()
            return engine
        except SQLAlchemyError:
            engine.dispose()
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        return _local(path, "ro", immutable=True)
    place = tempfile.TemporaryDirectory(prefix="oreloop-reading-")
    for file in (path, log):
        shutil.copyfile(file, Path(place.name) / file.name)
    engine = _local(Path(place.name) / path.name, "rw")
    weakref.finalize(engine, place.cleanup)
    return engine


def _local(path: Path, mode: str, *, immutable: bool = False) -> sa.Engine:
    query = {"mode": mode, "uri": "true", **({"immutable": "1"} if immutable else {})}
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=f"file:{quote(str(path.resolve()))}", query=query)
    )

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=10000")
        if mode == "rw":
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return engine


def _remote(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url)
    except ModuleNotFoundError as error:
        raise SurroundingsError(
            f"the ledger's database needs the package {error.name}, which is not installed",
            hint='pip install "oreloop[postgresql]"',
        ) from error
    except SQLAlchemyError as error:
        raise SurroundingsError(
            f"ledger.url names no database that can be used: {_text(error)}"
        ) from error


def _text(error: SQLAlchemyError) -> str:
    return without_password(" ".join(str(getattr(error, "orig", None) or error).split()))


def explain(error: SQLAlchemyError, folder: Path) -> SurroundingsError:
    """What a database's error means, and what to do."""
    text = _text(error)
    again = "then run the same command again; everything recorded so far is kept"
    if any(sign in text for sign in _NO_PASSWORD):
        return SurroundingsError(
            f"the ledger's database lets nobody in without its password ({text})",
            hint="passwords are kept out of campaigns: set PGPASSWORD or write ~/.pgpass, or "
            "name the YAML config that holds it",
        )
    if any(sign in text for sign in _ENDED):
        return SurroundingsError(
            f"the ledger's database ended the connection or does not answer ({text})",
            hint=f"see that it runs and that no other driver has taken over, {again}",
        )
    if any(sign in text for sign in _UNWRITABLE):
        return SurroundingsError(
            f"the ledger in {folder} cannot be written ({text})",
            hint=f"free disk space, raise the limit or make the folder writable, {again}",
        )
    if any(sign in text for sign in _DAMAGED):
        return LedgerDamagedError(
            f"the ledger in {folder} is damaged ({text})",
            hint=f"rebuild it from its journal: oreloop recover {folder}",
        )
    return SurroundingsError(
        f"the ledger's database failed: {text}", hint="run the same command again once it answers"
    )
