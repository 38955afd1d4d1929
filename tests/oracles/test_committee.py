"""Committees of different potentials: means and spreads by hand, one zero for all energies, and
what happens where a member fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import load

from campaign import plugins
from campaign.crystals.references import elemental, ordered_binary
from campaign.errors import InputError
from campaign.protocols import Oracle, PluginSpec
from campaign.testing import check_oracle
from campaign.types import Crystal, Evaluation, FailureKind
from oracles.committee import Committee, CommitteeConfig

FIRST = {"use": "lammps_bulk_modulus", "params": {"potential": "NiAlH_jea.eam.alloy"}}
SECOND = {
    "use": "lammps",
    "params": {"potential": "MoCoNiVFeAlCr_2nn.meam", "measure": ["bulk_modulus", "forces"]},
}


def committee(*members: dict[str, Any], **settings: Any) -> Committee:
    return Committee(CommitteeConfig.model_validate({"members": members, **settings}))


def alone(member: dict[str, Any], crystal: Crystal) -> Evaluation:
    found: Evaluation = plugins.build(
        PluginSpec(group="oracles", use=member["use"], params=member["params"])
    ).evaluate(crystal)
    assert found.failure is None, found.failure
    return found


def formation_energy(evaluate: Any, crystal: Crystal) -> float:
    energies = [evaluate(elemental(symbol)).value("energy_per_atom") for symbol in crystal.symbols]
    return float(evaluate(crystal).value("energy_per_atom") - np.mean(energies))


def test_the_label_is_the_mean_and_its_noise_the_spread_on_one_zero() -> None:
    """Formation energies are what the members disagree about: the zeros of their energies differ
    and mean nothing.
    """
    asked, crystal = committee(FIRST, SECOND), ordered_binary("Ni", "Al")
    evaluation = asked.evaluate(crystal)
    assert evaluation.failure is None
    found = {observation.quantity: observation for observation in evaluation.observations}
    members = [lambda c, member=member: alone(member, c) for member in (FIRST, SECOND)]
    formation = [formation_energy(member, crystal) for member in members]
    assert found["disagreement"].value == pytest.approx(np.std(formation, ddof=1), abs=1e-9)
    assert found["disagreement"].unit == "eV/atom"
    assert found["energy_per_atom"].noise == found["disagreement"].value
    assert formation_energy(asked.evaluate, crystal) == pytest.approx(np.mean(formation), abs=1e-9)
    moduli = [member(crystal).value("bulk_modulus") for member in members]
    assert found["bulk_modulus"].value == pytest.approx(np.mean(moduli))
    assert found["bulk_modulus"].noise == pytest.approx(np.std(moduli, ddof=1))
    assert "forces" not in found, "only one member measures them"
    assert evaluation.crystal == alone(FIRST, crystal).crystal


def test_members_agree_about_the_elements_that_their_energies_refer_to() -> None:
    found = {
        observation.quantity: observation
        for observation in committee(FIRST, SECOND).evaluate(elemental("Al")).observations
    }
    assert found["disagreement"].value == pytest.approx(0.0, abs=1e-9)
    assert found["energy_per_atom"].value == pytest.approx(
        alone(FIRST, elemental("Al")).value("energy_per_atom")
    )
    assert found["volume_per_atom"].noise > 0.01


def test_the_disagreement_may_be_about_another_quantity() -> None:
    asked = committee(FIRST, SECOND, about="bulk_modulus")
    assert asked.quantities[-1].unit == "GPa"
    evaluation = asked.evaluate(elemental("Ni"))
    spread = next(
        observation.noise
        for observation in evaluation.observations
        if observation.quantity == "bulk_modulus"
    )
    assert evaluation.value("disagreement") == spread
    assert asked.fidelity != committee(FIRST, SECOND).fidelity
    assert asked.fidelity != committee(SECOND, FIRST, about="bulk_modulus").fidelity, (
        "the first gives the zero and the crystal"
    )


def test_phonons_may_be_what_members_disagree_about() -> None:
    members = [
        {"use": "phonons", "params": {"oracle": "lammps", "params": {"potential": name}}}
        for name in ("Si.tersoff", "Si.sw")
    ]
    evaluation = committee(*members, about="lowest_frequency").evaluate(elemental("Si"))
    assert evaluation.failure is None
    found = {observation.quantity: observation for observation in evaluation.observations}
    assert found["dynamically_stable"].value == 1
    assert found["disagreement"].unit == "THz"
    difference = found["vibrational_free_energy_per_atom"].noise
    assert found["free_energy_per_atom"].noise == pytest.approx(difference, rel=1e-9), (
        "the static energies of an element agree"
    )


def test_enthalpies_are_compared_by_those_of_the_elements_at_the_pressure() -> None:
    at_pressure = [
        {"use": member["use"], "params": {**member["params"], "pressure": 5.0}}
        for member in (FIRST, SECOND)
    ]
    evaluation, crystal = (
        committee(*at_pressure).evaluate(ordered_binary("Ni", "Al")),
        ordered_binary("Ni", "Al"),
    )
    assert evaluation.failure is None
    name = "enthalpy_per_atom_at_5_GPa"
    spread = next(
        observation.noise for observation in evaluation.observations if observation.quantity == name
    )
    formation = [
        alone(member, crystal).value(name)
        - np.mean([alone(member, elemental(symbol)).value(name) for symbol in ("Ni", "Al")])
        for member in at_pressure
    ]
    assert spread == pytest.approx(np.std(formation, ddof=1), abs=1e-9)


def test_elements_may_be_compared_by_another_structure() -> None:
    asked = committee(FIRST, SECOND, structures={"Ni": "hcp"})
    found = {
        observation.quantity: observation
        for observation in asked.evaluate(elemental("Ni", "hcp")).observations
    }
    assert found["disagreement"].value == pytest.approx(0.0, abs=1e-9)
    assert asked.fidelity != committee(FIRST, SECOND).fidelity


def test_an_element_without_a_known_crystal_cannot_be_compared() -> None:
    pair = [{"use": "lennard_jones", "params": {"cutoff": cutoff}} for cutoff in (5.0, 7.0)]
    foreign = Crystal(np.eye(3) * 4, np.zeros((1, 3)), np.array([100], dtype=np.uint8))
    failure = committee(*pair).evaluate(foreign).failure
    assert failure is not None
    assert "no reference crystal of Fm" in failure.message
    assert not failure.retryable
    assert "Fm" not in committee(*pair).elements
    assert "Fm" in committee(*pair, structures={"Fm": "fcc"}).elements


def test_a_member_that_fails_is_named_and_so_is_an_element_without_a_zero() -> None:
    stiff = {"use": "lammps", "params": {**SECOND["params"], "residual_pressure": 1e-12}}
    failure = committee(FIRST, stiff).evaluate(ordered_binary("Ni", "Al")).failure
    assert failure is not None
    assert failure.kind is FailureKind.NOT_CONVERGED
    assert failure.message.startswith("member 2, lammps: after relaxation")
    foreign = committee(FIRST, SECOND).evaluate(elemental("Fe")).failure
    assert foreign is not None
    assert foreign.message.startswith("member 1, lammps_bulk_modulus: the potential has no element")


def test_an_element_whose_crystal_fails_leaves_no_label(tmp_path: Path) -> None:
    (tmp_path / "picky_oracle.py").write_text(
        "from campaign.types import ENERGY_PER_ATOM, Evaluation, FailureKind\n"
        "class Picky:\n"
        "    quantities = (ENERGY_PER_ATOM,)\n"
        "    def evaluate(self, crystal):\n"
        "        if set(crystal.symbols) == {'Al'}: return "
        "Evaluation.failed(FailureKind.TIMEOUT, 'too slow')\n"
        "        return Evaluation.single(ENERGY_PER_ATOM, -3.0)\n"
    )
    loaded = load(
        tmp_path,
        space={"elements": ["Ni", "Al"], "max_fraction": 1.0},
        oracles=[
            {"use": "committee", "params": {"members": [FIRST, {"use": "picky_oracle:Picky"}]}}
        ],
    )
    oracle = loaded.parts.oracles["committee"]
    failure = oracle.evaluate(ordered_binary("Ni", "Al")).failure
    assert failure is not None
    assert (
        failure.message
        == "member 2, picky_oracle:Picky: the crystal of Al, which its energies refer to, "
        "fails: too slow"
    )
    assert oracle.evaluate(elemental("Ni")).failure is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"members": [FIRST]}, "members"),
        ({"members": [FIRST, FIRST]}, "two members of the committee are of one level of theory"),
        (
            {"members": [FIRST, {"use": "lammps", "params": {}}], "about": "bulk_modulus"},
            "not every member measures 'bulk_modulus'",
        ),
        ({"members": [FIRST, {"use": "lamps"}]}, "there is no oracle called 'lamps'"),
        (
            {"members": [FIRST, {"use": "lammps", "params": {"potental": "x"}}]},
            r"oracles\.0\.params\.members\.1\.params\.potental: unknown key; did you mean "
            r"'potential'",
        ),
        (
            {"members": [FIRST, {"use": "mace", "params": {"committee": True}}]},
            "waits for the committee that a campaign trains",
        ),
    ],
)
def test_committees_that_cannot_be_are_refused_before_anything_runs(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _ = load(
            tmp_path,
            space={"elements": ["Ni", "Al"]},
            oracles=[{"use": "committee", "params": params}],
        ).parts


def test_a_committee_knows_the_elements_that_all_members_know(tmp_path: Path) -> None:
    asked = committee(FIRST, {"use": "lammps", "params": {"potential": "CuNi.eam.alloy"}})
    assert asked.elements == {"Ni"}
    assert isinstance(asked, Oracle)
    assert asked.relaxes_volume
    assert not committee(
        FIRST, {"use": "lammps", "params": {**SECOND["params"], "relax": "ions"}}
    ).relaxes_volume


def test_it_passes_the_check_for_oracles() -> None:
    members = [
        {"use": "lammps"},
        {"use": "lammps", "params": {"potential": "MoCoNiVFeAlCr_2nn.meam"}},
    ]
    findings = check_oracle("committee", {"members": members}, elements=["Ni", "Fe"])
    assert "disagreement (eV/atom)" in findings[0].detail
