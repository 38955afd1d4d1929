"""The Ray executor: a pool of oracle actors with their own processes, and one compute actor.

An actor works on one job; while an oracle's evaluations take less than a second a second job waits beside it, so that the actor never
waits for the driver. The wall-clock limit of a job runs from the moment its actor turned to it. An actor that dies or outlasts the limit
is replaced: the job under way becomes a failure, the waiting one goes to the new actor. Dispatch costs the driver about 2 ms a job.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.errors import OreloopError, SurroundingsError
from campaign.executors.worker import ComputeWorker, OracleWorker
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.schema import ExecutorConfig
from campaign.types import Cost, Evaluation, FailureKind

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions

_START_ATTEMPTS = 3
_KNOCK_SECONDS = 10.0
_SHORT_SECONDS = 1.0


def _knock(address: str) -> None:
    """Open and close a connection to ``host:port``, because Ray itself waits for minutes. Raises OSError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


@dataclass
class _Actor:
    """An oracle actor. ``tasks`` are its start or its jobs, in order, each with Ray's reference; ``since`` when the first one began."""

    spec: OracleSpec
    name: str
    handle: Any
    tasks: deque[tuple[Any, EvaluationJob | None]]
    since: float

    @property
    def is_starting(self) -> bool:
        return bool(self.tasks) and self.tasks[0][1] is None

    @property
    def deadline(self) -> float:
        return self.since + (self.spec.start_limit if self.is_starting else self.spec.wall_limit)

    def give(self, job: EvaluationJob) -> None:
        if not self.tasks:
            self.since = time.time()
        self.tasks.append((self.handle.evaluate.remote(job), job))

    def take(self) -> tuple[Any, EvaluationJob | None, float]:
        """The first task, which is done, with the time when it began; the next one begins now."""
        began, self.since = self.since, time.time()
        return *self.tasks.popleft(), began


@dataclass(frozen=True)
class RayHandle:
    """A computation on the compute actor; passed on to another computation it stays in Ray's object store."""

    reference: Any

    def is_done(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self) -> Any:
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OreloopError):
                raise error.cause from None
            raise
        except ray.exceptions.RayActorError as error:
            raise SurroundingsError(
                f"the compute worker died: {error}", hint="run the same command again; give the machine more memory if it dies again"
            ) from error


