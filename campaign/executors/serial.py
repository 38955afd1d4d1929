"""The serial executor: the reference semantics. One evaluation at a time, in a child process that can be killed."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from campaign.errors import OreloopError, SurroundingsError
from campaign.executors.worker import ComputeWorker, OracleWorker
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.types import Cost, Evaluation, FailureKind

_DIE_WITH_PARENT = 1


def _serve(connection: Connection, spec: OracleSpec, threads: int) -> None:
    """The child's life: build the oracle, answer jobs, end with the parent."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        worker = OracleWorker(spec, f"{spec.name}-0", threads)
    except Exception as error:
        connection.send(error if isinstance(error, OreloopError) else SurroundingsError(f"{type(error).__name__}: {error}"))
        return
    connection.send(None)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(worker.evaluate(job))


@dataclass(frozen=True)
class Done:
    """A handle whose value is there."""

    value: Any

    def is_done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.value


@dataclass
class _Child:
    process: BaseProcess
    connection: Connection


class SerialExecutor:
    """One job at a time; computations run at once in the driver."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._context = multiprocessing.get_context("spawn")
        self._specs: dict[str, OracleSpec] = {}
        self._children: dict[str, _Child] = {}
        self._job: EvaluationJob | None = None
        self._started = 0.0
        self._compute = ComputeWorker(threads)

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        self._specs = {spec.name: spec for spec in oracles}

    def free_workers(self, oracle: str) -> int:
        return 0 if self._job is not None else 1

    def submit(self, job: EvaluationJob) -> None:
        child = self._children.get(job.oracle) or self._start_child(self._specs[job.oracle])
        self._job, self._started = job, time.time()
        child.connection.send(job)

    def _start_child(self, spec: OracleSpec) -> _Child:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, spec, self._threads), daemon=True)
        process.start()
        theirs.close()
        if not ours.poll(spec.start_limit):
            process.kill()
            raise SurroundingsError(f"oracle {spec.name} did not start within {spec.start_limit:g} s")
        try:
            error = ours.recv()
        except EOFError as ended:
            raise SurroundingsError(f"the worker of oracle {spec.name} died while it started (exit code {process.exitcode})") from ended
        if error is not None:
            raise error
        child = self._children[spec.name] = _Child(process, ours)
        return child

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        if self._job is None:
            return []
        job, child = self._job, self._children[self._job.oracle]
        limit = self._specs[job.oracle].wall_limit
        left = self._started + limit - time.time()
        try:
            if child.connection.poll(max(0.0, min(timeout, left))):
                return self._finish(child.connection.recv())
        except (EOFError, ConnectionResetError):
            child.process.join(5)
            self._discard(job.oracle)
            return self._finish(self._failed(FailureKind.CRASH, f"the worker died (exit code {child.process.exitcode})"))
        if time.time() - self._started >= limit:
            self._discard(job.oracle)
            return self._finish(self._failed(FailureKind.TIMEOUT, f"no answer within {limit:g} s; the worker was killed"))
        return []

    def _failed(self, kind: FailureKind, message: str) -> Evaluation:
        evaluation = Evaluation.failed(kind, message)
        cost = Cost(wall_seconds=time.time() - self._started, started=self._started, worker="serial")
        return Evaluation(failure=evaluation.failure, cost=cost)

    def _finish(self, evaluation: Evaluation) -> list[FinishedJob]:
        job, self._job = self._job, None
        assert job is not None
        return [FinishedJob(job, evaluation)]

    def _discard(self, oracle: str) -> None:
        child = self._children.pop(oracle)
        child.process.kill()
        child.process.join()
        child.connection.close()

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        values = [argument.value if isinstance(argument, Done) else argument for argument in arguments]
        return Done(self._compute.perform(function, *values))

    def shutdown(self) -> None:
        for oracle in list(self._children):
            self._discard(oracle)
