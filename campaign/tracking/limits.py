"""Limits on calls to a tracking server that count all of a call.

The timeouts of HTTP libraries count the wait for the next byte, so that a server which sends one
now and then holds a call for hours. Here a call that lasts longer than it may is broken off in its
own thread, wherever it stands.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mlflow import MlflowClient


class TooLongError(Exception):
    """A call lasted longer than it may."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Break off what this thread does in the block once it took so long, as soon as it comes back
    to Python's own code, which a call that waits for a byte does with each byte.

    Raises TooLongError.
    """
    told = threading.Lock()
    thread, is_over, is_broken_off = threading.get_ident(), False, False

    def break_off() -> None:
        nonlocal is_broken_off
        with told:
            if not is_over:
                is_broken_off = True
                _raise_in(thread, TooLongError)

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with told:
                is_over = True
                _raise_in(thread, None)
            timer.cancel()
    except BaseException as error:
        if is_broken_off and isinstance(error, Exception):
            raise TooLongError(f"no whole answer in {seconds:g} s") from error
        raise


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """None takes back what was to be raised and is not yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


class _Limited:
    """A client each of whose calls is broken off after some seconds."""

    def __init__(self, client: MlflowClient, seconds: float, longer: Mapping[str, float]) -> None:
        self._client, self._seconds, self._longer = client, seconds, longer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        call = cast("Callable[..., Any]", found)
        seconds = self._longer.get(name, self._seconds)

        @wraps(call)
        def limited(*arguments: Any, **named: Any) -> Any:
            with at_most(seconds):
                return call(*arguments, **named)

        return limited


def limited(client: MlflowClient, seconds: float, longer: Mapping[str, float]) -> MlflowClient:
    """The client, whose calls raise TooLongError after so many seconds; ``longer`` by the call's
    name.
    """
    return cast("MlflowClient", _Limited(client, seconds, longer))
