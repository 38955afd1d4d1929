"""Choices of space groups and sites for carbon frameworks, with random cells and one refinement,
and the paper's dual-level loop beside ours with one conditional VAE.

python -m benchmarks.site_choice [--seeds 200 201 202] [--tried 1500] [--candidates 500]
[--ways "site model" forest]

For each seed ``--tried`` random candidates on random sites are refined and their frameworks relaxed
with REBO, what failed too: from these each choice learns.

  random sites   none
  site model     counts of the low nets: the default of ``cvae``
  forest         two random forests of all that was tried: accepted or not, low or not
  forest, cells of a VAE   the forest's own sites, cells and coordinates from a conditional VAE on
                      the low nets that is told its conditions by features
  paper, dual-level   a conditional VAE on the low nets' sites: 500 steps of AdamW at the target's
                      cutoff, then three rounds of latent descent (500) and AdamW (500)
  ours, dual-level    the same VAE and sites, our refinement and one latent round

Counted are distinct nets within 0.55 eV/atom of graphite, and those of them that were not learned,
for 1,000 candidates and for each second of processor time, which holds the choice's learning and
drawing, and no relaxation. Parts are kept for each seed and way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cvae_tables import (
    ENVIRONMENT,
    EPOCHS,
    LIMITS,
    RECIPE,
    VOLUME,
    WINDOW,
    _counted,
    energy,
)
from benchmarks.record import RESULTS, Row, goal, restore, show, write
from campaign.files import write_whole
from generators.cvae.data import bootstrap, descriptions, distinct
from generators.cvae.feasible import Condition
from generators.cvae.forest import Outcomes, SiteForest
from generators.cvae.free_variables import batch_of
from generators.cvae.latent import DualLevel, dual_level
from generators.cvae.refine import Recipe, refine
from generators.cvae.sites import SiteModel, condition_of, random_condition, random_table
from generators.cvae.store import rows_of, tables_of
from generators.cvae.table import TabularCrystal
from generators.cvae.train import TrainingSettings, sample, train

SAVED = RESULTS / "parts" / "site_choice"
SEEDS = (200, 201, 202)
CHOICES = ("random sites", "site model", "forest")
LOOPS = ("ours, dual-level", "paper, dual-level")
ON_FOREST = "forest, cells of a VAE"
WAYS = (*CHOICES, *LOOPS, ON_FOREST)
PAPER = Recipe(variant="paper", largest_loss=RECIPE.largest_loss, dimension=RECIPE.dimension)
PAPER_LATENT = DualLevel(rounds=3, steps=500, rate=2e-3, cutoff=None)
LATENT = DualLevel(rounds=1, steps=100, rate=2e-2)


def tried(seed: int, n: int) -> dict[str, Any]:
    """Conditions with whether they were accepted; nets with their energies. Made once a seed."""
    path = SAVED / f"{seed}-tried.json"
    if not path.exists():
        known: set[str] = set()
        conditions: list[Condition] = []
        accepted: list[bool] = []
        found: list[tuple[TabularCrystal, str]] = []
        for part in bootstrap(n, ENVIRONMENT, LIMITS, RECIPE, np.random.default_rng(seed)):
            conditions += [condition_of(table) for table in part.batch.names]
            accepted += part.is_accepted.tolist()
            found += distinct(part, ENVIRONMENT, known)
        rows, numbers = rows_of([table for table, _ in found])
        kept = {
            "conditions": conditions,
            "accepted": accepted,
            "rows": rows.tolist(),
            "numbers": numbers.tolist(),
            "keys": [key for _, key in found],
            "energies": [energy(table) for table, _ in found],
        }
        write_whole(path, json.dumps(kept).encode())
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def run(seed: int, n_tried: int, n: int, ways: Sequence[str]) -> None:
    data = tried(seed, n_tried)
    tables = tables_of(np.array(data["rows"]), np.array(data["numbers"]))
    is_low = np.array([value is not None and value <= WINDOW for value in data["energies"]])
    low = [table for table, good in zip(tables, is_low, strict=True) if good]
    learned_low = {key for key, good in zip(data["keys"], is_low, strict=True) if good}
    energies = {
        key: float(value)
        for key, value in zip(data["keys"], data["energies"], strict=True)
        if value is not None
    }
    kept = SAVED / f"{seed}-energies.json"
    if kept.exists():
        energies |= json.loads(kept.read_text())
    accepted = Outcomes(
        tuple((group, tuple((a, b) for a, b in sites)) for group, sites in data["conditions"]),
        np.array(data["accepted"], dtype=bool),
    )
    labelled = Outcomes(tuple(condition_of(table) for table in tables), is_low)
    models: list[Any] = []
    # compiled loops and tables of space groups are no choice's own time
    warm = np.random.default_rng(0)
    refine(
        batch_of([random_table(one, VOLUME, warm) for one in accepted.conditions[:5]], (6,)),
        ENVIRONMENT,
        RECIPE,
        warm,
    )
    for way in ways:
        path = _part(seed, way)
        if path.exists():
            continue
        rng = np.random.default_rng([seed, WAYS.index(way)])
        if way in LOOPS and not models:
            models.append(_model(low, seed))
        began = time.process_time()
        if way in LOOPS:
            stream = np.random.default_rng([seed, 9])
            same = [condition_of(low[int(k)]) for k in stream.integers(len(low), size=n)]
            recipe, level = (PAPER, PAPER_LATENT) if way == LOOPS[1] else (RECIPE, LATENT)
            passes = dual_level(models[0], same, ENVIRONMENT, recipe, level, rng)
        elif way == ON_FOREST:
            model = _model(low, seed, by_features=True)
            stream = np.random.default_rng([seed, WAYS.index("forest")])
            conditions = _conditions("forest", n, low, accepted, labelled, seed, stream)
            made = sample(model, conditions, rng)
            passes = [refine(batch_of(made, (6,)), ENVIRONMENT, RECIPE, rng)]
        else:
            conditions = _conditions(way, n, low, accepted, labelled, seed, rng)
            starts = [random_table(condition, VOLUME, rng) for condition in conditions]
            passes = [refine(batch_of(starts, (6,)), ENVIRONMENT, RECIPE, rng)]
        seconds = time.process_time() - began
        row = _counted(passes, energies, learned_low)
        write_whole(kept, json.dumps(energies).encode())
        common = {
            "seed": seed,
            "way": way,
            "candidates": n,
            "tried": n_tried,
            "learned low": len(low),
            "seconds": seconds,
        }
        write_whole(path, json.dumps(common | row).encode())
        print(common | row, flush=True)


def _part(seed: int, way: str) -> Path:
    return SAVED / f"{seed}-{way.replace(', ', '_').replace(' ', '_')}.json"


def _row(path: Path) -> Row:
    """Of a saved part; restored ones are lists of one."""
    found = json.loads(path.read_text())
    row: Row = found[0] if isinstance(found, list) else found
    return row


def _model(low: Sequence[TabularCrystal], seed: int, *, by_features: bool = False) -> Any:
    rng = np.random.default_rng(seed + 1)
    rows = [one for table in low for one in descriptions(table, 20, rng)]
    settings = TrainingSettings(EPOCHS)
    return train(
        rows, (6,), settings, is_conditional=True, by_features=by_features, seed=seed
    ).model


def _conditions(
    way: str,
    n: int,
    low: Sequence[TabularCrystal],
    accepted: Outcomes,
    labelled: Outcomes,
    seed: int,
    rng: np.random.Generator,
) -> list[Condition]:
    if way == "forest":
        return SiteForest(accepted, labelled, LIMITS, seed).draw(n, rng)
    if way == "site model":
        model = SiteModel.fit(low)
        return [model.draw(LIMITS, rng) for _ in range(n)]
    return [random_condition(LIMITS, rng) for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--tried", type=int, default=1500, help="candidates that are learned from")
    parser.add_argument("--candidates", type=int, default=500, help="of each way")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    SAVED.mkdir(parents=True, exist_ok=True)
    restore("site_choice", "ways", lambda row: _part(row["seed"], row["way"]))
    for seed in arguments.seeds:
        run(seed, arguments.tried, arguments.candidates, arguments.ways)
    kept = [
        _part(seed, way) for seed in arguments.seeds for way in WAYS if _part(seed, way).exists()
    ]
    parts = {"ways": [_row(path) for path in kept]}
    show(summarise(parts))
    write("site_choice", parts, summarise)


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Sums over the seeds, and ratios of those."""
    found: dict[str, Any] = {}
    for way in WAYS:
        mine = [row for row in parts["ways"] if row["way"] == way]
        if not mine:
            continue
        candidates = sum(row["candidates"] for row in mine)
        seconds = sum(row["seconds"] for row in mine)
        found[way] = {
            "seeds": len(mine),
            **{
                f"{key} per 1,000": round(1000 * sum(row[key] for row in mine) / candidates, 1)
                for key in ("accepted", "nets", "low", "new low")
            },
            "low a second": round(sum(row["low"] for row in mine) / seconds, 3),
            "new low a second": round(sum(row["new low"] for row in mine) / seconds, 3),
        }

    def ratio(one: str, other: str, key: str) -> float | None:
        if one not in found or other not in found or not found[other][key]:
            return None
        return round(float(found[one][key] / found[other][key]), 2)

    for what, key in (("candidates", "new low per 1,000"), ("seconds", "new low a second")):
        for other, wanted in (("site model", 2.0), ("random sites", 1.0)):
            value = ratio("forest", other, key)
            if value is not None:
                found[f"new low nets in as many {what}, forest over {other}"] = goal(
                    value, wanted, at_least=True
                )
    for key in ("low per 1,000", "new low per 1,000"):
        value = ratio(ON_FOREST, "forest", key)
        if value is not None:
            found[f"{key}, cells of a VAE over random cells on the forest's sites"] = goal(
                value, 1.5, at_least=True
            )
    value = ratio(*LOOPS, "low a second")
    if value is not None:
        found["low nets a second, our dual-level loop over the paper's"] = goal(
            value, 1.0, at_least=True
        )
    return found


if __name__ == "__main__":
    main()
