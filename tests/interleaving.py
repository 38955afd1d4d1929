"""An executor of every order in which results can arrive: what Ray may do, without Ray, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from campaign.executors.serial import Done
from campaign.executors.virtual import VirtualExecutor
from campaign.protocols import FinishedJob, Handle
from campaign.schema import VirtualConfig

_IDLE_WAITS = 20


@dataclass(frozen=True)
class Later(Done):
    """A computation that ends with a wait of its executor."""

    executor: InterleavingExecutor
    due: int

    def is_done(self) -> bool:
        return self.executor.waits >= self.due


class InterleavingExecutor(VirtualExecutor):
    """The virtual executor, whose computations end after a seeded number of waits while labels arrive.

    Raises AssertionError where nothing is under way for many waits in a row: elsewhere the campaign would hang.
    """

    def __init__(self, seed: int, config: VirtualConfig | None = None) -> None:
        super().__init__(config or VirtualConfig(spread=0.8))
        self._random, self._idle, self.waits = random.Random(seed), 0, 0

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return Later(super().compute(function, *arguments).result(), self, self.waits + self._random.choice((0, 1, 3, 9)))

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        self.waits += 1
        finished = super().wait(timeout) if self._random.random() < 0.7 else []
        self._idle = 0 if finished or self._under_way or (handle is not None and not handle.is_done()) else self._idle + 1
        assert self._idle < _IDLE_WAITS, "nothing is under way and nothing will be: the campaign waits for ever"
        return finished
