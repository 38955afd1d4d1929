"""Partly occupied sites become ordered cells: as many as published, and quasirandom ones nearer to
random pairs than random ones.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from reading.texts import CUBE, cif

from campaign.config.schema import SourceConfig
from campaign.crystals.neighbours import pairs
from campaign.errors import InputError
from campaign.reading.disorder import Disorder
from campaign.reading.structures import read_structure_text, read_structures
from campaign.types import Crystal

FCC = CUBE | {f"length_{axis}": 3.75 for axis in "abc"}


def alloy(copper: float, gold: float) -> str:
    return cif(f"M1 Cu 0 0 0 {copper}\nM1 Au 0 0 0 {gold}", cell=FCC, symmetry="F m -3 m")


def enumerated(text: str, max_atoms: int) -> list[Crystal]:
    return read_structure_text(
        text, "here", disorder=Disorder(method="enumerate", max_atoms=max_atoms, count=500)
    )


@pytest.mark.parametrize(
    ("copper", "sizes"), [(0.5, {2: 2, 4: 5}), (0.667, {3: 3}), (0.75, {4: 7})]
)
def test_as_many_orderings_of_fcc_as_published(copper: float, sizes: dict[int, int]) -> None:
    """2, 3 and 12 (5 of one half and 7 of one quarter) with 2, 3 and 4 atoms: Hart and Forcade,
    Phys. Rev. B 77 (2008) 224115, table IV.
    """
    found = enumerated(alloy(copper, round(1 - copper, 3)), 4)
    assert Counter(len(crystal) for crystal in found) == sizes
    share = np.mean([(crystal.numbers == 29).mean() for crystal in found])
    assert share == pytest.approx(copper, abs=0.01)


def test_vacancies_and_whole_sites_beside_them() -> None:
    text = cif("Ni1 Ni 0 0 0 0.5\nO1 O 0.5 0.5 0.5 1", cell=CUBE | {"length_a": 3.2})
    found = enumerated(text, 4)
    assert {crystal.formula for crystal in found} == {"Ni1O2"}
    assert len(found) > 1


def test_two_sublattices_keep_their_own_shares() -> None:
    text = cif("A Ni 0 0 0 0.5\nA Co 0 0 0 0.5\nB Fe 0.5 0.5 0.5 0.5\nB Al 0.5 0.5 0.5 0.5")
    assert {crystal.formula for crystal in enumerated(text, 4)} == {"Al1Co1Fe1Ni1"}


@pytest.mark.parametrize(
    ("text", "disorder", "told"),
    [
        (alloy(0.5, 0.5), None, r"disordered.*Cu 0.5 Au 0.5"),
        (
            alloy(0.37, 0.63),
            Disorder(method="enumerate", max_atoms=4),
            "no ordered cell of at most 4 sites",
        ),
        (
            alloy(0.37, 0.63),
            Disorder(method="sqs", max_atoms=4),
            "no ordered cell of at most 4 sites",
        ),
        (
            cif("A Ni 0 0 0 0.5\nB Ni 0.1 0 0 0.5", cell=FCC),
            Disorder(method="sqs", max_atoms=2),
            "no ordered cell",
        ),
        (
            cif("A Ni 0 0.2 0.3 0.5", cell=FCC, symmetry="P m -3 m"),
            Disorder(method="enumerate"),
            "too many to enumerate",
        ),
    ],
)
def test_what_cannot_be_ordered_is_refused_with_the_way_out(
    text: str, disorder: Disorder | None, told: str
) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read_structure_text(text, "here", disorder=disorder)
    assert "disorder" in refused.value.hint


def pair_errors(crystal: Crystal, shells: tuple[float, ...]) -> list[float]:
    """Differences of each shell's pair correlation (+1 and -1 on the sites) from that of a random
    alloy.
    """
    first, second, distance, _ = pairs(crystal.lattice, crystal.fractional, max(shells) + 0.1)
    spin = np.where(crystal.numbers == 29, 1.0, -1.0)
    products = spin[first] * spin[second]
    return [
        abs(products[np.abs(distance - shell) < 0.1].mean() - spin.mean() ** 2) for shell in shells
    ]


@pytest.mark.parametrize(("copper", "gold"), [(0.5, 0.5), (0.75, 0.25)])
def test_quasirandom_structures_have_the_pairs_of_a_random_alloy(
    copper: float, gold: float
) -> None:
    found = read_structure_text(
        alloy(copper, gold), "here", disorder=Disorder(method="sqs", max_atoms=32, count=3)
    )
    shells = (3.75 / np.sqrt(2), 3.75, 3.75 * np.sqrt(1.5))
    rng = np.random.default_rng(100)
    shuffled = [found[0].with_numbers(rng.permutation(found[0].numbers)) for _ in range(200)]
    random = np.array([pair_errors(crystal, shells) for crystal in shuffled])
    for crystal in found:
        assert len(crystal) == 32
        assert (crystal.numbers == 29).mean() == copper
        assert sum(pair_errors(crystal, shells)) <= min(
            np.quantile(random.sum(1), 0.02), random.sum(1).mean() / 4
        )


@pytest.mark.parametrize("method", ["enumerate", "sqs"])
def test_the_same_file_gives_the_same_cells(method: str, tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(alloy(0.5, 0.5))
    disorder = Disorder.model_validate(
        {"method": method, "max_atoms": 8 if method == "enumerate" else 32, "count": 4}
    )
    first, again = (
        [entry.crystal.id for entry in read_structures(tmp_path / "a.cif", disorder=disorder)]
        for _ in range(2)
    )
    assert first == again
    assert 1 < len(first) == len(set(first)) <= 4


def test_labels_of_a_disordered_crystal_are_not_those_of_its_orderings() -> None:
    with pytest.raises(ValidationError, match="a value measured on a disordered crystal"):
        SourceConfig(
            path="a.csv", columns={"energy": "energy"}, disorder=Disorder(method="enumerate")
        )
