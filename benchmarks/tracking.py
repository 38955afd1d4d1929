"""What a tracking server that fails costs a campaign, and what is missing in it afterwards.

python -m benchmarks.tracking [--labels 60] [--only WORD ...] [--again]

A campaign with a model and a generator that learns, without Ray, logs to a server in memory on
loopback that fails from the start, or midway and is well again. Goals: the driver waits less than
1 % of the time that it works; its end waits at most a minute; the server holds every round,
training, figure and table after the same command was given once more, with the server well; the
server's password, which the URL holds, is in no message, no log at any level, no file of the
campaign, and nothing that the server stores. Rows are saved one by one and found again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.logging_cost import TimedTracker
from benchmarks.record import RESULTS, Row, commit, goal, restore, show, write
from benchmarks.tracking_server import FAULTS, StoredRun, TrackingServer
from campaign.api import Campaign
from campaign.config import loaded as configs
from campaign.files import write_whole
from campaign.tracking import mlflow as tracking

FOLDER = RESULTS / "parts" / "tracking"
PASSWORD = "a-password-of-its-own"
WELL, REFUSES, LEAVES = "is well", "refuses connections", "is away for a third and comes back"
ONE_METRIC, ONE_FILE = "breaks on one metric", "takes no weights"
DOCUMENT: dict[str, Any] = {
    "name": "tracking",
    "seed": 100,
    "space": {"elements": ["Ni", "Fe", "Cr"]},
    "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
    "mode": "rounds",
    "generators": [
        {
            "use": "cross_entropy_alloy",
            "count": 12,
            "params": {"repeats": [2, 2, 1], "min_elites": 8},
        },
        {"use": "local_search", "count": 8},
    ],
    "surrogate": {"use": "gp"},
    "acquisition": {
        "use": "log_noisy_expected_improvement",
        "initial_labels": 10,
        "batch_size": 5,
    },
    "oracles": [{"use": "lennard_jones"}],
    "executor": {"use": "serial"},
}
CASES = (WELL, *FAULTS, REFUSES, LEAVES, ONE_METRIC, ONE_FILE)


def path_of(row: Row) -> Path:
    return FOLDER / f"{re.sub('[^a-z]+', '-', row['server'])}.json"


def begin(server: TrackingServer, case: str) -> None:
    if case == REFUSES:
        server.leave()
    elif case in FAULTS:
        server.fault = next(fault for fault in FAULTS if fault == case)
    server.bad_name = "candidates/acceptance" if case == ONE_METRIC else ""
    server.bad_file = "weights/" if case == ONE_FILE else ""


def end(server: TrackingServer, case: str) -> None:
    if case == REFUSES:
        server.come_back()
    server.fault = None
    server.bad_name = server.bad_file = ""


def missing(server: TrackingServer, campaign: Campaign) -> dict[str, int]:
    """What the ledger has and the server lacks."""
    state = campaign.state()
    rounds = {record.index for record in state.rounds if record.ended is not None}
    trained = [event for record in state.rounds for event in record.trained]
    run = server.runs.get(state.tracking.run) if state.tracking is not None else None
    run = run or StoredRun({})
    whole = [other for other in server.runs.values() if "oreloop.training" in other.tags]
    files = {"best_so_far.png", "parity.png", "config/revision-0.json", "versions.json"}
    files |= {f"tables/{name}.json" for name in ("best", "candidates", "labels", "decisions")}
    return {
        "rounds": len(rounds - run.metrics["labels/so_far"].keys()),
        "trainings": len(trained) - len(whole),
        "files": len(files - run.files),
    }


def measure(case: str, labels: int) -> Row:
    TimedTracker.waited = TimedTracker.ending = 0.0
    log, told = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    third = labels // 3
    with tempfile.TemporaryDirectory() as name, TrackingServer() as server:
        uri = server.url.replace("://", f"://someone:{PASSWORD}@")
        changes = {"tracking": {"use": "mlflow", "uri": uri}, "budget": {"labels": labels}}
        loaded = configs.validate(
            DOCUMENT | changes, folder=Path(name), source=Path("benchmark.yaml")
        )
        campaign = Campaign(Path(name) / "campaign", loaded)
        begin(server, case)
        is_away = False

        def change(state: Any) -> None:
            nonlocal is_away
            n = len(state.labels)
            if case == LEAVES and is_away != (third <= n < 2 * third):
                is_away = not is_away
                server.leave() if is_away else server.come_back()

        started = time.perf_counter()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            campaign.run(on_change=change)
        wall = time.perf_counter() - started
        ending = TimedTracker.ending
        row: Row = {
            "server": case,
            "labels": labels,
            "wall": wall - ending,
            "waited": TimedTracker.waited - ending,
            "ending": ending,
            "warnings": log.getvalue().count("cannot be reached"),
            "missing_at_the_end": missing(server, campaign),
            "commit": commit(),
        }
        end(server, case)
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            campaign.run()
        row["missing_afterwards"] = missing(server, campaign)
        files = [path for path in campaign.folder.rglob("*") if path.is_file()]
        texts = [log.getvalue(), told.getvalue(), str([vars(run) for run in server.runs.values()])]
        row["passwords"] = sum(PASSWORD in text for text in texts) + sum(
            PASSWORD.encode() in path.read_bytes() for path in files
        )
    logging.getLogger().removeHandler(handler)
    return row


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows["servers"]:
        name = f"a server that {row['server']}"
        share = 100 * row["waited"] / row["wall"]
        found[f"{name}: driver waited (% of its time)"] = goal(round(share, 3), 1.0, at_least=False)
        found[f"{name}: the end waited (s)"] = goal(round(row["ending"], 1), 60.0, at_least=False)
        found[f"{name}: lacks at the end"] = row["missing_at_the_end"]
        lost = sum(row["missing_afterwards"].values())
        found[f"{name}: lost after the next run"] = goal(lost, 0, at_least=False)
    told = sum(row["passwords"] for row in rows["servers"])
    found["places with a password"] = goal(told, 0, at_least=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=60)
    parser.add_argument("--only", nargs="*", default=[], help="Words in the server's name.")
    parser.add_argument("--again", action="store_true", help="Measure what was measured, too.")
    arguments = parser.parse_args()
    tracking.MlflowTracker = TimedTracker  # type: ignore[misc]
    restore("tracking", "servers", path_of)
    rows: dict[str, list[Row]] = {"servers": []}
    for case in CASES:
        path = path_of({"server": case})
        is_wanted = not arguments.only or any(word in case for word in arguments.only)
        if is_wanted and (arguments.again or not path.exists()):
            write_whole(path, json.dumps([measure(case, arguments.labels)]).encode())
        if path.exists():
            rows["servers"] += json.loads(path.read_text())
    write("tracking", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
