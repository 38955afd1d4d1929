"""Whole campaigns in every order in which results can arrive: they end, choose no pair twice, keep their budget, and replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from interleaving import InterleavingExecutor

from campaign.api import Campaign
from campaign.replay import replay

ALLOYS = [{"use": "random_alloy", "count": 30, "params": {"repeats": [2, 2, 1], "lattices": ["bcc"]}}]
TWO_LEVELS = [
    {"use": "lennard_jones", "name": "cheap", "workers": 3},
    {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.2, "cutoff": 8.0}, "workers": 2},
]
ALIKE = [{"use": "lennard_jones", "name": "one", "workers": 2}, {"use": "lennard_jones", "name": "other", "workers": 3}]
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {"generators": ALLOYS, "oracles": [{"use": "lennard_jones", "workers": 4}], "surrogate": {"params": {"max_iterations": 5}}},
    "gates": {
        "generators": ALLOYS,
        "surrogate": {"params": {"max_iterations": 5}},
        "oracles": TWO_LEVELS,
        "fidelities": {
            "levels": [{"oracle": "cheap"}, {"oracle": "dear", "gate": {"best_fraction": 0.4}}],
            "audit": {"every": 2, "sample": 1},
        },
    },
    "levels": {
        "generators": ALLOYS,
        "surrogate": {"use": "multi_task_gp", "params": {"max_iterations": 5}},
        "acquisition": {"initial_labels": 6, "batch_size": 4, "shortlist": 15},
        "oracles": TWO_LEVELS,
        "fidelities": {
            "mode": "acquisition",
            "levels": [{"oracle": "cheap", "cost": 1.0}, {"oracle": "dear", "cost": 3.0}],
            "audit": {"every": 3, "sample": 1},
        },
    },
    "committee": {
        "generators": ALLOYS,
        "surrogate": None,
        "committee": {"use": "user_committee:Tiny"},
        "acquisition": {"use": "query_by_committee"},
        "oracles": [{"use": "lennard_jones", "workers": 4}],
    },
    "two oracles": {"generators": ALLOYS, "oracles": ALIKE, "surrogate": {"params": {"max_iterations": 5}}},
}


def run_interleaved(campaign: Campaign, seed: int, monkeypatch: pytest.MonkeyPatch) -> InterleavingExecutor:
    executor = InterleavingExecutor(seed)
    monkeypatch.setattr("campaign.executors.make_executor", lambda *_, **__: executor)
    campaign.run()
    return executor


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_order_of_results_ends_within_the_budget_and_replays(
    small: Callable[..., Campaign], scenario: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(seed=seed, mode="streaming", budget={"labels": 21}, **SCENARIOS[scenario])
    run_interleaved(campaign, seed, monkeypatch)
    state = campaign.state()
    chosen = Counter((c.candidate, c.oracle) for record in state.rounds if record.decided for c in record.decided.choices)
    assert max(chosen.values()) == 1
    assert not state.pending
    assert set(chosen) == {(label.candidate, label.oracle) for label in state.own_labels} | set(state.quarantined)
    assert 19 <= len(state.own_labels) <= 21
    for record in state.rounds:
        if record.decided is not None:
            assert replay(campaign, record.index) == record.decided.choices
