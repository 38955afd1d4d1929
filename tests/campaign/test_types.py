"""Values that cross ports: frozen, hashed by content, and the same after a round trip."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from campaign.errors import InputError
from campaign.types import Crystal, Fidelity, Objective, SearchSpace


@given(st.integers(1, 20), st.integers(0, 1000))
def test_crystals_survive_bytes_and_pickle(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    crystal = Crystal(rng.normal(size=(3, 3)), rng.normal(size=(n, 3)), rng.integers(1, 100, n))
    for other in (Crystal.from_bytes(crystal.to_bytes()), pickle.loads(pickle.dumps(crystal))):  # noqa: S301 - our own bytes
        assert other == crystal
        assert other.id == crystal.id
        assert np.array_equal(other.lattice, crystal.lattice)
        assert np.array_equal(other.fractional, crystal.fractional)
        assert np.array_equal(other.numbers, crystal.numbers)


def test_crystals_are_frozen_and_keyed_by_their_last_bit() -> None:
    crystal = Crystal(np.eye(3), np.zeros((1, 3)), [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        crystal.lattice[0, 0] = 2
    nudged = Crystal(np.nextafter(np.eye(3), 2), np.zeros((1, 3)), [1])  # type: ignore[arg-type]
    assert nudged.id != crystal.id
    assert len(crystal.id) == 32


def test_crystals_convert_both_ways() -> None:
    crystal = Crystal.from_atoms(bulk("NaCl", "rocksalt", a=5.6))
    assert crystal.formula == "Cl1Na1"
    assert Crystal.from_structure(crystal.structure) == crystal
    assert np.allclose(crystal.atoms.get_volume(), crystal.volume)


@pytest.mark.parametrize(
    ("lattice", "fractional", "numbers", "message"),
    [
        (np.eye(2), np.zeros((1, 3)), [1], r"lattice should have shape \(3, 3\)"),
        (np.eye(3), np.zeros((1, 2)), [1], "fractional coordinates"),
        (np.eye(3), np.zeros((2, 3)), [1], "atomic numbers"),
        (np.full((3, 3), np.nan), np.zeros((1, 3)), [1], "not finite"),
    ],
)
def test_wrong_arrays_are_refused(
    lattice: np.ndarray, fractional: np.ndarray, numbers: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Crystal(lattice, fractional, numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"x", b"z123", b"r\x01\x00\x00\x00"])
def test_other_bytes_are_no_crystal(data: bytes) -> None:
    with pytest.raises(InputError, match="no stored crystal"):
        Crystal.from_bytes(data)


def test_search_space_says_what_violates_it() -> None:
    space = SearchSpace(("Ni", "Fe"), {"Ni": 0.25}, {"Ni": 0.75})
    assert space.violation(["Ni", "Fe"]) == ""
    assert "Ni at 0.0 at%" in space.violation(["Fe", "Fe"])
    assert "holds Cr" in space.violation(["Ni", "Cr"])


def test_fidelity_keys_follow_the_settings() -> None:
    one, other = Fidelity("meam", {"a": 1, "b": 2}), Fidelity("meam", {"b": 2, "a": 1})
    assert one.key == other.key
    assert Fidelity("meam", {"a": 2}).key != one.key


def test_objectives_know_better() -> None:
    assert Objective("x", "minimize", 1.0).is_reached(0.5)
    assert not Objective("x", "maximize", 1.0).is_reached(0.5)
    assert Objective("x", "minimize").is_better(1, 2)
