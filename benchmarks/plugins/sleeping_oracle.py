"""An oracle that only sleeps, to measure what the engine adds."""

from __future__ import annotations

import time

from campaign.types import ENERGY_PER_ATOM, Crystal, Evaluation


class Sleeping:
    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def evaluate(self, crystal: Crystal) -> Evaluation:
        time.sleep(self._seconds)
        return Evaluation.single(ENERGY_PER_ATOM, -int(crystal.id[:4], 16) / 65536)
