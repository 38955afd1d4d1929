"""Failure is a value: an oracle that fails two times in five, in five ways, and a campaign that
finishes all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from user_oracles_access import fate

from campaign.api import Campaign
from campaign.errors import StoppedByFailuresError, SurroundingsError

FAILING = [
    {
        "use": "user_oracles:Failing",
        "wall_limit": 1.5,
        "cpus": 0.5,
        "sanity": {"energy_per_atom": [-10, 10]},
    }
]
KIND = {
    "exit": "crash",
    "hang": "timeout",
    "exception": "crash",
    "nan": "unphysical",
    "impossible": "unphysical",
}


@pytest.mark.parametrize(("executor", "workers"), [("serial", 1), ("ray", 2)])
def test_campaign_finishes_its_budget_through_failures(
    small: Callable[..., Campaign], executor: str, workers: int
) -> None:
    changes: dict[str, Any] = {
        "executor": {"use": executor},
        "oracles": [{**FAILING[0], "workers": workers}],
    }
    campaign = small(
        mode="streaming", budget={"labels": 20}, failure_policy={"crash": {"retries": 1}}, **changes
    )
    started = time.monotonic()
    assert campaign.run().startswith("budget spent: 20 labels")
    elapsed = time.monotonic() - started
    state = campaign.state()
    assert {fate(candidate) for candidate, _ in state.labels} == {"label"}
    assert not set(state.labels) & state.quarantined.keys()
    for _, _, event in state.failures:
        assert event.kind == KIND[fate(event.candidate)]
        assert event.message
    crashes = [event for _, _, event in state.failures if event.kind == "crash"]
    assert all(event.attempt <= 1 for event in crashes)
    assert sum(event.is_quarantined for event in crashes) == len(
        {event.candidate for event in crashes}
    )
    hangs = [event for _, _, event in state.failures if event.kind == "timeout"]
    assert all(1.4 <= event.wall_seconds <= 4.0 for event in hangs)
    assert len({event.kind for _, _, event in state.failures}) == 3
    assert elapsed < 60


def test_an_oracle_that_always_fails_is_paused_and_says_so(small: Callable[..., Campaign]) -> None:
    oracle = {"use": "lennard_jones", "sanity": {"energy_per_atom": [100, 200]}}
    campaign = small(oracles=[oracle], failure_policy={"window": 5, "pause_above": 0.5})
    with pytest.raises(
        StoppedByFailuresError,
        match="100% of its last 5 attempts failed, allowed 50%; most often unphysical: ",
    ):
        campaign.run()
    state = campaign.state()
    assert not state.labels
    assert state.session_ended is not None
    assert "paused" in state.session_ended.reason


def test_softer_settings_are_used_on_a_retry(small: Callable[..., Campaign]) -> None:
    """With the first cutoff every energy is refused; the retry's cutoff gives believable ones."""
    oracle = {
        "use": "lennard_jones",
        "params": {"epsilon": 1e6},
        "sanity": {"energy_per_atom": [-10, 10]},
    }
    policy = {"unphysical": {"retries": 1, "softer": [{"epsilon": 0.1}]}, "pause_above": 1.0}
    campaign = small(oracles=[oracle], failure_policy=policy, budget={"labels": 5})
    campaign.run()
    assert {label.attempt for label in campaign.state().labels.values()} == {1}


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_an_oracle_that_cannot_start_is_an_error_of_the_surroundings(
    small: Callable[..., Campaign], executor: str
) -> None:
    oracle = {"use": "user_oracles:Unstartable", "cpus": 0.5}
    with pytest.raises(SurroundingsError, match="only starts in the driver"):
        small(executor={"use": executor}, oracles=[oracle]).run()
