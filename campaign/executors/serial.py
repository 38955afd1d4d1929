"""The serial executor: the reference semantics. One evaluation at a time, in a process that can be
killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from campaign.errors import SurroundingsError
from campaign.executors.process import WorkerProcess
from campaign.executors.worker import ComputeWorker, kept_value
from campaign.protocols import EvaluationJob, FinishedJob, Handle, Kept, OracleSpec, Stored

_IDLE_SECONDS = 0.02


@dataclass(frozen=True)
class Done:
    """A handle whose value, or what was raised in its place, is there."""

    value: Any
    error: Exception | None = None

    def is_done(self) -> bool:
        return True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value.told if isinstance(self.value, Kept) else self.value

    @property
    def kept(self) -> Any:
        """What later computations get; raises as ``result``."""
        self.result()
        return kept_value(self.value)


def computed(worker: ComputeWorker, function: Callable[..., Any], arguments: Sequence[Any]) -> Done:
    """Perform a computation at once; it ends as an input of its own did that failed."""
    try:
        return Done(worker.perform(function, *map(_resolved, arguments)))
    except Exception as error:
        return Done(None, error)


def _resolved(argument: Any) -> Any:
    if isinstance(argument, Stored):
        return argument.reader.crystals(argument.ids)
    return argument.kept if isinstance(argument, Done) else argument


class SerialExecutor:
    """One worker at a time; computations run at once in the driver, where nothing can end them."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._workers: dict[str, WorkerProcess] = {}
        self._busy: WorkerProcess | None = None
        self._compute = ComputeWorker(threads)

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        self._workers = {
            spec.name: WorkerProcess(spec, f"{spec.name}-0", self._threads) for spec in oracles
        }

    def run_all(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        cpus: float,
        gpus: float,
    ) -> list[Any]:
        """What each call of a function returns, in their order; the exception where one raised."""
        found: list[Any] = []
        for arguments in calls:
            try:
                found.append(function(*arguments))
            except Exception as error:
                found.append(error)
        return found

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the workers."""
        return tuple(pid for worker in self._workers.values() for pid in worker.pids)

    def free_workers(self, oracle: str) -> int:
        return 0 if self._busy is not None else 1

    def submit(self, *jobs: EvaluationJob) -> None:
        worker = self._workers[jobs[0].oracle]
        worker.submit(*jobs)
        self._busy = worker

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        """What finished, if anything; its worker starts meanwhile where there was none. Raises
        SurroundingsError where it cannot.
        """
        worker = self._busy
        if worker is None:
            if handle is None:
                time.sleep(min(timeout, _IDLE_SECONDS))
            return []
        try:
            finished = worker.wait(timeout if handle is None else 0.0)
        except SurroundingsError:
            self._busy = None
            raise
        if not worker.is_busy:
            self._busy = None
        return finished

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return computed(self._compute, function, arguments)

    def shutdown(self) -> None:
        for worker in self._workers.values():
            worker.close()
