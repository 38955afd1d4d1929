"""The virtual executor: evaluations in the driver, their durations on a clock of their own, for
replays.

As many jobs as there are workers are under way at once; ``wait`` moves the clock to the end of the
first of them. Durations are those of the config's ``virtual`` section, with a log-normal spread
that the candidate decides; failures are drawn the same way.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from campaign.config.schema import VirtualConfig
from campaign.executors.serial import computed
from campaign.executors.worker import ComputeWorker, OracleWorker
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.seeds import generator
from campaign.types import Cost, Evaluation, FailureKind


class VirtualExecutor:
    def __init__(self, config: VirtualConfig, threads: int = 1) -> None:
        self._config, self._threads = config, threads
        self._workers: dict[str, OracleWorker] = {}
        self._free: dict[str, int] = {}
        self._under_way: list[tuple[float, int, FinishedJob]] = []
        self._last: set[tuple[float, int]] = set()
        """Ends of the last job of each worker."""
        self._count = 0
        self._compute = ComputeWorker(threads)
        self.clock = 0.0
        """Seconds of virtual time."""

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        self._workers = {
            spec.name: OracleWorker(spec, spec.name, self._threads) for spec in oracles
        }
        self._free = {spec.name: spec.workers for spec in oracles}

    def free_workers(self, oracle: str) -> int:
        return self._free[oracle]

    def submit(self, *jobs: EvaluationJob) -> None:
        """Jobs that go together begin at once, each with a duration of its own; their worker is
        free when the last has ended.
        """
        self._free[jobs[0].oracle] -= 1
        together = {job.key: job for job in jobs}
        ends = [
            self._begin(together[key], evaluation)
            for key, evaluation in self._workers[jobs[0].oracle].evaluate_many(jobs)
        ]
        self._last.add(max(ends))

    def _begin(self, job: EvaluationJob, evaluation: Evaluation) -> tuple[float, int]:
        """When it ends, and its place among those that end then."""
        rng = generator(f"virtual/{job.key}")
        if rng.random() < self._config.failures.get(job.oracle, 0.0):
            evaluation = Evaluation.failed(FailureKind.CRASH, "drawn to fail", retryable=False)
        seconds = self._config.seconds.get(job.oracle, 1.0) * math.exp(
            self._config.spread * rng.standard_normal()
        )
        cost = Cost(
            wall_seconds=seconds, cpu_seconds=seconds, started=self.clock, worker=job.oracle
        )
        self._count += 1
        end = self.clock + seconds, self._count
        heapq.heappush(self._under_way, (*end, FinishedJob(job, replace(evaluation, cost=cost))))
        return end

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        """The first job to end."""
        if not self._under_way:
            return []
        self.clock, number, finished = heapq.heappop(self._under_way)
        if (self.clock, number) in self._last:
            self._last.remove((self.clock, number))
            self._free[finished.job.oracle] += 1
        return [finished]

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return computed(self._compute, function, arguments)

    def shutdown(self) -> None:
        self._workers.clear()
