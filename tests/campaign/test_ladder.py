"""The ladder: who climbs, that levels stay apart, references, audits, budgets, and resuming in the
middle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import HELPERS, load, merged

from campaign.api import Campaign
from campaign.decide import ladder, ranking
from campaign.decide.replay import replay
from campaign.errors import InputError

LADDER: dict[str, Any] = {
    "space": {"elements": ["Fe", "Ni"], "max_fraction": 0.8},
    "objective": {"quantity": "formation_energy_per_atom", "direction": "minimize"},
    "generators": [{"use": "ordered_alloy", "count": 80, "params": {"atoms": [2, 3]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 6, "batch_size": 4},
    "budget": {"labels": None, "rounds": 4},
    "oracles": [
        {"use": "lennard_jones", "name": "cheap"},
        {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.2, "cutoff": 8.0}},
    ],
    "fidelities": {
        "levels": [
            {"oracle": "cheap"},
            {"oracle": "dear", "gate": {"best_fraction": 0.25}, "labels": 4},
        ],
        "audit": {"every": 2, "sample": 1},
    },
}


def test_the_best_climb_and_levels_are_not_mixed(small: Callable[..., Campaign]) -> None:
    campaign = small(**LADDER)
    assert campaign.run() == "budget spent: 4 rounds"
    state = campaign.state()
    cheap = {label.candidate: label for label in state.labels.values() if label.oracle == "cheap"}
    dear = {label.candidate: label for label in state.labels.values() if label.oracle == "dear"}
    references = {candidate for candidate, oracle in state.requested if oracle == "dear"}
    assert {
        state.candidates[candidate].equivalence.partition(":")[0] for candidate in references
    } == {"Fe1", "Ni1"}
    assert references <= dear.keys()
    climbed = dear.keys() - references
    assert len(climbed) == 4, "as many as the level may have"
    assert climbed <= cheap.keys(), "nobody climbs without a label below"
    for record in state.rounds:
        assert record.decided is not None
        for choice in record.decided.choices:
            if choice.oracle == "dear":
                assert choice.reason in ("gate", "audit")
                assert cheap[choice.candidate].sequence < record.sequence, (
                    "decided from labels that stood before the round"
                )
    by_gate = [
        c for r in state.rounds if r.decided for c in r.decided.choices if c.reason == "gate"
    ]
    assert by_gate
    assert all(
        choice.score == pytest.approx(cheap[choice.candidate].values["formation_energy_per_atom"])
        for choice in by_gate
    )
    assert {label.fidelity for label in cheap.values()}.isdisjoint(
        label.fidelity for label in dear.values()
    )
    assert state.rounds[-1].decided is not None
    assert state.rounds[-1].decided.costs.keys() == {"cheap", "dear"}


def test_formation_energies_refer_to_the_elements_at_the_same_level(
    small: Callable[..., Campaign],
) -> None:
    campaign = small(**LADDER)
    campaign.run()
    state = campaign.state()
    for oracle in ("cheap", "dear"):
        elements = {element: energy for element, (energy, _) in state.elemental[oracle].items()}
        for label in state.labels.values():
            if label.oracle == oracle:
                shares = state.composition(label.candidate)
                expected = label.values["energy_per_atom"] - sum(
                    x * elements[e] for e, x in shares.items()
                )
                assert label.values["formation_energy_per_atom"] == pytest.approx(expected)
        assert all(
            row.quantity != "formation_energy_per_atom"
            for label in state.labels.values()
            for row in label.observations
        )
    best = min(
        (label for label in state.labels.values() if label.oracle == "dear"),
        key=lambda label: label.values["formation_energy_per_atom"],
    )
    assert ranking.best(state, campaign.wanted) is best


def test_an_audit_scores_a_random_sample_one_level_up(small: Callable[..., Campaign]) -> None:
    campaign = small(
        **merged(
            LADDER, {"fidelities": {"audit": {"every": 1, "sample": 2}}, "budget": {"rounds": 6}}
        )
    )
    campaign = small(
        "other",
        **{
            **LADDER,
            "fidelities": {
                **LADDER["fidelities"],
                "levels": [
                    {"oracle": "cheap"},
                    {"oracle": "dear", "gate": {"threshold": -99.0}},
                ],
                "audit": {"every": 1, "sample": 2},
            },
        },
    )
    campaign.run()
    state = campaign.state()
    reasons = [
        choice.reason
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
    ]
    assert "gate" not in reasons, "nobody passes this threshold"
    assert reasons.count("audit") == 6, "two a round, from the second round on"
    rows = {row.chemistry: row for row in ladder.agreement(state, campaign.loaded.config)}
    assert rows["all"].n == 6
    pairs = [
        (
            state.labels[candidate, "cheap"].values["formation_energy_per_atom"],
            label.values["formation_energy_per_atom"],
        )
        for (candidate, oracle), label in state.labels.items()
        if oracle == "dear" and not label.purpose
    ]
    assert rows["all"].bias == pytest.approx(sum(high - low for low, high in pairs) / 6)
    assert rows["Fe-Ni"].rank_correlation == rows["all"].rank_correlation
    assert "audit/cheap-dear/all/bias" in ladder.figures(state, campaign.loaded.config)


def test_an_audit_takes_of_each_generator_to_each_level_where_a_model_chooses_levels(
    small: Callable[..., Campaign],
) -> None:
    both = [
        {"use": "ordered_alloy", "name": "few", "count": 5, "params": {"atoms": [2, 3]}},
        {
            "use": "random_alloy",
            "name": "many",
            "count": 60,
            "params": {"lattices": ["fcc"], "repeats": [1, 1, 2]},
        },
    ]
    campaign = small(
        **merged(
            LADDER,
            {
                "generators": both,
                "surrogate": {"use": "multi_task_gp", "params": {"max_iterations": 20}},
                "acquisition": {"use": "log_noisy_expected_improvement", "batch_size": 3},
                "fidelities": {
                    "mode": "acquisition",
                    "levels": [
                        {"oracle": "cheap", "cost": 1.0},
                        {"oracle": "dear", "cost": 100.0, "labels": 12},
                    ],
                    "audit": {"every": 1, "sample": 1, "each_generator": True},
                },
            },
        )
    )
    campaign.run()
    state = campaign.state()
    for record in state.rounds[1:]:
        assert record.decided is not None
        audited = [choice for choice in record.decided.choices if choice.reason == "audit"]
        at = {(state.source_of(choice.candidate), choice.oracle) for choice in audited}
        assert len(at) == len(audited), "one of each generator at each level"
        assert replay(campaign, record.index) == record.decided.choices
    pairs = {
        (state.source_of(candidate), oracle)
        for (candidate, oracle), label in state.labels.items()
        if not label.purpose
    }
    assert pairs == {(name, oracle) for name in ("few", "many") for oracle in ("cheap", "dear")}


COMMITTEE_ORACLE = {"use": "mace", "params": {"committee": True}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"oracles": [{"use": "lennard_jones", "name": "cheap"}, COMMITTEE_ORACLE]},
            "there is no committee",
        ),
        (
            {
                "oracles": [COMMITTEE_ORACLE],
                "fidelities": None,
                "committee": {"use": "mace_committee"},
            },
            "no level below it to learn from",
        ),
        (
            {
                "oracles": [COMMITTEE_ORACLE, {"use": "lennard_jones", "name": "cheap"}],
                "fidelities": {
                    "levels": [{"oracle": "mace"}, {"oracle": "cheap", "gate": {"threshold": 1}}]
                },
                "committee": {"use": "mace_committee"},
            },
            "learns from the first level",
        ),
        (
            {
                "oracles": [{"use": "mace", "params": {"committee": True, "foundation": "small"}}],
                "fidelities": None,
            },
            "give one of model",
        ),
    ],
)
def test_an_oracle_that_asks_the_committee_needs_one_and_a_level_to_learn_from(
    changes: dict[str, Any], message: str
) -> None:
    document = merged(
        LADDER,
        {
            "fidelities": {
                "levels": [{"oracle": "cheap"}, {"oracle": "mace", "gate": {"threshold": 1}}]
            }
        },
    )
    with pytest.raises(InputError, match=message):
        assert load(HELPERS, **merged(document, changes)).parts


def test_a_campaign_cut_short_goes_on_to_the_same_labels(small: Callable[..., Campaign]) -> None:
    whole = small("whole", **LADDER)
    whole.run()
    cut = small("cut", **merged(LADDER, {"budget": {"rounds": 2}}))
    cut.run()
    again = Campaign(cut.folder, load(HELPERS, **LADDER))
    again.run()
    assert again.state().labels.keys() == whole.state().labels.keys()
    for record in whole.state().rounds:
        assert record.decided is not None
        assert replay(whole, record.index) == record.decided.choices


def test_a_reference_that_fails_stops_the_campaign_with_the_reason(
    small: Callable[..., Campaign],
) -> None:
    from campaign.errors import StoppedByFailuresError

    campaign = small(
        **merged(
            LADDER,
            {
                "fidelities": None,
                "oracles": [{"use": "lennard_jones", "sanity": {"energy_per_atom": [5, 6]}}],
            },
        )
    )
    with pytest.raises(StoppedByFailuresError, match="failed on the elements' reference"):
        campaign.run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": [{"oracle": "cheap"}]}, "at least 2"),
        ({"levels": [{"oracle": "cheap"}, {"oracle": "dear"}]}, "needs a gate"),
        (
            {
                "levels": [
                    {"oracle": "cheap", "gate": {"threshold": 1}},
                    {"oracle": "dear", "gate": {"threshold": 1}},
                ]
            },
            "has no level below",
        ),
        ({"levels": [{"oracle": "cheap"}, {"oracle": "deer", "gate": {"threshold": 1}}]}, "dear"),
        (
            {"levels": [{"oracle": "cheap"}, {"oracle": "dear", "gate": {}}]},
            "threshold or best_fraction",
        ),
        (
            {
                "levels": [
                    {"oracle": "cheap"},
                    {"oracle": "dear", "gate": {"quantity": "bulk_modulus", "threshold": 1}},
                ]
            },
            "does not measure bulk_modulus",
        ),
        (
            {"mode": "acquisition", "levels": [{"oracle": "cheap"}, {"oracle": "dear"}]},
            "models several levels at once",
        ),
    ],
)
def test_wrong_ladders_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assert load(HELPERS, **merged(LADDER, {"fidelities": changes})).parts


def test_costs_are_declared_or_learned(small: Callable[..., Campaign]) -> None:
    levels = [
        {"oracle": "cheap", "cost": 3.0},
        {"oracle": "dear", "gate": {"best_fraction": 0.25}, "labels": 2},
    ]
    campaign = small(**merged(LADDER, {"fidelities": {"levels": levels}, "budget": {"rounds": 2}}))
    campaign.run()
    found = ladder.costs(campaign.state(), campaign.loaded.config)
    assert found["cheap"] == 3.0
    assert 0 < found["dear"] < 3.0


def test_a_level_begins_from_what_the_level_below_relaxed(small: Callable[..., Campaign]) -> None:
    """The dear level without relaxation labels the relaxed crystal: its energy there, and not that
    of the proposed one.
    """
    oracles = [
        {"use": "lammps", "name": "cheap", "params": {"potential": "wu_lee_su_2017"}},
        {
            "use": "lammps",
            "name": "dear",
            "params": {"potential": "wu_lee_su_2017", "relax": "none"},
        },
    ]
    energies = {}
    for start in ("proposed", "relaxed"):
        levels = [
            {"oracle": "cheap"},
            {"oracle": "dear", "gate": {"best_fraction": 0.5}, "labels": 4, "start": start},
        ]
        campaign = small(
            **merged(
                LADDER,
                {
                    "oracles": oracles,
                    "name": start,
                    "fidelities": {"levels": levels, "audit": None},
                },
            )
        )
        campaign.run()
        state = campaign.state()
        pairs = [
            (state.labels[candidate, "cheap"], label)
            for (candidate, oracle), label in state.labels.items()
            if oracle == "dear"
        ]
        energies[start] = [
            (cheap.values["energy_per_atom"], dear.values["energy_per_atom"])
            for cheap, dear in pairs
        ]
    assert all(dear == pytest.approx(cheap, abs=1e-9) for cheap, dear in energies["relaxed"])
    assert any(dear > cheap + 1e-6 for cheap, dear in energies["proposed"])
    wrong = {
        "levels": [
            {"oracle": "cheap", "start": "relaxed"},
            {"oracle": "dear", "gate": {"best_fraction": 0.5}},
        ]
    }
    with pytest.raises(InputError, match="no level below it"):
        small(**merged(LADDER, {"fidelities": wrong}))
    oracles[1]["params"] = {"potential": "wu_lee_su_2017", "measure": ["proposed"]}
    levels = [
        {"oracle": "cheap"},
        {"oracle": "dear", "gate": {"best_fraction": 0.5}, "start": "relaxed"},
    ]
    with pytest.raises(InputError, match="measures the crystal as proposed"):
        _ = small(
            **merged(LADDER, {"oracles": oracles, "fidelities": {"levels": levels, "audit": None}})
        ).loaded.parts