class RayExecutor:
    def __init__(self, config: ExecutorConfig, *, module_folder: Path | None = None) -> None:
        self._config, self._module_folder = config, module_folder
        self._actors: list[_Actor] = []
        self._numbers = itertools.count()
        self._start_failures = 0
        self._seconds: dict[str, float] = {}
        self._shipping: tempfile.TemporaryDirectory[str] | None = None

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        """Connect and start all workers; they become ready while the loop goes on. Raises SurroundingsError."""
        self._connect()
        self._check_resources(oracles)
        self._compute = ray.remote(ComputeWorker).options(num_cpus=0, max_restarts=0).remote(self._config.threads)
        self._remote_worker = ray.remote(OracleWorker)
        for spec in oracles:
            for _ in range(spec.workers):
                self._actors.append(self._start_actor(spec))

    def _connect(self) -> None:
        config = self._config
        common: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "runtime_env": self._runtime_environment()}
        if config.address is not None:
            try:
                _knock(config.address)
                ray.init(address=config.address, **common)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise SurroundingsError(
                    f"no Ray cluster answers at {config.address}: {str(error).splitlines()[0]}",
                    hint="start one with `ray start --head`, correct executor.address, or remove it to use this machine",
                ) from error
            return
        try:
            ray.init(
                address="local",
                num_cpus=config.cpus,
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=config.object_store_bytes,
                **common,
            )
        except (ConnectionError, RuntimeError, OSError) as error:
            raise SurroundingsError(f"Ray did not start on this machine: {error}", hint="see `oreloop doctor`") from error

    def _runtime_environment(self) -> dict[str, Any] | None:
        """Ship the user's Python modules beside the config, and nothing else of that folder."""
        if self._module_folder is None:
            return None
        self._shipping = tempfile.TemporaryDirectory(prefix="oreloop-modules-")
        target = Path(self._shipping.name)
        for item in sorted(self._module_folder.iterdir()):
            if item.suffix == ".py":
                shutil.copy2(item, target / item.name)
            elif item.is_dir() and (item / "__init__.py").exists():
                shutil.copytree(item, target / item.name, ignore=shutil.ignore_patterns("__pycache__"))
        return {"working_dir": str(target)}

    def _check_resources(self, oracles: Sequence[OracleSpec]) -> None:
        there = ray.cluster_resources()
        for resource, wanted in (
            ("CPU", sum(spec.cpus * spec.workers for spec in oracles)),
            ("GPU", sum(spec.gpus * spec.workers for spec in oracles)),
            ("memory", sum(spec.memory * spec.workers for spec in oracles)),
        ):
            if wanted > there.get(resource, 0.0) + 1e-9:
                raise SurroundingsError(
                    f"the oracles' workers ask for {wanted:g} {resource}, the cluster has {there.get(resource, 0.0):g}",
                    hint="lower workers, cpus, gpus or memory of the oracles, or use a larger cluster",
                )

    def _start_actor(self, spec: OracleSpec) -> _Actor:
        name = f"{spec.name}-{next(self._numbers)}"
        options: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "max_restarts": 0, "max_task_retries": 0}
        if spec.memory:
            options["memory"] = spec.memory
        handle = self._remote_worker.options(**options).remote(spec, name, self._config.threads)
        return _Actor(spec, name, handle, deque([(handle.is_ready.remote(), None)]), time.time())

    def _capacity(self, oracle: str) -> int:
        """Jobs that an actor may hold: a second one where evaluations are short."""
        return 2 if self._seconds.get(oracle, math.inf) < _SHORT_SECONDS else 1

    def free_workers(self, oracle: str) -> int:
        capacity = self._capacity(oracle)
        return sum(max(0, capacity - len(actor.tasks)) for actor in self._actors if actor.spec.name == oracle and not actor.is_starting)

    def submit(self, job: EvaluationJob) -> None:
        ready = (actor for actor in self._actors if actor.spec.name == job.oracle and not actor.is_starting)
        min(ready, key=lambda actor: len(actor.tasks)).give(job)

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        first = {actor.tasks[0][0]: actor for actor in self._actors if actor.tasks}
        references = list(first)
        if isinstance(handle, RayHandle):
            references.append(handle.reference)
        if not references:
            time.sleep(timeout)
            return []
        nearest = min((actor.deadline for actor in first.values()), default=math.inf)
        patience = max(0.0, min(timeout, nearest - time.time()))
        ready, rest = ray.wait(references, num_returns=1, timeout=patience, fetch_local=False)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        finished = [self._collect(first[reference]) for reference in ready if reference in first]
        now = time.time()
        finished += [self._overdue(actor) for actor in list(self._actors) if actor.tasks and now >= actor.deadline]
        return [job for job in finished if job is not None]

    def _collect(self, actor: _Actor) -> FinishedJob | None:
        reference, job, began = actor.take()
        try:
            value = ray.get(reference)
        except ray.exceptions.OutOfMemoryError:
            return self._replace(actor, job, began, FailureKind.OUT_OF_MEMORY, "Ray killed the worker because memory ran out")
        except ray.exceptions.RayActorError as error:
            if job is None:
                return self._start_failed(actor, str(error))
            lines = str(error).strip().splitlines()
            return self._replace(actor, job, began, FailureKind.CRASH, f"the worker died: {lines[-1].strip() if lines else 'no message'}")
        except ray.exceptions.RayError as error:
            return self._replace(actor, job, began, FailureKind.INFRASTRUCTURE, f"Ray lost the job: {error}")
        if job is None:
            return None
        seconds = value.cost.wall_seconds
        self._seconds[job.oracle] = 0.9 * self._seconds.get(job.oracle, seconds) + 0.1 * seconds
        return FinishedJob(job, value)

    def _start_failed(self, actor: _Actor, message: str) -> FinishedJob | None:
        """A worker that did not start is tried again, a few times; one whose oracle cannot be built is not."""
        self._start_failures += 1
        if self._start_failures >= _START_ATTEMPTS or "raised in its creation task" in message:
            lines = message.strip().splitlines()
            raise SurroundingsError(
                f"the workers of oracle {actor.spec.name} do not start: {lines[-1].strip() if lines else 'no message'}",
                hint="`oreloop validate` and `oreloop doctor` say what is missing; start_limit and other jobs on the machine may be why",
            )
        self._actors[self._actors.index(actor)] = self._start_actor(actor.spec)
        return None

    def _overdue(self, actor: _Actor) -> FinishedJob | None:
        limit = actor.deadline - actor.since
        ray.kill(actor.handle, no_restart=True)
        _, job, began = actor.take()
        if job is None:
            return self._start_failed(actor, f"no answer within {limit:g} s")
        return self._replace(actor, job, began, FailureKind.TIMEOUT, f"no answer within {limit:g} s; the worker was killed")

    def _replace(self, actor: _Actor, job: EvaluationJob | None, began: float, kind: FailureKind, message: str) -> FinishedJob | None:
        """Put a fresh worker in an actor's place, hand it the jobs that waited, and say what became of the one under way."""
        fresh = self._start_actor(actor.spec)
        for _, waiting in actor.tasks:
            if waiting is not None:
                fresh.give(waiting)
        self._actors[self._actors.index(actor)] = fresh
        if job is None:
            return None
        failed = Evaluation.failed(kind, message)
        cost = Cost(wall_seconds=time.time() - began, started=began, worker=actor.name)
        return FinishedJob(job, Evaluation(failure=failed.failure, cost=cost))

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        values = [argument.reference if isinstance(argument, RayHandle) else argument for argument in arguments]
        return RayHandle(self._compute.perform.remote(function, *values))

    def shutdown(self) -> None:
        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor.handle, no_restart=True)
            ray.shutdown()
        self._actors.clear()
        if self._shipping is not None:
            self._shipping.cleanup()
