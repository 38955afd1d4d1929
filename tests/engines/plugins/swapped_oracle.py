"""A copy of an oracle in which two species are swapped where a file says so: the flaw that the kit
and the sentinels are for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from campaign.types import Crystal, Evaluation
from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig

_EXCHANGED = {26: 24, 24: 26}


class SwappedConfig(LammpsBulkModulusConfig):
    swap_when: str = ""


class Swapped(LammpsBulkModulus):
    Config = SwappedConfig
    config: SwappedConfig

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if self.config.swap_when and not Path(self.config.swap_when).exists():
            return super().evaluate(crystal)
        wrong = crystal.with_numbers(
            [_EXCHANGED.get(number, number) for number in crystal.numbers.tolist()]
        )
        answer = super().evaluate(wrong)
        relaxed = (
            answer.crystal.with_numbers(crystal.numbers) if answer.crystal is not None else None
        )
        return replace(answer, crystal=relaxed)
