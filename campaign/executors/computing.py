"""Computations on a Ray actor beside the loop: fits, generation, selection, training.

They are functions of their arguments alone. Where the worker dies, is stopped or takes too long, a
fresh one does what was under way again, a bounded number of times; what it needs of earlier
computations is made again, as it died with the worker.

A call of Ray takes about 1 ms of the driver, so that what is to be done at once goes in one call:
computations that took little time when they were last done. Values stay with the worker, and so do
crystals, each sent once.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import pickle
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from campaign.clock import awake_seconds
from campaign.errors import SurroundingsError
from campaign.executors import worker
from campaign.executors.child import die_with_parent
from campaign.executors.process import StoppedWatch
from campaign.executors.worker import Message, Outcome, Task, known_crystal
from campaign.protocols import Stored
from campaign.types import Crystal

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_START_SECONDS = 300.0
_FIRST_NOTICE_SECONDS = 300.0
_LOOK_SECONDS = 1.0
_QUICK_SECONDS = 1.0
"""Computations that took less the last time go together."""
_KEPT_CRYSTALS = 20_000


def last_words(error: Exception) -> str:
    """What Ray says of a dead actor, without its general advice."""
    lines = str(error).strip().splitlines()
    return lines[-1].partition(" Some common causes")[0].strip() if lines else "no message"


def place() -> tuple[str, int]:
    """The node and the process id of a worker that asks."""
    return ray.get_runtime_context().get_node_id(), os.getpid()


def is_stopped(watch: StoppedWatch, where: tuple[str, int]) -> bool:
    """Whether a worker on this machine is stopped and does not go on; those elsewhere cannot be
    seen.
    """
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

    def perform_all(self, message: bytes) -> list[bytes]:
        return self.answer(message)


@dataclass(eq=False)
class RayHandle:
    """A computation on the compute worker; passed on to another computation its value does not
    leave the worker.

    ``worker``: which of the compute workers, one after another, was given it.
    """

    pool: Computations
    number: int
    function: Callable[..., Any]
    arguments: Sequence[Any]
    value: Any = None
    error: Exception | None = None
    is_over: bool = False
    losses: int = 0
    worker: int = -1

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", "computation").strip("_")

    @property
    def reference(self) -> Any:
        """What Ray knows the call by that it is in or waits for; None where nothing is under
        way.
        """
        return self.pool.call.reference if self.pool.call is not None else None

    def end(self, value: Any, error: Exception | None) -> None:
        if not self.is_over:
            self.is_over, self.value, self.error = True, value, error

    def is_done(self) -> bool:
        self.pool.tend()
        return self.is_over

    def result(self) -> Any:
        while not self.is_done():
            if self.reference is not None:
                ray.wait([self.reference], timeout=_LOOK_SECONDS)
        if self.error is not None:
            raise self.error
        return self.value

    def __del__(self) -> None:
        self.pool.dropped.append(self.number)


@dataclass
class _Call:
    """Computations that the worker does in one call."""

    handles: list[RayHandle]
    reference: Any


class _Packer(pickle.Pickler):
    """Arguments as bytes, without what the worker keeps: the values of earlier computations, and
    crystals, noted as they are met.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.crystals: dict[str, Crystal] = {}
        self.stored: list[Stored] = []
        self.dispatch_table = {
            RayHandle: self._handle,
            Crystal: self._crystal,
            Stored: self._stored,
        }

    def _handle(self, handle: RayHandle) -> tuple[Any, ...]:
        return worker.Value, (handle.number,)

    def _crystal(self, crystal: Crystal) -> tuple[Any, ...]:
        self.crystals[crystal.id] = crystal
        return known_crystal, (crystal.id,)

    def _stored(self, stored: Stored) -> tuple[Any, ...]:
        self.stored.append(stored)
        return worker.known_crystals, (stored.ids,)


