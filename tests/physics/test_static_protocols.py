"""Elastic constants against the potential's papers, one bulk modulus by three routes, invariances,
and moduli at a temperature.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from campaign.crystals.lattice import supercell
from campaign.crystals.references import elemental
from campaign.seeds import library_seeds
from campaign.types import Crystal, Evaluation, FailureKind
from oracles import elastic
from oracles.eos import fit
from oracles.lammps.finite_temperature import (
    FiniteTemperatureConfig,
    LammpsFiniteTemperature,
    block_error,
)
from oracles.lammps.static import Lammps, LammpsConfig

# 2NN-MEAM: Ni from B.-J. Lee, J.-H. Shim, M. I. Baskes, Phys. Rev. B 68, 144112 (2003); Fe from
# B.-J. Lee, M. I. Baskes, H. Kim, Y. K. Cho,
# Phys. Rev. B 64, 184102 (2001). C11, C12, C44 in GPa. Of Cr the ternary potential has other
# parameters than that paper: its bulk
# modulus is checked against C. Wu, B.-J. Lee, X. Su, Calphad 57 (2017) 98 in test_lammps.py, its
# constants by the three routes below.
PUBLISHED = [("Ni", (261.2, 150.8, 131.7)), ("Fe", (243.1, 138.1, 121.9))]


def array(evaluation: Evaluation, quantity: str) -> np.ndarray:
    return np.array(next(o.value for o in evaluation.observations if o.quantity == quantity))


def alloy(parent: str, seed: int) -> Crystal:
    rng = np.random.default_rng(seed)
    return supercell(
        parent, (2, 2, 2), rng.permutation(["Ni"] * 6 + ["Fe"] * 5 + ["Cr"] * 5).tolist()
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(("element", "constants"), PUBLISHED)
def test_elastic_constants_of_elements_are_the_published_ones(
    element: str, constants: tuple[float, float, float]
) -> None:
    evaluation = Lammps(LammpsConfig(measure=("elastic_tensor",))).evaluate(elemental(element))
    tensor = array(evaluation, "elastic_tensor")
    # The primitive cell's edges are not the cubic axes: compare what no rotation changes.
    c11, c12, c44 = constants
    bulk_modulus, soft = (c11 + 2 * c12) / 3, (c11 - c12) / 2
    voigt = (3 * c44 + 2 * soft) / 5
    reuss = 5 / (3 / c44 + 2 / soft)
    values = {o.quantity: o.scalar for o in evaluation.observations}
    assert values["bulk_modulus_voigt"] == pytest.approx(bulk_modulus, rel=0.003)
    assert values["shear_modulus_voigt"] == pytest.approx(voigt, rel=0.005)
    assert values["shear_modulus_reuss"] == pytest.approx(reuss, rel=0.005)
    assert values["smallest_elastic_eigenvalue"] == pytest.approx(2 * min(soft, c44), rel=0.01)
    assert np.allclose(tensor, tensor.T)


@pytest.mark.parametrize(
    "crystal",
    [elemental("Ni"), elemental("Fe"), elemental("Cr"), alloy("fcc", 2), alloy("bcc", 4)],
    ids=lambda c: c.formula,
)
def test_three_routes_to_the_bulk_modulus_agree_within_one_percent(crystal: Crystal) -> None:
    found = []
    for route in ("pressure", "elastic_tensor", "equation_of_state"):
        oracle = Lammps(
            LammpsConfig(measure=("bulk_modulus",), bulk_modulus_by=route, window=0.005)
        )  # type: ignore[arg-type]
        found.append(oracle.evaluate(crystal).value("bulk_modulus"))
    assert found == pytest.approx([found[0]] * 3, rel=0.01)


def test_a_triclinic_cell_relaxes_all_six_components_and_keeps_its_invariances() -> None:
    cubic = alloy("fcc", 7)
    shear = np.eye(3) + np.array([[0, 0.02, 0], [0, 0, -0.015], [0.01, 0, 0]])
    crystal = Crystal(cubic.lattice @ shear, cubic.fractional, cubic.numbers)
    oracle = Lammps(LammpsConfig(measure=("elastic_tensor", "bulk_modulus", "forces")))
    evaluation = oracle.evaluate(crystal)
    assert evaluation.failure is None
    assert np.abs(array(evaluation, "stress")).max() < 0.05
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    turned = oracle.evaluate(Crystal(crystal.lattice @ turn, crystal.fractional, crystal.numbers))
    for quantity in (
        "bulk_modulus",
        "shear_modulus",
        "young_modulus",
        "bulk_modulus_reuss",
        "smallest_elastic_eigenvalue",
    ):
        assert turned.value(quantity) == pytest.approx(evaluation.value(quantity), rel=1e-3)
    doubled = oracle.evaluate(Crystal.from_atoms(crystal.atoms.repeat((1, 2, 1))))
    assert doubled.value("shear_modulus") == pytest.approx(
        evaluation.value("shear_modulus"), rel=1e-3
    )


def test_forces_and_stress_are_derivatives_of_the_energy_in_the_crystals_own_frame() -> None:
    rng = np.random.default_rng(5)
    ideal = alloy("bcc", 5)
    lattice = ideal.lattice @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    crystal = Crystal(lattice, ideal.fractional + rng.normal(0, 0.01, (16, 3)), ideal.numbers)
    oracle = Lammps(LammpsConfig(relax="none", measure=("forces",)))
    here = oracle.evaluate(crystal)

    def energy(cell: np.ndarray, positions: np.ndarray) -> float:
        moved = Crystal(cell, positions @ np.linalg.inv(cell), crystal.numbers)
        return 16 * oracle.evaluate(moved).value("energy_per_atom")

    positions, h = crystal.fractional @ crystal.lattice, 1e-4
    step = np.zeros((16, 3))
    step[3, 1] = h
    assert -(energy(lattice, positions + step) - energy(lattice, positions - step)) / (
        2 * h
    ) == pytest.approx(array(here, "forces")[3, 1], abs=1e-4)
    strain = np.zeros((3, 3))
    strain[0, 2] = strain[2, 0] = h / 2
    up, down = np.eye(3) + strain, np.eye(3) - strain
    slope = (
        (energy(lattice @ up, positions @ up) - energy(lattice @ down, positions @ down))
        / (2 * h)
        / crystal.volume
    )
    assert slope * 160.21766 == pytest.approx(array(here, "stress")[0, 2], rel=2e-3)


def test_a_phase_change_is_reported_or_refused_by_config() -> None:
    nickel = Crystal.from_atoms(bulk("Ni", "bcc", a=2.8, cubic=True).repeat(3))
    shaken = Crystal(
        nickel.lattice * [[1.0], [1.02], [0.97]],
        nickel.fractional + np.random.default_rng(0).normal(0, 0.01, nickel.fractional.shape),
        nickel.numbers,
    )
    reported = Lammps(LammpsConfig()).evaluate(shaken)
    assert reported.failure is None
    assert reported.value("fraction_bcc") < 0.5, "bcc nickel is unstable in this potential"
    refused = Lammps(LammpsConfig(on_phase_change="fail")).evaluate(shaken)
    assert refused.failure is not None
    assert refused.failure.kind is FailureKind.UNPHYSICAL
    assert "bcc became" in refused.failure.message


def test_born_instability_and_averages_of_a_tensor_in_closed_form() -> None:
    tensor = np.diag([0.0, 0, 0, 50, 50, 50])
    tensor[:3, :3] = 100.0
    tensor[np.arange(3), np.arange(3)] = 200.0
    found = elastic.moduli(tensor)
    assert (found.bulk, found.shear) == (pytest.approx(400 / 3), pytest.approx(50.0))
    assert found.young == pytest.approx(9 * found.bulk * 50 / (3 * found.bulk + 50))
    assert found.pugh == pytest.approx(0.375)
    assert found.is_stable
    tensor[np.arange(3), np.arange(3)] = 90.0
    assert not elastic.moduli(tensor).is_stable


def test_birch_murnaghan_gives_back_its_own_parameters() -> None:
    volume0, energy0, modulus, slope = 43.0, -18.0, 187.0 / 160.21766, 4.6
    volumes = np.linspace(40, 46, 7)
    eta = (volume0 / volumes) ** (2 / 3)
    energies = energy0 + 9 * volume0 * modulus / 16 * (
        (eta - 1) ** 3 * slope + (eta - 1) ** 2 * (6 - 4 * eta)
    )
    curve = fit(volumes.tolist(), energies.tolist())
    assert (curve.volume, curve.energy, curve.bulk_modulus) == (
        pytest.approx(43.0),
        pytest.approx(-18.0),
        pytest.approx(187.0, rel=1e-4),
    )
    assert curve.residual < 1e-6
    with pytest.raises(ValueError, match=r"no equation of state|no minimum"):
        fit([50, 51, 52, 53, 54], [1.0, 2.1, 3.3, 4.6, 6.0])


def test_the_modulus_at_a_low_temperature_is_the_static_one_within_its_error_bar_and_repeats_by_seed() -> (  # noqa: E501
    None
):
    crystal = supercell("fcc", (2, 2, 2), ["Ni"] * 16)
    oracle = LammpsFiniteTemperature(
        FiniteTemperatureConfig(temperature=10, equilibration=2, production=4)
    )
    values = []
    for seed in (1, 1, 2):
        with library_seeds(seed):
            evaluation = oracle.evaluate(crystal)
        values.append(evaluation.observations[0])
    assert values[0].noise is not None
    assert values[0].value == values[1].value
    assert values[0].value != values[2].value
    # Thermal softening of a metal near 0 K is below 1 %; the static value of this potential is
    # 187.6 GPa.
    assert values[0].scalar == pytest.approx(187.6, rel=0.01, abs=5 * values[0].noise)


def test_block_error_of_uncorrelated_and_correlated_samples() -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=20_000)
    assert block_error(plain) == pytest.approx(1 / np.sqrt(20_000), rel=0.6)
    correlated = np.repeat(rng.normal(size=200), 100)
    assert block_error(correlated) == pytest.approx(1 / np.sqrt(200), rel=0.6)
