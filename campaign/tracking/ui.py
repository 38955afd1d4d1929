"""MLflow's pages on a campaign: a server of our own on loopback, which ends when we do, and the
link to the campaign's run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from campaign.errors import InputError, SurroundingsError
from campaign.reading.passwords import without_password

USUAL_PORT = 5000
_START_SECONDS, _END_SECONDS, _LOOK_SECONDS = 120.0, 10.0, 0.2


def is_served(uri: str) -> bool:
    """Whether a tracking URI is that of a server, which has pages of its own."""
    return uri.startswith(("http://", "https://"))


def link(uri: str, address: str, run: str | None) -> str:
    """The address of a run in the view of model training; of all experiments where the run is not
    there, or not yet.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    place = "#/experiments"
    if run is not None:
        try:
            found = mlflow.MlflowClient(tracking_uri=uri).get_run(run)
            place = f"#/experiments/{found.info.experiment_id}/runs/{run}"
        except MlflowException:
            pass
    return f"{without_password(address).rstrip('/')}/{place}?workflowType=machine_learning"


def free_port(wanted: int | None) -> int:
    """A port on loopback: the one wanted, or the usual one, or any where that is taken. Raises
    InputError where the wanted one is taken.
    """
    for port in (USUAL_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise InputError(
        f"port {wanted} is taken by another program",
        hint="leave --port out, and a free one is taken",
    )


@contextmanager
def served(uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of a tracking store, once it answers; it is ended with all its processes when the
    block is left, by a signal too.

    Raises SurroundingsError where it does not start.
    """
    surroundings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command(uri, port), stdout=sys.__stderr__, env=surroundings, start_new_session=True
    )
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        _wait_for(server, port)
        yield server
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        _end(server)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(_LOOK_SECONDS)
    why = (
        f"ended with code {server.returncode}"
        if server.poll() is not None
        else f"said nothing for {_START_SECONDS:g} s"
    )
    raise SurroundingsError(f"MLflow's server {why}", hint="what it said stands above")


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(_END_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def command(uri: str, port: int) -> list[str]:
    """The command that shows a tracking store in the browser, on loopback."""
    options = {
        "--backend-store-uri": uri,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *(word for pair in options.items() for word in pair),
    ]
