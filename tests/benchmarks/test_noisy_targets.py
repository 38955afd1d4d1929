"""What the levels of the decisions' benchmark have to find where labels are noisy."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from benchmarks import decisions
from campaign.backtest.figures import Run, calls_to
from campaign.backtest.replay import Outcome
from campaign.types import Objective


def test_the_luckiest_label_is_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call has the highest label, the fourth the highest mean of repeats."""
    labels, means = [150.0, 160.0, 199.0, 180.0], [151.0, 159.0, 170.0, 181.0]
    rows = [
        Atoms(info={"warm": one, "warm_mean": mean, "warm_deviation": 1.6})
        for one, mean in zip(labels, means, strict=True)
    ]
    monkeypatch.setattr(decisions, "frames", lambda name: rows)
    steps = np.arange(5.0)
    values = np.array([np.nan, *labels])
    more = Objective("value", "maximize")
    seen = Outcome(more, (Run("s", 1, values, steps, steps),), 199.0, 199.0, 1, ())
    outcome = decisions.by_means(seen, "thermal_repeated", top=0.25)
    assert outcome.target == 181.0
    assert calls_to(outcome.runs[0], more, outcome.target) == 5
    assert calls_to(seen.runs[0], more, seen.target) == 4
    assert decisions.scatter("thermal_repeated") == pytest.approx(1.6)
