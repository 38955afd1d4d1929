"""Evidence bundles: a finished campaign's verifies in a fresh environment, changed ones do not.

A campaign of the quick start with 40 labels is run and exported here; `oreloop verify --sample 5`
reads the bundle with an interpreter of its own, built from a clone of this repository by `make
setup`, as is each changed copy:

    python -m benchmarks.bundle                      # clones and builds, some minutes
    python -m benchmarks.bundle --python FRESH/bin/python

Whoever changes a file and leaves the list of files alone is found by the list; whoever signs the
list again, by what follows from the history; whoever writes the history anew, checksums and all,
by the oracles.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.record import Row, goal, show, write

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "nifecr_quickstart.yaml"
LABELS, SAMPLE = 40, 5
METADATA = "ro-crate-metadata.json"
JOURNAL = Path("ledger") / "journal.jsonl"


def fresh(folder: Path) -> Path:
    """The interpreter of a clone of this repository, set up as its README says."""
    clone = folder / "oreloop"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run(["make", "--silent", "setup"], cwd=clone, check=True)
    return clone / ".venv" / "bin" / "python"


def finished(folder: Path) -> Path:
    """The bundle of a campaign that ran to its end."""
    config = YAML(typ="safe").load(CONFIG.read_text())
    config |= {"budget": {"labels": LABELS}, "tracking": {"use": "none"}}
    with (folder / "case.yaml").open("w") as file:
        YAML().dump(config, file)
    campaign, bundle = folder / "campaign", folder / "bundle"
    for arguments in (
        ["run", str(folder / "case.yaml"), "--folder", str(campaign)],
        ["export", str(campaign), "--bundle", "--target", str(bundle)],
    ):
        subprocess.run([sys.executable, "-m", "campaign.cli", *arguments], check=True, cwd=ROOT)
    return bundle


def sign_again(bundle: Path) -> None:
    """The list of files as one who changes them would write it."""
    document = json.loads((bundle / METADATA).read_bytes())
    for item in document["@graph"]:
        if "sha256" in item:
            item["sha256"] = hashlib.sha256((bundle / item["@id"]).read_bytes()).hexdigest()
    (bundle / METADATA).write_text(json.dumps(document))


def with_history(bundle: Path, change: Callable[[str], str]) -> None:
    """The journal's lines changed, its checksums and the list of files made to hold."""
    before = [line[9:] for line in (bundle / JOURNAL).read_text().splitlines()]
    lines = [change(line) for line in before]
    assert lines != before
    (bundle / JOURNAL).write_text(
        "".join(f"{zlib.crc32(line.encode()):08x} {line}\n" for line in lines)
    )
    sign_again(bundle)


def _replace_in(bundle: Path, pattern: str, change: Callable[[bytes], bytes]) -> None:
    path = sorted(bundle.rglob(pattern))[0]
    path.write_bytes(change(path.read_bytes()))


def _digit(data: bytes) -> bytes:
    """One digit changed, in the middle of a text."""
    place = next(i for i in range(len(data) // 2, len(data)) if chr(data[i]).isdigit())
    return data[:place] + (b"1" if data[place : place + 1] != b"1" else b"2") + data[place + 1 :]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _stiffer(line: str) -> str:
    """Every bulk modulus raised by 1 %."""
    event: Any = json.loads(line)

    def walk(item: Any) -> None:
        if isinstance(item, list) and item[:1] == ["bulk_modulus"] and isinstance(item[1], float):
            item[1] *= 1.01
        for part in item.values() if isinstance(item, dict) else item:
            if isinstance(part, dict | list):
                walk(part)

    walk(event)
    return json.dumps(event, separators=(",", ":"))


def _put_in(bundle: Path) -> None:
    (bundle / "more.cif").write_text("data_more\n")


def _shorter(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-20])


def _signed(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def change_and_sign(bundle: Path) -> None:
        change(bundle)
        sign_again(bundle)

    return change_and_sign


TAMPERINGS: Mapping[str, Callable[[Path], None]] = {
    "a digit of a CIF": lambda b: _replace_in(b, "*.cif", _digit),
    "a bit of a table": lambda b: _replace_in(b, "*.parquet", _flip),
    "a digit of a label in extxyz": lambda b: _replace_in(b, "*.extxyz", _digit),
    "the methods paragraph": lambda b: _replace_in(b, "methods.md", lambda d: d + b"\nProven."),
    "a file taken away": lambda b: sorted(b.rglob("*.cif"))[0].unlink(),
    "a file put in": _put_in,
    "a digit of extxyz, signed again": _signed(lambda b: _replace_in(b, "*.extxyz", _digit)),
    "the end of the history cut off, signed again": _signed(
        lambda b: _replace_in(b, "journal.jsonl", _shorter)
    ),
    "all labels raised by 1 % in the history, checksums made to hold": lambda b: with_history(
        b, _stiffer
    ),
}


def verified(python: Path, bundle: Path) -> Row:
    """What `oreloop verify` says of it in the other environment."""
    surroundings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    started = time.perf_counter()
    ended = subprocess.run(
        [str(python), "-m", "campaign.cli", "verify", str(bundle), "--sample", str(SAMPLE)],
        cwd=python.parents[2],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    text = f"{ended.stdout}\n{ended.stderr}"
    return {
        "exit": ended.returncode,
        "seconds": round(time.perf_counter() - started, 1),
        "failed": [" ".join(line.split())[:160] for line in text.splitlines() if "failed" in line],
        "traceback": "Traceback" in text,
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    changed = [row for row in rows["bundles"] if row["change"] != "none"]
    unchanged = [row for row in rows["bundles"] if row["change"] == "none"]
    return {
        "unchanged bundles that verify": goal(
            sum(row["exit"] == 0 for row in unchanged), len(unchanged), at_least=True
        ),
        "changed bundles": len(changed),
        "changed bundles that verify": goal(
            sum(row["exit"] == 0 for row in changed), 0, at_least=False
        ),
        "tracebacks": goal(sum(row["traceback"] for row in rows["bundles"]), 0, at_least=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Evidence bundles in a fresh environment")
    parser.add_argument("--python", type=Path, help="interpreter of another environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = options.python.absolute() if options.python else fresh(folder)
        bundle = finished(folder)
        rows = [{"change": "none", **verified(python, bundle)}]
        for change, tamper in TAMPERINGS.items():
            copy = Path(shutil.copytree(bundle, folder / "copy"))
            tamper(copy)
            rows.append({"change": change, **verified(python, copy)})
            shutil.rmtree(copy)
            print(rows[-1], flush=True)
    notes = f"{SAMPLE} of {LABELS} labels made again in an environment built from a clone"
    show(json.loads(write("bundle", {"bundles": rows}, summarise, notes).read_text())["summary"])


if __name__ == "__main__":
    main()
