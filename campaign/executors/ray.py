"""The Ray executor: a pool of oracle actors, each with a worker process of its own, and one compute
actor.

An actor has one job, or several together, and watches its limits itself. One that dies or is
stopped is replaced; its job becomes a failure, several are tried one by one. Dispatch costs about 1
ms of the driver a job.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from campaign.clock import awake_seconds
from campaign.config.schema import ExecutorConfig
from campaign.errors import OreloopError, SurroundingsError
from campaign.executors.attempts import Attempts
from campaign.executors.child import die_with_parent
from campaign.executors.group import Group
from campaign.executors.leftovers import OwnedFolder, is_alive, sweep
from campaign.executors.process import STOPPED, StoppedWatch, WorkerProcess, of_a_dead_worker
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.types import Cost, Evaluation, FailureKind

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions

from campaign.executors.computing import (
    Computations,
    RayHandle,
    is_stopped,
    kill_stopped,
    last_words,
    place,
)

log = logging.getLogger(__name__)

_START_ATTEMPTS = 3
_REST_SECONDS = 60.0
"""After which a worker that did not start is tried again, while others of its oracle go on."""
_KNOCK_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_SERVERS = ("gcs_server", "raylet")
_HEAD = {"node:__internal_head__": 0.001}
"""What only the head of a cluster has."""
_PILOT_LAST_SECONDS, _PILOT_DOUBT_SECONDS = 3.0, 20.0
"""How long an end that a lost pilot may have brought is kept back, in its worker and here."""


def _knock(address: str) -> None:
    """Open and close a connection to ``host:port``, because Ray itself waits for minutes. Raises
    OSError.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """While Ray starts it gets no handler set, as its own ends the driver; and its servers do not
    hear of a closed terminal.

    Its library puts one below Python, which aborts the driver three seconds after a SIGTERM; the
    handlers are set again above it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler: Any = signal.signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    keep: Any = lambda number, _: signal.getsignal(number)  # noqa: E731
    signal.signal = keep
    try:
        yield
    finally:
        signal.signal = set_handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wanted(
    oracles: Sequence[OracleSpec], counts: Mapping[str, int], gpus: float
) -> dict[str, float]:
    """By resource what so many workers of each oracle ask for, beside the GPUs of computations."""
    return {
        "CPU": sum(spec.cpus * counts[spec.name] for spec in oracles),
        "GPU": gpus + sum(spec.gpus * counts[spec.name] for spec in oracles),
        "memory": sum(spec.memory * counts[spec.name] for spec in oracles),
    }


def _check_largest_node(spec: OracleSpec) -> None:
    """Raises SurroundingsError where no machine of the cluster can hold one worker, for which Ray
    would wait without a word.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": spec.cpus, "GPU": spec.gpus, "memory": float(spec.memory)}
    if not any(
        all(node.get(name, 0.0) + 1e-9 >= value for name, value in asked.items()) for node in nodes
    ):
        needs = ", ".join(f"{value:g} {name}" for name, value in asked.items() if value)
        there = "; ".join(
            ", ".join(f"{node.get(name, 0.0):g} {name}" for name, value in asked.items() if value)
            for node in nodes
        )
        raise SurroundingsError(
            f"a worker of oracle {spec.name} asks for {needs} on one machine; the machines of "
            f"the cluster have {there}",
            hint="lower cpus, gpus or memory of the oracle, or add a machine that large",
        )


class OracleWorkerActor:
    """Holds an oracle's worker process on its node."""

    def __init__(
        self, spec: OracleSpec, name: str, threads: int, *, is_on_pilot: bool = False
    ) -> None:
        die_with_parent()
        self._worker, self._is_on_pilot = WorkerProcess(spec, name, threads), is_on_pilot

    def is_ready(self, *, fresh: bool = False) -> tuple[str, int]:
        """Where it is, once its process is started, a fresh one if need be. Raises
        SurroundingsError where that cannot be.
        """
        if fresh:
            self._worker.close()
        while not self._worker.is_ready(_LOOK_SECONDS):
            pass
        return place()

    def evaluate(self, *jobs: EvaluationJob) -> list[tuple[str, Evaluation]]:
        """Begin jobs; the first to be answered."""
        self._worker.submit(*jobs)
        return self.further()

    def further(self) -> list[tuple[str, Evaluation]]:
        """The next to be answered, by their keys."""
        while not (finished := self._worker.wait(_LOOK_SECONDS)):
            pass
        while self._worker.is_busy and (more := self._worker.wait(0.0)):
            finished += more
        if self._is_on_pilot and any(
            item.evaluation.failure is not None
            and (item.job.alone or item.evaluation.failure.kind is FailureKind.INFRASTRUCTURE)
            for item in finished
        ):
            time.sleep(_PILOT_LAST_SECONDS)
        return [(item.job.key, item.evaluation) for item in finished]

    def close(self) -> None:
        self._worker.close()


