"""G-vectors: the formula by hand, invariances, and the scale of distances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import special_ortho_group

from campaign.crystals.gvectors import CONSTANTS, g_distance, gvectors
from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.types import Crystal


def cluster(positions: list[list[float]], symbols: list[str]) -> Crystal:
    """Atoms in a cell so large that no image is near."""
    from ase.data import atomic_numbers

    return Crystal(
        np.eye(3) * 40,
        np.array(positions) / 40,
        np.array([atomic_numbers[s] for s in symbols], dtype=np.uint8),
    )


def test_a_pair_gives_the_radial_formula() -> None:
    found = gvectors(cluster([[1, 1, 1], [1, 1, 3.3]], ["Ni", "Fe"]))
    assert found.shape == (2, 2 * 8 + 3 * 32)
    r, cutoff = 2.3, CONSTANTS.radial_cutoff
    wanted = [
        math.exp(-8 * (r - (0.5 + 0.5125 * k)) ** 2) * 0.5 * (1 + math.cos(math.pi * r / cutoff))
        for k in range(8)
    ]
    np.testing.assert_allclose(found[1, 8:16], wanted, rtol=1e-10)
    np.testing.assert_allclose(found[0, :8], wanted, rtol=1e-10)
    assert np.all(found[0, 8:] == 0)
    assert np.all(found[1, :8] == 0)


def test_three_atoms_give_the_angular_formula() -> None:
    """An atom of chromium between nickel and iron at 2.2 and 2.5 angstrom, 70 degrees apart, by
    loops over the paper's sums.
    """
    angle = math.radians(70)
    crystal = cluster(
        [[5, 5, 5], [7.2, 5, 5], [5 + 2.5 * math.cos(angle), 5 + 2.5 * math.sin(angle), 5]],
        ["Cr", "Ni", "Fe"],
    )
    block = gvectors(crystal)[0, 24:].reshape(6, 4, 8)
    pairs = list(itertools.combinations_with_replacement(["Cr", "Fe", "Ni"], 2))
    for pair, found in zip(pairs, block, strict=True):
        for shell, k in itertools.product(range(4), range(8)):
            if pair != ("Fe", "Ni"):
                assert found[shell, k] == 0
                continue
            theta, centre, e = math.pi * (k + 0.5) / 8, 0.5 + 0.65 * shell, 0.001
            smooth = e * math.sin(theta) ** 2
            overlap = (
                1
                + math.cos(angle) * math.cos(theta)
                + math.sin(theta) * math.sqrt(1 - math.cos(angle) ** 2 + smooth)
            )
            cut = [0.5 * (1 + math.cos(math.pi * r / 3.1)) for r in (2.2, 2.5)]
            wanted = (
                2
                * (overlap / (1 + math.sqrt(1 + smooth))) ** 50
                * math.exp(-6 * (2.35 - centre) ** 2)
                * cut[0]
                * cut[1]
            )
            assert found[shell, k] == pytest.approx(wanted, rel=1e-8, abs=1e-14)


@pytest.fixture
def alloy() -> Crystal:
    rng = np.random.default_rng(0)
    ideal = supercell("fcc", (2, 2, 2), rng.choice(["Ni", "Fe", "Cr"], 16).tolist())
    return Crystal(ideal.lattice, ideal.fractional + rng.normal(0, 0.01, (16, 3)), ideal.numbers)


def test_nothing_changes_with_the_view(alloy: Crystal) -> None:
    rotation, order = (
        special_ortho_group.rvs(3, random_state=1),
        np.random.default_rng(1).permutation(16),
    )
    views = [
        Crystal(alloy.lattice @ rotation.T, alloy.fractional, alloy.numbers),
        Crystal(alloy.lattice, alloy.fractional + 0.37, alloy.numbers),
        Crystal(alloy.lattice, alloy.fractional[order], alloy.numbers[order]),
    ]
    for view in views:
        assert g_distance(alloy, view) == pytest.approx(0, abs=1e-9)
        assert g_distance(alloy, view, by_element=False) == pytest.approx(0, abs=1e-9)
    doubled = Crystal(
        alloy.lattice * [[2], [1], [1]],
        np.concatenate([alloy.fractional, alloy.fractional + [1, 0, 0]]) / [2, 1, 1],
        np.tile(alloy.numbers, 2),
    )
    np.testing.assert_allclose(gvectors(doubled)[:16], gvectors(alloy), atol=1e-9)


def test_distances_have_the_published_scale() -> None:
    """Noise of 0.05 angstrom 0.16 to 0.25, fcc against bcc 1.3; ideal orderings differ by element
    alone.
    """
    rng = np.random.default_rng(0)
    symbols = rng.permutation(["Ni"] * 18 + ["Fe"] * 18 + ["Cr"] * 18).tolist()
    one, other = (
        supercell("bcc", (3, 3, 3), symbols),
        supercell("bcc", (3, 3, 3), rng.permutation(symbols).tolist()),
    )
    assert 0.4 < g_distance(one, other) < 0.6
    assert g_distance(one, other, by_element=False) == pytest.approx(0, abs=1e-9)
    noisy = Crystal(
        one.lattice,
        one.fractional + rng.normal(0, 0.05, (54, 3)) @ np.linalg.inv(one.lattice),
        one.numbers,
    )
    assert 0.1 < g_distance(one, noisy, by_element=False) < 0.25
    assert g_distance(one, supercell("fcc", (3, 3, 3), symbols), by_element=False) == pytest.approx(
        1.3, abs=0.1
    )


def test_unlike_crystals_are_not_compared(alloy: Crystal) -> None:
    with pytest.raises(InputError, match="of one composition"):
        g_distance(alloy, alloy.with_numbers(np.roll(alloy.numbers, 1) * 0 + np.uint8(28)))
    with pytest.raises(InputError, match=r"expected a crystal of Ni"):
        gvectors(alloy, ["Ni"])
