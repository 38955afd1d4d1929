"""What formation energies refer to: crystals from files, chemical potentials, corrections, and
refusals before anything runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Composition
from support import load

from campaign.api import Campaign
from campaign.config import loaded as configs
from campaign.crystals import references
from campaign.crystals.corrections import correction
from campaign.errors import InputError
from campaign.types import FORMATION_ENERGY
from oracles.hull import Hull
from oracles.hull_view import oracles_with_hull, phases_of

FORMATION = {"quantity": FORMATION_ENERGY.name, "direction": "minimize"}


def campaign(folder: Path, **changes: Any) -> Campaign:
    found = Campaign(
        folder / "campaign", load(folder, objective=FORMATION, budget={"labels": 3}, **changes)
    )
    found.run()
    return found


def refusal(folder: Path, **changes: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        _ = load(folder, objective=FORMATION, **changes).parts
    return caught.value


def test_a_file_gives_the_reference(tmp_path: Path) -> None:
    references.elemental("Cr", "hcp").structure.to(filename=str(tmp_path / "Cr.cif"))
    state = campaign(tmp_path, references={"structures": {"Cr": "Cr.cif", "Fe": "fcc"}}).state()
    asked = {state.formula(candidate): candidate for candidate, _ in state.requested}
    assert sorted(asked) == ["Cr2", "Fe1", "Ni1"]
    assert asked["Fe1"] == references.elemental("Fe", "fcc").id
    assert asked["Ni1"] == references.elemental("Ni").id


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("fccc", "neither fcc, bcc, hcp, diamond, sc nor a file"),
        ("NiFe.cif", "one crystal of Cr alone"),
        ("two.extxyz", "one crystal of Cr alone"),
    ],
)
def test_a_structure_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, value: str, told: str
) -> None:
    references.ordered_binary("Ni", "Fe").structure.to(filename=str(tmp_path / "NiFe.cif"))
    from ase.io import write

    write(
        tmp_path / "two.extxyz", [references.elemental("Cr", kind).atoms for kind in ("bcc", "fcc")]
    )
    assert told in refusal(tmp_path, references={"structures": {"Cr": value}}).message


def test_an_element_without_a_crystal_is_refused_and_may_be_given(tmp_path: Path) -> None:
    space = {"elements": ["Ni", "Fe", "Yb"]}
    error = refusal(tmp_path, space=space)
    assert "no reference crystal of Yb" in error.message
    assert "no reference crystal of Yb" in refusal(tmp_path, space=space, sentinels={}).message
    for stated in ({"structures": {"Yb": "fcc"}}, {"chemical_potentials": {"Yb": -1.5}}):
        assert load(tmp_path, objective=FORMATION, space=space, references=stated).parts
    _ = load(tmp_path, space=space).parts


def test_a_chemical_potential_takes_the_place_of_a_crystal(tmp_path: Path) -> None:
    plain = campaign(tmp_path / "plain").state()
    stated = campaign(tmp_path / "stated", references={"chemical_potentials": {"Cr": -0.5}}).state()
    assert {stated.formula(candidate) for candidate, _ in stated.requested} == {"Fe1", "Ni1"}
    own = plain.zeros_of("lennard_jones")["Cr"]
    shared = [pair for pair in stated.own if pair in plain.labels]
    assert shared
    for pair in shared:
        values = plain.labels[pair].values, stated.labels[pair].values
        change = values[1][FORMATION_ENERGY.name] - values[0][FORMATION_ENERGY.name]
        assert change == pytest.approx(plain.composition(pair[0]).get("Cr", 0.0) * (own + 0.5))
    assert oracles_with_hull(stated) == ["lennard_jones"]
    hull = Hull(phases_of(stated, "lennard_jones"))
    energies = {phase.id: hull.stability(phase).formation_energy for phase in hull.phases}
    assert energies["chemical potential of Cr"] == pytest.approx(0)
    for candidate, oracle in stated.own:
        assert energies[candidate] == pytest.approx(
            stated.labels[candidate, oracle].values[FORMATION_ENERGY.name]
        )


def test_a_number_for_several_levels_is_refused(tmp_path: Path) -> None:
    two = [{"use": "lennard_jones"}, {"use": "lennard_jones", "name": "other"}]
    stated = {"chemical_potentials": {"Cr": -0.5}}
    assert "one level of theory" in refusal(tmp_path, oracles=two, references=stated).message
    by_oracle = {"chemical_potentials": {"Cr": {"lennard_jones": -0.5, "other": -0.4}}}
    assert load(tmp_path, objective=FORMATION, oracles=two, references=by_oracle).parts
    assert load(
        tmp_path, objective=FORMATION, oracles=two, references={**stated, "oracles": ["other"]}
    ).parts
    assert (
        "no oracle 'mace'"
        in refusal(tmp_path, references={"chemical_potentials": {"Cr": {"mace": 1.0}}}).message
    )
    assert (
        "expected one of the space's elements"
        in refusal(tmp_path, references={"chemical_potentials": {"O": 1.0}}).message
    )


def test_corrections_are_of_all_labels_of_a_hull_or_of_none(tmp_path: Path) -> None:
    space = {"elements": ["Ni", "Fe", "O"]}
    plain = campaign(tmp_path / "plain", space=space).state()
    corrected = campaign(
        tmp_path / "corrected", space=space, references={"corrections": "materials_project_2020"}
    ).state()
    shared = [
        pair
        for pair in corrected.own
        if pair in plain.labels and plain.composition(pair[0]).get("O")
    ]
    assert shared
    for pair in shared:
        change = (
            corrected.labels[pair].values[FORMATION_ENERGY.name]
            - plain.labels[pair].values[FORMATION_ENERGY.name]
        )
        assert change == pytest.approx(correction("materials_project_2020", plain.formula(pair[0])))
        assert change < -0.01
    phases = phases_of(corrected, "lennard_jones")
    assert Hull(phases).fidelity.endswith("+materials_project_2020")
    with pytest.raises(InputError, match="one calculator"):
        Hull(
            [
                *phases,
                *(
                    replace(phase, id=f"plain {phase.id}")
                    for phase in phases_of(plain, "lennard_jones")
                ),
            ]
        )


@pytest.mark.parametrize(
    ("formula", "repulsion"),
    [
        ("Fe2O3", 2 * -2.256),
        ("LiFeO2", -2.256),
        ("FeF3", -2.256),
        ("TiO2", 0.0),
        ("Li2O2", 0.0),
        ("FeS", 0.0),
        ("AlCo", 0.0),
        ("Fe", 0.0),
    ],
)
def test_oxides_and_fluorides_of_some_metals_have_a_part_of_their_own(
    formula: str, repulsion: float
) -> None:
    """A. Wang et al., Sci. Rep. 11 (2021) 15496: -2.256 eV for each Fe."""
    change = correction("materials_project_2020_with_u", formula) - correction(
        "materials_project_2020", formula
    )
    assert change == pytest.approx(repulsion / Composition(formula).num_atoms)


def test_references_may_change_and_formation_energies_follow(tmp_path: Path) -> None:
    before = campaign(tmp_path).state()
    loaded = load(
        tmp_path,
        objective=FORMATION,
        budget={"labels": 3},
        references={"chemical_potentials": {"Cr": -0.5}},
    )
    with pytest.raises(InputError, match="references"):
        Campaign(tmp_path / "campaign", loaded).run()
    Campaign(tmp_path / "campaign", loaded).run(accept_changes=True)
    after = Campaign.open(tmp_path / "campaign").state()
    own = before.zeros_of("lennard_jones")["Cr"]
    for pair in before.own:
        change = (
            after.labels[pair].values[FORMATION_ENERGY.name]
            - before.labels[pair].values[FORMATION_ENERGY.name]
        )
        assert change == pytest.approx(before.composition(pair[0]).get("Cr", 0.0) * (own + 0.5))


def test_earlier_keys_keep_their_meaning(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        objective=FORMATION,
        references={"structures": {"Ni": "fcc", "Fe": "bcc"}, "oracles": ["lennard_jones"]},
    )
    assert isinstance(loaded, configs.LoadedConfig)
    assert loaded.parts
