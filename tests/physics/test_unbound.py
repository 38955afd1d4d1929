"""Crystals that nothing holds together have no label; those that are only roomy have theirs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from campaign.crystals.extent import lone_atoms
from campaign.crystals.references import elemental
from campaign.types import Crystal, FailureKind
from oracles.elastic import Modulus
from oracles.lammps.static import Lammps, LammpsConfig
from oracles.relaxation import AseMechanics
from oracles.static import unbound


def relaxed(crystal: Crystal, **parameters: float) -> AseMechanics:
    mechanics = AseMechanics(LennardJones(**parameters), force_tolerance=1e-4, max_steps=300)
    mechanics.load(crystal)
    mechanics.relax(cell=True)
    return mechanics


@pytest.mark.parametrize(
    ("potential", "element"),
    [
        ("SiC.vashishta", "Si"),
        ("SiC.vashishta", "C"),
        ("SiO.1990.vashishta", "Si"),
        ("SiO.1994.vashishta", "Si"),
        ("InP.vashishta", "In"),
    ],
)
def test_an_element_that_its_potential_does_not_bind_has_no_label(
    potential: str, element: str
) -> None:
    answer = Lammps(LammpsConfig(potential=potential)).evaluate(elemental(element))
    assert answer.failure is not None
    assert answer.failure.kind is FailureKind.UNPHYSICAL
    assert answer.failure.message.startswith("the crystal is not bound")
    assert not answer.failure.retryable


def test_atoms_that_start_out_of_reach_are_not_bound_either() -> None:
    answer = Lammps(LammpsConfig()).evaluate(
        Crystal(np.eye(3) * 12.0, np.zeros((1, 3)), elemental("Ni").numbers)
    )
    assert answer.failure is not None
    assert "1 of 1 atoms have no neighbour" in answer.failure.message


def test_what_lies_beyond_its_cutoff_in_reach_of_others_takes_no_energy_to_stretch() -> None:
    """Potassium at 7 angstrom: near for its size, but no neighbour within the cutoff."""
    loose = relaxed(Crystal.from_atoms(bulk("K", "sc", a=7.0)), sigma=3.0, epsilon=0.1, rc=6.0)
    assert lone_atoms(loose.state().crystal) == 0
    assert "to stretch it by 2 % takes no energy" in unbound(
        loose, loose.state().crystal, loose.state()
    )
    before = loose.state().crystal.volume
    assert before == pytest.approx(343.0), "and it is left as it was"


def test_a_crystal_that_its_potential_does_not_reach_across_is_not_bound_at_its_measured_volume_either() -> (  # noqa: E501
    None
):
    """Caesium's neighbours are 5.3 angstrom apart: a cutoff of 5 leaves a still cell whose bulk
    modulus would read 0.
    """
    still = relaxed(elemental("Cs"), sigma=4.7, epsilon=0.1, rc=5.0)
    assert "to stretch it by 2 % takes no energy" in unbound(still, elemental("Cs"), still.state())
    held = relaxed(elemental("Cs"), sigma=4.7, epsilon=0.1, rc=12.0)
    assert not unbound(held, elemental("Cs"), held.state())


def test_a_crystal_at_its_lowest_energy_is_bound_however_small_its_stress() -> None:
    noble = AseMechanics(
        LennardJones(sigma=3.4, epsilon=0.0104, rc=12.0), force_tolerance=1e-9, max_steps=1000
    )
    noble.load(Crystal.from_atoms(bulk("Ar", "fcc", a=5.4)))
    noble.relax(cell=True)
    assert float(np.abs(noble.state().stress).max()) < 1e-6
    assert not unbound(noble, noble.state().crystal, noble.state())


def test_a_soft_roomy_crystal_and_molecules_are_bound() -> None:
    noble = relaxed(
        Crystal.from_atoms(bulk("Ar", "fcc", a=5.4)), sigma=3.4, epsilon=0.0104, rc=12.0
    )
    assert noble.state().crystal.volume > 1.5 * 22
    assert not unbound(noble, noble.state().crystal, noble.state())
    pair = Crystal.from_atoms(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], cell=[4.0, 4.0, 5.0], pbc=True))
    assert lone_atoms(pair) == 0
    assert (
        lone_atoms(
            Crystal.from_atoms(
                Atoms("N2He", [[0, 0, 0], [0, 0, 1.1], [8, 8, 8]], cell=[16, 16, 16], pbc=True)
            )
        )
        == 1
    )


def test_a_compound_that_falls_apart_into_molecules_has_no_label() -> None:
    """Rocksalt silicon monoxide in a potential for silica: bound pairs that fly apart."""
    crystal = Crystal.from_atoms(bulk("SiO", "rocksalt", a=3.82))
    answer = Lammps(LammpsConfig(potential="SiO.1990.vashishta")).evaluate(crystal)
    assert answer.failure is not None
    assert answer.failure.kind is FailureKind.UNPHYSICAL
    assert "it fell apart into" in answer.failure.message


def test_a_cell_that_gets_stuck_by_its_stress_alone_is_relaxed_to_the_end() -> None:
    """Bismuth's fcc cell turns into another one; its single atom feels no force on the way."""
    for lattice in ("fcc", "bcc"):
        found = elemental("Bi", lattice)
        squeezed = Crystal(
            found.lattice * (18.338344851170394 / found.volume) ** (1 / 3),
            found.fractional,
            found.numbers,
        )
        answer = Lammps(LammpsConfig(potential="Bi.meam")).evaluate(squeezed)
        assert answer.failure is None, answer.failure
        assert answer.value("energy_per_atom") == pytest.approx(-2.16, abs=1e-3)


@pytest.mark.parametrize(("relax", "is_label"), [("cell", False), ("none", True)])
def test_a_cell_at_its_lowest_energy_has_no_negative_modulus(
    monkeypatch: pytest.MonkeyPatch, relax: Literal["cell", "none"], is_label: bool
) -> None:
    """A rough potential can say so (caesium in CHGNet: -3.8 GPa); of a cell that is held it can be
    true.
    """
    monkeypatch.setattr("oracles.elastic.bulk_modulus", lambda *_: Modulus(-3.8, 1.9))
    answer = Lammps(LammpsConfig(relax=relax, measure=["bulk_modulus"])).evaluate(elemental("Ni"))
    if is_label:
        assert answer.value("bulk_modulus") == -3.8
    else:
        assert answer.failure is not None
        assert answer.failure.kind is FailureKind.UNPHYSICAL
        assert (
            "the bulk modulus of the relaxed cell is -3.8 GPa, expected more than 0"
            in answer.failure.message
        )
