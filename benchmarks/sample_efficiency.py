"""Labels to the best crystal: the shipped strategy against random search, a hill climb, and TPE and
CMA-ES on the composition.

python -m benchmarks.sample_efficiency [--tasks ...] [--seeds 100 101 ...] [--workers 2]

Every oracle call counts, the first random ones included. Each part (task, method, seed) is saved
when it ends; a second run goes on with what is missing. The strategy is the one of
configs/nifecr_bulk_modulus.yaml, unchanged but for elements, lattice, oracle and quantity. TPE and
CMA-ES are Optuna's, on the atomic fractions; the ordering of what they ask for is random.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ruamel.yaml import YAML

from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.crystals.lattice import ParentLattice, supercell
from campaign.files import write_whole
from campaign.types import Crystal, SearchSpace

ROOT = Path(__file__).resolve().parent.parent
PARTS = RESULTS / "parts" / "sample_efficiency"
SEVEN = {"potential": "MoCoNiVFeAlCr_2nn.meam"}
MAX_FRACTION, STEP, SMALL = 0.9, 20, (2, 2, 2)
TARGET, TARGET_LABELS = 197.4, 100
SEEDS = (100, 101, 102, 103, 104)


@dataclass(frozen=True)
class Task:
    elements: tuple[str, ...]
    lattice: ParentLattice
    quantity: str
    direction: Literal["maximize", "minimize"]
    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, int] | None = None
    """Where the hill climb begins; a random composition where absent."""
    repeats: tuple[int, int, int] = (3, 3, 3)

    @property
    def n_atoms(self) -> int:
        return 2 * math.prod(self.repeats)

    def crystal(self, symbols: Sequence[str]) -> Crystal:
        return supercell(self.lattice, self.repeats, symbols)

    @property
    def sign(self) -> int:
        return 1 if self.direction == "maximize" else -1

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(self.elements, {}, dict.fromkeys(self.elements, MAX_FRACTION))


NIFECR = ("Ni", "Fe", "Cr")
START = {"Ni": 6, "Cr": 38, "Fe": 10}
TASKS = {
    "bcc bulk modulus": Task(
        NIFECR, "bcc", "bulk_modulus", "maximize", "lammps_bulk_modulus", start=START
    ),
    "fcc bulk modulus": Task(
        NIFECR, "fcc", "bulk_modulus", "maximize", "lammps_bulk_modulus", start=START
    ),
    "four elements": Task(
        ("Co", "Cr", "Fe", "Ni"),
        "fcc",
        "bulk_modulus",
        "maximize",
        "lammps_bulk_modulus",
        SEVEN,
        repeats=SMALL,
    ),
    "five elements": Task(
        ("Al", "Co", "Cr", "Fe", "Ni"),
        "fcc",
        "bulk_modulus",
        "maximize",
        "lammps_bulk_modulus",
        SEVEN,
        repeats=SMALL,
    ),
    "bcc energy": Task(NIFECR, "bcc", "energy_per_atom", "minimize", "lammps"),
    "bcc shear modulus": Task(
        NIFECR,
        "bcc",
        "shear_modulus",
        "maximize",
        "lammps",
        {"measure": ["elastic_tensor"]},
        repeats=SMALL,
    ),
}
METHODS = {
    "oreloop": 334,
    "hill climb": 1000,
    "random": 200,
    "TPE on composition": 200,
    "CMA-ES on composition": 200,
}
"""Labels that each method is given; ours ends earlier after STAGNATION rounds without a better
one.
"""
STAGNATION = 20


class Labeller:
    """Asks the oracle in this process and keeps what improved."""

    def __init__(self, task: Task, limit: int) -> None:
        from campaign import plugins
        from campaign.protocols import PluginSpec

        self.task, self.limit, self.labels, self.failures = task, limit, 0, 0
        self.oracle = plugins.build(
            PluginSpec(group="oracles", use=task.use, params=dict(task.params))
        )
        self.improvements: list[tuple[int, float]] = []
        self.best = -math.inf
        self.symbols: list[str] = []

    @property
    def is_done(self) -> bool:
        return self.labels >= self.limit

    def __call__(self, symbols: Sequence[str]) -> float:
        """The label with larger better; minus infinity for a failure, which counts as a call."""
        self.labels += 1
        evaluation = self.oracle.evaluate(self.task.crystal(symbols))
        if evaluation.failure is not None:
            self.failures += 1
            return -math.inf
        value = float(self.task.sign * evaluation.value(self.task.quantity))
        if value > self.best:
            self.best, self.symbols = value, list(symbols)
            self.improvements.append((self.labels, self.task.sign * value))
        return value

    def row(self) -> Row:
        return {
            "labels": self.labels,
            "failures": self.failures,
            "improvements": self.improvements,
            "symbols": " ".join(self.symbols),
        }


def random_symbols(task: Task, rng: np.random.Generator) -> list[str]:
    from generators.random_alloy import draw_counts

    return [
        str(symbol)
        for symbol in rng.permutation(
            np.repeat(task.elements, draw_counts(task.space, task.n_atoms, rng))
        )
    ]


def random_search(label: Labeller, seed: int) -> None:
    rng = np.random.default_rng(seed)
    while not label.is_done:
        label(random_symbols(label.task, rng))


def hill_climb(label: Labeller, seed: int) -> None:
    """Random swaps and mutations around the best, as many of each; the best of a step takes over
    where it is better.
    """
    rng, space = np.random.default_rng(seed), label.task.space
    start = label.task.start
    symbols = (
        random_symbols(label.task, rng)
        if start is None
        else rng.permutation(np.repeat(list(start), list(start.values()))).tolist()
    )
    best = label(symbols)
    while not label.is_done:
        children = [
            neighbour(symbols, space, rng) for _ in range(min(STEP, label.limit - label.labels))
        ]
        values = [label(child) for child in children]
        if max(values) > best:
            best, symbols = max(values), children[int(np.argmax(values))]


def neighbour(symbols: Sequence[str], space: SearchSpace, rng: np.random.Generator) -> list[str]:
    while True:
        child = list(symbols)
        first, second = (int(site) for site in rng.choice(len(child), 2, replace=False))
        if rng.random() < 0.5:
            child[first], child[second] = child[second], child[first]
        else:
            child[first] = str(rng.choice(space.elements))
        if child != list(symbols) and not space.violation(child):
            return child


def on_composition(label: Labeller, seed: int, sampler: Any) -> None:
    """Optuna's ask and tell on weights of the elements, normalised to fractions."""
    import optuna

    from generators.random_alloy import is_inside, round_counts

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng, space = np.random.default_rng(seed), label.task.space
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not label.is_done:
        trial = study.ask()
        weights = np.array([trial.suggest_float(element, 0.0, 1.0) for element in space.elements])
        counts = round_counts(weights + 1e-9, label.task.n_atoms)
        if not is_inside(counts, space):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        value = label(
            [str(symbol) for symbol in rng.permutation(np.repeat(space.elements, counts))]
        )
        if math.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


