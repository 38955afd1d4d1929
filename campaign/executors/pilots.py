"""An executor beside pilots: jobs of a batch queue that join the campaign's Ray as nodes and hold
workers.

Pilots are submitted while more labels are under way than there are workers, and cancelled once
nothing was to do for a while. Each has a folder with its ``script``, the ``job``'s id and its
``log``, and a resource of Ray of its own, so that its workers live in it and nothing else does. A
pilot ends when the driver's Ray does; one that still waits in the queue then ends as soon as it
begins, and the next driver cancels whatever an earlier one left.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shlex
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from campaign.clock import awake_seconds
from campaign.config.schema import ExecutorConfig, QueueConfig
from campaign.errors import SurroundingsError
from campaign.executors.attempts import Attempts
from campaign.executors.oracle_queue import (
    FAILED,
    Note,
    cancel,
    job_name,
    last_words,
    note_of,
    put_away,
    write_note,
)
from campaign.executors.polling import Polling
from campaign.executors.schedulers import Job, Script, scheduler_of
from campaign.files import write_whole
from campaign.protocols import EvaluationJob, Executor, FinishedJob, Handle, OracleSpec

if TYPE_CHECKING:
    from campaign.executors.ray import RayExecutor

log = logging.getLogger(__name__)

_TOKEN, _SCRIPT, _LOG = "token", "script", "log"
_LOOK_SECONDS = 1.0
_ATTEMPTS = 3


@dataclass(eq=False)
class _Pilot:
    """A job that holds workers. Times in awake seconds: ``begun`` by a submission, ``running`` at
    the latest since then, ``joined`` Ray, ``needed`` at last.
    """

    folder: Path
    begun: float
    needed: float
    identity: str = ""
    running: float | None = None
    joined: float | None = None
    is_leaving: bool = False

    @property
    def resource(self) -> str:
        return f"pilot_{self.folder.name}"


class _Pool:
    """The pilots of one oracle, and the labels that its workers have or wait for."""

    def __init__(
        self, inner: RayExecutor, spec: OracleSpec, config: QueueConfig, least: int, folder: Path
    ) -> None:
        self._inner, self._spec, self._config, self._least = inner, spec, config, least
        self._folder = folder
        self._scheduler, self._polling = scheduler_of(config), Polling(spec.name, config)
        self._pilots: list[_Pilot] = []
        self._ending: list[_Pilot] = []
        self._waiting: deque[tuple[EvaluationJob, ...]] = deque()
        self._under_way: list[set[str]] = []
        self._starts = Attempts()
        self.start_command = ""

    @property
    def free(self) -> int:
        return max(0, self._spec.workers - len(self._under_way))

    def submit(self, jobs: tuple[EvaluationJob, ...]) -> None:
        self._under_way.append({job.key for job in jobs})
        self._waiting.append(jobs)
        self.hand_out()

    def hand_out(self) -> None:
        while self._waiting and self._inner.free_workers(self._spec.name):
            self._inner.submit(*self._waiting.popleft())

    def finished(self, key: str) -> None:
        for group in self._under_way:
            group.discard(key)
        self._under_way = [group for group in self._under_way if group]

    def tend(self, resources: set[str]) -> list[FinishedJob]:
        """See which pilots are there, given what the nodes have, and have as many as are needed;
        labels that went with one. Raises SurroundingsError where pilots do not start.
        """
        finished = self._joined_and_gone(resources)
        if (self._pilots or self._ending) and self._polling.is_due():
            with self._polling.asking():
                finished += self._check()
        self._let_leave()
        self._shrink()
        self._grow()
        return finished

    def _joined_and_gone(self, resources: set[str]) -> list[FinishedJob]:
        finished = []
        for pilot in list(self._pilots):
            if pilot.joined is None and pilot.resource in resources:
                pilot.joined = awake_seconds()
                self._starts.succeeded()
                self._inner.add_workers(self._spec, pilot.resource, self._config.workers)
            elif pilot.joined is not None and pilot.resource not in resources:
                finished += self._gone(pilot, "its node is lost")
        return finished

    def _gone(self, pilot: _Pilot, how: str) -> list[FinishedJob]:
        told = f"pilot {pilot.identity} ended under the label: {how}"
        finished = self._inner.end_workers(pilot.resource, told)
        log.info("pilot %s of oracle %s is gone: %s", pilot.identity, self._spec.name, how)
        self._end(pilot)
        return finished

    def _end(self, pilot: _Pilot) -> None:
        self._inner.end_workers(pilot.resource, "the pilot is not needed")
        self._pilots.remove(pilot)
        self._ending.append(pilot)
        self._polling.next = min(self._polling.next, awake_seconds())

    def _check(self) -> list[FinishedJob]:
        """By the scheduler's list. Raises SchedulerAwayError; SurroundingsError where pilots end
        before they join, again and again.
        """
        found = self._scheduler.jobs()
        by_name = {job.name: identity for identity, job in found.items() if job.phase != "ended"}
        finished = []
        for pilot in list(self._pilots):
            pilot.identity = pilot.identity or by_name.get(job_name(pilot.folder), "")
            if not pilot.identity:
                self._begin(pilot)
                continue
            job = found.get(pilot.identity) or self._scheduler.past(pilot.identity)
            job = job or Job("", "ended", "unknown to the scheduler")
            self._polling.tell_if_waiting(pilot.identity, job)
            if job.phase == "running" and pilot.running is None:
                pilot.running = awake_seconds() - self._config.check_every
            if job.phase == "ended":
                if pilot.joined is None:
                    self._did_not_join(pilot, job.told)
                else:
                    finished += self._gone(pilot, job.told)
        self._cancel_unneeded(found)
        return finished

    def _cancel_unneeded(self, found: Mapping[str, Job]) -> None:
        names = {job.name: identity for identity, job in found.items() if job.phase != "ended"}
        alive = {
            pilot: names[name]
            for pilot in self._ending
            if (name := job_name(pilot.folder)) in names
        }
        if alive:
            self._scheduler.cancel(list(alive.values()))
        for pilot in [pilot for pilot in self._ending if pilot not in alive]:
            put_away(pilot.folder, keep=False)
            self._ending.remove(pilot)

    def _did_not_join(self, pilot: _Pilot, told: str) -> None:
        words = last_words(pilot.folder / _LOG)
        self._pilots.remove(pilot)
        put_away(pilot.folder, keep=True)
        self._starts.failed(pilot.begun)
        told = f"{told}{f'; {words}' if words else ''}"
        if self._starts.n >= _ATTEMPTS:
            raise SurroundingsError(
                f"pilots of oracle {self._spec.name} end before they join, {_ATTEMPTS} times: "
                f"{told}",
                hint=f"their logs are in {self._folder / FAILED}; executor.host is where they "
                "look for the driver",
            )
        log.warning("pilot %s of oracle %s did not join: %s", pilot.identity, self._spec.name, told)

    def _let_leave(self) -> None:
        """A pilot that has no time for another label gets none, and ends after those it has."""
        assert self._config.time is not None
        for pilot in list(self._pilots):
            if pilot.joined is None or pilot.running is None:
                continue
            left = self._config.time - (awake_seconds() - pilot.running)
            if not pilot.is_leaving and left < self._spec.wall_limit:
                pilot.is_leaving = True
                self._inner.leave(pilot.resource)
            if pilot.is_leaving and not self._inner.is_busy(pilot.resource):
                self._end(pilot)

    @property
    def _n_wanted(self) -> int:
        """Pilots for the labels under way, within the bounds."""
        workers = min(max(len(self._under_way), self._least), self._spec.workers)
        return min(math.ceil(workers / self._config.workers), self._config.max_jobs)

    def _shrink(self) -> None:
        staying = [pilot for pilot in self._pilots if not pilot.is_leaving]
        excess = len(staying) - self._n_wanted
        now = awake_seconds()
        for pilot in sorted(staying, key=lambda one: (one.joined is not None, one.needed)):
            is_busy = pilot.joined is not None and self._inner.is_busy(pilot.resource)
            if excess <= 0 or is_busy:
                pilot.needed = now
            elif now - pilot.needed >= self._config.idle:
                self._end(pilot)
                excess -= 1

    def _grow(self) -> None:
        staying = [pilot for pilot in self._pilots if not pilot.is_leaving]
        most = self._config.max_jobs - len(self._pilots) - len(self._ending)
        for _ in range(min(self._n_wanted - len(staying), most)):
            if awake_seconds() < self._polling.next and self._polling.is_away:
                return
            now = awake_seconds()
            pilot = _Pilot(self._folder / secrets.token_hex(4), begun=now, needed=now)
            self._pilots.append(pilot)
            write_whole(pilot.folder / _SCRIPT, self._script(pilot).encode())
            write_note(pilot.folder, Note("", job_name(pilot.folder), self._config.scheduler))
            with self._polling.asking():
                self._begin(pilot)

    def _script(self, pilot: _Pilot) -> str:
        spec, n = self._spec, self._config.workers
        gpus = f" --num-gpus={math.ceil(spec.gpus * n)}" if spec.gpus else " --num-gpus=0"
        resources = shlex.quote(f'--resources={{"{pilot.resource}": {n}}}')
        return "\n".join(
            [
                "#!/bin/bash -l",
                "set -e",
                *self._config.setup,
                f"{self.start_command}{gpus} {resources}",
                "",
            ]
        )

    def _begin(self, pilot: _Pilot) -> None:
        n, spec = self._config.workers, self._spec
        asked = replace(spec, cpus=spec.cpus * n, gpus=spec.gpus * n, memory=spec.memory * n)
        name, folder = job_name(pilot.folder), pilot.folder.resolve()
        pilot.identity = self._scheduler.submit(
            Script(folder / _SCRIPT, name, folder / _LOG, asked, self._config)
        )
        write_note(pilot.folder, Note(pilot.identity, name, self._config.scheduler))


class WithPilots:
    """``pilots``: by oracle what its jobs are and the least number of its workers; their files lie
    in ``folder``, which the nodes see by the same path.
    """

    def __init__(
        self,
        inner: Executor,
        pilots: Mapping[str, tuple[QueueConfig, int]],
        folder: Path,
        config: ExecutorConfig,
    ) -> None:
        self._inner, self._configs, self._folder, self._config = inner, pilots, folder, config
        self._pools: dict[str, _Pool] = {}
        self._looked = 0.0

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        """Raises SurroundingsError where a scheduler cannot be asked from this machine."""
        for name, (config, _) in self._configs.items():
            if reason := config.lacking:
                raise SurroundingsError(
                    f"oracle {name}: {reason}",
                    hint="run the campaign where jobs are submitted, such as a login node",
                )
        self._cancel_all()
        self._inner.start([spec for spec in oracles if spec.name not in self._configs])
        ray = cast("RayExecutor", self._inner)
        for spec in (spec for spec in oracles if spec.name in self._configs):
            config, least = self._configs[spec.name]
            self._pools[spec.name] = _Pool(ray, spec, config, least, self._folder)
            self._pools[spec.name].start_command = self._start_command(ray.head)

    def _cancel_all(self) -> None:
        """Those of an earlier driver too."""
        by_scheduler: dict[str, dict[Path, str]] = defaultdict(dict)
        for folder in _folders(self._folder):
            if (note := note_of(folder)) is not None:
                by_scheduler[note.scheduler][folder] = note.identity
            else:
                put_away(folder, keep=False)
        for scheduler, found in by_scheduler.items():
            cancel(found, scheduler)

    def _start_command(self, head: str) -> str:
        """Of a node that joins, with the token of the driver's Ray in a file of the user's own."""
        exports = "export RAY_AUTH_MODE=disabled"
        if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder.resolve() / _TOKEN
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(_token())
            exports = (
                f"unset RAY_AUTH_TOKEN\nexport RAY_AUTH_MODE=token "
                f"RAY_AUTH_TOKEN_PATH={shlex.quote(str(path))}"
            )
        program = "from ray.scripts.scripts import main; main()"
        words = [sys.executable, "-c", program, "start", f"--address={head}", "--block"]
        words += ["--disable-usage-stats", "--num-cpus=0"]
        words += [f"--object-store-memory={self._config.object_store_bytes}"]
        return f"{exports}\nexec {shlex.join(words)}"

    def free_workers(self, oracle: str) -> int:
        pool = self._pools.get(oracle)
        return pool.free if pool is not None else self._inner.free_workers(oracle)

    def submit(self, *jobs: EvaluationJob) -> None:
        if (pool := self._pools.get(jobs[0].oracle)) is not None:
            pool.submit(jobs)
        else:
            self._inner.submit(*jobs)

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        finished: list[FinishedJob] = []
        if self._pools and awake_seconds() - self._looked >= _LOOK_SECONDS:
            self._looked = awake_seconds()
            resources = cast("RayExecutor", self._inner).pilots()
            finished = [item for pool in self._pools.values() for item in pool.tend(resources)]
        for pool in self._pools.values():
            pool.hand_out()
        finished += self._inner.wait(0.0 if finished else timeout, handle)
        for item in finished:
            if (own := self._pools.get(item.job.oracle)) is not None:
                own.finished(item.job.key)
        return finished

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self._inner.compute(function, *arguments)

    def shutdown(self) -> None:
        """Cancel all pilots."""
        try:
            self._cancel_all()
        finally:
            self._inner.shutdown()


def _folders(place: Path) -> Iterator[Path]:
    """Of the pilots in a folder."""
    for folder in place.iterdir() if place.exists() else ():
        if folder.is_dir() and folder.name != FAILED:
            yield folder


def _token() -> str:
    """Of this machine's Ray, where Ray looks for it."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    return Path(path).read_text().strip()
