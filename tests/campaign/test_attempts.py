"""Failed starts, by when they began."""

from __future__ import annotations

import pytest

from campaign.executors import attempts
from campaign.executors.attempts import Attempts


def test_starts_side_by_side_fail_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(attempts, "awake_seconds", lambda: now)
    starts = Attempts()
    for wave in range(1, 4):
        begun = now
        for later in (30.0, 0.5, 0.5, 20.0):
            now += later
            starts.failed(begun)
            assert starts.n == wave
    starts.succeeded()
    assert starts.n == 0


def test_one_after_another_each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(attempts, "awake_seconds", lambda: now)
    starts = Attempts()
    for n in range(1, 4):
        begun, now = now, now + 0.1
        starts.failed(begun)
        assert starts.n == n
