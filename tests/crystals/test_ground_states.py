"""The elements' reference crystals: one of each, what is known of them, and refusals for those that
have none.
"""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from ase.data import reference_states

from campaign.crystals import ground_states, references
from campaign.crystals.corrections import correction
from campaign.crystals.lattice import atomic_volume
from campaign.crystals.neighbours import shortest_distance
from campaign.errors import InputError, SurroundingsError

KNOWN = ground_states.ground_states()
SPACE_GROUPS = {"fcc": "Fm-3m", "bcc": "Im-3m", "hcp": "P6_3/mmc", "diamond": "Fd-3m"}
NOT_SIMPLE = {"C", "La", "Nd", "Se", "Te"}
"""ASE's table says diamond of carbon and hcp of the others: graphite is lower, dhcp and chains are
what the word stands for.
"""


def test_88_elements_have_one() -> None:
    assert len(KNOWN) == 88
    assert {"O", "N", "F", "Cl", "Mn", "Ga", "B", "P", "S", "Sn", "U"} <= KNOWN.keys()


@pytest.mark.parametrize("symbol", sorted(KNOWN))
def test_of_the_element_alone_with_sane_distances_and_energies(symbol: str) -> None:
    state = KNOWN[symbol]
    assert set(state.crystal.symbols) == {symbol}
    assert 0.7 < shortest_distance(state.crystal) < 6.0
    assert 5.0 < state.crystal.volume / len(state.crystal) < 130.0
    assert (
        state.lowest_energy_per_atom <= state.energy_per_atom <= state.lowest_energy_per_atom + 0.05
    )
    table = reference_states[int(state.crystal.numbers[0])] or {}
    if str(table.get("symmetry")) in SPACE_GROUPS and symbol not in NOT_SIMPLE:
        assert state.space_group == SPACE_GROUPS[table["symmetry"]]
    assert references.elemental(symbol) == state.crystal


def test_molecules_and_complex_crystals_are_what_they_are() -> None:
    """Bond lengths of the molecules by PBE (angstrom), and the cells of alpha-manganese and
    alpha-boron.
    """
    for symbol, bond in {
        "O": 1.23,
        "N": 1.11,
        "F": 1.42,
        "Cl": 2.02,
        "H": 0.75,
        "Br": 2.35,
    }.items():
        assert shortest_distance(KNOWN[symbol].crystal) == pytest.approx(bond, abs=0.06), symbol
    assert [len(KNOWN[symbol].crystal) for symbol in ("Mn", "B", "Ga", "S")] == [29, 12, 4, 32]


def test_oxygen_is_a_cell_of_one_molecule() -> None:
    """In the cell of eight atoms, 2 meV/atom lower, universal potentials let the molecules run
    together when they relax it far.
    """
    assert len(KNOWN["O"].crystal) == 2


def test_energies_are_those_of_materials_project() -> None:
    for symbol, energy in {
        "O": -4.946,
        "N": -8.336,
        "Mn": -9.162,
        "Fe": -8.470,
        "Al": -3.746,
    }.items():
        assert KNOWN[symbol].energy_per_atom == pytest.approx(energy, abs=1e-3)


@pytest.mark.parametrize("symbol", ["Yb", "Po", "Am"])
def test_an_element_without_one_is_refused_and_may_be_given(symbol: str) -> None:
    with pytest.raises(InputError, match=f"no reference crystal of {symbol}") as caught:
        references.elemental(symbol)
    assert "chemical_potentials" in caught.value.hint
    assert len(references.elemental(symbol, "fcc")) == 1
    given = references.elementals([symbol], {symbol: references.elemental(symbol, "bcc")})
    assert given[symbol] == references.elemental(symbol, "bcc")


def test_a_changed_file_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_states, "_SHA256", "0" * 64)
    with pytest.raises(SurroundingsError, match="changed"):
        ground_states.ground_states.__wrapped__()


def test_the_file_says_where_its_figures_come_from() -> None:
    document = json.loads(
        files("campaign.crystals").joinpath("data", "ground_states.json").read_text()
    )
    assert "Materials Project" in document["source"]
    assert "BSD-3-Clause" in document["source"]


def test_volumes_of_compounds_are_near_the_sum_of_their_elements() -> None:
    """Cubic angstrom per atom by experiment; before, oxygen counted 1.6."""
    for counts, volume in (
        ({"Fe": 2, "O": 3}, 10.1),
        ({"Mg": 1, "O": 1}, 9.35),
        ({"Ga": 1, "N": 1}, 11.4),
        ({"Na": 1, "Cl": 1}, 22.4),
    ):
        total = sum(atomic_volume(symbol) * count for symbol, count in counts.items()) / sum(
            counts.values()
        )
        assert 0.9 < total / volume < 1.9, counts


def test_anion_corrections_are_the_published_ones() -> None:
    """A. Wang et al., Sci. Rep. 11 (2021) 15496, table 2: eV per atom of the anion."""
    assert correction("materials_project_2020", "Li2O") == pytest.approx(-0.687 / 3)
    assert correction("materials_project_2020", "Li2O2") == pytest.approx(-0.465 * 2 / 4)
    assert correction("materials_project_2020", "KO2") == pytest.approx(-0.161 * 2 / 3)
    assert correction("materials_project_2020", "NaCl") == pytest.approx(-0.614 / 2)
    assert correction("materials_project_2020", "GaN") == pytest.approx(-0.361 / 2)
    assert (
        correction("materials_project_2020", "O2")
        == correction("materials_project_2020", "AlNi3")
        == 0
    )
