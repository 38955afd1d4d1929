"""Proposals and labels that took hours to make, in files that are committed, so that strategies are
replayed without the potential, and labelling goes on where another machine stopped.

    python -m benchmarks.kept_labels         # what was made here joins what is kept

A file of JSON lines, compressed, for the proposals and for each potential; each line holds its name
and what it is of. What is made is saved one by one below the parts before.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from campaign.files import write_whole

PARTS = RESULTS / "parts" / "made"
FOLDER = RESULTS / "labels"


def read(kind: str, name: str) -> Any | None:
    """A part that was made here, or one that is kept; None where there is none."""
    path = part(kind, name)
    return json.loads(path.read_bytes()) if path.exists() else _kept(kind).get(name)


def part(kind: str, name: str) -> Path:
    """``kind``: proposals, or the name of a potential."""
    return PARTS / kind / f"{name}.json"


@cache
def _kept(kind: str) -> Mapping[str, Any]:
    path = FOLDER / f"{kind}.jsonl.gz"
    if not path.exists():
        return {}
    with gzip.open(path, "rt") as file:
        return dict(json.loads(line) for line in file)


def keep(kind: str) -> int:
    """Parts of a kind into its file; returns how many it holds."""
    found = dict(_kept(kind))
    found |= {path.stem: json.loads(path.read_bytes()) for path in (PARTS / kind).glob("*.json")}
    text = "".join(f"{json.dumps([name, found[name]])}\n" for name in sorted(found))
    write_whole(FOLDER / f"{kind}.jsonl.gz", gzip.compress(text.encode(), mtime=0))
    return len(found)


def main() -> None:
    for folder in sorted(PARTS.iterdir()):
        print(f"{folder.name}: {keep(folder.name)} kept")


if __name__ == "__main__":
    main()
