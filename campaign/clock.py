"""Running time that never jumps: the seconds in which this process was awake. And moments as people write them.

A wall clock can be set, and a process can be stopped and continued or its machine put to sleep; limits and budgets are about none of that.
A thread looks at the monotonic clock ten times a second, and no gap between two looks counts for more than a second.
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
        threading.Thread(target=self._beat, name="awake-clock", daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT_SECONDS)
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
    return _clock.read()


def _begin_anew() -> None:
    global _clock
    _clock = None


os.register_at_fork(after_in_child=_begin_anew)


def utc(seconds: float) -> str:
    """A moment, in seconds since the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
