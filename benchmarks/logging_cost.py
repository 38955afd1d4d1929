"""What MLflow costs a campaign: time that the driver waits for it, and processor time of the thread
that writes.

python -m benchmarks.logging_cost [--configs nifecr_quickstart carbon_sp3]

Runs shipped campaigns whole in a temporary folder. Goal: the driver waits less than 1 % of the
campaign's wall time, the last pictures and tables included. The thread's own processor time, the
import of MLflow included, is told beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.record import Row, goal, show, write
from campaign.api import Campaign
from campaign.tracking import mlflow as tracking

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = ("nifecr_quickstart", "carbon_sp3")


class TimedTracker(tracking.MlflowTracker):
    """Adds up what it takes, in seconds."""

    waited = 0.0
    ending = 0.0
    processor = 0.0

    def update(self) -> None:
        started = time.perf_counter()
        super().update()
        TimedTracker.waited += time.perf_counter() - started

    def finish(self) -> None:
        started, before = time.perf_counter(), TimedTracker.waited
        super().finish()
        TimedTracker.ending = time.perf_counter() - started
        TimedTracker.waited = before + TimedTracker.ending

    def _work(self) -> None:
        started = time.thread_time()
        super()._work()
        TimedTracker.processor += time.thread_time() - started


def run(name: str) -> Row:
    TimedTracker.waited = TimedTracker.processor = 0.0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign.from_config(CONFIGS / f"{name}.yaml", Path(folder) / name)
        started = time.perf_counter()
        campaign.run()
        wall = time.perf_counter() - started
        state = campaign.state()
    facts = {
        "rounds": len(state.rounds),
        "labels": len(state.labels),
        "candidates": len(state.candidates),
    }
    return {
        "campaign": name,
        **facts,
        "wall": wall,
        "driver waited": TimedTracker.waited,
        "at the end": TimedTracker.ending,
        "thread": TimedTracker.processor,
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows["campaigns"]:
        name = row["campaign"]
        found[f"{name}: rounds, labels, wall (s)"] = [
            row["rounds"],
            row["labels"],
            round(row["wall"], 1),
        ]
        share = 100 * row["driver waited"] / row["wall"]
        found[f"{name}: share of the wall time that the driver waited (%)"] = goal(
            round(share, 2), 1.0, at_least=False
        )
        found[f"{name}: of that for the last pictures and tables (s)"] = round(row["at the end"], 2)
        found[f"{name}: processor time of the thread (% of the wall time)"] = round(
            100 * row["thread"] / row["wall"], 2
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=list(NAMES))
    arguments = parser.parse_args()
    tracking.MlflowTracker = TimedTracker  # type: ignore[misc]
    rows = {"campaigns": [run(name) for name in arguments.configs]}
    write("logging_cost", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
