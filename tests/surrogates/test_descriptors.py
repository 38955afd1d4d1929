"""Descriptors: closed forms, invariance, the port, and what is kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from campaign.crystals.lattice import supercell
from campaign.crystals.so3 import PowerSpectrum, radial_basis, radial_functions
from campaign.errors import InputError
from campaign.parameters import PluginParameter
from campaign.types import Candidate, Crystal
from surrogates.described import Described, DescribedConfig
from surrogates.descriptors import alloy, describer
from surrogates.descriptors.composition import CompositionEmbedder
from surrogates.descriptors.describer import Describer

ELEMENTS = ("Cr", "Fe", "Ni")
ALL = ["alloy", "composition", "soap", "power_spectrum"]


def random_cell(seed: int, repeats: tuple[int, int, int] = (2, 2, 1)) -> Crystal:
    rng = np.random.default_rng(seed)
    atoms = supercell(
        "bcc", repeats, rng.choice(ELEMENTS, 2 * int(np.prod(repeats))).tolist()
    ).atoms
    atoms.rattle(0.08, seed=seed)
    return Crystal.from_atoms(atoms)


def same_in_other_words(crystal: Crystal) -> list[Crystal]:
    rng = np.random.default_rng(5)
    order = rng.permutation(len(crystal))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    return [
        Crystal(
            crystal.lattice @ rotation,
            (crystal.fractional[order] + 0.37) % 1,
            crystal.numbers[order],
        ),
        Crystal.from_atoms(crystal.atoms.repeat((1, 2, 1))),
    ]


@pytest.mark.parametrize("use", ALL)
def test_columns_have_names_and_do_not_depend_on_how_a_crystal_is_written(use: str) -> None:
    made = Describer([PluginParameter(use=use)], ELEMENTS)
    crystals = [random_cell(1), random_cell(2)]
    rows = made.describe(crystals)
    assert rows.shape == (2, len(made.names))
    assert len(set(made.names)) == len(made.names)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    again = made.describe(same_in_other_words(crystals[0]))
    assert again == pytest.approx(np.stack([rows[0]] * 2), rel=1e-4, abs=1e-6)


def test_descriptors_stand_side_by_side_under_their_names() -> None:
    made = Describer(
        [
            PluginParameter(use="composition"),
            PluginParameter(use="power_spectrum", params={"n_max": 2}),
        ],
        ELEMENTS,
    )
    assert made.names[0] == "composition:fraction_Cr"
    assert made.names[-1].startswith("power_spectrum:p")
    with pytest.raises(InputError, match="no embedder"):
        Describer([PluginParameter(use="alloys")], ELEMENTS)


def test_composition_statistics_are_those_of_the_atoms() -> None:
    names = CompositionEmbedder.columns(("Fe", "Ni"))
    row = dict(
        zip(
            names,
            CompositionEmbedder.embed(
                [supercell("bcc", (2, 2, 2), ["Fe"] * 4 + ["Ni"] * 12)], ("Fe", "Ni")
            )[0],
            strict=True,
        )
    )
    assert row["fraction_Fe"] == 0.25
    assert row["X_mean"] == pytest.approx(0.25 * 1.83 + 0.75 * 1.91)
    assert row["Z_deviation"] == pytest.approx(np.std([26] * 4 + [28] * 12))
    assert (row["Z_least"], row["Z_largest"]) == (26, 28)


def test_triplets_of_ordered_b2() -> None:
    """Iron between two nickel atoms, or nickel between two iron atoms; nothing else."""
    names = alloy.column_names(("Fe", "Ni"), triplets=True)
    crystal = supercell("bcc", (3, 3, 3), ["Fe"] * 27 + ["Ni"] * 27)
    row = dict(zip(names, alloy.describe([crystal], ("Fe", "Ni"), triplets=True)[0], strict=True))
    assert row["triplet_Fe-Fe-Ni"] == row["triplet_Fe-Ni-Ni"] == 0.5
    assert row["triplet_Fe-Fe-Fe"] == row["triplet_Ni-Ni-Ni"] == 0.0


def test_radial_functions_are_orthonormal_and_tabulated_well() -> None:
    cutoff, n_max = 4.0, 3
    nodes, weights = np.polynomial.legendre.leggauss(60)
    r = 0.5 * cutoff * (nodes + 1)
    g = radial_basis(r, n_max, cutoff)
    assert (g * (0.5 * cutoff * weights * r**2)) @ g.T == pytest.approx(np.eye(n_max), abs=1e-8)
    settings = PowerSpectrum(cutoff, n_max, 2, 1.5)
    at = 1.234567
    x = 2 * settings.alpha * at * r
    first_order = (np.cosh(x) - np.sinh(x) / x) / x
    integral = (
        g * (0.5 * cutoff * weights * r**2) * np.exp(-settings.alpha * (r**2 + at**2)) * first_order
    ).sum(1)
    smooth = 0.5 * (1 + np.cos(np.pi * at / cutoff))
    assert radial_functions(settings)(at)[:, 1] == pytest.approx(
        4 * np.pi * integral * smooth, rel=1e-6
    )


def test_the_power_spectrum_of_one_neighbour_shell() -> None:
    """With neighbours at one distance, p_nn'l = R_nl R_n'l sum_ij P_l(cos) (2 l + 1) / 4 pi."""
    crystal = Crystal.from_atoms(bulk("Po", "sc", a=3.0))
    settings = PowerSpectrum(cutoff=3.5, n_max=2, l_max=4)
    found = dict(zip(settings.names, settings.of_atoms(crystal, np.ones(1))[0], strict=True))
    radial = radial_functions(settings)(3.0)
    directions = np.array(
        [v for v in itertools.product((-1, 0, 1), repeat=3) if np.abs(v).sum() == 1]
    )
    cosines = directions @ directions.T
    legendre = {
        0: np.ones_like(cosines, dtype=float),
        2: (3 * cosines**2 - 1) / 2,
        4: (35 * cosines**4 - 30 * cosines**2 + 3) / 8,
    }
    for order, values in legendre.items():
        wanted = radial[0, order] * radial[1, order] * values.sum() * (2 * order + 1) / (4 * np.pi)
        assert found[f"p12{order}"] == pytest.approx(wanted, abs=1e-9)
    assert (found["p111"], found["p113"]) == pytest.approx((0, 0), abs=1e-12)


def test_principal_components_keep_what_varies() -> None:
    candidates = [Candidate(random_cell(seed)) for seed in range(12)]
    whole = Described(
        DescribedConfig(descriptors=(PluginParameter(use="power_spectrum"),)), candidates
    )
    few = Described(
        DescribedConfig(descriptors=(PluginParameter(use="power_spectrum"),), components=5),
        candidates,
    )
    assert few.features(candidates).shape == (12, 5)
    assert few.names == [f"component{i}" for i in range(1, 6)]
    rows = whole.features(candidates).numpy()
    explained = (
        few.features(candidates).numpy().var(0).sum() / (rows.var(0) / rows.std(0) ** 2).sum()
    )
    assert explained > 0.8


COUNTING = """
import numpy as np
class Counting:
    is_worth_keeping = True
    version = "counting-1"
    calls = []
    def columns(self, elements): return ["atoms"]
    def embed(self, crystals, elements):
        Counting.calls += [len(crystals)]
        return np.array([[len(crystal)] for crystal in crystals], dtype=float)
