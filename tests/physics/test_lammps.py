"""The oracle's numbers against the potential's paper, against a second protocol, and under the
symmetries that physics has.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.types import Crystal, FailureKind
from oracles.lammps import potentials
from oracles.lammps.engine import LammpsEngine, restricted
from oracles.lammps.meam import MeamPotential
from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig


@pytest.fixture(scope="module")
def oracle() -> LammpsBulkModulus:
    return LammpsBulkModulus(LammpsBulkModulusConfig())


def random_alloy(parent: str, seed: int) -> Crystal:
    rng = np.random.default_rng(seed)
    return supercell(
        parent, (2, 2, 2), rng.permutation(["Ni"] * 6 + ["Fe"] * 5 + ["Cr"] * 5).tolist()
    )  # type: ignore[arg-type]


# C. Wu, B.-J. Lee, X. Su, Calphad 57 (2017) 98-106: lattice constant (angstrom), cohesive energy
# (eV), bulk modulus (GPa).
PUBLISHED = [
    ("Ni", "fcc", 3.521, 4.45, 187.7),
    ("Fe", "bcc", 2.864, 4.29, 173.1),
    ("Cr", "bcc", 2.881, 4.10, 190.9),
]


@pytest.mark.parametrize(("element", "structure", "edge", "cohesive", "modulus"), PUBLISHED)
def test_pure_elements_give_the_published_figures(
    oracle: LammpsBulkModulus,
    element: str,
    structure: str,
    edge: float,
    cohesive: float,
    modulus: float,
) -> None:
    start = bulk(element, structure, a=1.01 * edge, cubic=True).repeat(3)
    evaluation = oracle.evaluate(Crystal.from_atoms(start))
    assert evaluation.failure is None
    assert evaluation.crystal is not None
    assert evaluation.crystal.lattice[0, 0] / 3 == pytest.approx(edge, abs=1e-3)
    assert evaluation.value("energy_per_atom") == pytest.approx(-cohesive, abs=1e-4)
    assert evaluation.value("bulk_modulus") == pytest.approx(modulus, rel=0.005)
    assert evaluation.value(f"fraction_{structure}") == 1.0


@pytest.mark.parametrize("parent", ["bcc", "fcc"])
def test_the_cheap_protocol_agrees_with_finite_strain_elastic_constants(
    oracle: LammpsBulkModulus, parent: str
) -> None:
    """B = (C11 + C22 + C33 + 2 (C12 + C13 + C23)) / 9 from six-direction strains of 1e-5 with
    relaxed ions.
    """
    crystal = random_alloy(parent, 3)
    evaluation = oracle.evaluate(crystal)
    assert evaluation.crystal is not None
    with LammpsEngine(oracle.potential) as engine:
        engine.load(evaluation.crystal)
        stiffness = np.zeros((3, 3))
        up = 1e-4
        for axis, name in enumerate("xyz"):
            stresses = []
            for factor in (1 - up, (1 + up) / (1 - up), 1 / (1 + up)):
                engine.commands(f"change_box all {name} scale {factor:.17g} remap units box")
                engine.relax_ions(force_tolerance=1e-9, max_steps=5000)
                figures = engine.figures()
                stresses.append([-figures[component] for component in ("pxx", "pyy", "pzz")])
            stiffness[axis] = (np.array(stresses[1]) - np.array(stresses[0])) / (2 * up)
    assert evaluation.value("bulk_modulus") == pytest.approx(stiffness.sum() / 9, abs=0.15)


@pytest.mark.parametrize("parent", ["bcc", "fcc"])
def test_invariance_under_permutation_rotation_translation_and_supercell(
    oracle: LammpsBulkModulus, parent: str
) -> None:
    rng = np.random.default_rng(0)
    crystal = random_alloy(parent, 1)
    reference = oracle.evaluate(crystal)
    order = rng.permutation(len(crystal))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    doubled = Crystal.from_atoms(crystal.atoms.repeat((2, 1, 1)))
    others = {
        "permutation": Crystal(crystal.lattice, crystal.fractional[order], crystal.numbers[order]),
        "rotation": Crystal(crystal.lattice @ rotation, crystal.fractional, crystal.numbers),
        "translation": Crystal(
            crystal.lattice, crystal.fractional + [0.13, -0.4, 1.7], crystal.numbers
        ),
        "supercell": doubled,
    }
    for name, other in others.items():
        evaluation = oracle.evaluate(other)
        assert evaluation.failure is None, name
        for quantity, tolerance in (
            ("energy_per_atom", 2e-5),
            ("volume_per_atom", 2e-3),
            ("bulk_modulus", 0.05),
        ):
            assert evaluation.value(quantity) == pytest.approx(
                reference.value(quantity), abs=tolerance
            ), (name, quantity)


def test_the_relaxed_crystal_comes_back_in_the_order_and_orientation_of_the_candidate(
    oracle: LammpsBulkModulus,
) -> None:
    crystal = random_alloy("fcc", 2)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    turned = Crystal(crystal.lattice @ rotation, crystal.fractional + 5.25, crystal.numbers)
    relaxed = oracle.evaluate(turned).crystal
    assert relaxed is not None
    assert relaxed.numbers.tolist() == turned.numbers.tolist()
    shift = relaxed.fractional - turned.fractional
    assert np.abs(shift - np.round(shift)).max() < 0.05
    assert np.abs(relaxed.lattice - turned.lattice).max() < 0.5


def test_restricted_cells_are_rotations_of_the_lattice() -> None:
    lattice = np.random.default_rng(4).normal(size=(3, 3)) + 4 * np.eye(3)
    cell, rotation = restricted(lattice)
    assert np.allclose(cell @ rotation, lattice)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert np.allclose(cell, np.tril(cell))
    assert (np.diag(cell) > 0).all()
    with pytest.raises(ValueError, match="left-handed"):
        restricted(lattice[[1, 0, 2]])


def test_species_are_mapped_by_name_never_by_position() -> None:
    """The same crystal under every order of the elements in the engine gives one energy; swapping
    two species gives another.
    """
    crystal = random_alloy("bcc", 5)
    potential = potentials.load("wu_lee_su_2017")
    energies = []
    for order in (("Ni", "Cr", "Fe"), ("Fe", "Ni", "Cr"), ("Cr", "Fe", "Ni")):
        with LammpsEngine(potential, order) as engine:
            engine.load(crystal)
            engine.commands("run 0")
            energies.append(engine.figures()["pe"])
    assert energies == pytest.approx([energies[0]] * 3, abs=1e-9)
    swapped = crystal.with_numbers(
        [{26: 28, 28: 26}.get(number, number) for number in crystal.numbers.tolist()]
    )
    with LammpsEngine(potential) as engine:
        engine.load(swapped)
        engine.commands("run 0")
        assert abs(engine.figures()["pe"] - energies[0]) > 0.01


def test_what_cannot_be_labelled_is_a_failure(oracle: LammpsBulkModulus) -> None:
    copper = oracle.evaluate(Crystal.from_atoms(bulk("Cu", cubic=True)))
    assert copper.failure is not None
    assert copper.failure.kind is FailureKind.UNPHYSICAL
    assert not copper.failure.retryable


def test_a_left_handed_description_of_a_crystal_has_its_label(oracle: LammpsBulkModulus) -> None:
    crystal = random_alloy("bcc", 0)
    described = Crystal(
        crystal.lattice[[1, 0, 2]], crystal.fractional[:, [1, 0, 2]], crystal.numbers
    )
    found, expected = (oracle.evaluate(one).observations for one in (described, crystal))
    assert [row.value for row in found] == pytest.approx([row.value for row in expected], rel=1e-4)


def test_the_potential_is_written_as_lammps_reads_it() -> None:
    potential = potentials.load("wu_lee_su_2017")
    assert isinstance(potential, MeamPotential)
    text = potential.parameter_text()
    assert "Cmin(1,2,3) = 0.66" in text
    assert "Cmax(2,3,1) = 2.06" in text
    assert "lattce(1,2) = 'l12'" in text
    assert "'Ni' 'fcc' 12 1 58.69" in potential.library_text()
    with pytest.raises(InputError, match="no potential 'unknown'"):
        potentials.load("unknown")
