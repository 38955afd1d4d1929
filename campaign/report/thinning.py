"""Fewer marks where a figure would have more than anybody sees, so that a page stays small and
quick; said where it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

MOST = 2000
"""Marks of one figure."""

_Item = TypeVar("_Item")
Span = tuple[str, float, float, str]
"""Worker, start (s), length (s), what it did."""


def thinned(items: Sequence[_Item], most: int = MOST) -> list[_Item]:
    """At most so many of them, evenly spread over their order, the first and the last among them;
    all where they are no more.
    """
    if len(items) <= most:
        return list(items)
    return [items[row] for row in np.linspace(0, len(items) - 1, most).round().astype(int)]


def told(n: int, most: int = MOST) -> str:
    """What an axis says of so many marks that were thinned; empty where all are shown."""
    return f", {most} of {n} shown" if n > most else ""


def steps(values: Sequence[float | None]) -> list[int]:
    """Where a curve of steps has to be drawn: its ends, and each step."""
    last = len(values) - 1
    return [i for i in range(last + 1) if i in (0, last) or values[i] != values[i - 1]]


def joined(spans: Iterable[Span], most: int = MOST) -> list[Span]:
    """Spans of time by worker; those too near each other to be told apart at so many points of a
    time axis become one.
    """
    found = sorted(spans)
    if len(found) <= most:
        return found
    begin, end = (
        min(start for _, start, *_ in found),
        max(start + length for _, start, length, _ in found),
    )
    gap = (end - begin) / most
    merged: list[tuple[str, float, float, str, int]] = []
    for worker, start, length, what in found:
        if merged and merged[-1][0] == worker and start - merged[-1][2] < gap:
            _, first, until, named, n = merged[-1]
            merged[-1] = worker, first, max(until, start + length), named, n + 1
        else:
            merged.append((worker, start, start + length, what, 1))
    return [
        (worker, start, until - start, what if n == 1 else f"{n} labels")
        for worker, start, until, what, n in merged
    ]