def tree_of_parzen_estimators(label: Labeller, seed: int) -> None:
    import optuna

    on_composition(label, seed, optuna.samplers.TPESampler(seed=seed))


def evolution_strategy(label: Labeller, seed: int) -> None:
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    on_composition(label, seed, optuna.samplers.CmaEsSampler(seed=seed))


PEERS: dict[str, Callable[[Labeller, int], None]] = {
    "random": random_search,
    "hill climb": hill_climb,
    "TPE on composition": tree_of_parzen_estimators,
    "CMA-ES on composition": evolution_strategy,
}


def document(task: Task, seed: int, labels: int) -> dict[str, Any]:
    """The shipped config for a task."""
    found: dict[str, Any] = YAML(typ="safe").load(
        (ROOT / "configs" / "nifecr_bulk_modulus.yaml").read_text()
    )
    found |= {
        "name": "sample-efficiency",
        "seed": seed,
        "mode": "rounds",
        "budget": {"labels": labels},
        "space": {"elements": list(task.elements), "max_fraction": MAX_FRACTION},
        "objective": {"quantity": task.quantity, "direction": task.direction},
        "stopping": {"stagnation_rounds": STAGNATION},
        "oracles": [{"use": task.use, "params": dict(task.params), "wall_limit": 120}],
        "executor": {"use": "serial"},
        "tracking": {"use": "none"},
    }
    found["generators"][0]["params"] = {"lattices": [task.lattice], "repeats": list(task.repeats)}
    return found


