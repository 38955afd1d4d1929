"""What formation energies refer to beside the elements' labels: chemical potentials that the config
states, and corrections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from campaign.crystals.corrections import Corrections, correction
from campaign.types import reduced_formula


@dataclass(frozen=True)
class Zeros:
    """``potentials``: eV/atom by oracle and element. ``corrections``: the scheme of corrections, of
    all levels or of none.
    """

    potentials: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    corrections: Corrections | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Zeros:
        """Of a resolved config. A number without an oracle is of all that label references."""
        references = config.get("references") or {}
        oracles = references.get("oracles") or [
            oracle.get("name") or str(oracle["use"]).rpartition(":")[2]
            for oracle in config.get("oracles", ())
        ]
        potentials: dict[str, dict[str, float]] = {}
        for element, stated in (references.get("chemical_potentials") or {}).items():
            for oracle, value in (
                stated if isinstance(stated, Mapping) else dict.fromkeys(oracles, stated)
            ).items():
                potentials.setdefault(oracle, {})[element] = float(value)
        return cls(potentials, references.get("corrections"))

    def potentials_of(self, oracle: str) -> Mapping[str, float]:
        return self.potentials.get(oracle, {})

    def correction(self, formula: str) -> float:
        """What is added to a crystal's energy (eV/atom), by its formula such as ``Fe4O6``; 0 where
        none is asked for.
        """
        return (
            correction(self.corrections, reduced_formula(formula))
            if self.corrections is not None and formula
            else 0.0
        )

    def level(self, fidelity: str) -> str:
        """The name of corrected energies of a fidelity, so that they never meet others."""
        return f"{fidelity}+{self.corrections}" if self.corrections is not None else fidelity
