"""A worker in a process of its own, which a limit, a signal or a crash ends without harm to whoever
asks it.

It runs in a session of its own, so that Ctrl-C and a closed terminal reach the driver alone, and
takes all that it started with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import replace
from multiprocessing import connection
from typing import Any

import psutil

from campaign import interpreters, plugins
from campaign.clock import awake_seconds
from campaign.errors import SurroundingsError
from campaign.executors import wire
from campaign.executors.door import GREETING
from campaign.executors.group import Group
from campaign.executors.leftovers import OwnedFolder, end
from campaign.protocols import EvaluationJob, FinishedJob, OracleSpec
from campaign.types import Cost, Evaluation, FailureKind

_START_ATTEMPTS = 3
_EXIT_SECONDS = 5.0
_STOPPED_SECONDS, _LOOK_SECONDS = 10.0, 1.0
STOPPED = "the worker died, stopped from outside and killed"
_OWN_FAULTS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGTRAP,
        signal.SIGPIPE,
    }
)
"""Signals that a program brings upon itself; the others come from outside."""


def death(returncode: int) -> tuple[FailureKind, str]:
    """Whose fault a process's end is, and how it is told."""
    if returncode >= 0:
        return FailureKind.CRASH, f"the worker died (exit code {returncode})"
    name = (
        signal.Signals(-returncode).name
        if -returncode in set(signal.Signals)
        else f"signal {-returncode}"
    )
    if -returncode in _OWN_FAULTS:
        return FailureKind.CRASH, f"the worker died ({name})"
    return FailureKind.INFRASTRUCTURE, f"the worker died, killed from outside ({name})"


def of_a_dead_worker(job: EvaluationJob, kind: FailureKind, message: str, cost: Cost) -> Evaluation:
    """What became of a job whose worker died under it; where the worker was fresh and its own, it
    is the candidate's doing.
    """
    if job.alone and kind is FailureKind.INFRASTRUCTURE:
        kind, message = FailureKind.CRASH, f"{message}, alone on a fresh worker"
    return replace(Evaluation.failed(kind, message), cost=cost)


def is_stopped(pid: int) -> bool:
    """Whether a process on this machine is stopped, as by SIGSTOP."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


class StoppedWatch:
    """Tells that a process on this machine is stopped and does not go on."""

    def __init__(self) -> None:
        self._looked = self._seen_running = awake_seconds()

    def is_stopped(self, pid: int) -> bool:
        now = awake_seconds()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._seen_running = self._seen_running if is_stopped(pid) else now
        return now - self._seen_running >= _STOPPED_SECONDS


class _DiedError(Exception):
    """The process is gone; holds its exit code."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode


class _Process:
    """The process with its pipes, and the folder for its temporary files: what is killed cannot
    tidy up.
    """

    def __init__(self, python: tuple[str, ...]) -> None:
        self.since, self.is_starting = awake_seconds(), True
        self._folder = OwnedFolder("worker")
        try:
            self._process = subprocess.Popen(
                interpreters.command(python, "work"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=interpreters.surroundings(python)
                | {"TMPDIR": str(self._folder.path)}
                | self._folder.surroundings,
                start_new_session=True,
            )
        except OSError:
            self._folder.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked = connection.Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._answers = connection.Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self._heard: bytes | None = b""
        """What came before the greeting; None once that was heard."""
        self._end = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Any) -> None:
        """Raises _DiedError."""
        try:
            self._asked.send_bytes(wire.pack(message))
        except ConnectionError as error:
            raise _DiedError(self._returncode()) from error

    def receive(self, timeout: float) -> tuple[Any] | None:
        """What it says within ``timeout`` seconds. Raises _DiedError; children that it leaves do
        not keep its end from being seen.
        """
        connection.wait([self._answers, self._end], timeout)
        try:
            if self._is_greeted() and self._answers.poll():
                return (wire.unpack(self._answers.recv_bytes()),)
        except (EOFError, ConnectionError) as error:
            raise _DiedError(self._returncode()) from error
        if not self.is_alive:
            raise _DiedError(self._returncode())
        return None

    def _is_greeted(self) -> bool:
        """Whether all that its command prints before our own program begins was passed over. Raises
        EOFError.
        """
        while self._heard is not None and self._answers.poll():
            byte = os.read(self._answers.fileno(), 1)
            if not byte:
                raise EOFError
            self._heard = self._heard[1 - len(GREETING) :] + byte
            if self._heard == GREETING:
                self._heard = None
        return self._heard is None

    def _returncode(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_EXIT_SECONDS)
        self._process.kill()
        return 0

    def stop(self) -> None:
        """End it with all that it started: its descendants, and those whose parents are gone
        already.
        """
        family = []
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            family = [*root.children(recursive=True), root]
        end(family)
        self._process.wait()
        os.close(self._end)
        self._asked.close()
        self._answers.close()
        self._folder.close()


