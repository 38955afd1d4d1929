"""Whole campaigns in every order in which results can arrive: they end, choose no pair twice, keep
their budget, and replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from interleaving import SCENARIOS, InterleavingExecutor

from campaign.api import Campaign
from campaign.decide.replay import replay


def run_interleaved(
    campaign: Campaign, seed: int, monkeypatch: pytest.MonkeyPatch
) -> InterleavingExecutor:
    executor = InterleavingExecutor(seed)
    monkeypatch.setattr("campaign.executors.make_executor", lambda *_, **__: executor)
    campaign.run()
    return executor


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 20))]
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_order_of_results_ends_within_the_budget_and_replays(
    small: Callable[..., Campaign], scenario: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(seed=seed, mode="streaming", budget={"labels": 21}, **SCENARIOS[scenario])
    run_interleaved(campaign, seed, monkeypatch)
    state = campaign.state()
    chosen = Counter(
        (c.candidate, c.oracle)
        for record in state.rounds
        if record.decided
        for c in record.decided.choices
    )
    assert max(chosen.values()) == 1
    assert not state.pending
    assert set(chosen) == {(label.candidate, label.oracle) for label in state.own_labels} | set(
        state.quarantined
    )
    assert 19 <= len(state.own_labels) <= 21
    for record in state.rounds:
        if record.decided is not None:
            assert replay(campaign, record.index) == record.decided.choices
