"""The serial executor: the reference semantics. One evaluation at a time, in a child process that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from campaign.errors import SurroundingsError
from campaign.executors.worker import ComputeWorker
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.types import Cost, Evaluation, FailureKind

_IDLE_SECONDS = 0.02


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
    process: subprocess.Popen[bytes]
    connection: Connection
    folder: tempfile.TemporaryDirectory[str]
    """Where it puts its temporary files: a worker that is killed cannot tidy up."""


class SerialExecutor:
    """One job at a time; computations run at once in the driver."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._specs: dict[str, OracleSpec] = {}
        self._children: dict[str, _Child] = {}
        self._job: EvaluationJob | None = None
        self._started = 0.0
        self._compute = ComputeWorker(threads)

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        self._specs = {spec.name: spec for spec in oracles}

    def run_all(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, cpus: float, gpus: float) -> list[Any]:
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
        return tuple(child.process.pid for child in self._children.values())

    def free_workers(self, oracle: str) -> int:
        return 0 if self._job is not None else 1

    def submit(self, job: EvaluationJob) -> None:
        child = self._children.get(job.oracle) or self._start_child(self._specs[job.oracle])
        self._job, self._started = job, time.time()
        child.connection.send(job)

    def _start_child(self, spec: OracleSpec) -> _Child:
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "campaign.executors.child", str(theirs.fileno())]
        folder = tempfile.TemporaryDirectory(prefix="oreloop-worker-", ignore_cleanup_errors=True)
        surroundings = os.environ | {"TMPDIR": folder.name}
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env=surroundings)
        theirs.close()
        ours.send((spec, self._threads))
        try:
            if not ours.poll(spec.start_limit):
                process.kill()
                raise SurroundingsError(f"oracle {spec.name} did not start within {spec.start_limit:g} s")
            error = ours.recv()
        except EOFError as ended:
            raise SurroundingsError(f"the worker of oracle {spec.name} died while it started (exit code {process.wait()})") from ended
        if error is not None:
            raise error
        child = self._children[spec.name] = _Child(process, ours, folder)
        return child

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        if self._job is None:
            if handle is None:
                time.sleep(min(timeout, _IDLE_SECONDS))
            return []
        job, child = self._job, self._children[self._job.oracle]
        limit = self._specs[job.oracle].wall_limit
        left = self._started + limit - time.time()
        try:
            if child.connection.poll(max(0.0, min(timeout, left))):
                return self._finish(child.connection.recv())
        except (EOFError, ConnectionResetError):
            self._discard(job.oracle)
            return self._finish(self._failed(FailureKind.CRASH, f"the worker died (exit code {child.process.returncode})"))
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
        child.process.wait()
        child.connection.close()
        child.folder.cleanup()

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        values = [argument.value if isinstance(argument, Done) else argument for argument in arguments]
        return Done(self._compute.perform(function, *values))

    def shutdown(self) -> None:
        for oracle in list(self._children):
            self._discard(oracle)
