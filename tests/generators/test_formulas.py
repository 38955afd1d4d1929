"""Formulas of a space: every one of them, those that rules leave, and drawn ones where there are
too many to list.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from campaign.crystals.chemistry import ChargeNeutral, FixedRatio, ValueBound
from campaign.errors import InputError
from campaign.types import SearchSpace
from generators import formulas
from generators.formulas import Formula, formulas_of
from generators.random_alloy import draw_counts

NEUTRAL = ChargeNeutral(electronegativity_order=True)


def inside(formula: Formula, space: SearchSpace) -> bool:
    return not space.violation(
        [
            symbol
            for symbol, count in zip(formula.symbols, formula.counts, strict=True)
            for _ in range(count)
        ]
    )


def by_brute_force(space: SearchSpace, sizes: range) -> set[Formula]:
    found = set()
    for counts in itertools.product(range(sizes.stop), repeat=len(space.elements)):
        if sum(counts) in sizes:
            named = sorted(
                (symbol, n) for symbol, n in zip(space.elements, counts, strict=True) if n
            )
            formula = Formula(tuple(symbol for symbol, _ in named), tuple(n for _, n in named))
            if inside(formula, space):
                found.add(formula)
    return found


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace(("Ni", "Fe", "Cr", "Al", "Co")),
        SearchSpace(("O", "Li", "Fe", "Mn"), rules=(NEUTRAL,)),
        SearchSpace(("O", "Li", "Fe", "Mn"), rules=(FixedRatio({"Li": 1, "O": 2}),)),
        SearchSpace(("O", "Li"), rules=(FixedRatio({"Li": 1, "O": 2}),)),
        SearchSpace(
            ("Fe", "Au", "O", "N"),
            {"O": 0.2},
            {"Fe": 0.5},
            rules=(ValueBound("price_per_kg", -1, 5.0),),
        ),
    ],
    ids=["five elements", "neutral", "ratio", "nothing but a ratio", "price and fractions"],
)
def test_every_formula_of_a_space_is_found(space: SearchSpace) -> None:
    found = formulas_of(space, (1, 7))
    assert len(found) == len(set(found))
    assert set(found) == by_brute_force(space, range(1, 8))


def test_shapes_of_four_and_more_elements() -> None:
    space = SearchSpace(("Li", "Fe", "P", "O", "Mn"), rules=(NEUTRAL,))
    found = formulas_of(space, (1, 20), [(1, 1, 1, 4), (1, 1, 2, 2, 8)])
    assert all(inside(formula, space) for formula in found)
    assert {formula.shape for formula in found} == {(1, 1, 1, 4), (1, 1, 2, 2, 8)}
    assert Formula(("Fe", "Li", "O", "P"), (1, 1, 4, 1)) in found


def test_too_many_are_drawn_and_each_number_of_elements_comes() -> None:
    space = SearchSpace(("Li", "Mn", "Fe", "Ni", "Co", "O", "N", "P", "S", "F"), rules=(NEUTRAL,))
    with pytest.raises(InputError, match="too many to list"):
        formulas_of(space, (2, 20))
    found = formulas_of(space, (2, 20), rng=np.random.default_rng(1))
    assert found == formulas_of(space, (2, 20), rng=np.random.default_rng(1))
    assert found != formulas_of(space, (2, 20), rng=np.random.default_rng(2))
    assert len(found) == len(set(found)) > 500
    assert all(inside(formula, space) for formula in found[::20])
    assert {len(formula.symbols) for formula in found} >= {2, 3, 4, 5, 6}
    assert {formula.n_atoms for formula in found} >= set(range(4, 21))


def test_many_shapes_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "MOST_FORMULAS", 100)
    space = SearchSpace(("Li", "Mn", "Fe", "Ni", "Co", "O", "N", "P"))
    found = formulas_of(space, (8, 8), [(1, 1, 2, 4)], rng=np.random.default_rng(0))
    assert {formula.shape for formula in found} == {(1, 1, 2, 4)}
    assert len(found) == 840, "all that there are: 8 over 4, times 12 orders"


def test_a_space_without_formulas_says_so() -> None:
    with pytest.raises(InputError, match="no formula of 3 to 3 atoms fits"):
        formulas_of(SearchSpace(("Na", "Cl"), {"Na": 0.1, "Cl": 0.1}, rules=(NEUTRAL,)), (3, 3))


def test_alloys_of_a_neutral_space_are_neutral() -> None:
    space, rng = (
        SearchSpace(
            ("Mg", "Ti", "O"), {"Mg": 0.01, "Ti": 0.01}, rules=(ChargeNeutral({"Ti": (4,)}),)
        ),
        np.random.default_rng(0),
    )
    drawn = [draw_counts(space, 24, rng) for _ in range(20)]
    assert all(counts[0] * 2 + counts[1] * 4 == counts[2] * 2 for counts in drawn)
    assert len({tuple(counts.tolist()) for counts in drawn}) > 2