def ours(task: Task, seed: int, labels: int) -> Row:
    from campaign.api import Campaign
    from campaign.config import loaded as configs

    with tempfile.TemporaryDirectory() as folder:
        loaded = configs.validate(
            document(task, seed, labels), folder=Path(folder), source=Path("sample_efficiency.yaml")
        )
        campaign = Campaign(Path(folder) / "campaign", loaded)
        campaign.run()
        state = campaign.state()
        attempts = sorted(
            [
                (label.sequence, label.values[task.quantity], label.candidate)
                for label in state.own_labels
            ]
            + [(sequence, math.nan, "") for sequence, _, _ in state.failures]
        )
        improvements: list[tuple[int, float]] = []
        best = ""
        for number, (_, value, candidate) in enumerate(attempts, start=1):
            if math.isfinite(value) and (
                not improvements or task.sign * value > task.sign * improvements[-1][1]
            ):
                improvements.append((number, value))
                best = candidate
        symbols = " ".join(campaign.crystal(best).symbols)
    return {
        "labels": len(attempts),
        "failures": len(state.failures),
        "improvements": improvements,
        "symbols": symbols,
    }


def part(task: str, method: str, seed: int) -> Row:
    os.nice(19)
    limit = METHODS[method]
    if method == "oreloop":
        row = ours(TASKS[task], seed, limit)
    else:
        label = Labeller(TASKS[task], limit)
        PEERS[method](label, seed)
        row = label.row()
    return {"task": task, "method": method, "seed": seed, "limit": limit, **row}


def best_by(row: Row, labels: int) -> float:
    """The best value after so many labels."""
    known = [value for number, value in row["improvements"] if number <= labels]
    return float(known[-1]) if known else math.nan


def labels_to(row: Row, value: float, sign: int) -> float:
    """Labels until a value is reached; infinite where it is not."""
    return next(
        (float(number) for number, found in row["improvements"] if sign * found >= sign * value),
        math.inf,
    )


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    runs = rows["runs"]
    summary: dict[str, Any] = {}
    for name, task in TASKS.items():
        mine = [row for row in runs if row["task"] == name]
        by_method = {method: [row for row in mine if row["method"] == method] for method in METHODS}
        if not by_method["oreloop"]:
            continue
        for method, found in by_method.items():
            if found:
                last = METHODS[method]
                summary[f"{name}: {method}, seeds"] = len(found)
                summary[f"{name}: {method}, median best after {last} labels"] = float(
                    np.median([best_by(row, last) for row in found])
                )
        best = (
            max((task.sign * row["improvements"][-1][1] for row in mine), default=math.nan)
            * task.sign
        )
        needed = [labels_to(row, TARGET, 1) for row in by_method["oreloop"]]
        if name == "bcc bulk modulus":
            summary[f"{name}: labels to {TARGET} GPa, median"] = goal(
                float(np.median(needed)), TARGET_LABELS, at_least=False
            )
            climbs = [labels_to(row, TARGET, 1) for row in by_method["hill climb"]]
            summary[f"{name}: seeds of the hill climb that reach {TARGET} GPa"] = sum(
                map(math.isfinite, climbs)
            )
        else:
            wanted = _nearly(best, task.sign)
            summary[f"{name}: best of all methods"] = best
            needed = [labels_to(row, wanted, task.sign) for row in by_method["oreloop"]]
            climbs = [
                min(labels_to(row, wanted, task.sign), METHODS["hill climb"])
                for row in by_method["hill climb"]
            ]
            if climbs:
                middle_climb = float(np.median(climbs))
                ratio = float(np.median(needed)) / middle_climb
                summary[
                    f"{name}: labels to the best, median, over the hill climb's (at most "
                    f"{METHODS['hill climb']})"
                ] = goal(min(ratio, 9.99), 1 / 3, at_least=False)
        summary[f"{name}: seeds of ours that reach it"] = sum(map(math.isfinite, needed))
    if rows.get("winner"):
        winner = rows["winner"][0]
        summary["winner, bulk modulus by the elastic protocol (GPa)"] = winner[
            "elastic_bulk_modulus"
        ]
        summary["winner, bulk modulus by the oracle (GPa)"] = winner["bulk_modulus"]
        summary["winner, formula"] = winner["formula"]
        summary["winner, share of bcc sites after relaxation"] = winner["fraction_bcc"]
    return summary


