"""A server as if it were far away: a proxy on loopback that holds everything back for a while, each
way, and counts the turns.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from queue import Queue


class Distance:
    """Way to a server. ``turns``: how often the client spoke after it had been answered, or for the
    first time.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._server, self._seconds = port, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        self._was_answered = True
        self.turns = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                self._carry(client, server, is_question=True)
                self._carry(server, client, is_question=False)

    def _carry(self, source: socket.socket, target: socket.socket, *, is_question: bool) -> None:
        waiting: Queue[tuple[float, bytes]] = Queue()

        def take() -> None:
            data = b"?"
            while data:
                try:
                    data = source.recv(1 << 16)
                except OSError:
                    data = b""
                if data and is_question:
                    self.turns += self._was_answered
                    self._was_answered = False
                elif data:
                    self._was_answered = True
                waiting.put((time.monotonic() + self._seconds, data))

        def give() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due, data = waiting.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        target.shutdown(socket.SHUT_WR)
                        return
                    target.sendall(data)

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """The connection is lost, for both."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def distance(port: int, seconds: float) -> Iterator[Distance]:
    """The way to a server on loopback; each direction takes so many seconds."""
    found = Distance(port, seconds)
    try:
        yield found
    finally:
        found.close()
