"""Vibrations against what is known without the code: one oscillator, the classical limit, and
counts by hand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.units import kB

from campaign.types import Crystal
from oracles import vibrations
from oracles.phonons import primitive, supercell
from oracles.vibrations import EV_PER_THZ

ONE = np.ones((1, 1), dtype=bool)
WEIGHT = np.ones(1)


def test_one_oscillator_has_its_textbook_energies() -> None:
    quantum = 5.0 * EV_PER_THZ
    assert quantum == pytest.approx(0.0206783, rel=1e-5), "4.135667696 meV a THz (CODATA)"
    frequencies = np.array([[5.0]])
    assert vibrations.zero_point_energy(frequencies, WEIGHT, ONE) == pytest.approx(quantum / 2)
    assert vibrations.free_energy(frequencies, WEIGHT, ONE, 0.0) == pytest.approx(quantum / 2)
    partition = 1 / (2 * math.sinh(quantum / (2 * kB * 300)))
    assert vibrations.free_energy(frequencies, WEIGHT, ONE, 300.0) == pytest.approx(
        -kB * 300 * math.log(partition)
    )
    hot = 1e6
    assert vibrations.free_energy(frequencies, WEIGHT, ONE, hot) == pytest.approx(
        kB * hot * math.log(quantum / (kB * hot)), rel=1e-6
    )


def test_energies_are_means_over_the_mesh_of_the_real_modes_that_count() -> None:
    frequencies, weights = (
        np.array([[0.0, 0.0, 0.0, 8.0], [-2.0, 3.0, 4.0, 9.0]]),
        np.array([1.0, 3.0]),
    )
    modes = vibrations.counted(frequencies, np.array([[0, 0, 0], [0.5, 0, 0]]))
    expected = EV_PER_THZ / 2 * (1 * 8.0 + 3 * (3.0 + 4.0 + 9.0)) / 4
    assert vibrations.zero_point_energy(frequencies, weights, modes) == pytest.approx(expected)


def test_only_the_three_modes_next_to_zero_at_gamma_are_left_out() -> None:
    points = np.array([[0, 0, 0], [0.25, 0, 0]])
    soft = np.array([[-1.3, -1e-4, 1e-6, 2e-5, 4.0, 5.0], [0.0, 0.0, 0.1, 2.0, 3.0, 4.0]])
    modes = vibrations.counted(soft, points)
    assert modes[0].tolist() == [True, False, False, False, True, True], (
        "a soft optical mode at Gamma counts"
    )
    assert modes[1].all()
    assert soft[modes].min() == -1.3


NO_TURN = np.eye(3, dtype=int)[None]
ALONG = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
"""The cube's edges in rows of the primitive cell of fcc."""


@pytest.mark.parametrize(
    ("symbol", "kind", "length", "atoms"),
    [
        ("Ni", "fcc", 10.0, 108),
        ("Ni", "fcc", 9.9, 64),
        ("Fe", "bcc", 9.0, 64),
        ("Ti", "hcp", 10.0, 96),
        ("Si", "diamond", 10.0, 54),
    ],
)
def test_supercells_are_the_smallest_that_keep_images_apart(
    symbol: str, kind: str, length: float, atoms: int
) -> None:
    """Nickel's cube has an edge of 3.52 angstrom, 3 of 4 atoms are enough for 10; 4 primitive edges
    of 2.489 are for 9.9.
    """
    cell = bulk(symbol, kind)
    crystal = primitive(Crystal.from_atoms(cell), 1e-3)
    rows = supercell(crystal, length, 1e-3)
    assert len(crystal) * abs(round(np.linalg.det(rows))) == atoms
    assert vibrations.shortest_vector(rows @ crystal.lattice) >= length


def test_a_long_cell_is_repeated_across_alone_where_it_has_no_symmetry() -> None:
    along = vibrations.supercell(np.diag([2.0, 3.0, 12.0]), NO_TURN, (), 10.0)
    assert along.tolist() == np.diag([5, 4, 1]).tolist()
    assert (
        vibrations.supercell(np.diag([2.0, 5.0, 10.0]), NO_TURN, (), 10.0).tolist()
        == np.diag([5, 2, 1]).tolist()
    ), "just far enough"
    quarter = np.array([[[0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    assert (
        vibrations.supercell(np.diag([2.0, 3.0, 12.0]), quarter, (), 10.0).tolist()
        == np.diag([5, 5, 1]).tolist()
    )


def test_supercells_keep_images_apart_and_all_rotations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        lattice = np.diag(rng.uniform(2, 14, 3)) + rng.normal(0, 0.4, (3, 3))
        assert (
            vibrations.shortest_vector(vibrations.supercell(lattice, NO_TURN, (), 10.0) @ lattice)
            >= 10.0
        )
    assert vibrations.is_kept(
        ALONG, spglib.get_symmetry((bulk("Ni").cell.array, [[0, 0, 0]], [28]))["rotations"]
    )
    assert not vibrations.is_kept(
        np.diag([2, 2, 1]),
        spglib.get_symmetry((bulk("Ni").cell.array, [[0, 0, 0]], [28]))["rotations"],
    )
