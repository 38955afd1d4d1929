"""Ordered cells are all there are and each once per symmetry; perturbed cells are spread as
asked.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import spglib

from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.crystals.neighbours import shortest_distance
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Objective, SearchSpace
from generators.ordered_alloy import (
    OrderedAlloy,
    OrderedAlloyConfig,
    hermite_normal_forms,
    superlattice,
)
from generators.perturbed_alloy import PerturbedAlloy, PerturbedAlloyConfig

CONTEXT = GenerationContext(
    space=SearchSpace(("Fe", "Ni")), objective=Objective("energy_per_atom", "minimize")
)


def test_sublattices_are_as_many_as_there_are() -> None:
    """The number of sublattices of index n: 1, 7, 13, 35, 31 (sum of d sigma(d) over the divisors
    of n).
    """
    assert [len(hermite_normal_forms(n)) for n in (1, 2, 3, 4, 5)] == [1, 7, 13, 35, 31]
    for form in hermite_normal_forms(4):
        cell, sites = superlattice("fcc", form)
        assert len(sites) == 4
        assert abs(np.linalg.det(cell)) == pytest.approx(4 * 0.25)
        assert np.linalg.det(cell) > 0


@pytest.mark.parametrize("lattice", ["fcc", "bcc"])
def test_binary_orderings_are_the_known_numbers(lattice: str) -> None:
    """2, 6 and 19 binary derivative structures with 2, 3 and 4 atoms on fcc and on bcc (Hart and
    Forcade 2008, table IV).
    """
    config = OrderedAlloyConfig(lattices=(lattice,), atoms=(2, 3, 4))  # type: ignore[arg-type]
    found = [
        c
        for c, _ in OrderedAlloy(config).generate(
            10_000, rng=np.random.default_rng(0), context=CONTEXT
        )
    ]
    distinct, counts = Distinct(Matcher()), Counter[int]()
    for crystal in found:
        key = equivalence_key(crystal)
        if distinct.find(crystal, key) is None:
            distinct.add(crystal.id, key, crystal)
            counts[len(crystal)] += 1
    assert counts == {2: 2, 3: 6, 4: 19}


def test_l1_0_and_l1_2_are_among_them() -> None:
    config = OrderedAlloyConfig(lattices=("fcc",), atoms=(2, 4))
    groups = {
        (
            len(c),
            spglib.get_symmetry_dataset((c.lattice, c.fractional, c.numbers), symprec=1e-3).number,
        )
        for c, _ in OrderedAlloy(config).generate(
            10_000, rng=np.random.default_rng(0), context=CONTEXT
        )
    }
    assert {(2, 123), (4, 221)} <= groups, "P4/mmm with two atoms, Pm-3m with four"


def test_the_search_space_bounds_the_orderings() -> None:
    space = SearchSpace(("Fe", "Ni"), {"Ni": 0.6}, {})
    context = GenerationContext(space=space, objective=CONTEXT.objective)
    found = [
        c
        for c, _ in OrderedAlloy(OrderedAlloyConfig(atoms=(3,))).generate(
            500, rng=np.random.default_rng(0), context=context
        )
    ]
    assert {c.formula for c in found} == {"Fe1Ni2"}


def test_perturbed_cells_are_spread_from_near_their_sites_to_far() -> None:
    config = PerturbedAlloyConfig(repeats=((2, 2, 1),), displacement=(0.01, 0.2), strain=0.01)
    found = list(
        PerturbedAlloy(config).generate(200, rng=np.random.default_rng(1), context=CONTEXT)
    )
    widths = np.array([proposal.condition["displacement"] for _, proposal in found])
    assert 0.01 <= widths.min() < 0.015
    assert 0.15 < widths.max() <= 0.2
    assert np.median(np.log(widths)) == pytest.approx(np.log(0.01 * 0.2) / 2, abs=0.3), (
        "uniform in the logarithm"
    )
    calm = [shortest_distance(c) for c, p in found if p.condition["displacement"] < 0.02]
    wild = [shortest_distance(c) for c, p in found if p.condition["displacement"] > 0.15]
    assert np.mean(calm) > np.mean(wild) + 0.1
    assert len({c.id for c, _ in found}) == 200
    again = [
        c.id
        for c, _ in PerturbedAlloy(config).generate(
            5, rng=np.random.default_rng(1), context=CONTEXT
        )
    ]
    assert again == [c.id for c, _ in found[:5]]
    assert isinstance(found[0][0], Crystal)
    with pytest.raises(ValueError, match="the least value and then the largest"):
        PerturbedAlloyConfig(displacement=(0.2, 0.1))
