"""Decisions by replay: tables, two objectives, levels of theory, failures, large pools.

python -m benchmarks.decisions [--parts tables objectives levels failures pool] [--seeds 10]
[--tables NAME ...]

All but the pool are backtests of the campaign's own code on the tables of benchmarks/tables.py;
each run is saved and found again. ``--tables``: those of the part tables that are run; the figures
of the others stay.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.backtest import config as backtests
from campaign.backtest.figures import calls_to, cost_to
from campaign.backtest.replay import Outcome, run_all

FOLDER = RESULTS / "parts" / "decisions"
FIRST_SEED, TABLE_LABELS = 100, 200
SAME_VALUE = 1e-6
"""In a label's unit: crystals that relax to the same one differ by less."""
SHIPPED: dict[str, Any] = {
    "surrogate": {"use": "gp"},
    "acquisition": {"use": "log_noisy_expected_improvement", "initial_labels": 10, "batch_size": 5},
}
RANDOM: dict[str, Any] = {"acquisition": {"use": "random"}}
TABLES = {
    "nifecr": ("bulk_modulus", "maximize", ["Ni", "Fe", "Cr"], [{"use": "alloy"}], None),
    "polymorphs": (
        "formation_energy_per_atom",
        "minimize",
        ["Al", "Co", "Cr", "Fe", "Ni"],
        [{"use": "alloy"}],
        None,
    ),
    "carbon_as_proposed": (
        "energy_per_atom",
        "minimize",
        ["C"],
        [{"use": "power_spectrum"}, {"use": "composition"}],
        12,
    ),
}
"""Quantity, direction, elements, descriptors and principal components by table."""
ALL_DIFFERENT = {
    "match_length": 1e-9,
    "match_site": 1e-9,
    "match_angle": 1e-6,
    "min_distance": 0.1,
    "volume_per_atom": [1, 1000],
}
"""Screens that keep every row of a table."""


def frames(name: str) -> list[Any]:
    from ase.io import read

    return list(read(tables.path_of(name), index=":"))


def campaign(
    name: str, quantity: str, direction: str, elements: Sequence[str], **more: Any
) -> dict[str, Any]:
    path = str(tables.path_of(name))
    return {
        "space": {"elements": list(elements)},
        "objective": {"quantity": quantity, "direction": direction},
        "candidate_pools": [{"path": path}],
        "oracles": [{"use": "table", "params": {"path": path, "columns": {quantity: quantity}}}],
        "screens": ALL_DIFFERENT,
        **more,
    }


def replay(
    name: str,
    document: dict[str, Any],
    strategies: dict[str, Any],
    seeds: int,
    labels: int,
    **more: Any,
) -> Outcome:
    whole = {
        "name": name,
        "campaign": document,
        "strategies": strategies,
        "baseline": next(iter(strategies)),
        "labels": labels,
        "seeds": seeds,
        "first_seed": FIRST_SEED,
        **more,
    }
    backtest = backtests.validate(whole, folder=FOLDER, source=FOLDER / name)
    began = time.time()
    outcome = run_all(backtest, FOLDER / name)
    print(f"{name}: {time.time() - began:.0f} s", flush=True)
    return outcome


