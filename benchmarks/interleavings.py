"""Campaigns in seeded orders of results: do they end, choose no pair twice, keep their budget, and
replay?

python -m benchmarks.interleavings [--seeds 20] [--before CHECKOUT]

The executor that orders them raises where nothing will ever happen. ``--before``: an older
checkout, with the same executor, beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.record import RESULTS, Row, goal, show, write

ROOT = Path(__file__).resolve().parent.parent
LABELS = 21
HANGS, OVERSPENDS, TWICE, DIFFERS, ENDS = (
    "hangs",
    "overspends",
    "chooses a pair twice",
    "replays otherwise",
    "ends",
)


def outcome(scenario: Mapping[str, Any], seed: int, folder: Path) -> str:
    """What becomes of one campaign."""
    from campaign.api import Campaign
    from campaign.decide.replay import replay
    from campaign.errors import OreloopError

    interleaving: Any = import_module("interleaving")
    support: Any = import_module("support")
    campaign = Campaign(
        folder,
        support.load(
            support.HELPERS, seed=seed, mode="streaming", budget={"labels": LABELS}, **scenario
        ),
    )
    executor = interleaving.InterleavingExecutor(seed)
    with mock.patch("campaign.executors.make_executor", return_value=executor):
        try:
            campaign.run()
        except AssertionError:
            return HANGS
        except OreloopError as error:
            return error.message[:60]
    state = campaign.state()
    chosen = Counter(
        (c.candidate, c.oracle)
        for record in state.rounds
        if record.decided
        for c in record.decided.choices
    )
    if max(chosen.values()) > 1:
        return TWICE
    if chosen.total() > LABELS:
        return OVERSPENDS
    rounds = [record for record in state.rounds if record.decided is not None]
    is_same = all(
        record.decided is not None and replay(campaign, record.index) == record.decided.choices
        for record in rounds
    )
    return ENDS if is_same else DIFFERS


def child(seeds: int) -> None:
    """Rows of the checkout that is on the path."""
    import logging

    logging.disable(logging.CRITICAL)
    scenarios: Any = import_module("interleaving")
    for name, scenario in scenarios.SCENARIOS.items():
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                print(
                    json.dumps(
                        {
                            "scenario": name,
                            "seed": seed,
                            "outcome": outcome(scenario, seed, Path(folder) / "campaign"),
                        }
                    ),
                    flush=True,
                )


def rows_of(checkout: Path, seeds: int) -> list[Row]:
    """The same campaigns by the code of a checkout."""
    paths = [
        checkout,
        ROOT / "tests",
        ROOT / "tests" / "engines",
        ROOT / "tests" / "engines" / "plugins",
    ]
    surroundings = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    code = f"import runpy; runpy.run_path({str(Path(__file__).resolve())!r})['child']({seeds})"
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=checkout, env=surroundings, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, items in rows.items():
        for name in dict.fromkeys(row["scenario"] for row in items):
            counts = Counter(row["outcome"] for row in items if row["scenario"] == name)
            for what in [key for key in counts if key != ENDS] if part == "before" else ():
                found[f"before, {name}: {what}, seeds of {counts.total()}"] = counts[what]
            if part == "now":
                found[f"{name}: ends, replays and keeps its budget, share of seeds"] = goal(
                    counts[ENDS] / counts.total(), 1.0, at_least=True
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    path = RESULTS / "interleavings.json"
    rows: dict[str, list[Row]] = {"now": rows_of(ROOT, arguments.seeds)}
    if arguments.before is not None:
        rows["before"] = rows_of(arguments.before.resolve(), arguments.seeds)
    elif path.exists():
        rows["before"] = json.loads(path.read_text())["rows"]["before"]
    write("interleavings", rows, summarise, notes="before: commit 29db260")
    show(summarise(rows))


if __name__ == "__main__":
    main()
