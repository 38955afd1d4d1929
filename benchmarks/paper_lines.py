"""A line of the page of the papers: one of their numbers beside ours, read from the committed
results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

from benchmarks.record import RESULTS

NO_NUMBER = "a figure without numbers"
NOT_KEPT = "not recorded"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A table's or figure's number. ``ours`` is None where nothing was run; ``why`` says so, or
    what to make of the two.

    ``is_same_size``: whether crystals, data and training are as many as the paper's; None where
    nothing was run. ``differs``: in what. ``cost`` of ours. ``absent``: what stands where the paper
    has no number. ``is_drawing``: it shows how something is made, and measures nothing.
    """

    where: str
    paper: float | None
    ours: float | None
    why: str
    is_same_size: bool | None = None
    differs: str = "nothing was run"
    baseline: str = "none that is simpler"
    cost: str = "none"
    command: str = "none"
    higher_is_better: bool = True
    unit: str = ""
    absent: str = NO_NUMBER
    is_drawing: bool = False

    @property
    def verdict(self) -> str:
        if self.is_drawing:
            return "nothing to measure"
        if self.ours is None:
            return "not run"
        if self.paper is None:
            return "no number in the paper"
        is_reached = self.ours >= self.paper if self.higher_is_better else self.ours <= self.paper
        return "reached" if is_reached else "not reached"

    @property
    def cells(self) -> list[str]:
        def told(value: float | None, absent: str) -> str:
            return absent if value is None else f"{value:.4g}{self.unit}"

        size = {None: self.differs, True: f"yes; {self.differs}", False: f"no: {self.differs}"}
        because = ", because" if self.verdict == "not run" else ":"
        return [
            self.where,
            told(self.paper, self.absent),
            told(self.ours, "none" if self.is_drawing else "not run"),
            size[self.is_same_size],
            self.baseline,
            self.cost,
            "none" if self.command == "none" else f"`python -m benchmarks.{self.command}`",
            f"**{self.verdict}**{because} {self.why}",
        ]


def drawing(where: str, why: str) -> Line:
    return Line(where=where, paper=None, ours=None, why=why, differs="a drawing", is_drawing=True)


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def figure(name: str, key: str, *inner: str | int) -> float:
    value: Any = document(name)["summary"][key]
    for step in inner:
        value = value[step]
    return float(value["measured"] if isinstance(value, dict) else value)


def average(name: str, part: str, key: str, **wanted: object) -> float:
    """Mean of a column over the raw rows that are as wanted."""
    return float(
        mean(
            row[key]
            for row in document(name)["rows"][part]
            if all(row[column] == value for column, value in wanted.items())
        )
    )
