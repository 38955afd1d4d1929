"""Rules of chemistry: charges against smact's own judgement and against known compounds, ratios,
and bounds of price and supply risk.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.crystals import abundance
from campaign.crystals.chemistry import ChargeNeutral, FixedRatio, ValueBound, oxidation_states
from campaign.types import SearchSpace, counts_of

KNOWN = (
    "Na1Cl1",
    "Fe2O3",
    "Fe3O4",
    "Mn3O4",
    "Li1Fe1O2",
    "Li1Fe1P1O4",
    "Ga1N1",
    "Mg2Si1O4",
    "Ti2O3",
    "Li2O2",
    "Li3Y1Cl6",
    "Ca5P3O13H1",
    "K1Mn1O4",
)
BROKEN = ("Na2Cl1", "Ni3Al1", "Mg1Cl3", "Li3O1", "K1Ca1F2")


def atoms(formula: str) -> list[str]:
    return list(Counter(counts_of(formula)).elements())


@pytest.mark.parametrize("formula", KNOWN)
def test_known_compounds_hold(formula: str) -> None:
    assert ChargeNeutral(electronegativity_order=True).violation(counts_of(formula)) == ""


@pytest.mark.parametrize("formula", BROKEN)
def test_charges_that_do_not_cancel_are_refused(formula: str) -> None:
    assert "cancel" in ChargeNeutral().violation(counts_of(formula))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["Li", "Mg", "Al", "Zn", "P", "S", "O", "N", "Cl", "Si", "H"]),
        st.integers(1, 4),
        min_size=2,
        max_size=4,
    )
)
def test_without_mixed_valence_it_is_what_smact_says(counts: dict[str, int]) -> None:
    """The elements are such that none has mixed valence; states are the same on both sides."""
    from smact import Element, neutral_ratios
    from smact.screening import pauling_test

    symbols = list(counts)
    pull = [Element(symbol).pauling_eneg for symbol in symbols]
    combinations = list(itertools.product(*(oxidation_states(symbol) for symbol in symbols)))
    divisor = math.gcd(*counts.values())
    stoichs = [(counts[symbol] // divisor,) for symbol in symbols]
    neutral = [
        states for states in combinations if neutral_ratios(states, stoichs=stoichs, threshold=4)
    ]
    assert (ChargeNeutral().violation(counts) == "") == bool(neutral)
    ordered = [states for states in neutral if pauling_test(states, pull)]
    assert (ChargeNeutral(electronegativity_order=True).violation(counts) == "") == bool(ordered)


def test_states_may_be_given_and_mixed_valence_is_of_neighbours() -> None:
    iron = ChargeNeutral({"Fe": (2, 3), "O": (-2,)})
    assert [
        iron.violation(counts_of(formula)) == ""
        for formula in ("Fe1O1", "Fe3O4", "Fe2O3", "Fe7O8", "Fe3O2", "Fe1O2")
    ] == [True] * 4 + [False] * 2
    assert "cancel" in ChargeNeutral({"Fe": (3,), "O": (-2,)}).violation(counts_of("Fe3O4"))
    assert "cancel" in ChargeNeutral({"N": (-3, 5), "Li": (1,)}).violation(counts_of("Li1N1")), (
        "nitrogen has no mixed valence"
    )


def test_order_of_electronegativities() -> None:
    """Oxygen as the cation of lithium's anion breaks it, whatever the charges do."""
    backwards = {"Li": (-1,), "O": (2,)}
    assert ChargeNeutral(backwards).violation(counts_of("Li2O1")) == ""
    assert "electronegativities" in ChargeNeutral(
        backwards, electronegativity_order=True
    ).violation(counts_of("Li2O1"))


def test_an_element_alone_is_neutral_and_one_without_states_is_named() -> None:
    assert ChargeNeutral(electronegativity_order=True).violation({"Fe": 2}) == ""
    assert "Ar has no oxidation state" in ChargeNeutral().violation({"Ar": 1, "Na": 1})


def test_arrays_and_single_compositions_agree() -> None:
    rng = np.random.default_rng(0)
    rules = (
        ChargeNeutral(electronegativity_order=True),
        FixedRatio({"Li": 1, "O": 2}),
        ValueBound(abundance.PRICE.name, -1, 20.0),
    )
    elements = ("Li", "Mn", "Co", "O")
    counts = np.concatenate([rng.integers(0, 4, (60, 4)), [[2, 1, 1, 4], [1, 1, 0, 2]]])
    counts = counts[counts.sum(1) > 0]
    for rule in rules:
        space = SearchSpace(elements, rules=(rule,))
        single = [
            not space.violation(
                [symbol for symbol, n in zip(elements, row, strict=True) for _ in range(n)]
            )
            for row in counts.tolist()
        ]
        assert space.holds_counts(counts).tolist() == single
        assert any(single)
        assert not all(single)


def test_ratios() -> None:
    rule = FixedRatio({"Li": 1, "O": 2})
    assert [
        rule.violation(counts_of(formula)) == ""
        for formula in ("Li1O2", "Li2Fe3O4", "Li1O1", "Fe1O2", "Fe1")
    ] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert "Li : O is 1 : 1, wanted 1 : 2" in rule.violation(counts_of("Li1O1"))


def test_price_and_supply_risk_are_means_by_mass() -> None:
    """As pymatgen's own models have them."""
    from pymatgen.analysis.cost import CostAnalyzer, CostDBElements
    from pymatgen.analysis.hhi import HHIModel
    from pymatgen.core import Composition

    for formula in ("Fe2O3", "LiCoO2", "GaN", "Ni3Al"):
        counts = {symbol: int(n) for symbol, n in Composition(formula).get_el_amt_dict().items()}
        production, reserve = HHIModel().get_hhi(formula)
        assert abundance.value("hhi_production", counts) == pytest.approx(production, rel=1e-5)
        assert abundance.value("hhi_reserve", counts) == pytest.approx(reserve, rel=1e-5)
        assert abundance.value("price_per_kg", counts) == pytest.approx(
            CostAnalyzer(CostDBElements()).get_cost_per_kg(formula), rel=1e-3
        )
    assert np.isnan(abundance.value("price_per_kg", {"Og": 1}))


def test_a_bound_says_value_limit_and_unit() -> None:
    reason = ValueBound("price_per_kg", -1, 5.0).violation({"Au": 1})
    assert reason.startswith("price_per_kg is ")
    assert reason.endswith("allowed at most 5 USD/kg")
    assert "not known" in ValueBound("price_per_kg", -1, 5.0).violation({"Og": 1})


def test_smact_is_loaded_only_by_those_who_ask_it() -> None:
    code = "import sys, campaign.config.schema, generators.formulas; print('smact' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