"""


def test_an_embedder_of_the_users_own_is_asked_once_for_each_crystal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting_embedder.py").write_text(COUNTING)
    monkeypatch.setattr(describer, "_rows", type(describer._rows)())
    choice = PluginParameter.model_validate(
        {"use": "counting_embedder:Counting"}, context={"folder": str(tmp_path)}
    )
    made = Describer([choice], ELEMENTS)
    crystals = [random_cell(1), random_cell(2, (1, 1, 1)), random_cell(1)]
    assert made.describe(crystals)[:, 0].tolist() == [8, 2, 8]
    made.describe(crystals)
    from counting_embedder import Counting

    assert Counting.calls == [2]


def test_crystals_are_described_alike_alone_and_among_others() -> None:
    """Each on sites of its own, several on the same sites, and of several sizes and phases."""
    rng = np.random.default_rng(3)
    crystals = []
    for cell, repeats in (("bcc", 2), ("fcc", 2), ("fcc", 3)):
        for noise in (0.0, 0.0, 0.02, 0.05, 0.2):
            atoms = bulk("Fe", cell, a=3.0 if cell == "bcc" else 3.6, cubic=True) * repeats
            atoms.positions += noise * rng.standard_normal(atoms.positions.shape)
            atoms.numbers = rng.choice([26, 28], len(atoms))
            crystals.append(Crystal.from_atoms(atoms))
    together = alloy.describe(crystals * 2, ("Fe", "Ni"))
    for crystal, row in zip(crystals * 2, together, strict=True):
        alloy._geometries.clear()
        np.testing.assert_array_equal(alloy.describe([crystal] * 6, ("Fe", "Ni"))[0], row)


def test_features_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    candidates = []
    for _ in range(23):
        atoms = bulk("Fe", "bcc", a=2.9, cubic=True) * 2
        atoms.numbers = rng.choice([26, 28], len(atoms))
        candidates.append(Candidate(Crystal.from_atoms(atoms)))
    described = Described(DescribedConfig(), candidates)
    whole = described.features(candidates)
    monkeypatch.setattr("surrogates.described._ROWS_AT_ONCE", 5)
    assert whole.shape == (23, len(described.names))
    assert described.features(candidates).equal(whole)
    assert described.features([]).shape == (0, len(described.names))


@pytest.mark.parametrize("structure", ["bcc", "fcc", "hcp"])
def test_crystals_on_one_lattice_are_one_geometry_as_files_write_them(
    structure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alloy, "_geometries", type(alloy._geometries)())
    rng = np.random.default_rng(7)
    cell = Crystal.from_atoms(
        bulk("Fe", structure, a=2.5, c=4.1 if structure == "hcp" else None).repeat((2, 2, 2))
    )
    numbers = rng.choice([24, 26, 28], len(cell))
    written = []
    for edge in rng.uniform(0.9, 1.1, 20):
        positions = np.round(cell.fractional @ cell.lattice * edge, 6)
        lattice = np.round(cell.lattice * edge, 6)
        written.append(Crystal(lattice, positions @ np.linalg.inv(lattice), numbers))
    rows = alloy.describe(written, ELEMENTS)
    assert np.array_equal(rows, np.repeat(rows[:1], len(rows), axis=0))
    assert len(alloy._geometries) <= 4, "a number may lie where it is rounded up or down"


def test_rows_do_not_depend_on_what_was_described_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where neighbours are as far as each other up to what files round away either."""
    crystals = []
    for seed in range(20):
        atoms = bulk("Fe", "hcp", a=2.5, c=2.5 * np.sqrt(8 / 3)).repeat((2, 2, 2))
        atoms.numbers[::2] = 28
        atoms.rattle(10.0 ** -(4 + seed % 4), seed=seed)
        crystals.append(Crystal.from_atoms(atoms))
    after_others = alloy.describe(crystals[::-1], ELEMENTS)[::-1]
    for crystal, row in zip(crystals, after_others, strict=True):
        monkeypatch.setattr(alloy, "_geometries", type(alloy._geometries)())
        assert np.array_equal(alloy.describe([crystal], ELEMENTS)[0], row)
