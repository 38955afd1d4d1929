"""Protocols of many crystals side by side, each written for one: what they ask of their engines is
computed together.

Each protocol runs in a thread of its own, but only one at a time and only until it asks for a
relaxation or for forces. Then the next one runs; once all wait, all that they wait for takes a
step. Whoever has an answer goes on while the others still wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from campaign.types import Crystal, FloatArray
from oracles.mechanics import State

if TYPE_CHECKING:
    from oracles.many import Relaxations, Relaxed

Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """A crystal to be relaxed, at a pressure (GPa) where the cell moves; where nothing moves its
    forces are wanted.
    """

    crystal: Crystal
    ions: bool = False
    cell: bool = False
    pressure: float = 0.0

    def begin(self, relaxations: Relaxations, name: int) -> None:
        relaxations.add(name, self.crystal, ions=self.ions, cell=self.cell, pressure=self.pressure)


class Ask(Protocol):
    def __call__(self, request: Request) -> Relaxed:
        """Raises ValueError for a crystal that the model cannot take."""
        ...


class AskingMechanics:
    """An engine for the static protocols that asks another for what is computed. Angstrom, eV,
    GPa.
    """

    def __init__(self, ask: Ask, check: Callable[[Crystal], None] = lambda crystal: None) -> None:
        self._ask, self._check = ask, check
        self._crystal: Crystal | None = None
        self._state: State | None = None

    @property
    def crystal(self) -> Crystal:
        assert self._crystal is not None
        return self._crystal

    def load(self, crystal: Crystal) -> None:
        self._check(crystal)
        if np.linalg.det(crystal.lattice) <= 1e-6:
            raise ValueError("the cell's vectors are left-handed or span no volume")
        self._crystal, self._state = crystal, None

    def relax(self, *, cell: bool, pressure: float = 0.0) -> float:
        self._state = self._ask(
            Request(self.crystal, ions=True, cell=cell, pressure=pressure)
        ).state
        self._crystal = self._state.crystal
        return float(np.abs(self._state.stress + pressure * np.eye(3)).max()) if cell else 0.0

    def deform(self, gradient: FloatArray) -> None:
        self._crystal, self._state = (
            Crystal(self.crystal.lattice @ gradient, self.crystal.fractional, self.crystal.numbers),
            None,
        )

    def state(self) -> State:
        if self._state is None:
            self._state = self._ask(Request(self.crystal)).state
        return self._state


def alone(relaxations: Relaxations, request: Request) -> Relaxed:
    """The answer to one request, by an engine that nothing else uses."""
    request.begin(relaxations, 0)
    while True:
        for _, relaxed in relaxations.step():
            return relaxed


class _Ended(Exception):  # noqa: N818
    """Ends a protocol that is not needed any more."""


@dataclass
class _Done(Generic[Result]):
    value: Result


@dataclass
class _Raised:
    error: BaseException


class _Protocol(Generic[Result]):
    """A protocol in its thread."""

    def __init__(self, work: Callable[[Ask], Result]) -> None:
        self._work = work
        self._posts: SimpleQueue[Request | _Done[Result] | _Raised] = SimpleQueue()
        self._answers: SimpleQueue[Relaxed | Exception] = SimpleQueue()
        self._thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._posts.put(_Done(self._work(self._ask)))
        except BaseException as error:
            self._posts.put(_Raised(error))

    def _ask(self, request: Request) -> Relaxed:
        self._posts.put(request)
        answer = self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self) -> Request | _Done[Result] | _Raised:
        self._thread.start()
        return self._posts.get()

    def go_on(self, answer: Relaxed | Exception) -> Request | _Done[Result] | _Raised:
        self._answers.put(answer)
        return self._posts.get()

    def end(self) -> None:
        while self._thread.is_alive():
            self._answers.put(_Ended())
            self._thread.join(1.0)


def side_by_side(
    relaxations: Relaxations, works: Sequence[Callable[[Ask], Result]]
) -> Iterator[tuple[int, Result]]:
    """Each one's index and result, as they are ready. Raises what a protocol raised, once the
    others have their results.
    """
    waiting: dict[Hashable, tuple[int, _Protocol[Result]]] = {}
    errors: list[BaseException] = []

    def settle(
        index: int, protocol: _Protocol[Result], post: Request | _Done[Result] | _Raised
    ) -> Iterator[tuple[int, Result]]:
        """Begin what it asks for; its result where it has one."""
        while isinstance(post, Request):
            try:
                post.begin(relaxations, index)
            except ValueError as error:
                post = protocol.go_on(error)
                continue
            waiting[index] = index, protocol
            return
        waiting.pop(index, None)
        if isinstance(post, _Raised):
            errors.append(post.error)
        else:
            yield index, post.value

    try:
        for index, work in enumerate(works):
            protocol = _Protocol(work)
            yield from settle(index, protocol, protocol.start())
        while waiting:
            for name, relaxed in relaxations.step():
                index, protocol = waiting[name]
                yield from settle(index, protocol, protocol.go_on(relaxed))
    finally:
        for _, protocol in waiting.values():
            protocol.end()
    if errors:
        raise errors[0]
