"""The life of a worker process that talks through two pipes.

It has a program of its own, so that the driver's own main module is never imported a second time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from campaign import plugins
from campaign.blame import OwnCodeError
from campaign.errors import OreloopError, SurroundingsError
from campaign.executors import wire
from campaign.executors.worker import OracleWorker
from campaign.protocols import OracleSpec
from campaign.types import Evaluation, FailureKind

_DIE_WITH_PARENT = 1


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, also where it is stopped."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _of_the_surroundings(error: Exception, spec: OracleSpec) -> OreloopError:
    """The driver could build the oracle: what only fails in a worker, code of the user's own
    included, is the surroundings' failing.
    """
    if isinstance(error, OreloopError) and not isinstance(error, OwnCodeError):
        return error
    what, hint = (
        (error.message, error.hint)
        if isinstance(error, OwnCodeError)
        else (f"{type(error).__name__}: {error}", "")
    )
    return SurroundingsError(
        f"oracle {spec.name} starts in the driver, but not in its worker: {what}", hint=hint
    )


def serve(reader: int, writer: int) -> None:
    """Build the oracle that the first message names, answer jobs, end with whoever asks."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers, asked = Connection(writer, readable=False), _asked(Connection(reader, writable=False))
    spec, name, threads, search_path, names = asked.get()
    sys.path += [folder for folder in search_path if folder not in sys.path]
    plugins.learn_names(names)
    try:
        worker = OracleWorker(spec, name, threads)
    except Exception as error:
        answers.send_bytes(wire.pack(_of_the_surroundings(error, spec)))
        return
    answers.send_bytes(wire.pack(None))
    while True:
        for key, evaluation in worker.evaluate_many(asked.get()):
            answers.send_bytes(_packed(key, evaluation))


def _packed(key: str, evaluation: Evaluation) -> bytes:
    try:
        return wire.pack((key, evaluation))
    except TypeError as error:
        failed = Evaluation.failed(
            FailureKind.CRASH, f"the oracle's answer cannot be sent: {error}", retryable=False
        )
        return wire.pack((key, failed))


def _asked(connection: Connection) -> SimpleQueue[Any]:
    """What comes in. When nobody can ask any more this process ends, whatever it is at: also behind
    a container's wall.
    """
    found: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        while True:
            try:
                found.put(wire.unpack(connection.recv_bytes()))
            except (EOFError, OSError):
                os._exit(0)

    threading.Thread(target=read, daemon=True, name="asked").start()
    return found
