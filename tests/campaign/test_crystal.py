"""A crystal is the same whatever describes it, and holds elements only."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymatgen.core import DummySpecies, Lattice, Structure

from campaign.crystals.neighbours import shortest_distance
from campaign.errors import InputError
from campaign.types import Crystal

LATTICE = np.array([[2.9, 0.0, 0.1], [0.2, 3.1, 0.0], [0.0, 0.4, 3.4]])
SITES = np.array([[0.0, 0.0, 0.0], [0.5, 0.45, 0.55]])


@given(arrays(float, (3, 3), elements=st.floats(-5, 5)))
def test_every_crystal_is_right_handed_and_its_atoms_stay_where_they_are(
    lattice: np.ndarray,
) -> None:
    crystal = Crystal(lattice, SITES, [28, 26])
    assert np.linalg.det(crystal.lattice) >= -1e-9
    np.testing.assert_allclose(crystal.fractional @ crystal.lattice, SITES @ lattice, atol=1e-12)


def test_exchanged_axes_describe_the_same_crystal() -> None:
    exchanged = Crystal(LATTICE[[1, 0, 2]], SITES[:, [1, 0, 2]], [28, 26])
    plain = Crystal(LATTICE, SITES, [28, 26])
    assert shortest_distance(exchanged) == pytest.approx(shortest_distance(plain), abs=1e-9)
    assert exchanged.volume == pytest.approx(plain.volume)


def test_a_right_handed_crystal_keeps_its_id() -> None:
    assert Crystal(LATTICE, SITES, [28, 26]).id == "f5a36b33e2dc68dd812ba854e26456cb"


def test_stored_bytes_of_a_left_handed_crystal_keep_their_id() -> None:
    crystal = Crystal(LATTICE, SITES, [28, 26])
    raw = crystal._raw().replace(crystal.lattice.tobytes(), (-crystal.lattice).tobytes())
    assert Crystal.from_bytes(b"r" + raw)._raw() == raw


@pytest.mark.parametrize("numbers", [[0, 28], [28, 119], [28.5, 26], [-1, 26], [300, 26]])
def test_what_is_no_element_is_refused(numbers: list[float]) -> None:
    with pytest.raises(InputError, match="atomic numbers should be whole, from 1 to 118"):
        Crystal(LATTICE, SITES, numbers)


@pytest.mark.parametrize("symbol", ["X", "Q", "Xa"])
def test_dummy_species_are_refused_by_name(symbol: str) -> None:
    with pytest.raises(InputError, match=symbol):
        Crystal.from_structure(Structure(Lattice.cubic(3), [DummySpecies(symbol), "Ni"], SITES))


def test_ase_atoms_are_refused_where_they_are_no_crystal() -> None:
    boxed = molecule("H2O")
    boxed.center(vacuum=5.0)
    for atoms, written in ((boxed, "F F F"), (fcc111("Ni", (1, 1, 3), vacuum=8.0), "T T F")):
        with pytest.raises(InputError, match=f"pbc {written}"):
            Crystal.from_atoms(atoms)
    with pytest.raises(InputError, match="three cell vectors"):
        Crystal.from_atoms(molecule("H2O"))
    with pytest.raises(InputError, match="atomic numbers"):
        Crystal.from_atoms(Atoms("XNi", cell=LATTICE, pbc=True, scaled_positions=SITES))


def test_partly_occupied_sites_that_ase_keeps_aside_are_refused() -> None:
    atoms = bulk("Fe")
    atoms.info["occupancy"] = {"0": {"Fe": 0.6, "Ni": 0.4}}
    with pytest.raises(InputError, match="partly occupied"):
        Crystal.from_atoms(atoms)
    atoms.info["occupancy"] = {"0": {"Fe": 1.0}}
    assert Crystal.from_atoms(atoms).formula == "Fe1"
