"""Vibrations against what is known without the code: one oscillator, the classical limit, and counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.build import bulk
from ase.units import kB

from oracles import vibrations
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
    assert vibrations.free_energy(frequencies, WEIGHT, ONE, 300.0) == pytest.approx(-kB * 300 * math.log(partition))
    hot = 1e6
    assert vibrations.free_energy(frequencies, WEIGHT, ONE, hot) == pytest.approx(kB * hot * math.log(quantum / (kB * hot)), rel=1e-6)


def test_energies_are_means_over_the_mesh_of_the_real_modes_that_count() -> None:
    frequencies, weights = np.array([[0.0, 0.0, 0.0, 8.0], [-2.0, 3.0, 4.0, 9.0]]), np.array([1.0, 3.0])
    modes = vibrations.counted(frequencies, np.array([[0, 0, 0], [0.5, 0, 0]]))
    expected = EV_PER_THZ / 2 * (1 * 8.0 + 3 * (3.0 + 4.0 + 9.0)) / 4
    assert vibrations.zero_point_energy(frequencies, weights, modes) == pytest.approx(expected)


def test_only_the_three_modes_next_to_zero_at_gamma_are_left_out() -> None:
    points = np.array([[0, 0, 0], [0.25, 0, 0]])
    soft = np.array([[-1.3, -1e-4, 1e-6, 2e-5, 4.0, 5.0], [0.0, 0.0, 0.1, 2.0, 3.0, 4.0]])
    modes = vibrations.counted(soft, points)
    assert modes[0].tolist() == [True, False, False, False, True, True], "a soft optical mode at Gamma counts"
    assert modes[1].all()
    assert soft[modes].min() == -1.3


@pytest.mark.parametrize(
    ("symbol", "kind", "length", "expected"),
    [("Ni", "fcc", 10.0, (5, 5, 5)), ("Ni", "fcc", 9.9, (4, 4, 4)), ("Si", "diamond", 10.0, (3, 3, 3)), ("Fe", "bcc", 9.0, (4, 4, 4))],
)
def test_supercells_are_the_smallest_that_keep_images_apart(symbol: str, kind: str, length: float, expected: tuple[int, ...]) -> None:
    """Shortest lattice vectors: fcc and diamond a / sqrt 2, 2.489 and 3.840 angstrom; bcc a sqrt 3 / 2, 2.485."""
    assert vibrations.repeats(bulk(symbol, kind).cell.array, length) == expected


def test_a_long_cell_is_repeated_across_alone() -> None:
    assert vibrations.repeats(np.diag([2.0, 3.0, 12.0]), 10.0) == (5, 4, 1)
    assert vibrations.repeats(np.diag([2.0, 5.0, 10.0]), 10.0) == (5, 2, 1), "exactly so far is far enough"
    rng = np.random.default_rng(0)
    for _ in range(20):
        lattice = np.diag(rng.uniform(2, 14, 3)) + rng.normal(0, 0.4, (3, 3))
        found = np.array(vibrations.repeats(lattice, 10.0))
        assert vibrations.shortest_vector(lattice * found[:, None]) >= 10.0