def _nearly(value: float, sign: int) -> float:
    """A value that counts as the same: within 1e-4 of it, which is what two relaxations of one
    crystal differ by.
    """
    return value - sign * 1e-4 * abs(value)


def confirm(runs: Sequence[Row]) -> Row:
    """The best bcc crystal by the full elastic protocol, with its phase."""
    from benchmarks.md_oracle import elastic_bulk_modulus
    from oracles.lammps.engine import LammpsEngine
    from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig

    row = max(
        (row for row in runs if row["task"] == "bcc bulk modulus"),
        key=lambda row: row["improvements"][-1][1],
    )
    crystal = TASKS["bcc bulk modulus"].crystal(row["symbols"].split())
    oracle = LammpsBulkModulus(LammpsBulkModulusConfig())
    evaluation = oracle.evaluate(crystal)
    engine = LammpsEngine(oracle.potential)
    modulus, energy, pressure = elastic_bulk_modulus(engine, crystal)
    phases = {
        name: evaluation.value(name) for name in ("fraction_bcc", "fraction_fcc", "fraction_hcp")
    }
    return {
        "formula": crystal.formula,
        "symbols": row["symbols"],
        "method": row["method"],
        "seed": row["seed"],
        "bulk_modulus": evaluation.value("bulk_modulus"),
        "elastic_bulk_modulus": modulus,
        "elastic_energy_per_atom": energy,
        "elastic_pressure": pressure,
        **phases,
    }


def parts(
    tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, str, int]]:
    for task in tasks:
        for seed in seeds:
            for method in methods:
                yield task, method, seed


def path_of(task: str, method: str, seed: int) -> Path:
    return PARTS / f"{task}-{method}-{seed}.json".replace(" ", "_")


def figure(runs: Sequence[Row]) -> None:
    """Best value so far against labels: median and range over the seeds, one panel a task."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in TASKS if any(row["task"] == name for row in runs)]
    canvas, axes = plt.subplots(2, math.ceil(len(names) / 2), figsize=(13, 7), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for method in METHODS:
            found = [row for row in runs if row["task"] == name and row["method"] == method]
            if found:
                grid = np.unique(np.geomspace(1, METHODS[method], 150).astype(int))
                curves = np.array([[best_by(row, n) for n in grid] for row in found])
                (line,) = axis.plot(
                    grid, np.nanmedian(curves, axis=0), label=f"{method} ({len(found)} seeds)"
                )
                axis.fill_between(
                    grid,
                    np.nanmin(curves, 0),
                    np.nanmax(curves, 0),
                    color=line.get_color(),
                    alpha=0.15,
                )
        axis.set(
            title=name, xscale="log", xlabel="oracle calls", ylabel=f"best {TASKS[name].quantity}"
        )
        axis.legend(fontsize=7)
    canvas.tight_layout()
    canvas.savefig(RESULTS / "sample_efficiency.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    PARTS.mkdir(parents=True, exist_ok=True)
    missing = [
        key
        for key in parts(arguments.tasks, arguments.methods, arguments.seeds)
        if not path_of(*key).exists()
    ]
    with ProcessPoolExecutor(arguments.workers, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(part, *key): key for key in missing}
        for job in as_completed(jobs):
            row = job.result()
            write_whole(path_of(*jobs[job]), json.dumps(row).encode())
            print(jobs[job], row["labels"], row["improvements"][-1], flush=True)
    runs = [json.loads(path.read_text()) for path in sorted(PARTS.glob("*.json"))]
    winner = [confirm(runs)] if any(row["task"] == "bcc bulk modulus" for row in runs) else []
    path = write("sample_efficiency", {"runs": runs, "winner": winner}, summarise)
    figure(runs)
    show(json.loads(path.read_text())["summary"])


if __name__ == "__main__":
    main()