def rows_of(outcome: Outcome, **facts: Any) -> list[Row]:
    objective = outcome.objective
    return [
        {
            **facts,
            "strategy": run.strategy,
            "seed": run.seed,
            "calls": len(run.values),
            "failures": int(np.isnan(run.values).sum()),
            "calls_to_target": _finite(calls_to(run, objective, outcome.target)),
            "cost_to_target": _finite(cost_to(run, objective, outcome.target)),
            "best": _finite(
                float(
                    np.nanmax(objective.gain(run.values))
                    if not np.isnan(run.values).all()
                    else math.nan
                )
            ),
        }
        for run in outcome.runs
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- 5. acceleration on tables
# ------------------------------------------------------------


def tables_part(seeds: int, names: Sequence[str] = tuple(TABLES)) -> list[Row]:
    found = []
    for name in names:
        quantity, direction, elements, descriptors, components = TABLES[name]
        surrogate = {"use": "gp", "params": {"descriptors": descriptors, "components": components}}
        strategies = {"random": RANDOM, "shipped": {**SHIPPED, "surrogate": surrogate}}
        outcome = replay(
            f"table-{name}",
            campaign(name, quantity, direction, elements),
            strategies,
            seeds,
            TABLE_LABELS,
        )
        sign = outcome.objective.sign
        reached = replace(outcome, target=outcome.target - sign * SAME_VALUE)
        values = np.array([atoms.info[quantity] for atoms in frames(name)])
        found += rows_of(
            reached,
            table=name,
            rows=len(values),
            target=outcome.target,
            n_best=int((sign * values >= sign * reached.target).sum()),
        )
    return found


# --- 2. two objectives
# ------------------------------------------------------------


def hypervolume(points: np.ndarray[Any, Any]) -> float:
    """Of gains (n, 2) above the origin."""
    kept = points[(points > 0).all(1)]
    volume, height = 0.0, 0.0
    for x, y in kept[np.argsort(-kept[:, 0], kind="stable")]:
        volume += x * max(0.0, y - height)
        height = max(height, y)
    return volume


def objectives_part(seeds: int) -> list[Row]:
    document = campaign("nifecr", "bulk_modulus", "maximize", tables.NIFECR.elements)
    columns = {"bulk_modulus": "bulk_modulus", "formation": "formation"}
    document["oracles"][0]["params"]["columns"] = columns
    document["further_objectives"] = [{"quantity": "formation", "direction": "minimize"}]
    surrogate = {"use": "gp"}
    strategies = {
        "random": RANDOM,
        "hypervolume": {
            "surrogate": surrogate,
            "acquisition": {
                **SHIPPED["acquisition"],
                "use": "log_expected_hypervolume_improvement",
            },
        },
        "scalarised": {
            "surrogate": surrogate,
            "acquisition": {**SHIPPED["acquisition"], "use": "log_expected_improvement"},
        },
    }
    outcome = replay("objectives", document, strategies, seeds, 100)
    known = np.array(
        [[atoms.info["bulk_modulus"], -atoms.info["formation"]] for atoms in frames("nifecr")]
    )
    low, high = np.quantile(known, 0.05, axis=0), known.max(0)
    whole = hypervolume((known - low) / (high - low))
    found = []
    for run in outcome.runs:
        gains = (np.stack([run.values, -run.further["formation"]], 1) - low) / (high - low)
        curve = {str(n): hypervolume(gains[:n]) / whole for n in (20, 40, 60, 80, 100)}
        found.append(
            {"strategy": run.strategy, "seed": run.seed, "share_of_the_hypervolume": curve}
        )
    return found


# --- 3. levels of theory
# ------------------------------------------------------------


@cache
def measured_costs() -> dict[str, tuple[float, float]]:
    """Seconds a label of the cheap and the dear level of each pair, medians on this machine."""
    from campaign import plugins
    from campaign.protocols import PluginSpec

    crystals = list(tables.random_cells(("fcc",), (3, 3, 3), 5, 77))

    def median(use: str, params: dict[str, Any]) -> float:
        oracle = plugins.build(PluginSpec(group="oracles", use=use, params=params))
        oracle.evaluate(crystals[0])
        times = []
        for crystal in crystals[1:]:
            began = time.perf_counter()
            oracle.evaluate(crystal)
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    warm = {"temperature": 300.0, "equilibration": 4.0, "production": 8.0}
    return {
        "thermal": (median("lammps_bulk_modulus", {}), median("lammps_finite_temperature", warm))
    }


def levels_part(seeds: int) -> list[Row]:
    """The pair of networks has a price ratio of its own: the dear level stands for one that costs
    20 times as much.

    A label at 300 K is noisy and states so. What is to be found are the crystals that are best by
    the mean of their repeats, not those whose one label was the luckiest.
    """
    from scipy.stats import spearmanr

    cheap, dear = measured_costs()["thermal"]
    pairs = {
        "thermal_repeated": ("static", "warm", "maximize", cheap, dear, 150),
        "network": ("mace", "meam", "minimize", 1.0, 20.0, 400),
    }
    found = []
    for name, (low, high, direction, low_cost, high_cost, most) in pairs.items():
        known = np.array([[atoms.info[low], atoms.info[high]] for atoms in frames(name)])
        path = str(tables.path_of(name))
        noise = {high: scatter(name)} if name == "thermal_repeated" else {}
        oracles = [
            {
                "use": "table",
                "name": level,
                "params": {
                    "path": path,
                    "columns": {"value": level},
                    "noise": {"value": noise[level]} if level in noise else {},
                },
            }
            for level in (low, high)
        ]
        shared = campaign(name, "value", direction, tables.NIFECR.elements)
        shared["oracles"] = [oracles[1]]
        levels = [{"oracle": low, "cost": low_cost}, {"oracle": high, "cost": high_cost}]
        strategies = {
            "single": SHIPPED,
            "levels": {
                "oracles": oracles,
                "fidelities": {"mode": "acquisition", "levels": levels},
                "surrogate": {"use": "multi_task_gp"},
                "acquisition": {"initial_labels": 20, "batch_size": 5},
            },
            "random": RANDOM,
        }
        virtual = {"seconds": {low: low_cost, high: high_cost}}
        outcome = replay(
            f"levels-{name}",
            shared,
            strategies,
            seeds,
            most,
            virtual=virtual,
            top=0.01,
        )
        if name == "thermal_repeated":
            outcome = by_means(outcome, name, top=0.02)
        facts = {
            "pair": name,
            "rank_correlation": float(spearmanr(known[:, 0], known[:, 1]).statistic),
            "cheap_cost": low_cost,
            "dear_cost": high_cost,
            "target": outcome.target,
            **({"noise": noise[high]} if noise else {}),
        }
        found += rows_of(outcome, **facts)
    return found


def scatter(name: str) -> float:
    """Standard deviation (GPa) of one label around its crystal's mean, over all crystals."""
    deviations = [atoms.info["warm_deviation"] for atoms in frames(name)]
    return float(np.sqrt(np.mean(np.square(deviations))))


def by_means(outcome: Outcome, name: str, top: float) -> Outcome:
    """Runs whose labels are the means of their crystals' repeats, and the value that the best
    ``top`` share of the means reaches.
    """
    means = {float(atoms.info["warm"]): float(atoms.info["warm_mean"]) for atoms in frames(name)}
    runs = tuple(
        replace(run, values=np.array([means.get(float(value), np.nan) for value in run.values]))
        for run in outcome.runs
    )
    ranked = sorted(means.values(), reverse=True)
    return replace(outcome, runs=runs, target=ranked[max(1, round(top * len(ranked))) - 1])


# --- 4. failures
# ------------------------------------------------------------


def failing_table() -> Path:
    """The NiFeCr table where 40 % of the rows have no value: those with most chromium among first
    neighbours of chromium and iron.
    """
    from ase.io import write as write_frames

    from campaign.types import Crystal
    from surrogates.descriptors import alloy

    path = tables.FOLDER / "nifecr_failing.extxyz"
    if not path.exists():
        found = frames("nifecr")
        elements = tuple(sorted(tables.NIFECR.elements))
        rows = alloy.describe([Crystal.from_atoms(atoms) for atoms in found], elements)
        names = alloy.column_names(elements)
        strain = (
            rows[:, names.index("shell1_Cr-Ni")] + 0.5 * rows[:, names.index("shell1_variance_Cr")]
        )
        for atoms, value in zip(found, strain, strict=True):
            if value > np.quantile(strain, 0.6):
                atoms.info["bulk_modulus"] = float("nan")
        write_frames(path, found, format="extxyz")
    return path


def failures_part(seeds: int) -> list[Row]:
    aware = {**SHIPPED, "feasibility": {"use": "feasibility_gp"}}
    found = []
    for kind in ("structure", "random"):
        document = campaign("nifecr", "bulk_modulus", "maximize", tables.NIFECR.elements)
        more: dict[str, Any] = {}
        if kind == "structure":
            path = str(failing_table())
            document["candidate_pools"] = [{"path": path}]
            document["oracles"][0]["params"]["path"] = path
        else:
            more["virtual"] = {"failures": {"table": 0.4}}
        outcome = replay(
            f"failures-{kind}",
            document,
            {"unaware": SHIPPED, "aware": aware, "random": RANDOM},
            seeds,
            120,
            **more,
        )
        found += rows_of(outcome, failures_are=kind)
    return found


# --- 6. the large pool
# ------------------------------------------------------------


def pool_case(pool_size: int, labels: int, batch: int, columns: int, seed: int) -> Row:
    """Fit, score and select in a process of its own, on two threads; peak memory of the process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_pool_case, (pool_size, labels, batch, columns, seed))


def _pool_case(pool_size: int, labels: int, batch: int, columns: int, seed: int) -> Row:
    import torch

    from campaign.acquisition import Aims, Output, select
    from campaign.config.schema import AcquisitionConfig
    from campaign.types import Objective
    from surrogates.gp import GaussianProcess, GaussianProcessConfig

    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(columns, dtype=torch.float64, generator=generator)
    x, pool = (
        torch.rand(n, columns, dtype=torch.float64, generator=generator)
        for n in (labels, pool_size)
    )

    def truth(rows: Any) -> Any:
        return rows @ weights + torch.sin(3 * rows[:, :5]).sum(1)

    y = truth(x) + 0.01 * torch.randn(labels, dtype=torch.float64, generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    model, _ = GaussianProcess(GaussianProcessConfig()).train(x, y[:, None], None)
    model.eval()
    fitted = time.perf_counter()
    output = Output(model, pool, x, y)
    config = AcquisitionConfig(**SHIPPED["acquisition"] | {"batch_size": batch})
    chosen = select(
        [output],
        Aims.of([Objective("y", "maximize")], [y], [], ()),
        batch,
        config=config,
        seed=seed,
    )
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "pool": pool_size,
        "labels": labels,
        "batch": batch,
        "columns": columns,
        "seed": seed,
        "fit_seconds": fitted - began,
        "select_seconds": ended - fitted,
        "seconds": ended - began,
        "peak_mb": peak / 1024,
        "libraries_mb": before / 1024,
        "gain_of_the_batch": float(truth(pool)[list(chosen.chosen)].mean() - truth(pool).mean()),
    }


def shortlist_case(
    seed: int, pool_size: int = 2000, labels: int = 200, batch: int = 16, columns: int = 50
) -> Row:
    """The joint acquisition of the batch from the shortlist over that of greedy selection from the
    whole pool.
    """
    import torch

    from campaign.acquisition import Aims, Output, functions, select
    from campaign.acquisition.rows import FinitePoolModel, marginal_of
    from campaign.config.schema import AcquisitionConfig
    from campaign.types import Objective
    from surrogates.gp import GaussianProcess, GaussianProcessConfig

    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(columns, dtype=torch.float64, generator=generator)
    x, pool = (
        torch.rand(n, columns, dtype=torch.float64, generator=generator)
        for n in (labels, pool_size)
    )
    y = x @ weights + torch.sin(3 * x[:, :5]).sum(1)
    model, _ = GaussianProcess(GaussianProcessConfig()).train(x, y[:, None], None)
    model.eval()
    aims = Aims.of([Objective("y", "maximize")], [y], [], ())
    chosen = {}
    for name, shortlist in (("shortlist", 100), ("whole", pool_size)):
        config = AcquisitionConfig(use="log_expected_improvement", shortlist=shortlist)
        chosen[name] = select(
            [Output(model, pool, x, y)], aims, batch, config=config, seed=seed
        ).chosen
    config = AcquisitionConfig(use="log_expected_improvement", samples=1024)
    values = {}
    known = functions.Known(y[:, None], marginal_of(model, x)[0][:, None])
    for name, rows in chosen.items():
        finite = FinitePoolModel.of([model], [torch.cat([pool[list(rows)], x])])
        numbers = torch.arange(len(finite.mean), dtype=torch.float64)[:, None]
        acquisition = functions.joint(
            config, aims, finite, known, numbers[:batch], numbers[batch:], seed=7
        )
        with torch.no_grad():
            values[name] = float(acquisition(numbers[None, :batch]).exp())
    return {
        "seed": seed,
        "pool": pool_size,
        "batch": batch,
        **values,
        "ratio": values["shortlist"] / values["whole"],
    }


def pool_part(seeds: int) -> list[Row]:
    cases = [
        (100_000, 2000, 32),
        (30_000, 2000, 32),
        (10_000, 2000, 32),
        (100_000, 1000, 32),
        (100_000, 500, 32),
        (100_000, 2000, 8),
    ]
    found = []
    for size, labels, batch in cases:
        for seed in range(FIRST_SEED, FIRST_SEED + (3 if (size, labels, batch) == cases[0] else 1)):
            found.append({"case": "large", **pool_case(size, labels, batch, 60, seed)})
            print(json.dumps(found[-1]), flush=True)
    for seed in range(FIRST_SEED, FIRST_SEED + min(seeds, 5)):
        found.append({"case": "shortlist", **shortlist_case(seed)})
        print(json.dumps(found[-1]), flush=True)
    return found


# --- summary
# ------------------------------------------------------------


def _capped(rows: Sequence[Row], key: str, most: str) -> float:
    return float(np.median([row[key] if row[key] is not None else row[most] for row in rows]))


def _of(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(row["table"] for row in rows.get("tables", ())):
        runs = _of(rows["tables"], table=name)
        random, ours = (_of(runs, strategy=strategy) for strategy in ("random", "shipped"))
        factor = _capped(random, "calls_to_target", "calls") / _capped(
            ours, "calls_to_target", "calls"
        )
        called = f"{name.replace('_', ' ')} ({runs[0]['rows']} rows)"
        summary[f"{called}: acceleration to the best 1 %, {len(ours)} seeds"] = goal(
            factor, 3, at_least=True
        )
    for strategy in ("random", "scalarised", "hypervolume"):
        runs = _of(rows.get("objectives", ()), strategy=strategy)
        for n in ("40", "100") if runs else ():
            share = float(np.median([row["share_of_the_hypervolume"][n] for row in runs]))
            summary[f"two objectives: share of the hypervolume after {n} labels, {strategy}"] = (
                share
            )
    for pair in dict.fromkeys(row["pair"] for row in rows.get("levels", ())):
        runs = _of(rows["levels"], pair=pair)
        single, both = (_of(runs, strategy=strategy) for strategy in ("single", "levels"))
        most = max(row["calls"] for row in runs) * runs[0]["dear_cost"]
        costs = [
            float(np.median([row["cost_to_target"] or most for row in part]))
            for part in (both, single)
        ]
        called = pair.replace("_", " ")
        summary[f"levels, {called}: rank correlation"] = runs[0]["rank_correlation"]
        summary[f"levels, {called}: price of the dear level in cheap ones"] = (
            runs[0]["dear_cost"] / runs[0]["cheap_cost"]
        )
        summary[f"levels, {called}: cost to target over a single level's"] = goal(
            costs[0] / costs[1], 0.6, at_least=False
        )
    for kind, wanted in (("structure", 1.25), ("random", 0.97)):
        runs = _of(rows.get("failures", ()), failures_are=kind)
        if runs:
            shares = [
                1 - np.mean([row["failures"] / row["calls"] for row in _of(runs, strategy=s)])
                for s in ("aware", "unaware")
            ]
            summary[f"failures by {kind}: labels per attempt, aware over unaware"] = goal(
                float(shares[0] / shares[1]), wanted, at_least=True
            )
            summary[f"failures by {kind}: labels per attempt, aware"] = float(shares[0])
            best = [
                float(np.median([row["best"] for row in _of(runs, strategy=s)]))
                for s in ("aware", "unaware")
            ]
            summary[f"failures by {kind}: best label, aware less unaware (GPa)"] = best[0] - best[1]
    large = [
        row
        for row in _of(rows.get("pool", ()), case="large")
        if (row["pool"], row["labels"], row["batch"]) == (100_000, 2000, 32)
    ]
    if large:
        summary["100,000 candidates, 2,000 labels, batch 32: seconds"] = goal(
            float(np.median([r["seconds"] for r in large])), 30, at_least=False
        )
        summary["100,000 candidates, 2,000 labels, batch 32: peak MB"] = goal(
            float(max(r["peak_mb"] for r in large)), 2048, at_least=False
        )
        ratios = [row["ratio"] for row in _of(rows["pool"], case="shortlist")]
        summary["joint acquisition of the shortlist's batch over the whole pool's, least"] = goal(
            min(ratios), 0.99, at_least=True
        )
    return summary


PARTS = {
    "tables": tables_part,
    "objectives": objectives_part,
    "levels": levels_part,
    "failures": failures_part,
    "pool": pool_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    arguments = parser.parse_args()
    known = RESULTS / "decisions.json"
    rows: dict[str, list[Row]] = json.loads(known.read_text())["rows"] if known.exists() else {}
    for name in arguments.parts:
        if name == "tables":
            others = [
                row
                for row in rows.get(name, ())
                if row["table"] in TABLES and row["table"] not in arguments.tables
            ]
            rows[name] = others + tables_part(arguments.seeds, arguments.tables)
        else:
            rows[name] = PARTS[name](arguments.seeds)
        path = write("decisions", rows, summarise)
    show(json.loads(path.read_text())["summary"])


if __name__ == "__main__":
    main()
