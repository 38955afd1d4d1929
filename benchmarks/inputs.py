"""What happens to files that enter: structures mutated at random are read as crystals or refused by an InputError, and by nothing else.

``--parts fuzz``: mutated CIF, POSCAR and extended xyz files. Each part is kept in the results when another is run.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.mutations import drawn
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.errors import InputError
from campaign.reading.disorder import Disorder
from campaign.reading.structures import read_structures

NAME = "inputs"
FILES, SEED, TRIAL, LIMIT = 20_000, 200, 0, 10.0
_BATCH = 500


class HangError(Exception):
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
        return ("refused", "") if path.name in str(error) else ("traceback", f"a refusal that does not name the file: {error}")
    except HangError:
        return "hang", ""
    except Exception:
        return "traceback", traceback.format_exc(limit=-2)
    return "read", ""


def fuzz(files: int, seed: int) -> Iterator[Row]:
    """One row for each 500 files: how many came out how, and the first files that came out wrong."""
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
                    wrong.append({"file": row, "name": name, "text": data.decode("latin-1"), "told": told})
            yield {
                "seed": seed,
                "first": first,
                **{kind: counts[kind] for kind in ("read", "refused", "traceback", "hang")},
                "slowest_seconds": round(slowest, 3),
                "seconds": round(time.perf_counter() - begun, 2),
                "wrong": wrong[:5],
            }


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {"fuzz": lambda files: fuzz(files, SEED if files == FILES else TRIAL)}


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    found = rows.get("fuzz", ())
    if found:
        total = {kind: sum(row[kind] for row in found) for kind in ("read", "refused", "traceback", "hang")}
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
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    parser.add_argument(
        "--files", type=int, default=FILES, help="Mutated files; fewer for a trial under another seed, which is shown and not kept."
    )
    arguments = parser.parse_args()
    path = RESULTS / f"{NAME}.json"
    rows: dict[str, list[Row]] = json.loads(path.read_text())["rows"] if path.exists() else {}
    for part in arguments.parts:
        rows[part] = list(PARTS[part](arguments.files))
    if arguments.files == FILES:
        write(NAME, rows, summarise, command=f"python -m benchmarks.{NAME} --parts {' '.join(arguments.parts)}")
    show(summarise(rows))
    for row in (row for part in arguments.parts for row in rows[part]):
        for wrong in row.get("wrong", ()):
            print(f"\nfile {wrong['file']} ({wrong['name']}):\n{wrong['told']}\n{wrong['text'][:1500]}")


if __name__ == "__main__":
    main()
