"""An oracle that takes its time, and may note what it has made, for measurements."""

from __future__ import annotations

import time
from pathlib import Path

from campaign.types import ENERGY_PER_ATOM, Crystal, Evaluation
from oracles.analytic import LennardJones, LennardJonesConfig


class Sleeping:
    """Lennard-Jones energies after so many seconds; each leaves a line with the crystal's id in a
    file where one is given.
    """

    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, seconds: float, log: str | None = None) -> None:
        self._seconds, self._log = seconds, Path(log) if log else None
        self._oracle = LennardJones(LennardJonesConfig())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        time.sleep(self._seconds)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{crystal.id}\n")
        return self._oracle.evaluate(crystal)
