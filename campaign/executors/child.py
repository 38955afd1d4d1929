"""The life of the serial executor's worker: a process of its own that talks through a pipe, whose number is its argument.

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


def serve(connection: Connection) -> None:
    """Build the oracle that the first message names, answer jobs, end with the parent."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() == 1:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec, threads = connection.recv()
    try:
        worker = OracleWorker(spec, f"{spec.name}-0", threads)
    except Exception as error:
        connection.send(error if isinstance(error, OreloopError) else SurroundingsError(f"{type(error).__name__}: {error}"))
        return
    connection.send(None)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(worker.evaluate(job))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
