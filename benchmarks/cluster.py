"""Labels as jobs of a real Slurm whose driver is killed again and again: is any lost, or made
twice, are there ever too many jobs?

python -m benchmarks.cluster

Starts a Slurm of its own on this machine (apt-get install slurm-wlm munge). 100 labels of 2 s, 8
jobs at most; the driver is killed by SIGKILL five times, once so many labels stand in its ledger,
and started again at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import Row, goal, middle, show, write
from benchmarks.slurm_server import Server, lacking

ROOT = Path(__file__).resolve().parent.parent
LABELS, SECONDS, MOST, KILLED_AT = 100, 2.0, 8, (5, 23, 41, 66, 90)
_LOOK_SECONDS = 0.2


def settings(folder: Path) -> dict[str, Any]:
    return {
        "name": "cluster",
        "space": {"elements": ["Ni", "Fe", "Cr"]},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "budget": {"labels": LABELS},
        "generators": [{"use": "random_alloy", "count": 40, "params": {"repeats": [2, 2, 1]}}],
        "acquisition": {"use": "random", "batch_size": 16, "initial_labels": 16},
        "oracles": [
            {
                "use": "sleeping_oracle:Sleeping",
                "params": {"seconds": SECONDS, "log": str(folder / "made")},
                "run_on": "queue",
                "queue": {"scheduler": "slurm", "max_jobs": MOST, "check_every": 1.0},
            }
        ],
        "executor": {"use": "serial"},
        "tracking": {"use": "none"},
    }


class Watch:
    """The jobs that a Slurm ever had, and the most that waited and ran at once."""

    def __init__(self, server: Server) -> None:
        self._server, self._is_over = server, threading.Event()
        self.jobs: dict[str, tuple[str, str]] = {}
        self.most = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            found = self._server.jobs()
            self.jobs |= found
            self.most = max(
                self.most, sum(state in ("PENDING", "RUNNING") for _, state in found.values())
            )

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()
        self.jobs |= self._server.jobs()


def measured(folder: Path) -> dict[str, list[Row]]:
    from campaign.api import Campaign

    server = Server(folder / "slurm")
    try:
        (folder / "made").touch()
        module = "sleeping_oracle.py"
        (folder / module).write_bytes((Path(__file__).parent / "plugins" / module).read_bytes())
        config, home = folder / "cluster.yaml", folder / "campaign"
        config.write_text(json.dumps(settings(folder)))
        command = [sys.executable, "-m", "campaign.cli", "run", str(config), "--folder", str(home)]
        surroundings = (
            os.environ | server.surroundings | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )

        def labels() -> int:
            return (
                len(Campaign.open(home).state().labels)
                if (home / "config.json").exists() and (home / "ledger.db").exists()
                else 0
            )

        watch, kills, began = Watch(server), [], time.monotonic()
        for number, wanted in enumerate((*KILLED_AT, LABELS)):
            driver = subprocess.Popen(
                command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if wanted == LABELS:
                driver.wait()
                break
            while labels() < wanted and driver.poll() is None:
                time.sleep(_LOOK_SECONDS)
            if driver.poll() is not None:
                break
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            there = Counter(state for _, state in server.jobs().values())
            kills.append(
                {
                    "kill": number,
                    "labels": labels(),
                    **{name: there[name.upper()] for name in ("pending", "running", "completed")},
                }
            )
        seconds = time.monotonic() - began
        watch.end()
        state = Campaign.open(home).state()
    finally:
        server.stop()
    made = Counter((folder / "made").read_text().split())
    rows = [
        {"candidate": candidate, "made": made[candidate], "seconds": label.wall_seconds}
        for (candidate, _), label in state.labels.items()
    ]
    return {
        "labels": rows,
        "jobs": [{"id": number, "state": state} for number, (_, state) in watch.jobs.items()],
        "kills": kills,
        "whole": [
            {
                "seconds": seconds,
                "most_jobs": watch.most,
                "failures": len(state.failures),
                "driver_exit": driver.returncode,
            }
        ],
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    (whole,) = rows["whole"]
    return {
        "labels": goal(len(rows["labels"]), LABELS, at_least=True),
        "jobs": goal(len(rows["jobs"]), LABELS, at_least=False),
        "labels made twice": goal(
            sum(row["made"] > 1 for row in rows["labels"]), 0, at_least=False
        ),
        "jobs in the queue at once": goal(whole["most_jobs"], MOST, at_least=False),
        "failures": goal(whole["failures"], 0, at_least=False),
        "kills of the driver": goal(len(rows["kills"]), len(KILLED_AT), at_least=True),
        "jobs that waited, ran or had ended unseen at a kill": sum(
            row["pending"] + row["running"] for row in rows["kills"]
        )
        + sum(row["completed"] - row["labels"] for row in rows["kills"]),
        "seconds of a label, median": middle(rows["labels"], "seconds"),
        "seconds in all": whole["seconds"],
    }


def main() -> None:
    if reason := lacking():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder))
    write(
        "cluster",
        rows,
        summarise,
        notes="One Slurm node of 8 slots on a machine of two cores, which other work shared.",
    )
    show(summarise(rows))


if __name__ == "__main__":
    main()
