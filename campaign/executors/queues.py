"""An executor beside batch queues: some oracles' labels are jobs of a queue, all else is the
executor's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.clock import awake_seconds
from campaign.config.schema import QueueConfig
from campaign.errors import SurroundingsError
from campaign.executors.oracle_queue import (
    FAILED,
    OracleQueue,
    cancel,
    folder_name,
    note_of,
    put_away,
)
from campaign.executors.queued import ANSWER, REQUEST
from campaign.protocols import EvaluationJob, Executor, FinishedJob, Handle, OracleSpec


class WithQueues:
    """``queues``: by oracle; their jobs lie in ``folder``, which the nodes see by the same path."""

    def __init__(
        self, inner: Executor, queues: Mapping[str, QueueConfig], folder: Path, threads: int
    ) -> None:
        self._inner, self._configs, self._folder, self._threads = inner, queues, folder, threads
        self._queues: dict[str, OracleQueue] = {}
        self._n_inner = 0

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        """Raises SurroundingsError where a scheduler cannot be asked from this machine."""
        for name, config in self._configs.items():
            if reason := config.lacking:
                raise SurroundingsError(
                    f"oracle {name}: {reason}",
                    hint="run the campaign where jobs are submitted, such as a login node",
                )
        queued = [spec for spec in oracles if spec.name in self._configs]
        self._queues = {
            spec.name: OracleQueue(spec, self._configs[spec.name], self._folder, self._threads)
            for spec in queued
        }
        self._inner.start([spec for spec in oracles if spec.name not in self._configs])

    def take_up(self, jobs: Sequence[EvaluationJob]) -> list[EvaluationJob]:
        """Wait again for those that an earlier driver made jobs of; cancel whatever else is in the
        queue.
        """
        wanted = {
            self._folder / folder_name(job.key): job for job in jobs if job.oracle in self._queues
        }
        taken = [job for folder, job in wanted.items() if (folder / REQUEST).exists()]
        unwanted: dict[str, dict[Path, str]] = defaultdict(dict)
        schedulers: set[str] = {config.scheduler for config in self._configs.values()}
        for folder in self._folder.iterdir() if self._folder.exists() else ():
            if folder in wanted or folder.name == FAILED:
                continue
            note = note_of(folder)
            if (folder / ANSWER).exists():
                put_away(folder, keep=False)
            elif note is not None:
                unwanted[note.scheduler][folder] = note.identity
            else:
                for scheduler in schedulers:
                    unwanted[scheduler][folder] = ""
        for scheduler, found in unwanted.items():
            cancel(found, scheduler)
        for job in taken:
            self._queues[job.oracle].submit(job)
        return taken

    def not_begun(self) -> list[EvaluationJob]:
        return [job for queue in self._queues.values() for job in queue.not_begun()]

    def withdraw(self, keys: Collection[str]) -> None:
        for queue in self._queues.values():
            queue.withdraw(keys)

    def let_go(self, *, is_wanted: bool) -> list[EvaluationJob]:
        return [job for queue in self._queues.values() for job in queue.let_go(is_wanted=is_wanted)]

    def free_workers(self, oracle: str) -> int:
        return (
            self._queues[oracle].free
            if oracle in self._queues
            else self._inner.free_workers(oracle)
        )

    def submit(self, *jobs: EvaluationJob) -> None:
        if (queue := self._queues.get(jobs[0].oracle)) is not None:
            for job in jobs:
                queue.submit(job)
        else:
            self._inner.submit(*jobs)
            self._n_inner += len(jobs)

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        until = awake_seconds() + timeout
        finished = [item for queue in self._queues.values() for item in queue.look()]
        answered = self._inner.wait(0.0 if finished else timeout, handle)
        self._n_inner -= len(answered)
        if not (finished or answered or self._n_inner) and handle is None:
            time.sleep(max(0.0, until - awake_seconds()))
        return [*finished, *answered]

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self._inner.compute(function, *arguments)

    def shutdown(self) -> None:
        """Jobs stay in the queue, for the next driver."""
        self._inner.shutdown()
