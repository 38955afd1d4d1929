"""Crystals at a pressure: equations of state by hand, enthalpies, which phase they make stable, and
levels that are told apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.units import GPa
from pydantic import ValidationError

from campaign.api import Campaign
from campaign.crystals.lattice import supercell
from campaign.crystals.references import elemental, ordered_binary
from campaign.types import (
    ENERGY_PER_ATOM,
    Crystal,
    Evaluation,
    SearchSpace,
    deciding_energy,
    enthalpy_at,
)
from oracles.hull_screen import AboveHull, AboveHullConfig
from oracles.hull_view import phases_of
from oracles.lammps.static import Lammps, LammpsConfig
from oracles.relaxation import AseMechanics

ENTHALPY = "enthalpy_per_atom_at_50_GPa"


def compressed(oracle: Lammps, crystal: Crystal, volume: float) -> Evaluation:
    """At a volume per atom, unrelaxed."""
    scale = (volume * len(crystal) / crystal.volume) ** (1 / 3)
    return oracle.evaluate(Crystal(crystal.lattice * scale, crystal.fractional, crystal.numbers))


def test_a_crystal_at_a_pressure_lies_on_its_equation_of_state() -> None:
    crystal, h = elemental("Ni"), 1e-3
    found = Lammps(LammpsConfig(pressure=50, measure=("forces", "bulk_modulus"))).evaluate(crystal)
    volume, energy = found.value("volume_per_atom"), found.value("energy_per_atom")
    still = Lammps(LammpsConfig(relax="none"))
    below, above = (
        compressed(still, crystal, volume + step).value("energy_per_atom") for step in (-h, h)
    )
    assert -(above - below) / (2 * h) / GPa == pytest.approx(50, abs=0.05)
    assert found.value(ENTHALPY) == pytest.approx(energy + 50 * GPa * volume)
    stress = np.asarray(next(row.value for row in found.observations if row.quantity == "stress"))
    assert stress == pytest.approx(-50 * np.eye(3), abs=0.01)
    assert found.value("bulk_modulus") > 1.5 * 187.6, "stiffer than at no pressure"


def test_an_alloy_with_free_ions_and_a_skewed_cell_reaches_the_pressure() -> None:
    rng = np.random.default_rng(2)
    ideal = supercell("fcc", (2, 2, 1), rng.permutation(["Ni"] * 4 + ["Fe"] * 4).tolist())
    skewed = Crystal(
        ideal.lattice @ (np.eye(3) + [[0, 0.02, 0], [0, 0, -0.01], [0, 0, 0]]),
        ideal.fractional,
        ideal.numbers,
    )
    found = Lammps(LammpsConfig(pressure=120, measure=("forces",))).evaluate(skewed)
    assert found.failure is None
    stress = np.asarray(next(row.value for row in found.observations if row.quantity == "stress"))
    assert stress == pytest.approx(-120 * np.eye(3), abs=0.05)


def test_any_ase_calculator_relaxes_at_the_pressure() -> None:
    mechanics = AseMechanics(EMT(), force_tolerance=1e-3, max_steps=500)
    mechanics.load(elemental("Cu"))
    assert mechanics.relax(cell=True, pressure=20.0) < 0.05
    assert mechanics.state().pressure == pytest.approx(20, abs=0.05)


def test_quantity_and_level_say_the_pressure_and_without_one_nothing_changes() -> None:
    plain, fifty, hundred = (Lammps(LammpsConfig(pressure=pressure)) for pressure in (0, 50, 100))
    assert [oracle.fidelity.name for oracle in (plain, fifty, hundred)] == [
        "lammps-meam",
        "lammps-meam-50GPa",
        "lammps-meam-100GPa",
    ]
    assert len({oracle.fidelity.key for oracle in (plain, fifty, hundred)}) == 3
    assert "pressure" not in plain.fidelity.settings
    assert enthalpy_at(50) in fifty.quantities
    assert not any(quantity.name.startswith("enthalpy") for quantity in plain.quantities)
    assert deciding_energy({ENERGY_PER_ATOM.name: -4.0}) == -4.0
    assert deciding_energy({ENERGY_PER_ATOM.name: -4.0, ENTHALPY: -1.0}) == -1.0
    assert deciding_energy({"bulk_modulus": 1.0}) is None


def test_settings_that_contradict_a_pressure_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs relax: cell"):
        LammpsConfig(pressure=5, relax="ions")
    with pytest.raises(ValidationError, match="equation_of_state is that at no pressure"):
        LammpsConfig(pressure=5, bulk_modulus_by="equation_of_state")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LammpsConfig(pressure=-5)


def test_the_hull_of_the_screen_is_one_of_enthalpies() -> None:
    params = {"pressure": 50}
    hull = AboveHull(AboveHullConfig(oracle="lammps", params=params)).hull(
        SearchSpace(("Fe", "Ni"))
    )
    oracle = Lammps(LammpsConfig(pressure=50))
    expected = {
        symbol: oracle.evaluate(elemental(symbol)).value(ENTHALPY) for symbol in ("Fe", "Ni")
    }
    assert {
        next(iter(phase.composition)): phase.energy_per_atom for phase in hull.phases
    } == pytest.approx(expected)
    assert all(energy > -2 for energy in expected.values()), (
        "3 eV/atom above the energies at no pressure"
    )
    assert oracle.evaluate(ordered_binary("Fe", "Ni")).failure is None


def test_formation_energies_and_hulls_of_a_campaign_at_a_pressure_are_of_enthalpies(
    small: Callable[..., Campaign],
) -> None:
    campaign = small(
        space={"elements": ["Fe", "Ni"], "max_fraction": 0.8},
        objective={"quantity": "formation_energy_per_atom", "direction": "minimize"},
        generators=[{"use": "ordered_alloy", "count": 20, "params": {"atoms": [2, 3]}}],
        surrogate=None,
        acquisition={"use": "random", "initial_labels": 3, "batch_size": 3},
        budget={"labels": 3},
        references={},
        oracles=[{"use": "lammps", "params": {"pressure": 50}}],
    )
    campaign.run()
    state = campaign.state()
    labels = {label.candidate: label for label in state.labels.values()}
    elements = {symbol: energy for symbol, (energy, _) in state.elemental["lammps"].items()}
    made = [label for label in labels.values() if len(state.composition(label.candidate)) == 2]
    assert len(made) >= 3
    for label in made:
        mean = sum(
            share * elements[symbol] for symbol, share in state.composition(label.candidate).items()
        )
        assert label.values["formation_energy_per_atom"] == pytest.approx(
            label.values[ENTHALPY] - mean
        )
    for phase in phases_of(state, "lammps"):
        assert phase.energy_per_atom == labels[phase.id].values[ENTHALPY]
        assert phase.fidelity.startswith("lammps-meam-50GPa-")
