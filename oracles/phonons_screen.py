"""The screen ``phonons``: refuses crystals that are dynamically unstable, by the oracle of the same
name and with its settings.

Every candidate costs a relaxation and its phonons in the process that screens: put cheaper screens
before it.
"""

from __future__ import annotations

from campaign.types import Candidate, SearchSpace, Verdict
from oracles.phonons import DYNAMICALLY_STABLE, LOWEST_FREQUENCY, Phonons, PhononsConfig

_NAME = "phonons"


class PhononsScreen:
    Config = PhononsConfig

    def __init__(self, config: PhononsConfig) -> None:
        self.config = config
        self._oracle = Phonons(config)

    @staticmethod
    def unavailable() -> str:
        return Phonons.unavailable()

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        evaluation = self._oracle.evaluate(candidate.crystal)
        if evaluation.failure is not None:
            return Verdict(False, _NAME, f"no phonons: {evaluation.failure.message}")
        if evaluation.value(DYNAMICALLY_STABLE.name):
            return Verdict(True, "")
        lowest = evaluation.value(LOWEST_FREQUENCY.name)
        return Verdict(
            False,
            _NAME,
            f"lowest frequency {lowest:.3f} THz, allowed down to -{self.config.tolerance:g}",
        )
