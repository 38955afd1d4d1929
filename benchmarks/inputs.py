"""What happens to what enters: files, tables, configs, imports; right, refused by name, or wrong.

python -m benchmarks.inputs --parts own shared fuzz --cases FOLDER

``own``: situations written here, from public bug reports and beyond. ``shared``: a folder of cases
with scripts of their own, each judged by a predicate. ``fuzz``: mutated CIF, POSCAR and extended
xyz files, read as crystals or refused by an InputError and by nothing else. Each part is kept in
the results when another is run.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import campaign_cases, config_cases, structure_cases, table_cases
from benchmarks.input_cases import Case
from benchmarks.mutations import drawn
from benchmarks.record import RESULTS, Row, commit, goal, show, write
from benchmarks.shared_cases import shared
from campaign.errors import InputError, OreloopError
from campaign.reading.disorder import Disorder
from campaign.reading.structures import read_structures

NAME = "inputs"
FILES, SEED, TRIAL, LIMIT = 20_000, 200, 0, 10.0
CASE_LIMIT = 60.0
_BATCH = 500


class HangError(BaseException):
    """A file took longer than the limit."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path, disorder: Disorder | None) -> tuple[str, str]:
    """read, refused, traceback or hang; and of the last two what they were."""
    try:
        with _limited(LIMIT):
            list(read_structures(path, disorder=disorder))
    except InputError as error:
        return (
            ("refused", "")
            if path.name in str(error)
            else ("traceback", f"a refusal that does not name the file: {error}")
        )
    except HangError:
        return "hang", ""
    except Exception:
        return "traceback", traceback.format_exc(limit=-2)
    return "read", ""


def fuzz(files: int, seed: int) -> Iterator[Row]:
    """One row for each 500 files: how many came out how, and the first files that came out
    wrong.
    """
    stream = random.Random(seed)
    ordered = Disorder(method="enumerate", max_atoms=8, count=2)
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, files, _BATCH):
            counts: Counter[str] = Counter()
            wrong, slowest, begun = [], 0.0, time.perf_counter()
            for row in range(first, min(first + _BATCH, files)):
                name, data = drawn(stream)
                path = Path(folder) / name
                path.write_bytes(data)
                started = time.perf_counter()
                kind, told = outcome(path, ordered if row % 2 else None)
                slowest = max(slowest, time.perf_counter() - started)
                counts[kind] += 1
                if kind in ("traceback", "hang"):
                    wrong.append(
                        {"file": row, "name": name, "text": data.decode("latin-1"), "told": told}
                    )
            yield {
                "seed": seed,
                "first": first,
                **{kind: counts[kind] for kind in ("read", "refused", "traceback", "hang")},
                "slowest_seconds": round(slowest, 3),
                "seconds": round(time.perf_counter() - begun, 2),
                "wrong": wrong[:5],
            }


def own() -> Iterator[Row]:
    """One row for each situation: how it came out, and what was said."""
    with _silent():
        for module in (structure_cases, table_cases, config_cases, campaign_cases):
            for case in module.cases():
                yield _row(case)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the words that campaigns log."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _row(case: Case) -> Row:
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result, told = judged(case, Path(folder))
        told = told.replace(folder, "")
    return {
        "kind": case.kind,
        "case": case.name,
        "outcome": result,
        "told": told,
        "seconds": round(time.perf_counter() - begun, 2),
    }


def judged(case: Case, folder: Path) -> tuple[str, str]:
    """right, refused, wrong, traceback or hang; and what was said."""
    try:
        with _limited(CASE_LIMIT):
            wrong = case.run(folder)
    except OreloopError as error:
        is_named = case.refusal is not None and all(word in str(error) for word in case.refusal)
        return (
            ("refused", error.message[:200])
            if is_named
            else ("wrong", f"refused in other words: {error}")
        )
    except HangError:
        return "hang", f"more than {CASE_LIMIT:g} s"
    except Exception:
        return "traceback", traceback.format_exc(limit=-2)
    return ("wrong", wrong) if wrong else ("right", "")


OUTCOMES = ("right", "refused", "wrong", "traceback", "hang")


def _of_cases(part: str, found: Sequence[Row]) -> dict[str, Any]:
    counts = Counter(row["outcome"] for row in found)
    summary: dict[str, Any] = {f"{part}: cases": float(len(found))}
    for outcome in OUTCOMES:
        is_bad = outcome in ("wrong", "traceback", "hang")
        summary[f"{part}: {outcome}"] = (
            goal(float(counts[outcome]), 0, at_least=False) if is_bad else float(counts[outcome])
        )
    return summary


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for part in ("own", "shared"):
        if rows.get(part):
            summary |= _of_cases(part, rows[part])
    found = rows.get("fuzz", ())
    if found:
        total = {
            kind: sum(row[kind] for row in found)
            for kind in ("read", "refused", "traceback", "hang")
        }
        summary |= {
            "fuzz: mutated files": goal(float(sum(total.values())), FILES, at_least=True),
            "fuzz: tracebacks": goal(float(total["traceback"]), 0, at_least=False),
            "fuzz: hangs (10 s)": goal(float(total["hang"]), 0, at_least=False),
            "fuzz: read": float(total["read"]),
            "fuzz: refused by name": float(total["refused"]),
            "fuzz: slowest file (s)": max(row["slowest_seconds"] for row in found),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts", nargs="+", choices=("own", "shared", "fuzz"), default=["own", "fuzz"]
    )
    parser.add_argument("--cases", type=Path, help="folder of the shared cases, for --parts shared")
    parser.add_argument(
        "--only", nargs="+", default=[], help="shared cases by name; the others' rows are kept"
    )
    parser.add_argument(
        "--files",
        type=int,
        default=FILES,
        help="Mutated files; fewer for a trial under another seed, which is shown and not kept.",
    )
    arguments = parser.parse_args()
    if "shared" in arguments.parts and arguments.cases is None:
        parser.error("--parts shared needs --cases FOLDER")
    for part in arguments.parts:
        if part == "own":
            found = list(own())
        elif part == "fuzz":
            found = list(fuzz(arguments.files, SEED if arguments.files == FILES else TRIAL))
        else:
            found = list(shared(arguments.cases, arguments.only))
        keep(part, found, arguments.only, is_kept=part != "fuzz" or arguments.files == FILES)
        for row in found:
            if row.get("outcome") in ("wrong", "traceback", "hang"):
                print(f"\n{row['kind']}: {row['case']}: {row['outcome']}\n{row['told']}")
            for wrong in row.get("wrong", ()):
                print(
                    f"\nfile {wrong['file']} "
                    f"({wrong['name']}):\n{wrong['told']}\n{wrong['text'][:1500]}"
                )


def keep(part: str, found: Sequence[Row], only: Sequence[str], *, is_kept: bool) -> None:
    """Show a part, and write it beside the others, each row with its commit."""
    path = RESULTS / f"{NAME}.json"
    rows: dict[str, list[Row]] = json.loads(path.read_text())["rows"] if path.exists() else {}
    others = [
        row
        for row in rows.get(part, ())
        if only and row["case"] not in {new["case"] for new in found}
    ]
    rows[part] = [*others, *({**row, "commit": commit()} for row in found)]
    if part == "shared":
        rows[part].sort(key=lambda row: row["case"])
    show(summarise(rows if is_kept else {part: found}))
    if is_kept:
        write(NAME, rows, summarise)


if __name__ == "__main__":
    main()
