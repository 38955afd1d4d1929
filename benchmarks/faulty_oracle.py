"""Lennard-Jones energies that leave a trace of each execution and fail as a file says, to measure
what faults cost a campaign.
"""

from __future__ import annotations

from campaign.testing.stand_in import Faulty
from campaign.types import ENERGY_PER_ATOM, Crystal, Evaluation
from oracles.analytic import LennardJones, LennardJonesConfig


class Traced(Faulty):
    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, folder: str, seconds: float = 0.1, epsilon: float = 0.1) -> None:
        super().__init__(folder, seconds)
        self._oracle = LennardJones(LennardJonesConfig(epsilon=epsilon))

    def label(self, crystal: Crystal) -> Evaluation:
        return self._oracle.evaluate(crystal)
