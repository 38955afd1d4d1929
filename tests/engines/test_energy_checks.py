"""The conformance kit holds energies against the elements' cohesive energies in the oracle's own
sense, and says what it cannot check.
"""

from __future__ import annotations

from pathlib import Path

from campaign.protocols import OracleSpec, PluginSpec
from campaign.testing import Finding, examine

CHANGED = """
from dataclasses import replace
from ase.data import atomic_numbers
from campaign.types import Fidelity, Observation
from oracles.lammps.static import Lammps, LammpsConfig

class Changed:
    def __init__(self, factor=1.0, shift=0.0, cycle=(), zero=""):
        self.inner = Lammps(LammpsConfig(measure=("bulk_modulus",)))
        self.quantities, self.elements = self.inner.quantities, self.inner.elements
        self.factor, self.shift, self.energy_zero = factor, shift, zero
        self.names = {atomic_numbers[a]: atomic_numbers[b] for a, b in zip(cycle, [*cycle[1:], *cycle[:1]])}

    def evaluate(self, crystal):
        found = self.inner.evaluate(crystal.with_numbers([self.names.get(n, n) for n in crystal.numbers.tolist()]))
        if found.failure is not None:
            return found
        told = tuple(
            replace(item, value=item.value * self.factor + self.shift) if item.quantity == "energy_per_atom" else item
            for item in found.observations
        )
        return replace(found, observations=told, crystal=found.crystal.with_numbers(crystal.numbers))
"""  # noqa: E501


def findings(
    folder: Path, elements: tuple[str, ...] = ("Ni", "Fe", "Cr"), **params: object
) -> dict[str, Finding]:
    (folder / "changed_energies.py").write_text(CHANGED)
    plugin = PluginSpec(
        group="oracles", use="changed_energies:Changed", params=params, module_folder=str(folder)
    )
    return {
        found.check: found
        for found in examine(OracleSpec(name="checked", plugin=plugin, wall_limit=30), elements)
    }


def test_energies_in_another_unit_are_found(tmp_path: Path) -> None:
    found = findings(tmp_path, factor=23.0605)["cohesive energies"]
    assert found.status == "failed"
    assert "Ni -102.6 eV/atom (known -4.44)" in found.detail
    assert "kcal/mol" in found.detail
    alone = findings(tmp_path, ("Ni",), factor=96.4853, zero="free atoms")["cohesive energies"]
    assert alone.status == "failed"
    assert "kJ/mol" in alone.detail


def test_energies_of_another_zero_are_no_error_and_it_is_said_that_their_unit_was_not_checked(
    tmp_path: Path,
) -> None:
    found = findings(tmp_path, ("Ni", "Fe"), shift=-3000.0)["cohesive energies"]
    assert found.status == "skipped"
    assert "could not be checked" in found.detail
    right = findings(tmp_path, ("Ni", "Fe"))["cohesive energies"]
    assert right.status == "passed"
    assert "Ni -4.45 eV/atom (known -4.44)" in right.detail


def test_three_species_in_another_order_are_found(tmp_path: Path) -> None:
    found = findings(tmp_path, cycle=("Ni", "Fe", "Cr"))["elements by name"]
    assert found.status == "failed"
    for told in ("Ni behaves like Fe", "Fe behaves like Cr", "Cr behaves like Ni"):
        assert told in found.detail