@dataclass
class _Actor:
    """An oracle actor. ``reference`` is its start or what it has under way; None while it idles.
    ``since`` in awake seconds. ``pilot``: the resource that only the job has that it lives in, if
    any; ``is_leaving``: it gets no more work; ``lost``: since when it is dead, and how it died,
    where that may be its pilot's end.
    """

    name: str
    spec: OracleSpec
    handle: Any
    reference: Any
    since: float
    group: Group = field(default_factory=Group)
    began: float = 0.0
    started: float = 0.0
    is_starting: bool = True
    place: tuple[str, int] | None = None
    watch: StoppedWatch = field(default_factory=StoppedWatch)
    pilot: str = ""
    is_leaving: bool = False
    lost: tuple[float, str] | None = None

    @property
    def is_idle(self) -> bool:
        return self.reference is None and self.lost is None

    @property
    def deadline(self) -> float:
        """The actor keeps the limits itself; past this time it does nothing any more."""
        if self.is_starting:
            return self.since + _START_ATTEMPTS * self.spec.start_limit
        together = len(self.group.under_way())
        passes = 1 if together == 1 else 2
        return (
            self.since
            + passes * self.spec.start_limit
            + (together + passes - 1) * self.spec.wall_limit
        )

    @property
    def is_stopped(self) -> bool:
        return self.place is not None and is_stopped(self.watch, self.place)


