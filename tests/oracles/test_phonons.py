"""Phonons by interatomic potentials: against frozen phonons, phonopy's own sums, symmetry, and
crystals that are known to be unstable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.data import atomic_masses
from ase.units import _amu, _e

from campaign import plugins
from campaign.crystals.references import elemental
from campaign.errors import InputError
from campaign.protocols import Oracle, PluginSpec
from campaign.testing import check_oracle
from campaign.types import Candidate, Crystal, Evaluation, FailureKind, SearchSpace
from oracles import phonons
from oracles.lammps.static import Lammps, LammpsConfig
from oracles.phonons import Phonons, PhononsConfig
from oracles.phonons_screen import PhononsScreen

SILICON, NICKEL = {"potential": "Si.tersoff"}, {"potential": "Ni_u3.eam"}
OWN = (
    "lowest_frequency",
    "dynamically_stable",
    "zero_point_energy_per_atom",
    "vibrational_free_energy_per_atom",
    "free_energy_per_atom",
)


def oracle(params: dict[str, Any], **settings: Any) -> Phonons:
    return Phonons(PhononsConfig(oracle="lammps", params=params, **settings))


def own(evaluation: Evaluation) -> list[float]:
    assert evaluation.failure is None, evaluation.failure
    return [evaluation.value(name) for name in OWN]


def test_the_optical_mode_of_silicon_is_that_of_two_atoms_moved_against_each_other() -> None:
    """Atoms moved by +u and -u feel a force -k u each, so f = sqrt(k / m) / 2 pi."""
    asked = oracle(SILICON)
    ground = asked.inner.evaluate(elemental("Si")).crystal
    assert ground is not None
    moved, engine = 1e-3, asked.inner.mechanics
    against = np.array([[moved, 0, 0], [-moved, 0, 0]]) @ np.linalg.inv(ground.lattice)
    engine.load(Crystal(ground.lattice, ground.fractional + against, ground.numbers))
    constant = -float(engine.state().forces[0, 0]) / moved * _e / 1e-20
    by_hand = np.sqrt(constant / (atomic_masses[14] * _amu)) / (2 * np.pi) * 1e-12
    found = phonons.spectrum(
        phonons.force_constants(engine, phonons.primitive(ground, 1e-3), asked.config), 30.0
    )
    at_gamma = found.frequencies[np.flatnonzero(np.all(found.points == 0, axis=1))[0]]
    assert by_hand == pytest.approx(16.67, abs=0.05)
    assert at_gamma[3:] == pytest.approx([by_hand] * 3, rel=1e-3)
    assert np.abs(at_gamma[:3]).max() < 1e-4


@pytest.mark.parametrize(("symbol", "params"), [("Si", SILICON), ("Ni", NICKEL)])
def test_ground_states_are_stable_and_their_energies_are_phonopys(
    symbol: str, params: dict[str, Any]
) -> None:
    asked = oracle(params, temperature=500.0)
    evaluation = asked.evaluate(elemental(symbol))
    lowest, stable, zero_point, vibrational, free = own(evaluation)
    assert stable == 1
    assert lowest > 0.1
    assert free == pytest.approx(evaluation.value("energy_per_atom") + vibrational)
    assert evaluation.crystal is not None
    found = phonons.force_constants(
        asked.inner.mechanics, phonons.primitive(evaluation.crystal, 1e-3), asked.config
    )
    found.symmetrize_force_constants(show_drift=False)
    found.run_mesh(asked.config.mesh_length, is_gamma_center=True)
    theirs = (
        found.run_thermal_properties(
            temperatures=[0.0, 500.0], exclude_gamma_acoustic=True
        ).free_energy
        / 96.48533
        / len(found.primitive)
    )
    assert [zero_point, vibrational] == pytest.approx(list(theirs), rel=1e-5)


def test_a_cell_twice_as_large_and_a_turned_one_shake_alike() -> None:
    asked = oracle(SILICON)
    crystal = elemental("Si")
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = Crystal(
        crystal.lattice @ turn * np.sign(np.linalg.det(turn)), crystal.fractional, crystal.numbers
    )
    doubled = Crystal.from_atoms(crystal.atoms.repeat((2, 1, 1)))
    known = own(asked.evaluate(crystal))
    assert own(asked.evaluate(turned)) == pytest.approx(known, abs=1e-4)
    assert own(asked.evaluate(doubled)) == pytest.approx(known, abs=1e-4)


def test_rattled_crystals_shake_as_their_relaxed_one_does() -> None:
    crystal = Crystal.from_atoms(elemental("Si").atoms.repeat((2, 1, 1)))
    rattled = Crystal(
        crystal.lattice,
        crystal.fractional + np.random.default_rng(2).normal(0, 0.01, (4, 3)),
        crystal.numbers,
    )
    asked = oracle(SILICON)
    assert own(asked.evaluate(rattled)) == pytest.approx(own(asked.evaluate(crystal)), abs=2e-3)


def test_supercells_of_low_symmetry_do_not_break_the_little_there_is(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A tetragonal crystal: repeats that differ along the cube's edges would make force constants
    of another symmetry.
    """
    stretched = Crystal(
        elemental("Si").lattice @ np.diag([1.0, 1.0, 1.04]),
        elemental("Si").fractional,
        elemental("Si").numbers,
    )
    evaluation = oracle({**SILICON, "relax": "ions"}).evaluate(stretched)
    assert len(own(evaluation)) == 5
    assert not [str(warning.message) for warning in recwarn if "phonopy" in warning.filename]


