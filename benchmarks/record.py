"""Writes a benchmark's rows, goals and verdicts with what they depend on; recomputes summaries from
raw rows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from campaign.code import installed
from campaign.files import write_whole

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def commit() -> str:
    """The commit of the checkout, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=RESULTS, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def restore(name: str, part: str, path_of: Callable[[Row], Path]) -> None:
    """Rows of the committed figures become saved parts again, where there are none, so that a fresh
    checkout goes on with the rest.
    """
    path = RESULTS / f"{name}.json"
    found: dict[Path, list[Row]] = {}
    for row in json.loads(path.read_text())["rows"][part] if path.exists() else ():
        found.setdefault(path_of(row), []).append(row)
    for saved, rows in found.items():
        if not saved.exists():
            write_whole(saved, json.dumps(rows).encode())


def goal(measured: float, wanted: float, *, at_least: bool) -> dict[str, Any]:
    """A figure beside its goal, with the verdict."""
    is_met = measured >= wanted if at_least else measured <= wanted
    return {
        "measured": measured,
        "goal": wanted,
        "at_least": at_least,
        "verdict": "met" if is_met else "missed",
    }


def middle(rows: Sequence[Row], key: str) -> float:
    return float(median(row[key] for row in rows))


def write(
    name: str,
    rows: Mapping[str, Sequence[Row]],
    summarise: Callable[[Mapping[str, Sequence[Row]]], dict[str, Any]],
    notes: str = "",
    command: str = "",
) -> Path:
    """Write raw rows by part, and the summary that follows from them alone; the command is that of
    the name where none is given.
    """
    path = RESULTS / f"{name}.json"
    document = {
        "name": name,
        "command": command or f"python -m benchmarks.{name}",
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "versions": installed(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "notes": notes,
        "summary": summarise(rows),
        "rows": rows,
    }
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def show(summary: Mapping[str, Any]) -> None:
    """Print a summary for people."""
    for key, value in summary.items():
        if isinstance(value, dict) and "verdict" in value:
            sign = ">=" if value["at_least"] else "<="
            print(
                f"{key:60s} {value['measured']:10.4g}   goal {sign} {value['goal']:g}: "
                f"{value['verdict']}"
            )
        else:
            print(f"{key:60s} {value:10.4g}" if isinstance(value, float) else f"{key:60s} {value}")
