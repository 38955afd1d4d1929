"""Computations on a Ray actor beside the loop: fits, generation, selection, training.

They are functions of their arguments alone. Where the worker dies, is stopped or takes too long, a fresh one does what was under way again,
a bounded number of times; what it needs of earlier computations is made again where it was lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.exceptions

from campaign.clock import awake_seconds
from campaign.errors import OreloopError, SurroundingsError
from campaign.executors import worker
from campaign.executors.child import die_with_parent
from campaign.executors.process import StoppedWatch

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_START_SECONDS = 300.0
_FIRST_NOTICE_SECONDS = 300.0
_LOOK_SECONDS = 1.0


def last_words(error: Exception) -> str:
    """What Ray says of a dead actor, without its general advice."""
    lines = str(error).strip().splitlines()
    return lines[-1].partition(" Some common causes")[0].strip() if lines else "no message"


def place() -> tuple[str, int]:
    """The node and the process id of a worker that asks."""
    return ray.get_runtime_context().get_node_id(), os.getpid()


def is_stopped(watch: StoppedWatch, where: tuple[str, int]) -> bool:
    """Whether a worker on this machine is stopped and does not go on; those elsewhere cannot be seen."""
    node, pid = where
    return watch.is_stopped(pid) and node == ray.get_runtime_context().get_node_id()


def kill_stopped(where: tuple[str, int]) -> None:
    """Kill a worker on this machine that is stopped: it does not hear Ray."""
    with contextlib.suppress(OSError):
        os.kill(where[1], signal.SIGKILL)


class ComputeWorker(worker.ComputeWorker):
    """The actor."""

    def __init__(self, threads: int) -> None:
        die_with_parent()
        super().__init__(threads)

    def place(self) -> tuple[str, int]:
        """Where it is, once it has loaded what every computation needs."""
        self.perform(int)
        return place()

    def perform_apart(self, function: Callable[..., Any], *arguments: Any) -> tuple[None, Any]:
        """That it ended well, which is cheap to ask for, and the value."""
        return None, self.perform(function, *arguments)


class RayHandle:
    """A computation on the compute worker; passed on to another computation its value stays in Ray's object store."""

    def __init__(self, pool: Computations, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._pool, self.function, self.arguments = pool, function, arguments
        self.outcome: Any = None
        self.value: Any = None
        self.error: Exception | None = None
        self.is_over = False
        self.losses = 0

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", "computation").strip("_")

    def end(self, error: Exception | None) -> None:
        self.is_over, self.error = True, error

    def is_done(self) -> bool:
        self._pool.tend()
        return self.is_over

    def result(self) -> Any:
        while True:
            while not self.is_done():
                ray.wait([self.outcome], timeout=_LOOK_SECONDS)
            if self.error is not None:
                raise self.error
            try:
                return ray.get(self.value)
            except ray.exceptions.RayError as error:
                self._pool.make_again(self, error)


class Computations:
    """The compute worker and what it has to do, first come, first served. ``limit`` in seconds a computation."""

    def __init__(self, *, threads: int, gpus: float, limit: float) -> None:
        self._threads, self._gpus, self._limit = threads, gpus, limit
        self._queue: deque[RayHandle] = deque()
        self._start()

    def _start(self) -> None:
        options = {"num_cpus": 0, "num_gpus": self._gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(ComputeWorker).options(**options).remote(self._threads)
        self._place_reference = self._actor.place.remote()
        self._place: tuple[str, int] | None = None
        self._next()

    def _next(self) -> None:
        """The first of the queue begins now."""
        self._since, self._notice = awake_seconds(), _FIRST_NOTICE_SECONDS
        self._watch = StoppedWatch()

    def submit(self, function: Callable[..., Any], arguments: Sequence[Any]) -> RayHandle:
        handle = RayHandle(self, function, arguments)
        if not self._queue:
            self._next()
        self._queue.append(handle)
        self._send(handle)
        return handle

    def _send(self, handle: RayHandle) -> None:
        inputs = [argument for argument in handle.arguments if isinstance(argument, RayHandle)]
        failed = next((one.error for one in inputs if one.error is not None), None)
        if failed is not None:
            self._queue.remove(handle)
            handle.end(failed)
            return
        values = [argument.value if isinstance(argument, RayHandle) else argument for argument in handle.arguments]
        handle.outcome, handle.value = self._actor.perform_apart.options(num_returns=2).remote(handle.function, *values)

    def tend(self) -> None:
        """See what ended, and that what is under way goes on."""
        while self._queue and ray.wait([self._queue[0].outcome], timeout=0)[0]:
            if not self._settle(self._queue[0]):
                return
        if self._queue:
            self._check(self._queue[0])

    def _settle(self, handle: RayHandle) -> bool:
        """Whether a computation ended, with a value or with what it raised; where it was lost instead, it is begun again."""
        error: Exception | None = None
        try:
            ray.get(handle.outcome)
        except ray.exceptions.RayTaskError as raised:
            error = raised.cause if isinstance(raised.cause, Exception) else raised
            if isinstance(error, ray.exceptions.ObjectLostError):
                self.make_again(handle, error)
                return False
            if isinstance(error, MemoryError):
                self._lost("ran out of memory")
                return False
            error.__cause__ = None if isinstance(error, OreloopError) else raised
        except ray.exceptions.ObjectLostError as lost:
            self.make_again(handle, lost)
            return False
        except ray.exceptions.RayError as died:
            self._lost(f"died ({last_words(died)})")
            return False
        self._queue.popleft()
        handle.end(error)
        self._next()
        return True

    def _check(self, handle: RayHandle) -> None:
        if self._place is None:
            self._look_for_start()
            return
        taken = awake_seconds() - self._since
        if is_stopped(self._watch, self._place):
            kill_stopped(self._place)
            self._lost(f"is stopped, its process is {self._place[1]}")
        elif taken >= self._limit:
            self._lost(f"gave no result within {self._limit:g} s (executor.compute_limit)")
        elif taken >= self._notice:
            self._notice *= 2
            log.warning("%s has been computing for %.0f s; its limit is %g s (executor.compute_limit)", handle.name, taken, self._limit)

    def _look_for_start(self) -> None:
        """The first computation begins when its worker is there."""
        if ray.wait([self._place_reference], timeout=0)[0]:
            try:
                self._place = ray.get(self._place_reference)
                self._next()
            except ray.exceptions.RayError as died:
                self._lost(f"did not start ({last_words(died)})")
        elif awake_seconds() - self._since >= _START_SECONDS:
            self._lost(f"did not start within {_START_SECONDS:g} s")

    def _lost(self, how: str) -> None:
        """Let a fresh worker do what is under way. The first of the queue is to blame; after some losses it is given up."""
        first = self._queue[0]
        first.losses += 1
        if first.losses < _ATTEMPTS:
            log.warning("the compute worker %s during %s; a fresh one does it again", how, first.name)
        else:
            self._queue.popleft()
            first.end(
                SurroundingsError(
                    f"the compute worker {how} during {first.name}, {_ATTEMPTS} times",
                    hint="give it more memory, or more time with executor.compute_limit, then run the same command again",
                )
            )
        self._restart()

    def _restart(self) -> None:
        ray.kill(self._actor, no_restart=True)
        self._start()
        for handle in list(self._queue):
            self._send(handle)

    def make_again(self, handle: RayHandle, error: Exception) -> None:
        """Where the value of a computation, or of one that it builds on, is gone with its machine: the whole chain once more."""
        chain = list(dict.fromkeys(_inputs(handle)))
        handle.losses += 1
        if handle.losses >= _ATTEMPTS:
            if handle in self._queue:
                self._queue.remove(handle)
            handle.end(SurroundingsError(f"the result of {handle.name} was lost, {_ATTEMPTS} times: {last_words(error)}"))
            return
        log.warning("the result of %s was lost (%s); it is computed again", handle.name, last_words(error))
        for one in chain:
            if one.error is None:
                one.is_over = False
        self._queue = deque(dict.fromkeys([*(one for one in chain if not one.is_over), *self._queue]))
        self._restart()

    def close(self) -> None:
        ray.kill(self._actor, no_restart=True)
        self._queue.clear()


def _inputs(handle: RayHandle) -> list[RayHandle]:
    """All computations that one builds on, before it, and itself."""
    earlier = [one for argument in handle.arguments if isinstance(argument, RayHandle) for one in _inputs(argument)]
    return [*earlier, handle]