class RayExecutor:
    def __init__(self, config: ExecutorConfig, *, module_folder: Path | None = None) -> None:
        self._config, self._module_folder = config, module_folder
        self._actors: list[_Actor] = []
        self._numbers = itertools.count()
        self._starts = Attempts()
        self._resting: list[tuple[float, OracleSpec, str]] = []
        self._folder: OwnedFolder | None = None
        self._servers: dict[str, psutil.Process] = {}
        self._looked = 0.0
        self._computations: Computations | None = None

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        """Connect and start all workers; they become ready while the loop goes on. Raises
        SurroundingsError.
        """
        self._folder = OwnedFolder("modules")
        with _own_signals():
            self._connect(self._folder)
        self._check_resources(oracles)
        config = self._config
        self._computations = Computations(
            threads=config.threads,
            gpus=config.gpus,
            limit=config.compute_limit,
            place=_HEAD if config.address is None else {},
        )
        self._remote_worker = ray.remote(OracleWorkerActor)
        for spec in oracles:
            for _ in range(spec.workers):
                self._actors.append(self._start_actor(spec))

    def _connect(self, folder: OwnedFolder) -> None:
        config = self._config
        common: dict[str, Any] = {
            "log_to_driver": False,
            "configure_logging": False,
            "runtime_env": self._runtime_environment(folder),
        }
        if config.address is not None:
            try:
                _knock(config.address)
                ray.init(address=config.address, **common)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise SurroundingsError(
                    f"no Ray cluster answers at {config.address}: {str(error).splitlines()[0]}",
                    hint="start one with `ray start --head`, correct executor.address, or "
                    "remove it to use this machine",
                ) from error
            return
        temporary = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
        folder.remove_also(Path(glob.escape(str(temporary))) / f"session_*_{os.getpid()}")
        os.environ.update(folder.surroundings)
        try:
            context = ray.init(
                address="local",
                num_cpus=config.cpus,
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=config.object_store_bytes,
                _node_ip_address=config.host,
                **common,
            )
        except (ConnectionError, RuntimeError, OSError) as error:
            named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
            is_long = "AF_UNIX path length" in str(error)
            hint = (
                f"its sockets lie below {temporary}: set {named or 'RAY_TMPDIR'} to a shorter "
                "folder"
                if is_long
                else "see `oreloop doctor`"
            )
            raise SurroundingsError(
                f"Ray did not start on this machine: {error}", hint=hint
            ) from error
        finally:
            for name in folder.surroundings:
                del os.environ[name]
        folder.remove_also(Path(glob.escape(context.address_info["session_dir"])))
        self._servers = {
            process.name(): process
            for process in psutil.Process().children()
            if process.name() in _SERVERS
        }

    def _runtime_environment(self, folder: OwnedFolder) -> dict[str, Any] | None:
        """Ship the user's Python modules beside the config, and nothing else of that folder."""
        if self._module_folder is None:
            return None
        target = folder.path / "modules"
        target.mkdir()
        for item in sorted(self._module_folder.iterdir()):
            if item.suffix == ".py":
                shutil.copy2(item, target / item.name)
            elif item.is_dir() and (item / "__init__.py").exists():
                shutil.copytree(
                    item, target / item.name, ignore=shutil.ignore_patterns("__pycache__")
                )
        return {"working_dir": str(target)}

    def _check_resources(self, oracles: Sequence[OracleSpec]) -> None:
        """On this machine all workers must have room; in a cluster one of each oracle, as nodes may
        join. Raises SurroundingsError.
        """
        is_cluster = self._config.address is not None
        for spec in oracles:
            _check_largest_node(spec)
        there = ray.cluster_resources()
        counts = {spec.name: 1 if is_cluster else spec.workers for spec in oracles}
        for resource, wanted in _wanted(oracles, counts, self._config.gpus).items():
            if wanted > there.get(resource, 0.0) + 1e-9:
                raise SurroundingsError(
                    f"the workers ask for {wanted:g} {resource}, the cluster has "
                    f"{there.get(resource, 0.0):g}",
                    hint="lower workers, cpus, gpus or memory of the oracles, or "
                    "executor.gpus, or use a larger cluster",
                )
        for resource, wanted in _wanted(
            oracles, {spec.name: spec.workers for spec in oracles}, self._config.gpus
        ).items():
            if wanted > there.get(resource, 0.0) + 1e-9:
                log.warning(
                    "the workers ask for %g %s, the cluster has %g: some start when nodes join",
                    wanted,
                    resource,
                    there.get(resource, 0.0),
                )

    def _start_actor(self, spec: OracleSpec, pilot: str = "") -> _Actor:
        name = f"{spec.name}-{next(self._numbers)}"
        options: dict[str, Any] = {
            "num_cpus": 0 if pilot else spec.cpus,
            "num_gpus": spec.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if pilot:
            options["resources"] = {pilot: 1}
        elif spec.memory:
            options["memory"] = spec.memory
        handle = self._remote_worker.options(**options, max_concurrency=2).remote(
            spec, name, self._config.threads, is_on_pilot=bool(pilot)
        )
        return _Actor(name, spec, handle, handle.is_ready.remote(), awake_seconds(), pilot=pilot)

    @property
    def head(self) -> str:
        """Where nodes join, as ``host:port``."""
        return str(ray.get_runtime_context().gcs_address)

    def pilots(self) -> set[str]:
        """Resources that the nodes have, those of the living pilots among them."""
        return {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}

    def add_workers(self, spec: OracleSpec, pilot: str, n: int) -> None:
        """Start so many workers of an oracle on a pilot that has joined."""
        self._actors += [self._start_actor(spec, pilot) for _ in range(n)]

    def leave(self, pilot: str) -> None:
        """Give a pilot's workers no more work."""
        for actor in self._actors:
            actor.is_leaving |= actor.pilot == pilot

    def is_busy(self, pilot: str) -> bool:
        """Whether a pilot's workers have work."""
        return any(actor.group.jobs for actor in self._actors if actor.pilot == pilot)

    def end_workers(self, pilot: str, told: str) -> list[FinishedJob]:
        """End the workers of a pilot that is gone or not needed, which is no job's doing."""
        ended = [actor for actor in self._actors if actor.pilot == pilot]
        self._actors = [actor for actor in self._actors if actor.pilot != pilot]
        self._resting = [item for item in self._resting if item[2] != pilot]
        finished = []
        for actor in ended:
            ray.kill(actor.handle, no_restart=True)
            taken = awake_seconds() - actor.began if actor.began else 0.0
            for job in actor.group.jobs:
                cost = Cost(
                    wall_seconds=taken / len(actor.group.jobs),
                    started=actor.started,
                    worker=actor.name,
                )
                failed = Evaluation.failed(FailureKind.INFRASTRUCTURE, told)
                finished.append(FinishedJob(job, replace(failed, cost=cost)))
        return finished

    def run_all(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        cpus: float,
        gpus: float,
    ) -> list[Any]:
        """What each call of a function returns, in their order, as many at once as the resources
        allow; the exception where one raised.
        """
        remote = ray.remote(function).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        found: list[Any] = []
        for reference in [remote.remote(*arguments) for arguments in calls]:
            try:
                found.append(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                found.append(error.cause if isinstance(error.cause, Exception) else error)
            except ray.exceptions.RayError as error:
                found.append(SurroundingsError(last_words(error)))
        return found

    def free_workers(self, oracle: str) -> int:
        return sum(
            1
            for actor in self._actors
            if actor.spec.name == oracle and actor.is_idle and not actor.is_leaving
        )

    def submit(self, *jobs: EvaluationJob) -> None:
        actor = next(
            actor
            for actor in self._actors
            if actor.spec.name == jobs[0].oracle and actor.is_idle and not actor.is_leaving
        )
        actor.group = Group(jobs)
        if any(job.alone for job in jobs):
            self._make_ready(actor, fresh=True)
        else:
            self._evaluate(actor)

    def _make_ready(self, actor: _Actor, *, fresh: bool = False) -> None:
        actor.since, actor.is_starting, actor.watch = awake_seconds(), True, StoppedWatch()
        actor.reference = actor.handle.is_ready.remote(fresh=fresh)

    def _evaluate(self, actor: _Actor) -> None:
        actor.since = actor.began = awake_seconds()
        actor.started, actor.watch = time.time(), StoppedWatch()
        actor.reference = actor.handle.evaluate.remote(*actor.group.under_way())

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        self._look_after_servers()
        self._rouse()
        if self._computations is not None:
            self._computations.tend()
        under_way = {
            actor.reference: actor for actor in self._actors if actor.reference is not None
        }
        references = list(under_way)
        doubted = self._believed()
        timeout = 0.0 if doubted else timeout
        if isinstance(handle, RayHandle):
            if handle.is_over or handle.reference is None:
                timeout = 0.0
            else:
                references.append(handle.reference)
        if not references:
            time.sleep(timeout)
            return doubted
        patience = min(timeout, _LOOK_SECONDS)
        ready, rest = ray.wait(references, num_returns=1, timeout=patience, fetch_local=False)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        finished = [
            self._collect(under_way[reference]) for reference in ready if reference in under_way
        ]
        for reference, actor in under_way.items():
            if (
                actor.reference is reference
                and reference not in ready
                and (actor.is_stopped or awake_seconds() >= actor.deadline)
            ):
                finished.append(self._given_up(actor))
        return [*doubted, *(job for jobs in finished for job in jobs)]

    def _believed(self) -> list[FinishedJob]:
        """What became of workers that died while their pilot goes on."""
        finished = []
        for actor in list(self._actors):
            if actor.lost and awake_seconds() - actor.lost[0] >= _PILOT_DOUBT_SECONDS:
                finished += self._died(actor, FailureKind.INFRASTRUCTURE, actor.lost[1])
        return finished

    def _look_after_servers(self) -> None:
        """Without them Ray waits for a minute and then ends the driver. Raises
        SurroundingsError.
        """
        if awake_seconds() - self._looked < _LOOK_SECONDS:
            return
        self._looked = awake_seconds()
        for name, server in self._servers.items():
            if not is_alive(server):
                raise SurroundingsError(
                    f"a server of Ray on this machine died ({name})",
                    hint="run the same command again: nothing recorded is lost",
                )

    def _collect(self, actor: _Actor) -> list[FinishedJob]:
        reference, actor.reference = actor.reference, None
        try:
            value = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OreloopError):
                raise error.cause from None
            return self._died(
                actor, FailureKind.INFRASTRUCTURE, f"the worker failed: {last_words(error)}"
            )
        except ray.exceptions.OutOfMemoryError:
            return self._died(
                actor, FailureKind.OUT_OF_MEMORY, "Ray killed the worker because memory ran out"
            )
        except ray.exceptions.RayActorError as error:
            told = f"the worker died, killed from outside: {last_words(error)}"
            if actor.pilot and actor.place is not None:
                actor.lost = awake_seconds(), told
                return []
            return self._died(actor, FailureKind.INFRASTRUCTURE, told)
        except ray.exceptions.RayError as error:
            return self._died(actor, FailureKind.INFRASTRUCTURE, f"Ray lost the job: {error}")
        if actor.is_starting:
            actor.is_starting, actor.place = False, value
            self._starts.succeeded()
            if actor.group.jobs:
                self._evaluate(actor)
            return []
        finished = [actor.group.answered(key, evaluation) for key, evaluation in value]
        if actor.group.jobs and actor.group.is_together:
            actor.since = awake_seconds()
            actor.reference = actor.handle.further.remote()
        elif any(item.evaluation.failure is not None for item in finished):
            self._make_ready(actor)
        elif actor.group.jobs:
            self._evaluate(actor)
        return finished

    def _given_up(self, actor: _Actor) -> list[FinishedJob]:
        was_stopped = actor.is_stopped
        if was_stopped and actor.place is not None:
            kill_stopped(actor.place)
        ray.kill(actor.handle, no_restart=True)
        if was_stopped:
            return self._died(actor, FailureKind.INFRASTRUCTURE, STOPPED)
        limit = actor.deadline - actor.since
        return self._died(
            actor, FailureKind.TIMEOUT, f"no answer within {limit:g} s; the worker was killed"
        )

    def _died(self, actor: _Actor, kind: FailureKind, message: str) -> list[FinishedJob]:
        """Put a fresh actor in a dead one's place and say what became of its job; several are begun
        again, one by one.

        Raises SurroundingsError where none starts.
        """
        if actor.is_starting:
            self._starts.failed(actor.since)
            if self._starts.n >= _START_ATTEMPTS and self._has_others(actor):
                return self._rest(actor, message)
        fresh = self._start_actor(actor.spec, actor.pilot)
        fresh.is_leaving = actor.is_leaving
        self._actors[self._actors.index(actor)] = fresh
        if actor.is_starting:
            if self._starts.n >= _START_ATTEMPTS:
                raise SurroundingsError(
                    f"the workers of oracle {actor.spec.name} do not start, {_START_ATTEMPTS} "
                    f"times: {message}",
                    hint="`oreloop validate` and `oreloop doctor` say what is missing; raise "
                    "start_limit where other jobs hold the machine",
                )
            fresh.group = actor.group
            return []
        if not actor.group.jobs:
            return []
        fresh.group = actor.group
        cost = Cost(
            wall_seconds=awake_seconds() - actor.began, started=actor.started, worker=actor.name
        )
        return fresh.group.broke(cost, lambda job, own: of_a_dead_worker(job, kind, message, own))

    def _has_others(self, actor: _Actor) -> bool:
        return any(
            other is not actor and other.spec.name == actor.spec.name and other.place is not None
            for other in self._actors
        )

    def _rest(self, actor: _Actor, message: str) -> list[FinishedJob]:
        """Go on without a worker for a while, such as when its node is gone; what it was to do goes
        to others.
        """
        self._actors.remove(actor)
        self._resting.append((awake_seconds() + _REST_SECONDS, actor.spec, actor.pilot))
        log.warning(
            "a worker of oracle %s does not start (%s); the others go on, it is tried again later",
            actor.spec.name,
            message,
        )
        failed = Evaluation.failed(FailureKind.INFRASTRUCTURE, message)
        return [FinishedJob(job, failed) for job in actor.group.jobs]

    def _rouse(self) -> None:
        """Try again what rested long enough."""
        due = [item for item in self._resting if awake_seconds() >= item[0]]
        self._resting = [item for item in self._resting if awake_seconds() < item[0]]
        self._actors += [self._start_actor(spec, pilot) for _, spec, pilot in due]

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        assert self._computations is not None
        return self._computations.submit(function, arguments)

    def shutdown(self) -> None:
        """End the workers with all that they started, and a Ray that was started here; no folder of
        a dead one waits for the next start.
        """
        if ray.is_initialized():
            with contextlib.suppress(Exception):
                self._close_workers()
            with contextlib.suppress(Exception):
                ray.shutdown()
        self._actors.clear()
        if self._folder is not None:
            self._folder.close()
        sweep()

    def _close_workers(self) -> None:
        closing = [actor.handle.close.remote() for actor in self._actors if actor.place is not None]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        for actor in self._actors:
            ray.kill(actor.handle, no_restart=True)
        if self._computations is not None:
            self._computations.close()
