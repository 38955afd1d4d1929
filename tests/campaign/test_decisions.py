"""Decisions in the loop: levels by gain per cost, several objectives, bounds, failures, shares of
generators, calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import HELPERS, load

from campaign.api import Campaign
from campaign.config.roles import objective_oracle
from campaign.decide import calibration, ranking, shares
from campaign.decide.ranking import is_on_front
from campaign.decide.replay import replay
from campaign.errors import InputError
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.protocols import GenerationContext
from campaign.report import write_report
from campaign.types import Objective, SearchSpace, Together
from generators.random_alloy import RandomAlloy, RandomAlloyConfig

Make = Callable[..., Campaign]

LEVELS: dict[str, Any] = {
    "space": {"elements": ["Fe", "Ni"], "max_fraction": 0.8},
    "generators": [
        {"use": "random_alloy", "count": 30, "params": {"repeats": [2, 2, 1], "lattices": ["bcc"]}}
    ],
    "surrogate": {"use": "multi_task_gp", "params": {"max_iterations": 30}},
    "acquisition": {"initial_labels": 8, "batch_size": 4, "shortlist": 20},
    "budget": {"labels": 27},
    "oracles": [
        {"use": "lennard_jones", "name": "cheap"},
        {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.2, "cutoff": 8.0}},
    ],
    "fidelities": {
        "mode": "acquisition",
        "levels": [{"oracle": "cheap", "cost": 1.0}, {"oracle": "dear", "cost": 10.0}],
    },
}


def test_a_model_chooses_candidate_and_level(small: Make) -> None:
    campaign = small(**LEVELS)
    campaign.run()
    state = campaign.state()
    by_level = {
        name: [label for label in state.own_labels if label.oracle == name]
        for name in ("cheap", "dear")
    }
    assert len(by_level["dear"]) >= 3
    assert len(by_level["cheap"]) > len(by_level["dear"]), "the dear level costs ten times as much"
    assert {label.candidate for label in by_level["dear"][:3]} <= {
        label.candidate for label in by_level["cheap"]
    }
    decided = [
        record.decided
        for record in state.rounds
        if record.decided is not None and record.decided.model is not None
    ]
    assert decided
    assert {item.acquisition for item in decided} == {"multi_fidelity_max_value_entropy"}
    assert (
        len({(label.candidate, label.oracle) for label in state.own_labels})
        == len(state.own_labels)
        == 27
    )
    for record in state.rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


def test_levels_need_a_model_that_knows_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several levels at once"):
        _ = load(tmp_path, **{**LEVELS, "surrogate": {"use": "gp"}}).parts


SEVERAL: dict[str, Any] = {
    "generators": [
        {"use": "random_alloy", "count": 15, "params": {"repeats": [2, 2, 1]}},
        {"use": "guided_search", "count": 15, "params": {"starts": 4, "steps": 6, "neighbours": 6}},
    ],
    "oracles": [{"use": "two_quantities:TwoQuantities"}],
    "objective": {"quantity": "first", "direction": "maximize"},
    "surrogate": {"use": "gp", "params": {"max_iterations": 20}},
    "acquisition": {"initial_labels": 9, "batch_size": 5, "samples": 16},
    "budget": {"labels": 24},
}


def with_oracle(tmp_path: Path) -> None:
    (tmp_path / "two_quantities.py").write_text((HELPERS / "two_quantities.py").read_text())


def test_two_objectives_and_a_failing_corner(small: Make, tmp_path: Path) -> None:
    """Of chromium at 60 at% and more the oracle always fails; the classifier learns it."""
    with_oracle(tmp_path)
    campaign = small(
        **SEVERAL,
        further_objectives=[{"quantity": "second", "direction": "minimize"}],
        feasibility={"use": "feasibility_gp", "params": {"max_iterations": 20}},
        failure_policy={"crash": {"retries": 0}},
    )
    campaign._loaded = load(
        tmp_path, **{k: v for k, v in campaign.loaded.resolved().items() if k != "name"}
    )
    campaign.run()
    state = campaign.state()
    fitted = [record.fitted for record in state.rounds if record.fitted is not None]
    assert set(fitted[-1].hyperparameters["further"]) == {"second"}
    assert fitted[-1].hyperparameters["feasibility"]["failed"] >= 2
    last = state.rounds[-1]
    assert last.decided is not None
    assert replay(campaign, last.index) == last.decided.choices
    assert "Pareto front" in page_of(campaign)
    early = [event for _, _, event in state.failures][:100]
    late = {
        choice.candidate
        for record in state.rounds[-2:]
        if record.decided
        for choice in record.decided.choices
    }
    assert early
    assert len(late & {event.candidate for event in early}) <= 2


def test_bounds_are_held(tmp_path: Path) -> None:
    """The most nickel and the least chromium, but no more nickel than 7 atoms of 16."""
    with_oracle(tmp_path)
    settings = {
        **SEVERAL,
        "constraints": [{"quantity": "second", "at_most": 0.2}],
        "budget": {"labels": 29},
    }
    settings["generators"] = [
        {"use": "random_alloy", "count": 25, "params": {"repeats": [2, 2, 2]}},
        SEVERAL["generators"][1],
    ]
    campaign = Campaign(tmp_path / "bounded", load(tmp_path, **settings))
    campaign.run()
    state = campaign.state()
    modelled = {
        c.candidate
        for r in state.rounds
        if r.decided and r.decided.model
        for c in r.decided.choices
    }
    labels = {label.candidate: label.values for label in state.own_labels}
    chosen = [labels[candidate] for candidate in modelled if candidate in labels]
    drawn = [values for candidate, values in labels.items() if candidate not in modelled]

    def best(found: list[dict[str, float]]) -> float:
        return max(values["first"] for values in found if values["second"] <= 0.2)

    assert best(chosen) > best(drawn)
    assert best(chosen) >= 6 / 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"acquisition": {"use": "log_expected_hypervolume_improvement"}},
            "add further_objectives",
        ),
        ({"further_objectives": [{"quantity": "energy_per_atom"}]}, "name a quantity twice"),
        (
            {
                "further_objectives": [{"quantity": "volume_per_atom"}],
                "acquisition": {"use": "max_value_entropy"},
            },
            "takes one objective",
        ),
        ({"acquisition": {"use": "straddle"}}, "looks for a level"),
        ({"objective": {"direction": "match"}}, "value belongs to direction match"),
        ({"constraints": [{"quantity": "energy_per_atom"}]}, "either at_least or at_most"),
        ({"constraints": [{"quantity": "colour", "at_most": 1}]}, "no oracle measures 'colour'"),
        ({"acquisition": {"weights": [1.0, 2.0]}}, "1 objectives, but 2 weights"),
        ({"generator_shares": {"floor": 0.6}}, "cannot each keep"),
        ({"space": {"together": [{"elements": ["Ni", "Mo"]}]}}, "Mo"),
        ({"feasibility": {"use": "feasability_gp"}}, "did you mean 'feasibility_gp'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        _ = load(tmp_path, **change).parts
    assert message in raised.value.message + (raised.value.hint or "")


def test_sums_of_fractions_are_bounded_everywhere() -> None:
    space = SearchSpace(("Ni", "Fe", "Cr"), together=(Together(("Ni", "Fe"), 0.5, 0.75),))
    context = GenerationContext(space=space, objective=Objective("x", "maximize"))
    drawn = RandomAlloy(RandomAlloyConfig(repeats=(2, 2, 2))).generate(
        40, rng=np.random.default_rng(0), context=context
    )
    for crystal, _ in drawn:
        share = np.isin(crystal.numbers, [28, 26]).mean()
        assert 0.5 <= share <= 0.75
        assert space.violation(crystal.symbols) == ""
    assert "Ni + Fe at 25.0 at%, allowed 50 to 75 at%" in space.violation(["Cr"] * 3 + ["Ni"])


def test_a_value_is_matched_and_ends_the_campaign(small: Make) -> None:
    campaign = small(
        objective={"direction": "match", "value": -0.7, "target": 0.02}, budget={"labels": 40}
    )
    assert campaign.run().startswith("target reached")
    state = campaign.state()
    best = ranking.best(state, campaign.wanted)
    assert best is not None
    assert abs(best.values["energy_per_atom"] + 0.7) <= 0.02


def test_exploration_is_drawn_at_random_and_told(small: Make) -> None:
    campaign = small(acquisition={"exploration": 0.4})
    campaign.run()
    rounds = [
        record
        for record in campaign.state().rounds
        if record.decided is not None and record.decided.model is not None
    ]
    explorers = [
        c for r in rounds if r.decided for c in r.decided.choices if c.reason == ev.EXPLORATION
    ]
    assert len(explorers) >= len(rounds)
    for record in rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


def test_generators_are_asked_by_what_they_brought(small: Make) -> None:
    settings = {
        "generators": [
            {"use": "random_alloy", "count": 20, "params": {"repeats": [2, 2, 1]}},
            {"use": "random_alloy", "name": "poor", "count": 20, "params": {"repeats": [1, 1, 1]}},
        ],
        "generator_shares": {"floor": 0.1},
        "budget": {"labels": 34},
    }
    campaign = small(**settings)
    campaign.run()
    state = campaign.state()
    asked = [{event.generator: event.asked for event in record.proposed} for record in state.rounds]
    assert asked[0] == {"random_alloy": 20, "poor": 20}
    assert all(min(row.values()) >= 4 for row in asked), "each keeps its floor"
    config, oracle = campaign.loaded.config, objective_oracle(campaign.loaded)
    for record, row in zip(state.rounds, asked, strict=True):
        assert (
            shares.counts(fold_before(campaign, record.sequence), config, oracle, record.sequence)
            == row
        )
    found = shares.yields(state, config, oracle, state.sequence)
    better = max(found, key=lambda name: found[name].rate)
    assert asked[-1][better] > 20
    assert "gain per second" in page_of(campaign)
    assert "Which generator was asked" in page_of(campaign)


def page_of(campaign: Campaign) -> str:
    with campaign.view() as view:
        return write_report(view, campaign.folder).read_text()


def test_the_pareto_front_is_what_nothing_beats() -> None:
    gains = np.array([[0.0, 3.0], [1.0, 2.0], [1.0, 1.0], [3.0, 0.0], [0.5, 2.5], [1.0, 2.0]])
    assert is_on_front(gains).tolist() == [True, True, False, True, True, True]


def fold_before(campaign: Campaign, sequence: int) -> CampaignState:
    reader = campaign.reader()
    try:
        return reader.fold(until=sequence)
    finally:
        reader.close()


def test_deviations_are_scaled_where_predictions_were_off(small: Make) -> None:
    campaign = small(
        budget={"labels": 49},
        acquisition={"recalibrate": True},
        surrogate={"params": {"kernel": "rbf"}},
    )
    campaign.run()
    state, oracle = campaign.state(), objective_oracle(campaign.loaded)
    for record in state.rounds:
        assert record.decided is not None
        found = calibration.scales(
            state_before(state, record.index), campaign.loaded.config, oracle, record.sequence
        )
        assert record.decided.scales == (found if record.fitted is not None else {})
        assert replay(campaign, record.index) == record.decided.choices


def state_before(state: CampaignState, index: int) -> CampaignState:
    earlier = CampaignState()
    earlier.rounds, earlier.labels = state.rounds[:index], state.labels
    return earlier


def test_calibration_of_a_known_sample() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=4000)
    right = [
        calibration.Prediction(0, "", m, 0.5, m + 0.5 * z)
        for m, z in zip(mean, rng.standard_normal(4000), strict=True)
    ]
    figures = calibration.calibration(right)
    assert figures["rmse"] == pytest.approx(0.5, rel=0.03)
    assert figures["sharpness"] == 0.5
    for level in (50, 90, 95):
        assert figures[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.02)
    sure = [calibration.Prediction(0, "", item.mean, 0.1, item.value) for item in right]
    assert calibration.calibration(sure)["coverage_90"] < 0.35
    assert (
        calibration.calibration(sure)["negative_log_likelihood"]
        > figures["negative_log_likelihood"]
    )
