"""Where a campaign on ten thousand workers meets its first wall: one driver simulated on the
virtual executor, extrapolated to a million labels.

python -m benchmarks.thousand_nodes [--workers 100 1000 10000] [--labels 10000] [--again]

A streaming campaign that chooses at random drives labels that take no processor time and end on a
clock of their own, so that what is measured is the driver: processor time a label, and how much of
it goes into the ledger's commits and into proposing, screening and deciding; memory and bytes of
ledger a label; the time until all workers have work; and the fold with which it would be resumed.
It is broken off once the labels are there, with all workers at work. Costs a label are those of the
last two thirds of the labels. With many workers, all that is decided within that time is decided at
its beginning, so that memory, ledger, fold and the cost of deciding are extrapolated from the
fewest workers, and what a label costs beside them from the most; that cost does not grow with the
labels that are there (``benchmarks.scale``). A label must take workers x cost for one driver to
keep all workers at work: that is the first wall. Times are of the processor, as the machine is
shared. Rows are saved one by one and found again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.record import RESULTS, Row, commit, restore, show, write
from benchmarks.scale import ELEMENTS, HERE, memory
from campaign.files import write_whole

FOLDER = RESULTS / "parts" / "thousand_nodes"
WANTED = 1_000_000
_WINDOWS = 6
_LABEL_TIMES = {"a network, 1 s": 1.0, "a static LAMMPS cell, 10 s": 10.0, "DFT, 1 h": 3600.0}


def path_of(row: Row) -> Path:
    return FOLDER / f"{row['workers']}-{row['labels']}.json"


def document(workers: int, labels: int) -> dict[str, Any]:
    batch = max(10, workers // 20)
    return {
        "name": "nodes",
        "seed": 100,
        "space": {"elements": list(ELEMENTS)},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "mode": "streaming",
        "budget": {"labels": labels + 2 * workers},
        "generators": [
            {"use": "random_alloy", "count": batch + 5, "params": {"repeats": [3, 3, 3]}}
        ],
        "acquisition": {"use": "random", "initial_labels": batch, "batch_size": batch},
        "oracles": [{"use": "quick_oracle:Quick", "workers": workers}],
        "executor": {"use": "virtual", "virtual": {"spread": 0.3}},
        "tracking": {"use": "none"},
    }


class _EnoughError(Exception):
    """The labels that were wanted are there, and all workers are at work still."""


class _Stopwatch:
    """Processor time (s) inside a function, calls inside each other counted once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            self._depth += 1
            started = time.process_time()
            try:
                return function(*given, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.process_time() - started

        return timed


def drive(workers: int, labels: int) -> Row:
    from campaign.api import Campaign
    from campaign.config import loaded as configs
    from campaign.executors.virtual import VirtualExecutor
    from campaign.ledger import Ledger
    from campaign.ledger.store import LedgerReader

    appends, computes = _Stopwatch(), _Stopwatch()
    Ledger.append = appends.around(Ledger.append)  # type: ignore[method-assign]
    VirtualExecutor.compute = computes.around(  # type: ignore[method-assign]
        VirtualExecutor.compute
    )
    loaded = configs.validate(
        document(workers, labels), folder=HERE.parent / "plugins", source=Path("benchmark.yaml")
    )
    windows: list[Row] = []
    filled = 0.0
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name) / "campaign", loaded)
        step = labels // _WINDOWS
        started = time.process_time()

        def seen(n: int) -> Row:
            size = sum(path.stat().st_size for path in campaign.folder.iterdir())
            return {
                "labels": n,
                "seconds": time.process_time() - started,
                "append": appends.seconds,
                "compute": computes.seconds,
                "memory": memory(),
                "disk": size,
            }

        def watch(state: Any) -> None:
            nonlocal filled
            n = len(state.own)
            if not filled and len(state.pending) + n >= min(workers, labels):
                filled = time.process_time() - started
            if n >= step * (len(windows) + 1):
                windows.append(seen(n))
            if len(windows) == _WINDOWS:
                raise _EnoughError

        with suppress(_EnoughError):
            campaign.run(on_change=watch)
        before = time.process_time()
        LedgerReader(campaign.folder).fold()
        fold = time.process_time() - before
    return {
        "workers": workers,
        "labels": labels,
        "windows": windows,
        "filled": filled,
        "fold": fold,
        "commit": commit(),
    }


def per_label(row: Row) -> dict[str, float]:
    """Over the last two thirds of the labels: ms, shares of them, bytes."""
    first, last = row["windows"][1], row["windows"][-1]

    def each(key: str) -> float:
        return float((last[key] - first[key]) / (last["labels"] - first["labels"]))

    return {
        "ms": 1000 * each("seconds"),
        "append": each("append") / each("seconds"),
        "compute": each("compute") / each("seconds"),
        "memory": each("memory"),
        "disk": each("disk"),
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows["workers"]:
        name, each = f"{row['workers']} workers", per_label(row)
        found[f"{name}: driver CPU ms a label"] = round(each["ms"], 2)
        found[f"{name}: of that commits, proposing and deciding (%)"] = [
            round(100 * each["append"], 1),
            round(100 * each["compute"], 1),
        ]
        found[f"{name}: first wall, shortest label that keeps them at work (s)"] = round(
            row["workers"] * each["ms"] / 1000, 2
        )
        found[f"{name}: until all have work (CPU s)"] = round(row["filled"], 1)
        found[f"{name}: memory, ledger a label (bytes)"] = [
            round(each["memory"]),
            round(each["disk"]),
        ]
        for label, seconds in _LABEL_TIMES.items():
            found[f"{name}: driver's share of a core, {label}"] = round(
                row["workers"] * each["ms"] / 1000 / seconds, 4
            )
    few, many = rows["workers"][0], rows["workers"][-1]
    steady, most = per_label(few), per_label(many)
    alone = [each["ms"] * (1 - each["compute"]) for each in (steady, most)]
    found["driver CPU ms a label more for each 1000 workers, without deciding"] = round(
        1000 * (alone[1] - alone[0]) / max(1, many["workers"] - few["workers"]), 2
    )
    grown = alone[1] + steady["ms"] * steady["compute"]
    name = f"{many['workers']} workers, {WANTED} labels, extrapolated"
    found[f"{name}: driver CPU (h)"] = round(WANTED * grown / 3.6e6, 2)
    found[f"{name}: memory (GB)"] = round(WANTED * steady["memory"] / 1e9, 2)
    found[f"{name}: ledger and journal (GB)"] = round(WANTED * steady["disk"] / 1e9, 2)
    found[f"{name}: fold at a resume (CPU s)"] = round(WANTED * few["fold"] / few["labels"], 1)
    return found


def apart(workers: int, labels: int) -> Row:
    """In a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.thousand_nodes", "--part", str(workers)]
    found = subprocess.run(
        [*command, "--labels", str(labels)],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise RuntimeError(found.stderr)
    row: Row = json.loads(found.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--again", action="store_true", help="Measure what was measured, too.")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print("\n" + json.dumps(drive(arguments.part, arguments.labels)))
        return
    restore("thousand_nodes", "workers", path_of)
    rows: dict[str, list[Row]] = {"workers": []}
    for workers in arguments.workers:
        labels = arguments.labels if workers >= 10_000 else arguments.labels // 4
        path = path_of({"workers": workers, "labels": labels})
        if arguments.again or not path.exists():
            write_whole(path, json.dumps([apart(workers, labels)]).encode())
        rows["workers"] += json.loads(path.read_text())
    write("thousand_nodes", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