class WorkerProcess:
    """One oracle worker: takes one job or several at a time, starts again after a death. Who
    submits does not wait for its start.
    """

    def __init__(self, spec: OracleSpec, name: str, threads: int) -> None:
        self._spec, self._name, self._threads = spec, name, threads
        self._process: _Process | None = None
        self._group = Group()
        self._is_sent = False
        self._since, self._started, self._limit = 0.0, 0.0, spec.wall_limit
        self._watch = StoppedWatch()
        self._failed_starts = 0

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process is not None else ()

    @property
    def is_busy(self) -> bool:
        """Whether jobs wait for their answers."""
        return bool(self._group.jobs)

    def submit(self, *jobs: EvaluationJob) -> None:
        """Take jobs. Raises SurroundingsError where no process can be started."""
        self._group, self._is_sent = Group(jobs), False
        if any(job.alone for job in jobs):
            self.close()
        self._living()

    def wait(self, timeout: float) -> list[FinishedJob]:
        """What is answered after at most ``timeout`` seconds; what it says counts before any limit.
        Raises SurroundingsError.
        """
        if not self._is_sent and not self.is_ready(timeout):
            return []
        process = self._living()
        try:
            if not self._is_sent:
                self._is_sent, self._since, self._started = True, awake_seconds(), time.time()
                self._watch = StoppedWatch()
                jobs = self._group.under_way()
                self._limit = self._spec.wall_limit * len(jobs)
                process.send(jobs)
            left = self._since + self._limit - awake_seconds()
            answer = process.receive(max(0.0, min(timeout, left)))
        except _DiedError as end:
            return self._broke(*death(end.returncode))
        if answer is not None:
            key, evaluation = answer[0]
            self._is_sent = len(self._group.under_way()) > 1
            return [self._group.answered(key, evaluation)]
        is_late = awake_seconds() >= self._since + self._limit
        was_stopped = self._watch.is_stopped(process.pid) or (is_late and is_stopped(process.pid))
        if was_stopped:
            return self._broke(FailureKind.INFRASTRUCTURE, STOPPED)
        return (
            self._broke(
                FailureKind.TIMEOUT, f"no answer within {self._limit:g} s; the worker was killed"
            )
            if is_late
            else []
        )

    def _broke(self, kind: FailureKind, message: str) -> list[FinishedJob]:
        """End the process, and what the job that it had has come to; several are begun again, one
        by one.
        """
        cost, self._is_sent = self._cost(), False
        self.close()
        return self._group.broke(cost, lambda job, own: of_a_dead_worker(job, kind, message, own))

    def is_ready(self, timeout: float) -> bool:
        """Whether it is started, after at most ``timeout`` seconds. Raises SurroundingsError where
        it does not start.
        """
        process, limit = self._living(), self._spec.start_limit
        if not process.is_starting:
            return True
        left = process.since + limit - awake_seconds()
        try:
            answer = process.receive(max(0.0, min(timeout, left)))
        except _DiedError as end:
            self._start_failed(f"while it started, {death(end.returncode)[1]}")
            return False
        if answer is None and awake_seconds() >= process.since + limit:
            self._start_failed(f"the worker did not start within {limit:g} s")
        if answer is None:
            return False
        (error,) = answer
        if error is not None:
            self.close()
            raise error
        process.is_starting, self._failed_starts = False, 0
        return True

    def _living(self) -> _Process:
        """The process, a new one where none lives that could still take a job."""
        if self._process is not None and not self._process.is_alive and not self._is_sent:
            self.close()
        if self._process is None:
            try:
                python = self._spec.plugin.python
                self._process = _Process(python)
                spec = replace(self._spec, plugin=replace(self._spec.plugin, python=()))
                names = plugins.names_to_tell() if python else {}
                self._process.send(
                    (spec, self._name, self._threads, interpreters.search_path(python), names)
                )
            except OSError as error:
                raise SurroundingsError(
                    f"the worker of oracle {self._spec.name} cannot be started: {error}",
                    hint="see that disk, memory and processes are left",
                ) from error
            except _DiedError as end:
                self._start_failed(f"while it started, {death(end.returncode)[1]}")
                return self._living()
        return self._process

    def _start_failed(self, how: str) -> None:
        self.close()
        self._failed_starts += 1
        if self._failed_starts >= _START_ATTEMPTS:
            raise SurroundingsError(
                f"oracle {self._spec.name}: {how}, {_START_ATTEMPTS} times",
                hint="`oreloop validate` and `oreloop doctor` say what is missing; raise "
                "start_limit where other jobs hold the machine",
            )

    def _cost(self) -> Cost:
        return Cost(
            wall_seconds=awake_seconds() - self._since, started=self._started, worker=self._name
        )

    def close(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()
