"""The life of a worker process that talks through a pipe, whose number is its argument.

Started as a module, so that the driver's own main module is never imported a second time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection

from campaign.errors import OreloopError, SurroundingsError
from campaign.executors.worker import OracleWorker

_DIE_WITH_PARENT = 1


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, also where it is stopped."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def serve(connection: Connection) -> None:
    """Build the oracle that the first message names, answer jobs, end with the parent."""
    die_with_parent()
    if os.getppid() == 1:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(connection.fileno(), False)
    spec, name, threads, search_path = connection.recv()
    sys.path += [folder for folder in search_path if folder not in sys.path]
    try:
        worker = OracleWorker(spec, name, threads)
    except Exception as error:
        connection.send(error if isinstance(error, OreloopError) else SurroundingsError(f"{type(error).__name__}: {error}"))
        return
    connection.send(None)
    while True:
        try:
            jobs = connection.recv()
        except EOFError:
            return
        for answer in worker.evaluate_many(jobs):
            connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
