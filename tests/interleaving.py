"""An executor of every order in which results can arrive: what Ray may do, without Ray, from a
seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from campaign.config.schema import VirtualConfig
from campaign.executors.serial import Done
from campaign.executors.virtual import VirtualExecutor
from campaign.protocols import FinishedJob, Handle

_IDLE_WAITS = 20

ALLOYS = [
    {"use": "random_alloy", "count": 30, "params": {"repeats": [2, 2, 1], "lattices": ["bcc"]}}
]
TWO_LEVELS = [
    {"use": "lennard_jones", "name": "cheap", "workers": 3},
    {
        "use": "lennard_jones",
        "name": "dear",
        "params": {"epsilon": 0.2, "cutoff": 8.0},
        "workers": 2,
    },
]
ALIKE = [
    {"use": "lennard_jones", "name": "one", "workers": 2},
    {"use": "lennard_jones", "name": "other", "workers": 3},
]
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {
        "generators": ALLOYS,
        "oracles": [{"use": "lennard_jones", "workers": 4}],
        "surrogate": {"params": {"max_iterations": 5}},
    },
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
    "batches": {
        "generators": ALLOYS,
        "surrogate": {"params": {"max_iterations": 5}},
        "oracles": [
            {
                "use": "user_oracles:Together",
                "workers": 2,
                "batch": 3,
                "params": {"log": os.devnull},
            }
        ],
    },
    "two oracles": {
        "generators": ALLOYS,
        "oracles": ALIKE,
        "surrogate": {"params": {"max_iterations": 5}},
    },
}


@dataclass(frozen=True, kw_only=True)
class Later(Done):
    """A computation that ends with a wait of its executor."""

    executor: InterleavingExecutor
    due: int

    def is_done(self) -> bool:
        return self.executor.waits >= self.due


class InterleavingExecutor(VirtualExecutor):
    """The virtual executor, whose computations end after a seeded number of waits while labels
    arrive.

    Raises AssertionError where nothing is under way for many waits in a row: elsewhere the campaign
    would hang.
    """

    def __init__(self, seed: int, config: VirtualConfig | None = None) -> None:
        super().__init__(config or VirtualConfig(spread=0.8))
        self._random, self._idle, self.waits = random.Random(seed), 0, 0

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        done = super().compute(function, *arguments)
        assert isinstance(done, Done)
        due = self.waits + self._random.choice((0, 1, 3, 9))
        return Later(**vars(done), executor=self, due=due)

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        self.waits += 1
        finished = super().wait(timeout) if self._random.random() < 0.7 else []
        self._idle = (
            0
            if finished or self._under_way or (handle is not None and not handle.is_done())
            else self._idle + 1
        )
        assert self._idle < _IDLE_WAITS, (
            "nothing is under way and nothing will be: the campaign waits for ever"
        )
        return finished
