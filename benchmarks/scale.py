"""What size costs: a label of the driver, a ledger of many labels to look at, and a pool of many
crystals to choose from.

python -m benchmarks.scale [--labels 20000] [--pools 10000 100000] [--displaced 10000]
python -m benchmarks.scale --add --pools 1000000 --displaced

A campaign of labels that are there at once drives as many labels as it is told, choosing at random,
on the virtual executor: processor time of the driver a label (its evaluations, which take none,
with it), its memory, and what it leaves open. Then its ledger is folded, asked for its status,
reported and exported, each in a process of its own; the time of `status` is that of the whole
command, with the start of Python, whose bytecode is there as after an installation. A pool is read
from extxyz, described, and a batch of 32 chosen by the default surrogate and acquisition beside
labelled crystals, on one thread; then it is described again, from what is kept on disk. The
crystals of a pool stand on one lattice, at volumes of their own, or, ``displaced``, each on sites
of its own as relaxed crystals do. Times are of the processor, as the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.record import RESULTS, Row, goal, show, write

HERE = Path(__file__).resolve()
ELEMENTS = ("Ni", "Fe", "Cr", "Co", "Mn")
BATCH = 32
_WINDOWS = (10, 100, 500, 1000, 2000, 5000, 9000, 10_000, 19_000, 20_000)
_EDGE, _REPEATS, _DISPLACED = 2.9, 2, 0.02
_REPEATED = 5


def document(labels: int) -> dict[str, Any]:
    """A campaign whose labels take no time."""
    return {
        "name": "scale",
        "seed": 100,
        "space": {"elements": list(ELEMENTS)},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "mode": "rounds",
        "budget": {"labels": labels},
        "generators": [{"use": "random_alloy", "count": 12, "params": {"repeats": [2, 2, 2]}}],
        "acquisition": {"use": "random", "initial_labels": 10, "batch_size": 10},
        "oracles": [{"use": "quick_oracle:Quick", "workers": 2}],
        "executor": {"use": "virtual"},
        "tracking": {"use": "none"},
    }


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def left_open() -> dict[str, int]:
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }


def drive(folder: Path, labels: int) -> list[Row]:
    """Processor time (ms) and bytes of memory a label, between numbers of labels."""
    from campaign.api import Campaign
    from campaign.config import loaded as configs

    loaded = configs.validate(
        document(labels), folder=HERE.parent / "plugins", source=Path("benchmark.yaml")
    )
    campaign = Campaign(folder, loaded)
    rows: list[Row] = []
    wanted = [n for n in _WINDOWS if n < labels] + [labels]
    last = 0, time.process_time(), memory()

    def watch(state: Any) -> None:
        nonlocal last
        n = len(state.own)
        if wanted and n >= wanted[0]:
            del wanted[0]
            now = n, time.process_time(), memory()
            done = n - last[0]
            rows.append(
                {
                    "from": last[0],
                    "to": n,
                    "ms_per_label": 1000 * (now[1] - last[1]) / done,
                    "bytes_per_label": (now[2] - last[2]) / done,
                }
            )
            last = now

    before = left_open()
    campaign.run(on_change=watch)
    after = left_open()
    return [*rows, {"to": labels, "left": {name: after[name] - before[name] for name in after}}]


def look(folder: Path, what: str) -> list[Row]:
    """One command on a ledger, in this process."""
    started = time.process_time()
    if what == "fold":
        from campaign.ledger.store import LedgerReader

        state = LedgerReader(folder).fold()
        size = state.sequence
    else:
        from campaign.cli import app

        os.environ["COLUMNS"] = "200"
        app([what, str(folder)], standalone_mode=False)
        made = (
            [folder / "report.html"]
            if what == "report"
            else list((folder / "export").rglob("*"))
            if what == "export"
            else []
        )
        size = sum(path.stat().st_size for path in made)
    return [
        {"what": what, "seconds": time.process_time() - started, "peak_mb": peak(), "size": size}
    ]


def frames(n: int, displaced: float = 0.0) -> Iterator[str]:
    """Alloys of 16 atoms on bcc as extxyz, each another; every atom displaced (angstrom) as in
    relaxed cells, where no two have their sites in common.
    """
    import numpy as np

    rng = np.random.default_rng(n)
    sites = [
        tuple(_EDGE * (i + half) for i in cell)
        for cell in product(range(_REPEATS), repeat=3)
        for half in (0.0, 0.5)
    ]
    edge = _EDGE * _REPEATS
    for symbols in rng.choice(ELEMENTS, size=(n, len(sites))):
        strain = 1 + 0.02 * rng.standard_normal()
        lattice = " ".join(f"{value * edge * strain:.6f}" for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
        atoms = "\n".join(
            f"{symbol} " + " ".join(f"{value:.6f}" for value in site)
            for symbol, site in zip(
                symbols,
                strain * np.array(sites) + displaced * rng.standard_normal((len(sites), 3)),
                strict=True,
            )
        )
        yield (
            f'{len(sites)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T '
            f'T"\n{atoms}\n'
        )


def choose(file: Path, labelled: int) -> list[Row]:
    """A batch from a pool in a file, step by step."""
    import numpy as np
    import torch

    from campaign import acquisition
    from campaign.config.schema import AcquisitionConfig
    from campaign.reading.structures import read_structures
    from campaign.types import Candidate, Objective
    from surrogates.gp import GaussianProcess, GaussianProcessConfig

    torch.set_num_threads(1)
    torch.manual_seed(100)
    steps: dict[str, float] = {}
    started = time.process_time()

    def step(name: str) -> None:
        nonlocal started
        steps[f"{name}_seconds"], started = time.process_time() - started, time.process_time()
        steps[f"{name}_peak_mb"] = peak()

    pool = [Candidate(entry.crystal) for entry in read_structures(file)]
    step("read")
    known, pool = pool[:labelled], pool[labelled:]
    values = np.array([-int(candidate.id[:4], 16) / 65536 for candidate in known])
    fitted = GaussianProcess(GaussianProcessConfig(max_iterations=20)).fit(known, values)
    step("fit")
    points = fitted.features(pool)
    step("features")
    labels = torch.from_numpy(values)
    kept = fitted.features(pool)
    step("again")
    assert torch.equal(points, kept)
    del kept
    output = acquisition.Output(fitted.model, points, fitted.features(known), labels)
    aims = acquisition.Aims.of([Objective("energy_per_atom", "minimize")], [labels], [], ())
    config = AcquisitionConfig(use="log_noisy_expected_improvement", batch_size=BATCH)
    chosen = acquisition.select([output], aims, BATCH, config=config, seed=1).chosen
    step("batch")
    return [
        {
            "pool": len(pool),
            "labelled": len(known),
            "columns": points.shape[1],
            "chosen": len(set(chosen)),
            **steps,
        }
    ]


def whole(folder: Path, what: str, bytecode: Path) -> list[Row]:
    """A command with the start of Python, the median of some."""
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds: list[float] = []
    largest = 0.0
    for repeat in range(_REPEATED + 1):
        with subprocess.Popen(
            [sys.executable, "-m", "campaign.cli", what, str(folder)],
            cwd=HERE.parent.parent,
            env=environment,
            stdout=subprocess.DEVNULL,
        ) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{what} ended with exit code {process.returncode}")
        if repeat:
            seconds.append(used.ru_utime + used.ru_stime)
        largest = max(largest, used.ru_maxrss / 1024)
    return [
        {
            "what": what,
            "seconds": statistics.median(seconds),
            "each": seconds,
            "peak_mb": largest,
            "size": 0,
        }
    ]


PARTS: Mapping[str, Callable[..., list[Row]]] = {"drive": drive, "look": look, "choose": choose}


def apart(part: str, place: Path, what: str | int) -> list[Row]:
    """A part in a process of its own, so that its memory is its own; what it keeps on disk lies
    beside its place.
    """
    command = [sys.executable, "-m", "benchmarks.scale", "--part", part, str(place), str(what)]
    found = subprocess.run(
        command,
        cwd=HERE.parent.parent,
        env={**os.environ, "XDG_CACHE_HOME": str(place.parent / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise RuntimeError(found.stderr)
    rows: list[Row] = json.loads(found.stdout.splitlines()[-1])
    print(part, what, rows[-1], file=sys.stderr, flush=True)
    return rows


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    windows = [row for row in rows["driver"] if "ms_per_label" in row]
    for row in windows:
        found[f"driver CPU ms per label, labels {row['from']} to {row['to']}"] = row["ms_per_label"]
    early = next(
        (row for row in windows if row["from"] >= min(1000, windows[-1]["from"])), windows[-1]
    )
    ratio = windows[-1]["ms_per_label"] / early["ms_per_label"]
    found[f"cost of the last labels against that of labels {early['from']} to {early['to']}"] = (
        goal(ratio, 1.5, at_least=False)
    )
    late = [row for row in windows if row["from"] >= early["from"]]
    grown = sum(row["bytes_per_label"] * (row["to"] - row["from"]) for row in late) / sum(
        row["to"] - row["from"] for row in late
    )
    found["bytes of the driver's memory per label"] = goal(grown, 1000, at_least=False)
    for name, n in rows["driver"][-1]["left"].items():
        found[f"{name} left open"] = goal(n, 0, at_least=False)
    goals = {"fold": 10.0, "status": 1.0}
    for row in rows["looks"]:
        name = f"{row['what']} of {windows[-1]['to']} labels (CPU s)"
        found[name] = (
            goal(row["seconds"], goals[row["what"]], at_least=False)
            if row["what"] in goals
            else row["seconds"]
        )
        found[f"{row['what']}: peak memory (MB)"] = row["peak_mb"]
        if row["what"] == "report":
            found["report (MB)"] = goal(row["size"] / 1e6, 10.0, at_least=False)
    for row in rows["pools"]:
        name = f"pool of {row['pool']}{', displaced' if row['displaced'] else ''}"
        found[f"{name}: read, fit, features (CPU s)"] = [
            round(row[f"{step}_seconds"], 1) for step in ("read", "fit", "features")
        ]
        found[f"{name}: features and batch of {BATCH} (CPU s)"] = goal(
            row["features_seconds"] + row["batch_seconds"], 60.0, at_least=False
        )
        if "again_seconds" in row:
            found[f"{name}: features again, from disk (CPU s)"] = round(row["again_seconds"], 2)
        found[f"{name}: peak memory (GB)"] = goal(row["batch_peak_mb"] / 1024, 4.0, at_least=False)
    on_lattice = sorted(
        (row for row in rows["pools"] if not row["displaced"]), key=lambda row: row["pool"]
    )
    if len(on_lattice) > 1:
        small, large = on_lattice[0], on_lattice[-1]
        each = [
            (row["features_seconds"] + row["batch_seconds"]) / row["pool"] for row in (small, large)
        ]
        found["cost a crystal of the largest pool against that of the smallest"] = goal(
            each[1] / each[0], 1.2, at_least=False
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument(
        "--pools",
        type=int,
        nargs="*",
        default=[10_000, 100_000],
        help="Crystals; 1000000 takes half an hour.",
    )
    parser.add_argument("--add", action="store_true", help="Pools alone, to what the file holds.")
    parser.add_argument(
        "--displaced", type=int, nargs="*", default=[10_000], help="Crystals off their lattice."
    )
    parser.add_argument(
        "--labelled", type=int, default=5000, help="Labelled crystals beside a pool."
    )
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part, place, what = arguments.part
        found = PARTS[part](Path(place), int(what) if what.isdigit() else what)
        print("\n" + json.dumps(found))
        return
    known = RESULTS / "scale.json"
    rows: dict[str, list[Row]] = (
        json.loads(known.read_text())["rows"] if arguments.add else {"looks": [], "pools": []}
    )
    with tempfile.TemporaryDirectory() as name:
        if not arguments.add:
            folder = Path(name) / "campaign"
            rows["driver"] = apart("drive", folder, arguments.labels)
            rows["looks"] += apart("look", folder, "fold")
            rows["looks"] += whole(folder, "status", Path(name) / "bytecode")
            for what in ("report", "export"):
                rows["looks"] += apart("look", folder, what)
        pools = [(n, 0.0) for n in arguments.pools] + [(n, _DISPLACED) for n in arguments.displaced]
        for n, displaced in pools:
            file = Path(name) / f"{n}.extxyz"
            with file.open("w") as writer:
                writer.writelines(frames(n + arguments.labelled, displaced))
            found = apart("choose", file, arguments.labelled)
            rows["pools"] += [{**row, "displaced": displaced} for row in found]
            file.unlink()
    write("scale", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
