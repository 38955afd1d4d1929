"""The screen ``relaxation``: refuses crystals far from a relaxed one, by a cheap oracle that gives energies.

The rules of A. D. Naghdi et al., NeurIPS 2024 workshop, section 4.3: the relaxed energy per atom at most that of the worst crystal of the
data, and the cell as proposed at most 10 eV above its relaxed energy. Every candidate costs a relaxation and a single energy in the
process that screens.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from campaign import plugins
from campaign.protocols import PluginSpec
from campaign.types import ENERGY_PER_ATOM, Candidate, SearchSpace, Verdict

_NAME = "relaxation"


class RelaxationScreenConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    oracle: str = Field(description="Name of the oracle that gives energies; it has the setting `relax`.")
    params: dict[str, Any] = Field(default_factory=dict, description="The oracle's settings.")
    largest_energy: float = Field(description="Largest relaxed energy (eV/atom) that is accepted: the highest of the data.")
    largest_release: float = Field(10.0, gt=0, description="Largest energy (eV per cell) that relaxation may release.")


class RelaxationScreen:
    Config = RelaxationScreenConfig
    is_costly = True

    def __init__(self, config: RelaxationScreenConfig) -> None:
        self.config = config

    @cached_property
    def _relaxing(self) -> Any:
        return plugins.build(PluginSpec(group="oracles", use=self.config.oracle, params=self.config.params))

    @cached_property
    def _rigid(self) -> Any:
        return plugins.build(PluginSpec(group="oracles", use=self.config.oracle, params={**self.config.params, "relax": "none"}))

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        before, after = self._rigid.evaluate(candidate.crystal), self._relaxing.evaluate(candidate.crystal)
        for evaluation in (before, after):
            if evaluation.failure is not None:
                return Verdict(False, _NAME, f"no energy: {evaluation.failure.message}")
        relaxed = after.value(ENERGY_PER_ATOM.name)
        if relaxed > self.config.largest_energy:
            return Verdict(False, _NAME, f"{relaxed:.3f} eV/atom after relaxation, allowed up to {self.config.largest_energy:g}")
        release = (before.value(ENERGY_PER_ATOM.name) - relaxed) * len(candidate.crystal)
        if release > self.config.largest_release:
            return Verdict(False, _NAME, f"relaxation releases {release:.1f} eV, allowed up to {self.config.largest_release:g}")
        return Verdict(True, "")
