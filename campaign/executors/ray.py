"""The Ray executor: a pool of oracle actors with their own processes, and one compute actor.

An actor has at most one job, so its wall-clock limit runs from the moment it got it. An actor that dies or outlasts its limit
is replaced; its job becomes a failure. Dispatch costs about 1 ms of the driver a job.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import tempfile
import time
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


def _knock(address: str) -> None:
    """Open and close a connection to ``host:port``, because Ray itself waits for minutes. Raises OSError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _last_words(error: Exception) -> str:
    """What Ray says of a dead actor, without its general advice."""
    lines = str(error).strip().splitlines()
    return lines[-1].partition(" Some common causes")[0].strip() if lines else "no message"


@dataclass
class _Actor:
    """An oracle actor. ``reference`` is its start or its job under way; None while it idles."""

    name: str
    spec: OracleSpec
    handle: Any
    reference: Any
    since: float
    job: EvaluationJob | None = None
    is_starting: bool = True

    @property
    def deadline(self) -> float:
        return self.since + (self.spec.start_limit if self.is_starting else self.spec.wall_limit)


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
        self._shipping: tempfile.TemporaryDirectory[str] | None = None

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        """Connect and start all workers; they become ready while the loop goes on. Raises SurroundingsError."""
        self._connect()
        self._check_resources(oracles)
        options = {"num_cpus": 0, "num_gpus": self._config.gpus, "max_restarts": 0}
        self._compute = ray.remote(ComputeWorker).options(**options).remote(self._config.threads)
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
            ("GPU", self._config.gpus + sum(spec.gpus * spec.workers for spec in oracles)),
            ("memory", sum(spec.memory * spec.workers for spec in oracles)),
        ):
            if wanted > there.get(resource, 0.0) + 1e-9:
                raise SurroundingsError(
                    f"the workers ask for {wanted:g} {resource}, the cluster has {there.get(resource, 0.0):g}",
                    hint="lower workers, cpus, gpus or memory of the oracles, or executor.gpus, or use a larger cluster",
                )

    def _start_actor(self, spec: OracleSpec) -> _Actor:
        name = f"{spec.name}-{next(self._numbers)}"
        options: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "max_restarts": 0, "max_task_retries": 0}
        if spec.memory:
            options["memory"] = spec.memory
        handle = self._remote_worker.options(**options).remote(spec, name, self._config.threads)
        return _Actor(name, spec, handle, handle.is_ready.remote(), time.time())

    def run_all(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, cpus: float, gpus: float) -> list[Any]:
        """What each call of a function returns, in their order, as many at once as the resources allow; the exception where one raised."""
        remote = ray.remote(function).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        found: list[Any] = []
        for reference in [remote.remote(*arguments) for arguments in calls]:
            try:
                found.append(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                found.append(error.cause if isinstance(error.cause, Exception) else error)
            except ray.exceptions.RayError as error:
                found.append(SurroundingsError(_last_words(error)))
        return found

    def free_workers(self, oracle: str) -> int:
        return sum(1 for actor in self._actors if actor.spec.name == oracle and actor.reference is None)

    def submit(self, job: EvaluationJob) -> None:
        actor = next(actor for actor in self._actors if actor.spec.name == job.oracle and actor.reference is None)
        actor.job, actor.since = job, time.time()
        actor.reference = actor.handle.evaluate.remote(job)

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        under_way = {actor.reference: actor for actor in self._actors if actor.reference is not None}
        references = list(under_way)
        if isinstance(handle, RayHandle):
            references.append(handle.reference)
        if not references:
            time.sleep(timeout)
            return []
        nearest = min((actor.deadline for actor in under_way.values()), default=float("inf"))
        patience = max(0.0, min(timeout, nearest - time.time()))
        ready, rest = ray.wait(references, num_returns=1, timeout=patience, fetch_local=False)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        finished = [self._collect(under_way[reference]) for reference in ready if reference in under_way]
        now = time.time()
        for actor in under_way.values():
            if actor.reference is not None and now >= actor.deadline:
                finished.append(self._overdue(actor))
        return [job for job in finished if job is not None]

    def _collect(self, actor: _Actor) -> FinishedJob | None:
        job, reference, actor.job, actor.reference = actor.job, actor.reference, None, None
        try:
            value = ray.get(reference)
        except ray.exceptions.OutOfMemoryError:
            return self._replace(actor, job, FailureKind.OUT_OF_MEMORY, "Ray killed the worker because memory ran out")
        except ray.exceptions.RayActorError as error:
            if job is None:
                self._start_failed(actor, error)
                return None
            return self._replace(actor, job, FailureKind.CRASH, f"the worker died: {_last_words(error)}")
        except ray.exceptions.RayError as error:
            return self._replace(actor, job, FailureKind.INFRASTRUCTURE, f"Ray lost the job: {error}")
        if job is None:
            actor.is_starting = False
            self._start_failures = 0
            return None
        return FinishedJob(job, value)

    def _start_failed(self, actor: _Actor, error: Exception) -> None:
        self._start_failures += 1
        if self._start_failures >= _START_ATTEMPTS or "The actor died because of an error raised in its creation task" in str(error):
            raise SurroundingsError(
                f"the workers of oracle {actor.spec.name} do not start: {_last_words(error)}",
                hint="`oreloop validate` and `oreloop doctor` say what is missing",
            )
        self._actors[self._actors.index(actor)] = self._start_actor(actor.spec)

    def _overdue(self, actor: _Actor) -> FinishedJob | None:
        job, limit = actor.job, actor.deadline - actor.since
        ray.kill(actor.handle, no_restart=True)
        if job is None:
            self._start_failures += 1
            if self._start_failures >= _START_ATTEMPTS:
                raise SurroundingsError(
                    f"a worker of oracle {actor.spec.name} did not start within {limit:g} s, {_START_ATTEMPTS} times",
                    hint="raise start_limit, or look for other jobs that hold the machine",
                )
            self._actors[self._actors.index(actor)] = self._start_actor(actor.spec)
            return None
        return self._replace(actor, job, FailureKind.TIMEOUT, f"no answer within {limit:g} s; the worker was killed")

    def _replace(self, actor: _Actor, job: EvaluationJob | None, kind: FailureKind, message: str) -> FinishedJob | None:
        """Put a fresh worker in an actor's place and say what became of its job."""
        self._actors[self._actors.index(actor)] = self._start_actor(actor.spec)
        if job is None:
            return None
        failed = Evaluation.failed(kind, message)
        cost = Cost(wall_seconds=time.time() - actor.since, started=actor.since, worker=actor.name)
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