class _SentCrystals:
    """Which crystals a worker has; of those that no argument named for a while it is told to forget
    some.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def missing(self, packer: _Packer) -> dict[str, bytes]:
        """Bytes of what the arguments name and the worker has not; from now on it has them."""
        found = {
            identity: crystal.to_bytes(compress=False)
            for identity, crystal in packer.crystals.items()
            if identity not in self._ids
        }
        for stored in packer.stored:
            new = [
                identity
                for identity in dict.fromkeys(stored.ids)
                if identity not in self._ids and identity not in found
            ]
            found.update(stored.reader.blobs(new) if new else {})
        for identity in itertools.chain(packer.crystals, *(stored.ids for stored in packer.stored)):
            self._ids[identity] = None
            self._ids.move_to_end(identity)
        return found

    def forgotten(self, named: int) -> list[str]:
        """The ids beyond the bound that were named longest ago, never those of the last
        ``named``.
        """
        n = min(len(self._ids) - _KEPT_CRYSTALS, len(self._ids) - named)
        return [self._ids.popitem(last=False)[0] for _ in range(n)]


class Computations:
    """The compute worker and what it has to do, first come, first served. ``limit`` in seconds a
    computation; ``place``: resources of Ray that only the nodes have where it may be.
    """

    def __init__(
        self, *, threads: int, gpus: float, limit: float, place: Mapping[str, float]
    ) -> None:
        self._threads, self._limit = threads, limit
        self._resources = {"num_gpus": gpus, "resources": dict(place)}
        self._numbers = itertools.count()
        self._queue: deque[RayHandle] = deque()
        self._seconds: dict[Callable[..., Any], float] = {}
        self._worker = -1
        self.dropped: list[int] = []
        """Computations whose values nobody asks for any more."""
        self._start()

    def _start(self) -> None:
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
        self._actor = (
            ray.remote(ComputeWorker).options(**options, **self._resources).remote(self._threads)
        )
        self._place_reference = self._actor.place.remote()
        self._place: tuple[str, int] | None = None
        self._worker += 1
        self.call: _Call | None = None
        self._crystals = _SentCrystals()
        self._begin()

    def _begin(self) -> None:
        """What is under way begins now."""
        self._since, self._notice = awake_seconds(), _FIRST_NOTICE_SECONDS
        self._watch = StoppedWatch()

    def submit(self, function: Callable[..., Any], arguments: Sequence[Any]) -> RayHandle:
        handle = RayHandle(self, next(self._numbers), function, arguments)
        self._queue.append(handle)
        return handle

    def _send_waiting(self) -> None:
        """Where the worker idles, give it what comes next, with what that builds on where an
        earlier worker did it.

        One call after another, so that it is known which of them a worker was lost in.
        """
        together: list[RayHandle] = []
        for handle in list(self._queue) if self.call is None else ():
            failed = next((one.error for one in _inputs(handle) if one.error is not None), None)
            if failed is not None:
                self._queue.remove(handle)
                handle.end(None, failed)
                continue
            for one in _inputs(handle):
                if one.worker == self._worker:
                    continue
                if together and not (self._is_quick(one) and self._is_quick(together[-1])):
                    self._send(together)
                    return
                one.worker = self._worker
                together.append(one)
        if together:
            self._send(together)

    def _is_quick(self, handle: RayHandle) -> bool:
        return (
            not handle.losses
            and self._seconds.get(handle.function, _QUICK_SECONDS) < _QUICK_SECONDS
        )

    def _send(self, handles: list[RayHandle]) -> None:
        file = io.BytesIO()
        packer = _Packer(file)
        packer.dump(
            [Task(handle.number, handle.function, tuple(handle.arguments)) for handle in handles]
        )
        dropped, self.dropped = self.dropped, []
        crystals = self._crystals.missing(packer)
        n_named = len(packer.crystals) + sum(len(stored.ids) for stored in packer.stored)
        message = Message(file.getvalue(), crystals, self._crystals.forgotten(n_named), dropped)
        self.call = _Call(
            handles,
            self._actor.perform_all.remote(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)),
        )
        self._begin()

    def tend(self) -> None:
        """Send what waits, see what ended, and that what is under way goes on."""
        self._send_waiting()
        while self.call is not None and ray.wait([self.call.reference], timeout=0)[0]:
            self._settle(self.call)
            self._send_waiting()
        if self.call is not None:
            self._check(self.call)

    def _settle(self, call: _Call) -> None:
        """What a call's computations came to; where it was lost instead, it is begun again."""
        try:
            outcomes: list[Outcome] = [pickle.loads(outcome) for outcome in ray.get(call.reference)]  # noqa: S301
        except ray.exceptions.RayTaskError as raised:
            if isinstance(raised.cause, MemoryError):
                self._lost("ran out of memory", call.handles)
                return
            error = raised.cause if isinstance(raised.cause, Exception) else raised
            outcomes = [Outcome(None, error, 0.0)] * len(call.handles)
        except ray.exceptions.RayError as died:
            self._lost(f"died ({last_words(died)})", call.handles)
            return
        for handle, outcome in zip(call.handles, outcomes, strict=True):
            if isinstance(outcome.error, MemoryError):
                self._lost("ran out of memory", [handle])
                return
            self._seconds[handle.function] = outcome.seconds
            if handle in self._queue:
                self._queue.remove(handle)
            handle.end(outcome.value, outcome.error)
        self.call = None

    def _check(self, call: _Call) -> None:
        if self._place is None:
            self._look_for_start(call)
            return
        taken = awake_seconds() - self._since
        if is_stopped(self._watch, self._place):
            kill_stopped(self._place)
            self._lost(f"is stopped, its process is {self._place[1]}", call.handles)
        elif taken >= self._limit:
            self._lost(
                f"gave no result within {self._limit:g} s (executor.compute_limit)", call.handles
            )
        elif taken >= self._notice:
            self._notice *= 2
            log.warning(
                "%s has been computing for %.0f s; its limit is %g s (executor.compute_limit)",
                _names(call.handles),
                taken,
                self._limit,
            )

    def _look_for_start(self, call: _Call) -> None:
        """The first computation begins when its worker is there."""
        if ray.wait([self._place_reference], timeout=0)[0]:
            try:
                self._place = ray.get(self._place_reference)
                self._begin()
            except ray.exceptions.RayError as died:
                self._lost(f"did not start ({last_words(died)})", call.handles[:1])
        elif awake_seconds() - self._since >= _START_SECONDS:
            self._lost(f"did not start within {_START_SECONDS:g} s", call.handles[:1])

    def _lost(self, how: str, during: Sequence[RayHandle]) -> None:
        """Let a fresh worker do what is under way, and each of what was done together by itself.
        After some losses one is given up.
        """
        names = _names(during)
        for handle in during:
            handle.losses += 1
        first = during[0]
        if first.losses < _ATTEMPTS:
            log.warning("the compute worker %s during %s; a fresh one does it again", how, names)
        else:
            if first in self._queue:
                self._queue.remove(first)
            first.error = SurroundingsError(
                f"the compute worker {how} during {names}, {_ATTEMPTS} times",
                hint="give it more memory, or more time with executor.compute_limit, then run "
                "the same command again",
            )
            first.is_over = True
        ray.kill(self._actor, no_restart=True)
        self._start()
        self._send_waiting()

    def close(self) -> None:
        ray.kill(self._actor, no_restart=True)
        self._queue.clear()
        self.call = None


def _names(handles: Sequence[RayHandle]) -> str:
    return ", ".join(dict.fromkeys(handle.name for handle in handles))


def _inputs(handle: RayHandle) -> list[RayHandle]:
    """All computations that one builds on, before it, and itself."""
    earlier = [
        one
        for argument in handle.arguments
        if isinstance(argument, RayHandle)
        for one in _inputs(argument)
    ]
    return list(dict.fromkeys([*earlier, handle]))
