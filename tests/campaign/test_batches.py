"""Campaigns whose workers take several crystals at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, label_set, load

from campaign.api import Campaign
from campaign.errors import InputError

RANDOM: dict[str, Any] = {"use": "random", "initial_labels": 8, "batch_size": 8}


def oracle(log: Path, batch: int, **params: Any) -> dict[str, Any]:
    return {"use": "user_oracles:Together", "batch": batch, "params": {"log": str(log), **params}}


def passes(log: Path) -> list[int]:
    return [
        int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("together")
    ]


def test_crystals_go_together_and_have_the_labels_that_they_have_alone(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    found = []
    for batch in (1, 5):
        campaign = small(
            f"by {batch}",
            oracles=[oracle(tmp_path / f"log{batch}", batch, seconds=0.01)],
            acquisition=RANDOM,
            surrogate=None,
        )
        campaign.run()
        found.append(label_set(campaign))
        labels = campaign.state().own_labels
        assert len(labels) == 24
        assert sum(label.wall_seconds for label in labels) > 24 * 0.01, "no time is lost"
        assert all(label.wall_seconds > 0.01 / batch for label in labels), "each has its part of it"
    assert found[0] == found[1]
    assert not passes(tmp_path / "log1")
    assert passes(tmp_path / "log5") == [5, 3, 5, 3, 5, 3]


def test_workers_share_what_waits(small: Callable[..., Campaign], tmp_path: Path) -> None:
    """Two workers of a virtual pool take four of eight each, though one could take all."""
    log = tmp_path / "log"
    workers = {**oracle(log, 32), "workers": 2}
    small(oracles=[workers], acquisition=RANDOM, surrogate=None, executor={"use": "virtual"}).run()
    assert passes(log) == [4] * 6


def test_what_failed_before_takes_nothing_with_it(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    """One kind of crystal kills its worker: it alone is given up, after tries by itself, and the
    labels of the others stand.
    """
    log = tmp_path / "log"
    deadly = {**oracle(log, 8), "use": "user_oracles:DeadlyTogether"}
    campaign = small(oracles=[deadly], acquisition=RANDOM, surrogate=None)
    campaign.run()
    state = campaign.state()
    assert state.quarantined
    assert not state.pending
    deaths = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("dies")]
    given_up = {candidate for candidate, _ in state.quarantined}
    assert set(deaths) == given_up
    assert {event.candidate for _, _, event in state.failures} == given_up
    assert all(event.kind == "crash" for _, _, event in state.failures)
    assert len(state.own_labels) == 24


def test_an_oracle_that_takes_one_at_a_time_is_told_so_before_anything_runs() -> None:
    loaded = load(HELPERS, oracles=[{"use": "lennard_jones", "batch": 4}])
    with pytest.raises(
        InputError, match="lennard_jones takes one crystal at a time, batch asks for 4"
    ):
        _ = loaded.parts
