"""Starts that fail, counted so that a slow minute of a machine is one attempt however many began in
it.
"""

from __future__ import annotations

from campaign.clock import awake_seconds


class Attempts:
    """How often in a row starts failed: those that began before the last counted one failed, failed
    with it.
    """

    def __init__(self) -> None:
        self.n = 0
        self._last = 0.0

    def failed(self, begun: float) -> None:
        """A start that began at ``begun`` (awake seconds)."""
        if begun >= self._last:
            self.n += 1
            self._last = awake_seconds()

    def succeeded(self) -> None:
        self.n = 0
