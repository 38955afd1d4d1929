"""What the engine costs: worker busy fraction, driver time per label, throughput against a plain
loop, ledger rates.

python -m benchmarks.engine [--parts lammps sleep ledger driver quickstart] [--seeds 100 101 102]
[--before CHECKOUT]

``driver``: the driver on labels of 0.1 s with two workers, by batch size and mode, beside a bare
loop of Ray run before each. ``quickstart``: how busy the workers of the shipped quick start are,
and how many labels it takes. ``--before``: by an older checkout too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import driving
from benchmarks.record import RESULTS, Row, goal, middle, show, write

ROOT = Path(__file__).resolve().parent.parent
LABELS = 500
BATCHES, MODES = (1, 5, 10, 40), ("rounds", "streaming")
QUICK_START_LABELS = 150
DRIVER_CPU_MS, OF_PLAIN = 3.0, 0.9
SLEEPERS, SLEEP, TASKS = 64, 10.0, 20
_ALLOY = {"lattices": ["bcc", "fcc"], "repeats": [3, 3, 3]}
FOR_THROUGHPUT = {
    "generators": [
        {"use": "random_alloy", "count": 50, "params": _ALLOY},
        {"use": "cross_entropy_alloy", "count": 50, "params": _ALLOY},
        {"use": "local_search", "count": 100},
    ],
    "surrogate": {"use": "gp", "params": {"kernel": "rbf", "refit_growth": 0.5}},
    "acquisition": {
        "use": "log_noisy_expected_improvement",
        "initial_labels": 40,
        "batch_size": 40,
        "pool_size": 1000,
    },
    "train_every": 2,
}
"""Larger batches and rarer refits than the shipped config, whose strategy saves labels rather than
time.
"""


def run_campaign(folder: str, document: dict[str, Any], module_folder: str) -> Row:
    """Run a campaign in this process and measure the driver from its first label on."""
    import psutil

    from campaign.api import Campaign
    from campaign.config import loaded as configs
    from campaign.ledger import CampaignState
    from campaign.views.metrics import busy_fraction

    loaded = configs.validate(document, folder=Path(module_folder), source=Path("benchmark.yaml"))
    name = document["oracles"][0]["use"].rpartition(":")[2]
    marks: dict[str, float] = {}
    helpers: dict[str, float] = {}
    before: dict[str, float] = {}

    def on_change(state: CampaignState) -> None:
        if state.own_labels and "cpu" not in marks:
            marks["cpu"], marks["labels"] = time.process_time(), len(state.own_labels)
        if len(state.labels) - marks.get("seen", 0) >= 25 or "helpers" not in marks:
            marks["seen"] = len(state.labels)
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    title, times = " ".join(process.cmdline()[:1]), process.cpu_times()
                    kind = (
                        "compute"
                        if "ComputeWorker" in title
                        else "oracles"
                        if "OracleWorker" in title
                        else "ray"
                    )
                    helpers[f"{kind}/{process.pid}"] = times.user + times.system
            if state.own_labels and "helpers" not in marks:
                marks["helpers"] = 1
                before.update(helpers)

    campaign = Campaign(Path(folder), loaded)
    began = time.time()
    campaign.run(on_change=on_change)
    cpu = time.process_time()
    state = campaign.state()
    labels = state.own_labels
    workers = document["oracles"][0]["workers"]
    first, last = (
        min(label.started for label in labels),
        max(label.started + label.wall_seconds for label in labels),
    )

    def spent(kind: str) -> float:
        """CPU seconds of the helper processes of a kind since the first label."""
        return sum(
            seconds - before.get(name, 0.0)
            for name, seconds in helpers.items()
            if name.startswith(kind)
        )

    # The start of the workers and the drain, when fewer candidates wait than there are workers, are
    # reported apart.
    ends = sorted(label.started + label.wall_seconds for label in labels)
    starts = sorted(label.started for label in labels)
    full_from, full_to = starts[min(workers, len(starts)) - 1], ends[max(0, len(ends) - workers)]
    return {
        "labels": len(labels),
        "seconds_to_first_label": first - began,
        "span_seconds": last - first,
        "labels_per_second": len(labels) / (last - first),
        "median_label_seconds": sorted(label.wall_seconds for label in labels)[len(labels) // 2],
        "busy_fraction": busy_fraction(state, name, workers),
        "busy_fraction_steady": busy_fraction(state, name, workers, start=full_from, end=full_to),
        "start_seconds": full_from - first,
        "drain_seconds": last - full_to,
        "driver_cpu_ms_per_label": 1000
        * (cpu - marks["cpu"])
        / max(1, len(labels) - marks["labels"]),
        "driver_cpu_seconds_total": cpu,
        "compute_cpu_ms_per_label": 1000 * spent("compute") / len(labels),
        "oracles_cpu_ms_per_label": 1000 * spent("oracles") / len(labels),
        "ray_cpu_ms_per_label": 1000 * spent("ray") / len(labels),
        "rounds": len(state.rounds),
    }


def child(folder: Path, document: dict[str, Any], module_folder: Path) -> Row:
    """``run_campaign`` in a fresh process."""
    job = json.dumps([str(folder), document, str(module_folder)])
    command = [sys.executable, "-m", "benchmarks.engine", "--child", job]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    row: Row = json.loads(result.stdout.strip().splitlines()[-1])
    return row


def _label_share(crystals: list[bytes], ready: Any, results: Any) -> None:
    from campaign.types import Crystal
    from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig

    oracle = LammpsBulkModulus(LammpsBulkModulusConfig())
    decoded = [Crystal.from_bytes(data) for data in crystals]
    oracle.evaluate(decoded[0])
    ready.wait()
    started = time.time()
    for crystal in decoded:
        oracle.evaluate(crystal)
    results.put((started, time.time(), len(decoded)))


def plain_loop(folder: Path) -> Row:
    """The same candidates through the same LAMMPS code on two processes, without the engine."""
    from campaign.ledger import LedgerReader

    reader = LedgerReader(folder)
    state = reader.fold()
    blobs = [reader.blob(label.candidate) for label in state.own_labels]
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_label_share, args=(blobs[i::2], ready, results)) for i in range(2)
    ]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    seconds = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return {
        "labels": len(blobs),
        "span_seconds": seconds,
        "labels_per_second": len(blobs) / seconds,
    }


def lammps_part(seeds: Sequence[int]) -> list[Row]:
    from ruamel.yaml import YAML

    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "campaign"
            document = YAML(typ="safe").load(ROOT / "configs" / "nifecr_bulk_modulus.yaml")
            document |= {
                "seed": seed,
                "budget": {"labels": LABELS},
                "stopping": {},
                **FOR_THROUGHPUT,
            }
            engine = child(folder, document, ROOT / "configs")
            plain = plain_loop(folder)
        rows.append({"seed": seed, **engine, "plain_labels_per_second": plain["labels_per_second"]})
        rows[-1]["throughput_ratio"] = engine["labels_per_second"] / plain["labels_per_second"]
        print(json.dumps(rows[-1]), flush=True)
    return rows


def sleep_part() -> list[Row]:
    document = {
        "name": "sleepers",
        "space": {"elements": ["Ni", "Fe", "Cr"]},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "budget": {"labels": SLEEPERS * TASKS},
        "generators": [{"use": "random_alloy", "count": 300, "params": {"repeats": [2, 2, 2]}}],
        "surrogate": {"use": "gp"},
        "acquisition": {
            "use": "log_noisy_expected_improvement",
            "initial_labels": 192,
            "batch_size": 128,
        },
        "oracles": [
            {
                "use": "sleeping_oracle:Sleeping",
                "params": {"seconds": SLEEP},
                "workers": SLEEPERS,
                "cpus": 0.01,
                "start_limit": 300.0,
            }
        ],
    }
    with tempfile.TemporaryDirectory() as name:
        row = child(Path(name) / "campaign", document, Path(__file__).parent / "plugins")
    print(json.dumps(row), flush=True)
    return [row]


def ledger_part(seeds: Sequence[int]) -> list[Row]:
    rows = []
    for seed in seeds:
        command = [sys.executable, "-m", "benchmarks.engine", "--ledger-child", str(seed)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        rows.append({"seed": seed, **json.loads(result.stdout.strip().splitlines()[-1])})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def ledger_child(seed: int, n: int = 100_000, batch: int = 1000) -> None:
    """Append n candidates of 54 atoms in batches here; fold them in another process."""
    import numpy as np

    from campaign.crystals.lattice import sites
    from campaign.ledger import Ledger
    from campaign.ledger import events as ev
    from campaign.types import Crystal

    rng = np.random.default_rng(seed)
    fractional = sites((3, 3, 3))
    with tempfile.TemporaryDirectory() as name:
        ledger = Ledger(Path(name))
        ledger.append([ev.CampaignCreated(campaign="benchmark", name="benchmark", seed=seed)])
        appending = 0.0
        for index in range(n // batch):
            crystals = [
                Crystal(np.eye(3) * rng.uniform(8.4, 8.8), fractional, rng.choice([24, 26, 28], 54))
                for _ in range(batch)
            ]
            blobs = {crystal.id: crystal.to_bytes() for crystal in crystals}
            rows = tuple(
                ev.ProposalRow(identity, f"Cr18Fe18Ni18:{identity[:16]}") for identity in blobs
            )
            verdicts = tuple(ev.VerdictRow(identity, True, "") for identity in blobs)
            began = time.perf_counter()
            ledger.append([ev.RoundStarted(round=index)])
            ledger.append(
                [
                    ev.Proposed(
                        round=index,
                        generator="g",
                        checkpoint=None,
                        stream="0/g/0",
                        seconds=0.0,
                        proposals=rows,
                    )
                ],
                blobs,
            )
            ledger.append([ev.Judged(round=index, verdicts=verdicts)])
            appending += time.perf_counter() - began
        began = time.perf_counter()
        for i in range(200):
            ledger.append([ev.OraclePaused(oracle=str(i), reason="one small commit")])
        commit_ms = 1000 * (time.perf_counter() - began) / 200
        ledger.close()
        size = sum(path.stat().st_size for path in Path(name).iterdir())
        command = [sys.executable, "-m", "benchmarks.engine", "--fold-child", name]
        fold = json.loads(
            subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        )
    print(
        json.dumps(
            {
                "append_candidates_per_second": n / appending,
                "commit_ms": commit_ms,
                "disk_bytes": size,
                **fold,
            }
        )
    )


def fold_child(folder: str) -> None:
    from campaign.ledger import LedgerReader

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    state = LedgerReader(Path(folder)).fold()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "candidates": len(state.candidates),
                "fold_seconds": seconds,
                "peak_mb": peak / 1024,
                "peak_mb_before": before / 1024,
            }
        )
    )


def driver_part(seeds: Sequence[int], checkouts: Mapping[str, Path]) -> list[Row]:
    """Before each seed's campaigns the bare loop; the checkouts in turn."""
    rows = []
    for seed in seeds:
        for batch in BATCHES:
            for mode in MODES:
                plain = driving.run(ROOT, "bare")
                for name, checkout in checkouts.items():
                    found = driving.run(
                        checkout,
                        "drive",
                        batch=batch,
                        mode=mode,
                        seed=seed,
                        labels=100 if batch == 1 else 200,
                    )
                    row = {"code": name, "seed": seed, "batch": batch, "mode": mode, **found}
                    row["bare_driver_cpu_ms_per_label"] = plain["driver_cpu_ms_per_label"]
                    row["throughput_ratio"] = (
                        found["labels_per_second"] / plain["labels_per_second"]
                    )
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def quick_start_part(seeds: Sequence[int], checkouts: Mapping[str, Path]) -> list[Row]:
    rows = []
    for seed in seeds:
        for name, checkout in checkouts.items():
            rows.append(
                {
                    "code": name,
                    "seed": seed,
                    **driving.run(checkout, "quick_start", seed=seed, labels=QUICK_START_LABELS),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def labels_to_target(row: Row, target: float) -> int:
    return next(int(n) for n, value in row["better"] if value >= target)


def summarise_driver(part: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "driver CPU ms per label of a bare loop of Ray": middle(
            part, "bare_driver_cpu_ms_per_label"
        )
    }
    for mode in MODES:
        for batch in BATCHES:
            for code in ("before", "after"):
                some = [
                    row
                    for row in part
                    if (row["mode"], row["batch"], row["code"]) == (mode, batch, code)
                ]
                if not some:
                    continue
                cpu, ratio = (
                    middle(some, "driver_cpu_ms_per_label"),
                    middle(some, "throughput_ratio"),
                )
                where = f"{mode}, batches of {batch}" + (", before" if code == "before" else "")
                is_judged = code == "after"
                found[f"driver CPU ms per label, {where}"] = (
                    goal(cpu, DRIVER_CPU_MS, at_least=False) if is_judged else cpu
                )
                found[f"labels per second against a bare loop, {where}"] = (
                    goal(ratio, OF_PLAIN, at_least=True) if is_judged else ratio
                )
    return found


def summarise_quick_start(part: Sequence[Row]) -> dict[str, Any]:
    """Labels to the least of the best values that the campaigns found, so that each reached it."""
    target = min(row["better"][-1][1] for row in part)
    found: dict[str, Any] = {"quick start: target that all campaigns reach (GPa)": target}
    for code in ("before", "after"):
        some = [row for row in part if row["code"] == code]
        if some:
            reached = [{"labels": labels_to_target(row, target)} for row in some]
            found[f"quick start, {code}: labels to the target"] = middle(reached, "labels")
            found[f"quick start, {code}: busy fraction of two workers"] = middle(
                some, "busy_fraction"
            )
            found[f"quick start, {code}: labels per second"] = middle(some, "labels_per_second")
    return found


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rows.get("lammps"):
        part = rows["lammps"]
        found["busy fraction, 2 LAMMPS workers"] = goal(
            middle(part, "busy_fraction"), 0.90, at_least=True
        )
        found["driver CPU ms per label"] = goal(
            middle(part, "driver_cpu_ms_per_label"), 8.0, at_least=False
        )
        found["labels per second against a plain loop"] = goal(
            middle(part, "throughput_ratio"), 0.90, at_least=True
        )
        found["labels per second, engine"] = middle(part, "labels_per_second")
        found["labels per second, plain loop"] = middle(part, "plain_labels_per_second")
        found["median seconds of a label in the engine"] = middle(part, "median_label_seconds")
        found["compute worker CPU ms per label"] = middle(part, "compute_cpu_ms_per_label")
        found["oracle workers CPU ms per label"] = middle(part, "oracles_cpu_ms_per_label")
        found["Ray's own processes CPU ms per label"] = middle(part, "ray_cpu_ms_per_label")
        found["seconds from start to first label"] = middle(part, "seconds_to_first_label")
    if rows.get("sleep"):
        part = rows["sleep"]
        found["busy fraction, 64 sleeping actors, steady"] = goal(
            middle(part, "busy_fraction_steady"), 0.99, at_least=True
        )
        found["busy fraction, 64 sleeping actors, start and drain included"] = middle(
            part, "busy_fraction"
        )
        found["start (s)"] = middle(part, "start_seconds")
        found["drain (s)"] = middle(part, "drain_seconds")
    if rows.get("ledger"):
        part = rows["ledger"]
        found["fold of 10^5 candidates (s)"] = goal(
            middle(part, "fold_seconds"), 5.0, at_least=False
        )
        found["peak memory of the folding process (MB)"] = goal(
            middle(part, "peak_mb"), 500.0, at_least=False
        )
        found["append, candidates per second"] = middle(part, "append_candidates_per_second")
        found["one small commit (ms)"] = middle(part, "commit_ms")
    if rows.get("driver"):
        found |= summarise_driver(rows["driver"])
    if rows.get("quickstart"):
        found |= summarise_quick_start(rows["quickstart"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts", nargs="+", default=["lammps", "sleep", "ledger", "driver", "quickstart"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--child")
    parser.add_argument("--ledger-child", type=int)
    parser.add_argument("--fold-child")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_campaign(*json.loads(arguments.child))))
    elif arguments.ledger_child is not None:
        ledger_child(arguments.ledger_child)
    elif arguments.fold_child:
        fold_child(arguments.fold_child)
    else:
        path = RESULTS / "engine.json"
        rows: dict[str, list[Row]] = json.loads(path.read_text())["rows"] if path.exists() else {}
        if "ledger" in arguments.parts:
            rows["ledger"] = ledger_part(arguments.seeds)
        if "lammps" in arguments.parts:
            rows["lammps"] = lammps_part(arguments.seeds)
        if "sleep" in arguments.parts:
            rows["sleep"] = sleep_part()
        checkouts = (
            {"before": arguments.before.resolve()} if arguments.before is not None else {}
        ) | {"after": ROOT}
        for part, measured in (("driver", driver_part), ("quickstart", quick_start_part)):
            for seed in arguments.seeds if part in arguments.parts else []:
                kept = [row for row in rows.get(part, []) if row["seed"] != seed]
                rows[part] = kept + measured([seed], checkouts)
                write("engine", rows, summarise)
        write("engine", rows, summarise)
        show(summarise(rows))


if __name__ == "__main__":
    main()
