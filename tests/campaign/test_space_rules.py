"""Rules of chemistry in a whole campaign: in its space, its screens, its generators, its ranking,
and refused where they make no sense.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import load

from campaign import plugins
from campaign.api import Campaign
from campaign.crystals import abundance, references
from campaign.crystals.chemistry import ChargeNeutral
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.rounds.screen import judge_validity
from campaign.types import Objective

OXIDES = {
    "elements": ["Mg", "Ti", "O"],
    "max_fraction": 1.0,
    "charge_neutral": True,
    "electronegativity_order": True,
}


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        _ = load(folder, **changes).parts
    return caught.value.message


def test_a_campaign_labels_what_holds_the_rules(tmp_path: Path) -> None:
    space = {**OXIDES, "oxidation_states": {"Ti": [3, 4], "O": [-2]}}
    generators = [
        {"use": "random_alloy", "count": 8, "params": {"repeats": [2, 1, 1]}},
        {"use": "ordered_alloy", "count": 8},
        {"use": "local_search", "count": 4},
    ]
    campaign = Campaign(
        tmp_path / "campaign",
        load(tmp_path, space=space, generators=generators, budget={"labels": 15}),
    )
    campaign.run()
    state = campaign.state()
    rule = ChargeNeutral({"Ti": (3, 4), "O": (-2,)}, electronegativity_order=True)
    assert len(state.own) == 15
    assert all(rule.violation(state.counts(candidate)) == "" for candidate, _ in state.own)
    assert {record.verdict.screen for record in state.candidates.values() if record.verdict} <= {
        "",
        "duplicate",
        "known",
    }


def test_what_breaks_a_rule_is_screened_with_the_reason(tmp_path: Path) -> None:
    config = load(
        tmp_path, space=OXIDES, constraints=[{"quantity": "price_per_kg", "at_most": 1.0}]
    ).config
    verdict = judge_validity(
        references.ordered_binary("Mg", "Ti"), config.screens, config.search_space
    )
    assert (verdict.accepted, verdict.screen) == (False, "composition")
    assert "no oxidation states of Mg, Ti cancel" in verdict.reason
    dear = judge_validity(references.elemental("Ti"), config.screens, config.search_space)
    assert "price_per_kg is 11" in dear.reason or "price_per_kg is" in dear.reason
    assert "allowed at most 1 USD/kg" in dear.reason


@pytest.mark.parametrize(
    ("use", "params"),
    [
        ("random_alloy", {"repeats": [3, 2, 2]}),
        ("perturbed_alloy", {}),
        ("ordered_alloy", {"atoms": [2, 3, 4]}),
        ("random_crystal", {"atoms": [2, 10]}),
        ("prototypes", {"source": "library", "atoms": [2, 10]}),
        ("ion_exchange", {"min_probability": 1e-5}),
    ],
)
def test_generators_stay_inside(tmp_path: Path, use: str, params: dict[str, Any]) -> None:
    space = load(
        tmp_path, space=OXIDES, constraints=[{"quantity": "hhi_production", "at_most": 2500.0}]
    ).config.search_space
    context = GenerationContext(space=space, objective=Objective("energy_per_atom", "minimize"))
    spec = load(tmp_path, generators=[{"use": use, "params": params}])
    generator = plugins.build(spec.spec("generators", spec.config.generators[0]))
    found = list(generator.generate(6, rng=np.random.default_rng(0), context=context))
    assert found
    assert [space.violation(crystal.symbols) for crystal, _ in found] == [""] * len(found)


def test_fixed_ratios(tmp_path: Path) -> None:
    space = {"elements": ["Li", "Ni", "Co", "O"], "ratios": {"Li": 1, "O": 2}, "max_fraction": 1.0}
    generators = [
        {"use": "random_crystal", "count": 6, "params": {"atoms": [4, 6], "space_groups": [1, 2]}}
    ]
    campaign = Campaign(
        tmp_path / "campaign",
        load(tmp_path, space=space, generators=generators, budget={"labels": 4}),
    )
    campaign.run()
    state = campaign.state()
    counts = [state.counts(candidate) for candidate, _ in state.own]
    assert counts
    assert all(found["O"] == 2 * found["Li"] for found in counts)


def test_price_is_an_objective_that_nobody_labels(tmp_path: Path) -> None:
    """The Pareto front weighs it, its values stand beside the labels, and a bound of supply risk is
    never broken.
    """
    price = {"quantity": "price_per_kg", "direction": "minimize"}
    risk = {"quantity": "hhi_production", "at_most": 2900.0}
    acquisition = {
        "use": "log_expected_hypervolume_improvement",
        "initial_labels": 9,
        "batch_size": 3,
        "samples": 8,
        "shortlist": 10,
    }
    loaded = load(
        tmp_path,
        further_objectives=[price],
        constraints=[risk],
        acquisition=acquisition,
        budget={"labels": 12},
    )
    campaign = Campaign(tmp_path / "campaign", loaded)
    campaign.run()
    state = campaign.state()
    assert len(state.own) == 12
    assert any(record.fitted is not None for record in state.rounds)
    for (candidate, _), label in state.own.items():
        counts = state.counts(candidate)
        assert label.values["price_per_kg"] == pytest.approx(
            abundance.value("price_per_kg", counts)
        )
        assert abundance.value("hhi_production", counts) <= 2900
    assert {"price_per_kg (USD/kg)", "hhi_production (1)", "energy_per_atom (eV/atom)"} <= set(
        campaign.best.columns
    )
    front = campaign.best[campaign.best["front"] == 1]
    assert len(front) >= 1
    assert (
        front["energy_per_atom (eV/atom)"].sort_values().index
        == front["price_per_kg (USD/kg)"].sort_values(ascending=False).index
    ).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"space": {"charge_neutral": True, "oxidation_states": {"Ti": [4]}}},
            "expected one of the space's elements",
        ),
        (
            {"space": {"oxidation_states": {"Fe": [2]}}},
            "oxidation_states belongs to charge_neutral",
        ),
        (
            {"space": {"electronegativity_order": True}},
            "electronegativity_order belongs to charge_neutral",
        ),
        (
            {"space": {"charge_neutral": True, "oxidation_states": {"Fe": [0, 2]}}},
            "expected charges other than 0",
        ),
        ({"space": {"ratios": {"Fe": 1}}}, "a ratio is of two elements"),
        ({"space": {"ratios": {"Fe": 0, "Ni": 1}}}, "expected at least 1, found 0"),
        ({"objective": {"quantity": "price_per_kg"}}, "needs no label"),
        (
            {
                "space": {"elements": ["Ni", "Fe", "Ac"]},
                "constraints": [{"quantity": "hhi_reserve", "at_most": 1.0}],
            },
            "no hhi_reserve of Ac is known",
        ),
        ({"constraints": [{"quantity": "price", "at_most": 1.0}]}, "no oracle measures 'price'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(tmp_path, **changes)
