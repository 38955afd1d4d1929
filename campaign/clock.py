"""Running time that never jumps: the seconds in which this process was awake. And moments as people
write them.

A wall clock can be set, and a process can be stopped and continued or its machine put to sleep;
limits and budgets are about none of that. A thread looks at the monotonic clock ten times a second,
and no gap between two looks counts for more than a second.
"""

from __future__ import annotations

import os
import threading
import time

_BEAT_SECONDS = 0.1
_LONGEST_GAP = 1.0


class _AwakeClock:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last, self._counted = time.monotonic(), 0.0
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Look at the time from now on, where nothing does."""
        with self._lock:
            if self._thread is None:
                self._is_over = threading.Event()
                self._thread = threading.Thread(
                    target=self._beat, args=(self._is_over,), name="awake-clock", daemon=True
                )
                self._thread.start()

    def rest(self) -> None:
        """End the thread; the next who asks wakes it."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._is_over.set()
        if thread is not None:
            thread.join()

    def _beat(self, is_over: threading.Event) -> None:
        while not is_over.wait(_BEAT_SECONDS):
            self.read()

    def read(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._counted += min(now - self._last, _LONGEST_GAP)
            self._last = now
            return self._counted


_clock: _AwakeClock | None = None


def awake_seconds() -> float:
    """Seconds that this process was awake since it first asked."""
    global _clock
    if _clock is None:
        _clock = _AwakeClock()
    _clock.wake()
    return _clock.read()


def rest() -> None:
    """Leave no thread behind. Who asks for the seconds again wakes the clock, which missed what was
    between but for a second.
    """
    if _clock is not None:
        _clock.rest()


def _begin_anew() -> None:
    global _clock
    _clock = None


os.register_at_fork(after_in_child=_begin_anew)


def utc(seconds: float) -> str:
    """A moment, in seconds since the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
