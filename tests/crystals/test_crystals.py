"""The shared numerics against closed forms, brute force and symmetries."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.crystals import phases
from campaign.crystals.lattice import atomic_volume, supercell
from campaign.crystals.matching import KeyIndex, Matcher, equivalence_key, site_permutations
from campaign.crystals.neighbours import nearest, pairs, shortest_distance
from campaign.crystals.phases import Phase, classify, fractions
from campaign.types import Crystal

IDEAL = [
    (bulk("Ni"), Phase.FCC),
    (bulk("Fe"), Phase.BCC),
    (bulk("Co"), Phase.HCP),
    (bulk("C"), Phase.OTHER),
]


def brute_force_distances(crystal: Crystal, cutoff: float) -> np.ndarray:
    found = []
    for shift in itertools.product(range(-6, 7), repeat=3):
        offset = crystal.fractional[None] + np.array(shift) - crystal.fractional[:, None]
        distance = np.linalg.norm(offset @ crystal.lattice, axis=-1)
        found.append(distance[(distance > 1e-9) & (distance < cutoff)])
    return np.sort(np.concatenate(found))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_pairs_agree_with_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crystal = Crystal(
        3 * np.eye(3) + rng.normal(scale=0.4, size=(3, 3)), rng.random((3, 3)), [6, 6, 8]
    )  # type: ignore[arg-type]
    _, _, distance, vector = pairs(crystal.lattice, crystal.fractional, 4.0)
    assert np.allclose(np.sort(distance), brute_force_distances(crystal, 4.0))
    assert np.allclose(np.linalg.norm(vector, axis=1), distance)


def test_nearest_neighbours_of_ideal_lattices() -> None:
    fcc = Crystal.from_atoms(bulk("Ni", a=1.0))
    shells = nearest(fcc.lattice, fcc.fractional, 18).distances[0]
    assert shells == pytest.approx([np.sqrt(0.5)] * 12 + [1.0] * 6)
    bcc = Crystal.from_atoms(bulk("Fe", a=1.0))
    assert nearest(bcc.lattice, bcc.fractional, 14).distances[0] == pytest.approx(
        [np.sqrt(0.75)] * 8 + [1.0] * 6
    )
    assert shortest_distance(bcc) == pytest.approx(np.sqrt(0.75))


@pytest.mark.parametrize(("atoms", "phase"), IDEAL)
@pytest.mark.parametrize("repeat", [1, 3])
def test_common_neighbour_analysis_of_ideal_crystals(
    atoms: object, phase: Phase, repeat: int
) -> None:
    crystal = Crystal.from_atoms(atoms.repeat(repeat))  # type: ignore[attr-defined]
    assert set(classify(crystal)) == {phase}


def test_common_neighbour_analysis_survives_thermal_noise_and_sees_disorder() -> None:
    noisy = bulk("Fe", cubic=True).repeat(3)
    noisy.rattle(0.08, seed=1)
    assert fractions(Crystal.from_atoms(noisy))[Phase.BCC] > 0.95
    gas = Crystal(8 * np.eye(3), np.random.default_rng(0).random((40, 3)), [26] * 40)  # type: ignore[arg-type]
    assert fractions(gas)[Phase.OTHER] > 0.9


def test_close_packed_stackings_are_told_apart() -> None:
    """In the stacking ABCACB two of the six layers have equal neighbours and are hcp, the others
    fcc.
    """
    edge = 3.52 / np.sqrt(2)
    height = edge * np.sqrt(2 / 3)
    lattice = np.array([[edge, 0, 0], [edge / 2, edge * np.sqrt(3) / 2, 0], [0, 0, 6 * height]])
    offset = {"A": 0.0, "B": 1 / 3, "C": 2 / 3}
    fractional = np.array([[offset[name], offset[name], i / 6] for i, name in enumerate("ABCACB")])
    found = classify(Crystal(lattice, fractional, [28] * 6))  # type: ignore[arg-type]
    assert found.tolist() == [Phase.HCP, Phase.FCC, Phase.FCC, Phase.HCP, Phase.FCC, Phase.FCC]


def alloy(seed: int, parent: str = "bcc") -> Crystal:
    rng = np.random.default_rng(seed)
    return supercell(
        parent, (2, 2, 2), rng.permutation(["Ni"] * 6 + ["Fe"] * 5 + ["Cr"] * 5).tolist()
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("parent", ["bcc", "fcc"])
def test_equal_orderings_have_near_keys_and_match(parent: str) -> None:
    rng = np.random.default_rng(7)
    crystal = alloy(3, parent)
    moved = crystal.with_numbers(
        crystal.numbers[site_permutations(crystal)[rng.integers(len(site_permutations(crystal)))]]
    )
    order = rng.permutation(16)
    shuffled = Crystal(
        1.02 * crystal.lattice, (crystal.fractional[order] + 0.25) % 1, crystal.numbers[order]
    )
    assert moved.id != crystal.id
    index = KeyIndex(Matcher())
    index.add("crystal", equivalence_key(crystal))
    for other in (moved, shuffled):
        assert index.near(equivalence_key(other)) == ["crystal"]
        assert Matcher().is_same(crystal, other)


@pytest.mark.parametrize("parent", ["bcc", "fcc"])
def test_exact_and_tolerant_comparison_agree(parent: str) -> None:
    """On the same sites the symmetry operations say what the comparison atom by atom says."""
    base = alloy(0, parent)
    matcher = Matcher()
    rng = np.random.default_rng(2)
    agreed = {True: 0, False: 0}
    for _ in range(30):
        numbers = base.numbers.copy()
        i, j = rng.choice(16, 2, replace=False)
        numbers[[i, j]] = numbers[[j, i]]
        other = base.with_numbers(numbers)
        k, m = rng.choice(16, 2, replace=False)
        numbers = base.numbers.copy()
        numbers[[k, m]] = numbers[[m, k]]
        another = base.with_numbers(numbers)
        exact = bool((other.numbers[site_permutations(other)] == another.numbers).all(1).any())
        assert exact == matcher.is_same(other, another)
        agreed[exact] += 1
    assert agreed[False] > 0


def test_site_permutations_of_a_bcc_supercell() -> None:
    """48 rotations times 16 translations of the 2 x 2 x 2 cubic cell."""
    permutations = site_permutations(alloy(0))
    assert permutations.shape == (48 * 16, 16)
    assert len({row.tobytes() for row in permutations}) <= 48 * 16
    assert (np.sort(permutations, axis=1) == np.arange(16)).all()


def test_atomic_volumes_and_supercells() -> None:
    assert atomic_volume("Fe") == pytest.approx(2.87**3 / 2)
    assert atomic_volume("Ni") == pytest.approx(3.52**3 / 4)
    cell = supercell("fcc", (3, 3, 3), ["Ni"] * 54)
    assert len(cell) == 54
    assert cell.lattice[2, 2] / cell.lattice[0, 0] == pytest.approx(np.sqrt(2))
    assert cell.volume / 54 == pytest.approx(atomic_volume("Ni"))
    assert set(classify(cell)) == {Phase.FCC}


@pytest.mark.parametrize("k", [12, 14])
def test_signatures_are_those_of_their_definition(k: int) -> None:
    """Common neighbours, the bonds among them, and the longest chain of these bonds, counted one by
    one.
    """
    rng = np.random.default_rng(k)
    ideal = nearest(bulk("Fe", "bcc", a=2.9).cell.array, np.zeros((1, 3)), k).vectors
    close = nearest(bulk("Ni", "fcc", a=3.5).cell.array, np.zeros((1, 3)), k).vectors
    shaken = [
        place + noise * rng.standard_normal(place.shape)
        for place in (ideal, close)
        for noise in (0.0, 0.05, 0.2, 0.5)
        for _ in range(6)
    ]
    vectors = np.concatenate(shaken)
    cutoff = np.full(len(vectors), 1.207 * np.linalg.norm(vectors, axis=-1).mean())
    found = phases._signatures(vectors, cutoff)
    seen = set()
    for atom, around in enumerate(vectors):
        bonded = np.linalg.norm(around[:, None] - around, axis=-1) < cutoff[atom]
        np.fill_diagonal(bonded, False)
        for one in range(k):
            common = np.flatnonzero(bonded[one])
            graph = nx.from_numpy_array(bonded[np.ix_(common, common)])
            degrees = sorted(degree for _, degree in graph.degree)
            signature = (len(common), graph.number_of_edges())
            is_ring = len(common) > 0 and set(degrees) == {2} and nx.is_connected(graph)
            wanted = (
                signature == (4, 2) and degrees[-1] == 1,
                signature == (4, 2) and degrees[-1] == 2,
                signature == (4, 4) and degrees == [2] * 4,
                signature == (6, 6) and is_ring,
            )
            assert tuple(bool(of[atom, one]) for of in found) == wanted
            seen.add(wanted)
    assert len(seen) >= 3
