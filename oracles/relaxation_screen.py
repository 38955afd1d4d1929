"""The screen ``relaxation``: refuses crystals far from a relaxed one, by a cheap oracle that gives
energies.

The rules of A. D. Naghdi et al., NeurIPS 2024 workshop, section 4.3: the relaxed energy per atom at
most that of the worst crystal of the data, and the cell as proposed at most 10 eV above its relaxed
energy. Every candidate costs a relaxation and a single energy in the process that screens.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from campaign.parameters import Former, Formers
from campaign.types import ENERGY_PER_ATOM, Candidate, SearchSpace, Verdict
from oracles.inner import AsksOracle, built

_NAME = "relaxation"


class RelaxationScreenConfig(AsksOracle):
    former: ClassVar[Formers] = {
        "max_energy": Former("largest_energy"),
        "max_release": Former("largest_release"),
    }

    oracle: str = Field(
        description="Name of the oracle that gives energies; it has the setting `relax`."
    )
    max_energy: float = Field(
        description="Maximum relaxed energy (eV/atom) that is accepted: the highest of the data."
    )
    max_release: float = Field(
        10.0, gt=0, description="Maximum energy (eV per cell) that relaxation may release."
    )


class RelaxationScreen:
    Config = RelaxationScreenConfig
    is_costly = True

    def __init__(self, config: RelaxationScreenConfig) -> None:
        self.config = config
        self._relaxing, self._rigid = (
            built(config.spec(), "params"),
            built(config.spec(relax="none"), "params"),
        )

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        before, after = (
            self._rigid.evaluate(candidate.crystal),
            self._relaxing.evaluate(candidate.crystal),
        )
        for evaluation in (before, after):
            if evaluation.failure is not None:
                return Verdict(False, _NAME, f"no energy: {evaluation.failure.message}")
        relaxed = after.value(ENERGY_PER_ATOM.name)
        if relaxed > self.config.max_energy:
            return Verdict(
                False,
                _NAME,
                f"{relaxed:.3f} eV/atom after relaxation, allowed up to {self.config.max_energy:g}",
            )
        release = (before.value(ENERGY_PER_ATOM.name) - relaxed) * len(candidate.crystal)
        if release > self.config.max_release:
            return Verdict(
                False,
                _NAME,
                f"relaxation releases {release:.1f} eV, allowed up to {self.config.max_release:g}",
            )
        return Verdict(True, "")
