"""Whose code an error came from: code of the user's own that a config names is told as theirs, with
its file and line.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from campaign.errors import InputError, OreloopError

PACKAGES = ("oreloop", "campaign", "surrogates", "generators", "oracles")
_LIBRARIES = ("site-packages", "dist-packages")


class OwnCodeError(InputError):
    """A component that is code of the user's own failed where it should have done its part."""


@cache
def _not_theirs() -> tuple[str, ...]:
    """Folders of our packages and of Python's own modules."""
    home = Path(__file__).resolve().parent.parent
    pythons = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return tuple(f"{folder}/" for folder in (*(home / package for package in PACKAGES), *pythons))


def own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost place in code that is neither ours nor a library's; None where there is
    none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if frame.filename.startswith("/") and not frame.filename.startswith(_not_theirs())
    ]
    return next(
        (frame for frame in reversed(own) if not set(Path(frame.filename).parts) & set(_LIBRARIES)),
        None,
    )


def told(error: BaseException) -> str:
    """An error with its place in one line: in the user's own code where it passed through it, else
    where it was raised.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    frame = own_frame(error) or (
        frames[-1] if frames and not isinstance(error, SyntaxError) else None
    )
    place = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame is not None else ""
    return f"{type(error).__name__}: {error}{place}"


@contextmanager
def theirs() -> Iterator[None]:
    """What is raised in here by code of the user's own is told as such, in a block or a function
    that it decorates.

    Raises OwnCodeError in its place; all else passes.
    """
    try:
        yield
    except (OreloopError, MemoryError):
        raise
    except Exception as error:
        frame = own_frame(error)
        if frame is None:
            raise
        line = f": {frame.line}" if frame.line else ""
        raise OwnCodeError(
            f"code of your own failed: {told(error)}",
            hint=f"mend {frame.filename}, line {frame.lineno}, in {frame.name}{line}",
        ) from error
