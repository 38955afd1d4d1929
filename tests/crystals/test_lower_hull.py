"""The lower hull for any number of elements, beside pymatgen's phase diagram and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from campaign.crystals.hull import lower_hull
from campaign.types import FloatArray

ELEMENTS = ("Al", "B", "Cr", "Fe", "Ni", "W")


def made_phases(
    n_elements: int, n: int, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Counts (n, k), fractions (n, k) and energies (n,), the elements alone first."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (n, n_elements))
    counts = np.vstack([np.eye(n_elements, dtype=int), counts[counts.sum(1) > 0]])
    fractions = counts / counts.sum(1, keepdims=True)
    return (
        counts,
        fractions,
        rng.normal(-4, 0.3, len(fractions)) + fractions @ rng.normal(0, 2, n_elements),
    )


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 5, 6])
def test_energies_above_and_stable_phases_are_those_of_pymatgen(n_elements: int) -> None:
    counts, fractions, energies = made_phases(n_elements, 60)
    entries = [
        PDEntry(
            Composition(dict(zip(ELEMENTS, row.tolist(), strict=False))),
            energy * row.sum(),
            name=str(i),
        )
        for i, (row, energy) in enumerate(zip(counts, energies, strict=True))
    ]
    diagram, hull = PhaseDiagram(entries), lower_hull(fractions, energies)
    assert set(hull.vertices.tolist()) == {int(entry.name) for entry in diagram.stable_entries}
    assert hull.above(fractions, energies) == pytest.approx(
        [diagram.get_e_above_hull(entry) for entry in entries], abs=1e-9
    )


def test_a_phase_on_the_hull_is_exactly_on_it_and_one_below_is_negative() -> None:
    fractions = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.25, 0.75]])
    hull = lower_hull(fractions, np.array([-1.0, -2.0, -1.7, -1.8]))
    assert hull.above(fractions, np.array([-1.0, -2.0, -1.7, -1.8])).tolist() == pytest.approx(
        [0.0, 0.0, 0.0, 0.05]
    )
    assert hull.above(fractions, np.array([-1.0, -2.0, -1.7, -1.8]))[:3].tolist() == [0.0, 0.0, 0.0]
    assert hull.above(fractions[3:], np.array([-2.0])) == pytest.approx(-0.15)


def test_without_compounds_below_the_elements_the_hull_lies_between_them() -> None:
    fractions = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    hull = lower_hull(fractions, np.array([-1.0, -2.0, -3.0, -1.0]))
    assert hull.at(np.array([[0.5, 0.25, 0.25]])) == pytest.approx(-1.75)
    assert hull.vertices.tolist() == [0, 1, 2]


def test_without_an_element_there_is_no_hull() -> None:
    with pytest.raises(ValueError, match="each element alone"):
        lower_hull(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([-1.0, -1.0]))


def test_energies_near_and_far_from_zero_give_the_same_hull() -> None:
    _, fractions, energies = made_phases(4, 80, seed=3)
    small = lower_hull(fractions, energies * 1e-4)
    assert small.at(fractions) * 1e4 == pytest.approx(
        lower_hull(fractions, energies).at(fractions), abs=1e-8
    )
