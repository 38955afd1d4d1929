"""Tables with peers: labels until one of the best 1 % of a table is found, by oreloop's shipped
model and acquisition, BayBE, Ax, BoFire, PHYSBO and random order.

python -m benchmarks.peers [--python .venv-peers/bin/python] [--tables NAME ...] [--seeds 5]

All see the same descriptors (columns that vary, scaled to [0, 1]), begin with the same ten random
rows that are none of the best, and choose five at a time, with their defaults. The peers run in an
environment of their own (benchmarks/requirements-peers.txt); one that is absent there is said to be
absent. Each run is saved and found again. Settings may be looked for on the tables of ``TUNING``
alone; the figure that counts is that of the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import geometric_mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers_worker, tables
from benchmarks.record import RESULTS, Row, goal, restore, show, write
from campaign.files import write_whole
from campaign.types import FloatArray

FOLDER = RESULTS / "parts" / "peers"
ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
FIRST_SEED, FIRST, BATCH, MOST, TOP = 100, 10, 5, 200, 0.01
OURS, RANDOM = "oreloop", "random"
ALLOY = ({"use": "alloy"},)
CARBON = ({"use": "power_spectrum"}, {"use": "composition"})
TABLES: dict[str, tuple[str, str, int, tuple[dict[str, str], ...], int | None]] = {
    "nifecr bulk modulus": ("nifecr", "bulk_modulus", 1, ALLOY, None),
    "nifecr formation energy": ("nifecr", "formation", -1, ALLOY, None),
    "polymorphs": ("polymorphs", "formation_energy_per_atom", -1, ALLOY, None),
    "polymorphs, least stable": ("polymorphs", "formation_energy_per_atom", 1, ALLOY, None),
    "carbon": ("carbon_as_proposed", "energy_per_atom", -1, CARBON, 12),
    "network energy": ("network", "meam", -1, ALLOY, None),
    "network energy, highest": ("network", "meam", 1, ALLOY, None),
    "static bulk modulus, 54 atoms": ("thermal_repeated", "static", 1, ALLOY, None),
    "bulk modulus at 300 K": ("thermal_repeated", "warm_mean", 1, ALLOY, None),
    "lowest bulk modulus": ("nifecr", "bulk_modulus", -1, ALLOY, None),
}
"""Table, column, sign of the gain, descriptors and principal components by name."""
_DIGITS = 6
"""Of values: crystals that relax to the same one have the same value."""
TUNING = tuple(list(TABLES)[::2])


@cache
def arrays(name: str) -> tuple[Path, FloatArray, FloatArray, float]:
    """A table's file for the worker, x (n, d), gain (n,) and the gain that the best share
    reaches.
    """
    from ase.io import read

    from campaign.types import Candidate, Crystal
    from surrogates.described import Described
    from surrogates.gp import GaussianProcessConfig

    table, column, sign, descriptors, components = TABLES[name]
    path = FOLDER / "tables" / f"{name.replace(' ', '_').replace(',', '')}.npz"
    source = tables.path_of(table)
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        frames = list(read(source, index=":"))
        candidates = [Candidate(Crystal.from_atoms(atoms)) for atoms in frames]
        config = GaussianProcessConfig.model_validate(
            {"descriptors": descriptors, "components": components}
        )
        x = Described(config, candidates).features(candidates).numpy()
        x = x[:, np.ptp(x, axis=0) > 0]
        x = (x - x.min(0)) / np.ptp(x, axis=0)
        gain = sign * np.array([round(float(atoms.info[column]), _DIGITS) for atoms in frames])
        kept = distinct(x)
        x, gain = x[kept], gain[kept]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, x=x, gain=gain, target=target_of(gain))
        os.replace(part, path)
    found = np.load(path)
    return path, found["x"], found["gain"], float(found["target"])


def distinct(x: FloatArray) -> NDArray[np.int64]:
    """The first of the rows (n, d) that descriptors cannot tell apart: BayBE refuses others."""
    _, first = np.unique(x.round(9), axis=0, return_index=True)
    return np.sort(first)


def target_of(gain: FloatArray) -> float:
    """The gain that the best 1 % reach."""
    return float(np.sort(gain)[::-1][max(1, round(TOP * len(gain))) - 1])


def first_rows(gain: FloatArray, target: float, seed: int) -> list[int]:
    """The ten rows that all begin with, none of the best: where chance had found one already, a run
    would say nothing.
    """
    others = np.flatnonzero(gain < target)
    found: list[int] = np.random.default_rng(seed).permutation(others)[:FIRST].tolist()
    return found


def ours(x: FloatArray, gain: FloatArray, seed: int) -> peers_worker.Choose:
    """The shipped model and acquisition, on arrays."""
    import torch

    from campaign.acquisition import Aims, Output, select
    from campaign.config.schema import AcquisitionConfig
    from campaign.seeds import library_seeds
    from campaign.types import Objective
    from surrogates.gp import GaussianProcess, GaussianProcessConfig

    points = torch.from_numpy(x)
    surrogate = GaussianProcess(GaussianProcessConfig())
    previous: Mapping[str, Any] | None = None

    def choose(labelled: list[int], n: int) -> list[int]:
        nonlocal previous
        free = [row for row in range(len(x)) if row not in set(labelled)]
        y = torch.from_numpy(gain[labelled])
        with library_seeds(seed + len(labelled)):
            model, previous = surrogate.train(points[labelled], y[:, None], previous)
            model.eval()
            chosen = select(
                [Output(model, points[free], points[labelled], y)],
                Aims.of([Objective("gain", "maximize")], [y], [], ()),
                n,
                config=AcquisitionConfig(initial_labels=FIRST, batch_size=BATCH),
                seed=seed + len(labelled),
            )
        return [free[row] for row in chosen.chosen]

    return choose


def at_random(x: FloatArray, gain: FloatArray, seed: int) -> peers_worker.Choose:
    rng = np.random.default_rng(seed + 1)

    def choose(labelled: list[int], n: int) -> list[int]:
        free = [row for row in range(len(gain)) if row not in set(labelled)]
        found: list[int] = rng.permutation(free)[:n].tolist()
        return found

    return choose


HERE: dict[str, Callable[[FloatArray, FloatArray, int], peers_worker.Choose]] = {
    RANDOM: at_random,
    OURS: ours,
}


def run_here(name: str, strategy: str, seed: int) -> Row:
    _, x, gain, target = arrays(name)
    best = set(np.flatnonzero(gain >= target).tolist())
    choose = HERE[strategy](x, gain, seed)
    began = time.process_time()
    labelled = peers_worker.search(choose, first_rows(gain, target, seed), BATCH, MOST, best)
    return {"rows": labelled, "cpu_seconds": time.process_time() - began}


def run_there(name: str, peer: str, seed: int, python: Path) -> Row:
    """In the peers' environment. Raises RuntimeError with the end of what it said where it
    failed.
    """
    path, _, gain, target = arrays(name)
    settings = [str(path), peer, str(seed), str(BATCH), str(MOST)]
    rows = map(str, first_rows(gain, target, seed))
    return _ask(python, [*settings, *rows])


def _ask(python: Path, arguments: Sequence[str]) -> Row:
    worker = str(ROOT / "benchmarks" / "peers_worker.py")
    done = subprocess.run(
        [str(python), worker, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[:3]} failed: {done.stderr[-2000:]}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def present(python: Path) -> tuple[list[str], list[str]]:
    """The peers that are installed there, and those that are absent."""
    if not python.exists():
        return [], list(peers_worker.PEERS)
    there = [peer for peer in peers_worker.PEERS if "version" in _ask(python, [peer])]
    return there, [peer for peer in peers_worker.PEERS if peer not in there]


def digest_of(name: str) -> str:
    """Of what a table says, so that a run on another table of the name is another run."""
    _, x, gain, _ = arrays(name)
    return hashlib.sha256(x.tobytes() + gain.tobytes()).hexdigest()[:8]


def path_of(row: Row) -> Path:
    name = row["table"].replace(" ", "_").replace(",", "")
    return FOLDER / f"{name}-{row['digest']}-{row['strategy']}-{row['seed']}.json"


def measured(name: str, strategy: str, seed: int, python: Path) -> Row:
    """A saved run, or a new one that is saved."""
    row: Row = {"table": name, "digest": digest_of(name), "strategy": strategy, "seed": seed}
    path = path_of(row)
    if not path.exists():
        _, _, gain, target = arrays(name)
        found = (
            run_here(name, strategy, seed)
            if strategy in HERE
            else run_there(name, strategy, seed, python)
        )
        hits = np.flatnonzero(gain[found["rows"]] >= target)
        row |= {
            "size": len(gain),
            "labels": int(hits[0]) + 1 if len(hits) else None,
            "cpu_seconds": found["cpu_seconds"],
            "decisions": max(1, -(-(len(found["rows"]) - FIRST) // BATCH)),
            "version": found.get("version", ""),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps([row]).encode())
    (known,) = json.loads(path.read_text())
    return dict(known)


def labels_of(runs: Sequence[Row], name: str, strategy: str) -> float:
    """Mean labels to the best over the seeds; a run that misses counts as the most labels."""
    found = [
        row["labels"] or MOST for row in runs if (row["table"], row["strategy"]) == (name, strategy)
    ]
    return float(np.mean(found))


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    runs = rows["runs"]
    names = list(dict.fromkeys(row["table"] for row in runs))
    strategies = list(dict.fromkeys(row["strategy"] for row in runs))
    summary: dict[str, Any] = {"seeds": len({row["seed"] for row in runs})}
    absent = [peer for row in rows["absent"] for peer in row["peers"]]
    summary["peers that are absent"] = ", ".join(absent) or "none"
    for name in names:
        for strategy in strategies:
            summary[f"{name}: labels to the best 1 %, {strategy}"] = labels_of(runs, name, strategy)
    for kind, which in (
        ("all tables", names),
        ("tables of the tuning", [name for name in names if name in TUNING]),
        ("tables that are new to the tuning", [name for name in names if name not in TUNING]),
    ):
        if not which:
            continue
        ratios = {
            strategy: geometric_mean(
                labels_of(runs, name, strategy) / labels_of(runs, name, OURS) for name in which
            )
            for strategy in strategies
            if strategy != OURS
        }
        for strategy, ratio in ratios.items():
            summary[f"{kind} ({len(which)}): labels of {strategy} over ours"] = ratio
        theirs = {name: ratio for name, ratio in ratios.items() if name != RANDOM}
        if theirs and kind != "tables of the tuning":
            summary[f"{kind} ({len(which)}): labels of the best peer over ours"] = goal(
                min(theirs.values()), 1.25, at_least=True
            )
    for strategy in strategies:
        if strategy != RANDOM:
            seconds = [
                row["cpu_seconds"] / row["decisions"] for row in runs if row["strategy"] == strategy
            ]
            summary[f"CPU seconds a decision, median, {strategy}"] = float(np.median(seconds))
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the peers' environment")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    restore("peers", "runs", path_of)
    there, absent = present(arguments.python)
    for peer in absent:
        print(f"{peer} is absent in {arguments.python}", flush=True)
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for name in arguments.tables:
            for strategy in (*HERE, *there):
                runs.append(measured(name, strategy, seed, arguments.python))
                print(json.dumps(runs[-1]), flush=True)
    path = write("peers", {"runs": runs, "absent": [{"peers": absent}]}, summarise)
    show(json.loads(path.read_text())["summary"])


if __name__ == "__main__":
    main()
