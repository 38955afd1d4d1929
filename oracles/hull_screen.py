"""The screen ``above_hull``: refuses crystals whose energy, by a cheap oracle, lies too far above
the convex hull.

The hull is of the same oracle: the elements' crystals, computed once, and competing phases from a
file whose energies are of the same fidelity, or whose crystals are computed on request. Every
candidate costs one evaluation of the oracle, in the process that screens.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from pydantic import Field

from campaign import plugins
from campaign.crystals import references
from campaign.errors import InputError
from campaign.parameters import ConfigPath
from campaign.reading.structures import read_structures
from campaign.types import Candidate, Crystal, SearchSpace, Verdict, deciding_energy
from oracles.hull import Hull, Phase, read_phases
from oracles.inner import AsksOracle, built

_NAME = "above_hull"


class AboveHullConfig(AsksOracle):
    oracle: str = Field(description="Name of the oracle that gives energies.")
    largest: float = Field(
        0.1, ge=0, description="Maximum energy above the hull (eV/atom) that is accepted."
    )
    phases: ConfigPath | None = Field(
        None, description="CSV of competing phases: id, formula, energy_per_atom (eV), fidelity."
    )
    structures: tuple[ConfigPath, ...] = Field(
        (), description="Files of competing crystals, whose energies are computed."
    )


class AboveHull:
    Config = AboveHullConfig
    is_costly = True

    def __init__(self, config: AboveHullConfig) -> None:
        self.config = config
        self._oracle = built(config.spec(), "params")
        self._hull: Hull | None = None

    @cached_property
    def _fidelity(self) -> str:
        return plugins.fidelity_of(self._oracle, self.config.spec()).key

    def _phase(self, crystal: Crystal, name: str) -> Phase | str:
        """The crystal with its energy, or why it has none."""
        evaluation = self._oracle.evaluate(crystal)
        if evaluation.failure is not None:
            return str(evaluation.failure.message)
        energy = deciding_energy(
            {found.quantity: found.scalar for found in evaluation.observations}
        )
        if energy is None:
            return f"{self.config.oracle} measures no energy"
        return Phase(name, dict(Counter(crystal.symbols)), energy, self._fidelity)

    def hull(self, space: SearchSpace) -> Hull:
        """Made at the first candidate. Raises InputError where a competing phase has no energy or
        is of another fidelity.
        """
        if self._hull is None:
            crystals: dict[str, Crystal] = {}
            for path in self.config.structures:
                entries = list(read_structures(path))
                names = (
                    [path.name]
                    if len(entries) == 1
                    else [f"{path.name} {row}" for row in range(1, len(entries) + 1)]
                )
                crystals |= {
                    name: entry.crystal for name, entry in zip(names, entries, strict=True)
                }
            given = {
                crystal.symbols[0]
                for crystal in crystals.values()
                if len(set(crystal.symbols)) == 1
            }
            needed = [
                symbol
                for symbol in space.elements
                if references.has_reference(symbol) or symbol not in given
            ]
            crystals |= {
                f"{symbol} reference": crystal
                for symbol, crystal in references.elementals(needed, {}).items()
            }
            phases = read_phases(self.config.phases) if self.config.phases is not None else []
            for name, crystal in crystals.items():
                phase = self._phase(crystal, name)
                if isinstance(phase, str):
                    raise InputError(
                        f"the competing phase {name} has no energy: {phase}",
                        hint="take another oracle for the screen",
                    )
                phases.append(phase)
            self._hull = Hull(phases)
        return self._hull

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        phase = self._phase(candidate.crystal, candidate.id)
        if isinstance(phase, str):
            return Verdict(False, _NAME, f"no energy: {phase}")
        hull = self.hull(space)
        found = hull.stability(phase)
        if found.above_hull > self.config.largest:
            reason = (
                f"{found.above_hull:.3f} eV/atom above hull {hull.version}, allowed "
                f"{self.config.largest:g}"
            )
            return Verdict(False, _NAME, reason)
        return Verdict(True, "")
