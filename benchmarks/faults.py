"""What faults cost a campaign: labels lost, labels paid twice, what is told, what is left behind.

python -m benchmarks.faults [--only WORD ...] [--executors serial ray] [--modes rounds streaming]
[--again]

Each row is a small campaign run by the real command (24 labels of 0.1 s, one worker without Ray,
two with it). A fault is made while it runs or between two sessions; then its cause is removed, what
the message says is done, and the same command runs to its end. An oracle writes down each
execution. Rows are saved one by one and found again. Faults of a ledger at rest are made under the
serial executor alone, as no executor is at work then; those of Ray's own processes under Ray alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_cases import FAULTS, LABELS, document
from benchmarks.record import RESULTS, Row, commit, goal, restore, show, write
from campaign.files import write_whole
from campaign.testing.drill import Config, Drill
from campaign.testing.faults import Fault
from campaign.testing.outcome import excess, outcome, problems

FOLDER = RESULTS / "parts" / "faults"
EXECUTORS, MODES = ("serial", "ray"), ("rounds", "streaming")


def cases(
    executors: Sequence[str], modes: Sequence[str], only: Sequence[str]
) -> Iterator[tuple[Fault, str, str]]:
    for executor in executors:
        for fault in FAULTS:
            if fault.is_made(executor) and (not only or any(word in fault.name for word in only)):
                for mode in modes:
                    yield fault, executor, mode


def path_of(row: Row) -> Path:
    return (
        FOLDER
        / f"{re.sub('[^a-zA-Z0-9]+', '-', row['fault'])}-{row['executor']}-{row['mode']}.json"
    )


def measure(fault: Fault, executor: str, mode: str) -> Row:
    """One row; ``why_stuck`` and ``not_run`` tell why there is no more to it."""

    def configured(folder: Path) -> Config:
        config = document(executor, mode, folder)
        fault.changes(config)
        return config

    row: Row = {"fault": fault.name, "executor": executor, "mode": mode, "commit": commit()}
    with Drill(configured) as drill:
        row |= outcome(fault, drill, LABELS)
        if problems(row):
            write_whole(
                path_of(row).with_suffix(".txt"),
                drill.output().encode(errors="backslashreplace"),
            )
    return row


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    run = [row for row in rows["faults"] if not row["not_run"]]
    ended = [row for row in run if "labels" in row]

    def having(problem: str) -> float:
        return sum(problem in problems(row) for row in run)

    told = [row["seconds_until_told"] for row in run if row["seconds_until_told"] is not None]
    lost = sum(max(0, row["labels_lost"] - row["unrecoverable"]) for row in ended)
    return {
        "rows": len(run),
        "rows that this machine could not run": len(rows["faults"]) - len(run),
        "labels lost": goal(lost, 0, at_least=False),
        "rows stuck": goal(having("stuck"), 0, at_least=False),
        "rows with a traceback": goal(sum(row["tracebacks"] > 0 for row in run), 0, at_least=False),
        "labels paid twice beyond those under way at a kill": goal(
            sum(map(excess, ended)), 0, at_least=False
        ),
        "labels paid twice in all": sum(row["paid_twice"] for row in ended),
        "labels under way at a kill": sum(row["at_risk"] for row in ended),
        "labels that nothing could bring back (deleted folder, line in neither side)": sum(
            row["unrecoverable"] for row in ended
        ),
        "rows that do not end with their budget": goal(
            having("did not end with its budget") + len(run) - len(ended), 0, at_least=False
        ),
        "rows with another exit code than promised": goal(
            having("another exit code than promised"), 0, at_least=False
        ),
        "rows without a word": goal(having("nothing said"), 0, at_least=False),
        "rows where the surroundings' fault gave a candidate up": goal(
            having("candidates given up"), 0, at_least=False
        ),
        "rows with processes left at the end": goal(having("processes left"), 0, at_least=False),
        "rows with folders left at the end": goal(having("folders left"), 0, at_least=False),
        "most seconds until a word": max(told, default=0.0),
    }


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "fault | executor | mode | lost | paid twice | under way | exit | s until told | "
        "left | message"
    )
    yield "|".join(["---"] * 10)
    for row in rows:
        what = row["not_run"] or row["why_stuck"] or row["cannot_be_read"] or row["message"]
        left = len(row["left_processes"]) + len(row["left_folders"])
        told = f"{row['seconds_until_told']:.1f}" if row["seconds_until_told"] is not None else ""
        counts = [str(row.get(key, "")) for key in ("labels_lost", "paid_twice", "at_risk")]
        cells = [
            row["fault"],
            row["executor"],
            row["mode"],
            *counts,
            str(row["exit_code"]),
            told,
            str(left),
            what[:120],
        ]
        yield " | ".join(cells) + ("".join(f"  !! {problem}" for problem in problems(row)))


def saved() -> list[Row]:
    """All rows so far, in the order of the table."""
    paths = [
        path_of({"fault": f.name, "executor": executor, "mode": mode})
        for f, executor, mode in cases(EXECUTORS, MODES, ())
    ]
    return [row for path in paths if path.exists() for row in json.loads(path.read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], help="faults whose names hold one of these words"
    )
    parser.add_argument("--executors", nargs="+", default=list(EXECUTORS), choices=EXECUTORS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--again", action="store_true", help="measure rows again that are saved")
    arguments = parser.parse_args()
    os.nice(5)
    FOLDER.mkdir(parents=True, exist_ok=True)
    restore("faults", "faults", path_of)
    for fault, executor, mode in cases(arguments.executors, arguments.modes, arguments.only):
        path = path_of({"fault": fault.name, "executor": executor, "mode": mode})
        if path.exists() and not arguments.again:
            continue
        row = measure(fault, executor, mode)
        write_whole(path, json.dumps([row]).encode())
        print(list(table([row]))[-1], flush=True)
        write("faults", {"faults": saved()}, summarise)
    print("\n".join(table(saved())))
    write("faults", {"faults": saved()}, summarise)
    show(summarise({"faults": saved()}))


if __name__ == "__main__":
    main()