def unstable() -> Crystal:
    """Nickel in a body-centred cell of fixed shape: Bain's path leads downhill to fcc."""
    return elemental("Ni", "bcc")


def test_a_body_centred_crystal_of_nickel_is_unstable() -> None:
    lowest, stable, *energies = own(oracle({**NICKEL, "relax": "ions"}).evaluate(unstable()))
    assert stable == 0
    assert lowest < -0.5
    assert np.isfinite(energies).all()
    failure = (
        oracle({**NICKEL, "relax": "ions"}, on_instability="fail").evaluate(unstable()).failure
    )
    assert failure is not None
    assert failure.kind is FailureKind.UNPHYSICAL
    assert (
        failure.message
        == f"dynamically unstable: lowest frequency {lowest:.3f} THz, allowed down to -0.1"
    )
    assert (
        own(oracle({**NICKEL, "relax": "ions"}, tolerance=-lowest + 1e-6).evaluate(unstable()))[1]
        == 1
    )


def test_the_screen_refuses_what_is_unstable_and_what_has_no_phonons() -> None:
    screen = PhononsScreen(PhononsConfig(oracle="lammps", params={**NICKEL, "relax": "ions"}))
    space = SearchSpace(("Ni",))
    assert screen.judge(Candidate(elemental("Ni")), space).accepted
    refused = screen.judge(Candidate(unstable()), space)
    assert not refused.accepted
    assert refused.reason.endswith("THz, allowed down to -0.1")
    assert screen.judge(Candidate(elemental("Si")), space).reason.startswith(
        "no phonons: the potential has no element"
    )


def test_a_relaxation_that_failed_and_noisy_forces_are_no_labels() -> None:
    stopped = oracle({**SILICON, "max_steps": 1}).evaluate(
        Crystal(elemental("Si").lattice * 1.05, [[0, 0, 0], [0.27, 0.25, 0.25]], [14, 14])
    )
    assert stopped.failure is not None
    assert stopped.failure.kind is FailureKind.NOT_CONVERGED
    noisy = oracle(SILICON, acoustic_tolerance=1e-9).evaluate(elemental("Si")).failure
    assert noisy is not None
    assert noisy.kind is FailureKind.NOT_CONVERGED
    assert "forces are too noisy" in noisy.message


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lennard_jones", {}, "phonons need forces, and lennard_jones hands on none"),
        ("lammps", {**SILICON, "relax": "none"}, "relax: none"),
    ],
)
def test_inner_oracles_that_give_no_phonons_are_refused(
    name: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Phonons(PhononsConfig(oracle=name, params=params))


def test_the_fidelity_holds_what_a_frequency_depends_on() -> None:
    plain = oracle(SILICON).fidelity
    assert plain.name == "phonons-lammps-tersoff"
    inner = Lammps(LammpsConfig(potential="Si.tersoff")).fidelity.key
    assert plain.settings["inner"] == inner
    others = [
        oracle(SILICON, supercell_length=12.0),
        oracle(SILICON, displacement=0.02),
        oracle({"potential": "Si.sw"}),
        oracle(SILICON, temperature=0),
    ]
    assert len({plain.key, *(other.fidelity.key for other in others)}) == 5
    assert oracle(SILICON, on_instability="fail").fidelity == plain


def test_it_passes_the_check_for_oracles() -> None:
    built = plugins.build(
        PluginSpec(group="oracles", use="phonons", params={"oracle": "lammps", "params": NICKEL})
    )
    assert isinstance(built, Oracle)
    findings = check_oracle(
        "phonons", {"oracle": "lammps", "supercell_length": 7.0}, elements=["Ni", "Fe"]
    )
    assert "lowest_frequency (THz)" in findings[0].detail
