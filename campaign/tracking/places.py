"""Where a tracking store lies: a server, a database, or a folder with a SQLite file; nothing of it
is written anywhere else.

MLflow takes no plain folder any more, and puts artifacts into ``mlruns`` of the working folder
unless it is told where. So a folder is read as the SQLite file in it, and every experiment of a
store without a server has its place for artifacts named.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from campaign.tracking.limits import limited

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STORE, _ARTIFACTS = "mlflow.db", "mlartifacts"
_CALL_SECONDS, _LONGER_SECONDS = 30.0, {"log_artifact": 600.0}
_QUERY_OR_CODE = set("?#%")


def default_uri(folder: Path) -> str:
    """Of a SQLite file in a folder of any name: as a SQLite URI where the path has what a URL would
    take for its query or a code.

    Quoted twice, as SQLAlchemy takes one layer off and SQLite the other. Without the driver's name
    MLflow would make a folder ``file:``.
    """
    path = str((folder / _STORE).resolve())
    return (
        f"sqlite+pysqlite:///file:{quote(quote(path))}?uri=true"
        if set(path) & _QUERY_OR_CODE
        else f"sqlite:///{path}"
    )


def tracking_uri(named: str | None, folder: Path) -> str:
    """The URI for MLflow of what a config names, by default of ``folder``."""
    place = _folder_of(named) if named else folder
    return default_uri(place) if place is not None else str(named)


def _folder_of(named: str) -> Path | None:
    """The folder that a path or a ``file:`` URL names; None of a URL of another kind."""
    if named.startswith("file:"):
        return Path(unquote(re.sub("^file:(//(localhost)?(?=/))?", "", named)))
    return (
        None
        if "://" in named or named.startswith(("databricks", "uc:"))
        else Path(named).expanduser()
    )


def artifact_location(uri: str, folder: Path) -> str | None:
    """Where an experiment's artifacts go: beside a SQLite file, into ``folder`` for other
    databases; a server decides itself (None).
    """
    if uri.startswith("sqlite"):
        return (_sqlite_file(uri).resolve().parent / _ARTIFACTS).as_uri()
    is_database = uri.startswith(("postgresql", "mysql", "mssql"))
    return (folder.resolve() / _ARTIFACTS).as_uri() if is_database else None


def experiment(client: MlflowClient, uri: str, name: str, folder: Path) -> str:
    """The id of an experiment, made where there is none; ``folder`` is for its artifacts where the
    store has no place of its own.
    """
    known = client.get_experiment_by_name(name)
    return str(
        known.experiment_id
        if known is not None
        else client.create_experiment(name, artifact_location(uri, folder))
    )


def client_of(uri: str) -> MlflowClient:
    """MLflow's client of a store; the folder of a SQLite file is made. Raises OSError where it
    cannot be. Calls to a server last no longer than they may, whatever the server does.
    """
    import mlflow

    if uri.startswith("sqlite"):
        _sqlite_file(uri).parent.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(tracking_uri=uri)
    is_served = uri.startswith(("http://", "https://"))
    return limited(client, _CALL_SECONDS, _LONGER_SECONDS) if is_served else client


def _sqlite_file(uri: str) -> Path:
    path, _, query = uri.partition(":///")[2].partition("?")
    return Path(unquote(unquote(path.removeprefix("file:")))) if "uri=true" in query else Path(path)
