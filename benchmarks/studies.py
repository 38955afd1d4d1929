"""Studies measured: a generator's training tuned with pruning, and a strategy tuned twice with one
seed.

python -m benchmarks.studies [--part generator matches strategy] [--seeds 200 201 202] [--seconds
200]

Generator: configs/studies/flow_matching_training.yaml on the labels of
configs/polymorphs_dataset.yaml, run to its end in the folder benchmarks/results/parts/polymorphs
before; goals: at least 30 trials, a third of the training steps saved by pruning, a lower
validation loss than with the shipped defaults at the same number of steps. As larger batches and
networks take longer, winner and defaults (and the defaults with the winner's rate alone) are then
trained for the same processor time on fresh seeds, which hold out other formulas and begin from
other weights; their losses are compared pair by pair. Matches: the two rates again, by the share of
held-out formulas' crystals that samples match, as in benchmarks.matrix_unet_tables. Strategy:
configs/studies/lennard_jones_strategy.yaml twice from nothing; the same best, and the same value of
every trial.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.files import write_whole
from campaign.reading.arguments import laid
from campaign.study import config as studies
from campaign.study import run as runs
from campaign.study.config import Study, TrainingValue
from campaign.study.trials import n_steps, run_step

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "configs" / "studies"
SAVED = RESULTS / "parts" / "studies"
LABELLED = RESULTS / "parts" / "polymorphs"
PARTS = ("generator", "matches", "strategy")
SEEDS = (200, 201, 202)
SECONDS = 200.0
EARLIER = {"training.learning_rate": 6e-3}
"""What the study is compared with: the shipped defaults before it."""
RATES = {"earlier default": EARLIER["training.learning_rate"], "winner's rate": 2.093e-3}
MATCH_SEEDS = (203, 204)


def generator_study() -> Study:
    """The shipped study on the kept labels."""
    found = studies.read(STUDIES / "flow_matching_training.yaml")
    value = found.config.value
    assert isinstance(value, TrainingValue)
    return replace(
        found,
        config=found.config.model_copy(
            update={"value": value.model_copy(update={"campaign": str(LABELLED)})}
        ),
    )


def trials_of(study: Study, folder: Path) -> tuple[list[Row], Row]:
    started = time.perf_counter()
    found = runs.run(study, folder, lambda trials: print(runs.standing(trials), flush=True))
    seconds = time.perf_counter() - started
    name = next(iter(study.config.directions))
    rows = [
        {
            "trial": record.number,
            "state": record.state,
            "settings": dict(record.settings),
            name: [step[name] for step in record.measured],
        }
        for record in runs.records(found)
    ]
    best = runs.best(found)
    return rows, {
        "trials": len(rows),
        "best trial": best.number,
        "best": best.value,
        "settings": best.params,
        "steps saved by pruning": runs.steps_saved(found, n_steps(study)),
        "seconds of this call": round(seconds, 1),
    }


def defaults(study: Study) -> Row:
    """What the study measures of the settings that were shipped before it."""
    state, value = None, float("nan")
    for step in range(n_steps(study)):
        done = run_step(study, EARLIER, step, state)
        state, value = done.state, done.measured["validation_loss"]
    return {"validation_loss": value}


def fresh(job: tuple[str, Mapping[str, Any], int, float]) -> Row:
    """A training with a fresh seed, judged on formulas that this seed holds out."""
    from campaign.study.trials import labels_of
    from generators.matrix_unet.plugin import FlowMatchingConfig, validation_loss
    from generators.matrix_unet.train import train_symmetric
    from generators.networks.periodic import PeriodicSizes
    from generators.networks.training import Schedule
    from generators.polymorphs import polymorphs_of_labelled

    which, params, seed, seconds = job
    path = SAVED / f"fresh-{which.replace(' ', '_')}-{seed}-{seconds:g}.json"
    if path.exists():
        found: Row = json.loads(path.read_text())
        return found
    config = FlowMatchingConfig.model_validate(params)
    data = polymorphs_of_labelled(
        labels_of(generator_study()).labelled, "formation_energy_per_atom"
    )
    learned, held = data.split_by_formula(0.1, np.random.default_rng(seed))
    assert config.training.learning_rate is not None
    schedule = Schedule(
        10**7,
        config.training.learning_rate,
        averaging=config.training.averaging,
        seconds=seconds,
        with_muon=True,
    )
    sizes = PeriodicSizes(config.network.width, config.network.layers)
    trained = train_symmetric(
        learned, schedule, seed=seed, sizes=sizes, pairs=config.training.pairs
    )
    row = {"of": which, "seed": seed, "steps": trained.metrics["steps"], "seconds": seconds}
    row |= {
        "formulas held out": len(held.groups),
        "validation_loss": validation_loss(trained, held),
    }
    write_whole(path, json.dumps(row).encode())
    return row


def generator_part(seeds: Sequence[int], seconds: float, workers: int) -> dict[str, list[Row]]:
    study = generator_study()
    trials, told = trials_of(study, SAVED / "generator")
    settings: dict[str, dict[str, Any]] = {
        "defaults": dict(EARLIER),
        "winner": told["settings"],
        "the winner's rate": {"training.learning_rate": told["settings"]["training.learning_rate"]},
    }
    given = [
        (which, laid({}, settings[which]), seed, seconds) for seed in seeds for which in settings
    ]
    with ProcessPoolExecutor(workers) as pool:
        again = list(pool.map(fresh, given))
    return {
        "generator trials": trials,
        "generator": [told | {"of the defaults": defaults(study)["validation_loss"]}],
        "fresh": again,
    }


def matches(job: tuple[str, int]) -> list[Row]:
    """Of a training of 150 s of processor time with one of the rates: matches of ten samples for
    each target.
    """
    from benchmarks.matrix_unet_tables import SAMPLES, SCALES, is_match, split_of
    from generators.matrix_unet.sample import Way, generate
    from generators.matrix_unet.train import train_symmetric
    from generators.matrix_unet.wanted import Wanted
    from generators.networks.training import Schedule

    which, seed = job
    path = SAVED / f"matches-{which.replace(' ', '_')}-{seed}.json"
    if path.exists():
        found: list[Row] = json.loads(path.read_text())
        return found
    learned, targets = split_of("formulas", seed)
    trained = train_symmetric(
        learned,
        Schedule(10**7, RATES[which], seconds=SCALES["small"].seconds, with_muon=True),
        seed=seed,
    )
    targets = sorted(
        (item for item in targets if len(item.crystal) <= 8), key=lambda item: len(item.crystal)
    )
    rows = []
    for name, way in (("as shipped", Way()), ("without recall", Way(recall=0.0))):
        wanted = [
            Wanted(item.formula, item.cell.space_group, item.energy)
            for item in targets
            for _ in range(SAMPLES)
        ]
        made = [
            sample.crystal
            for sample in generate(
                trained.model, trained.choice, wanted, way, np.random.default_rng(seed), learned
            )
        ]
        hits = [is_match(crystal, targets[k // SAMPLES].crystal) for k, crystal in enumerate(made)]
        by_target = np.array(hits).reshape(-1, SAMPLES)
        row = {"rate of": which, "seed": seed, "sampled": name, "targets": len(targets)}
        rows.append(
            row | {"once": float(by_target.mean()), "best of ten": float(by_target.max(1).mean())}
        )
    write_whole(path, json.dumps(rows).encode())
    return rows


def strategy_part() -> dict[str, list[Row]]:
    """From nothing each time."""
    found: dict[str, list[Row]] = {"strategy": []}
    for turn in range(2):
        folder = SAVED / f"strategy-{turn}"
        shutil.rmtree(folder, ignore_errors=True)
        rows, told = trials_of(studies.read(STUDIES / "lennard_jones_strategy.yaml"), folder)
        found["strategy"].append(told)
        found[f"strategy trials {turn}"] = rows
    return found


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "generator" in rows:
        (told,) = rows["generator"]
        found["generator: trials"] = goal(told["trials"], 30, at_least=True)
        found["generator: share of the training steps saved by pruning"] = goal(
            round(told["steps saved by pruning"], 3), 0.333, at_least=True
        )
        found["generator: validation loss of the best, goal: below that of the defaults"] = goal(
            round(told["best"], 4), round(told["of the defaults"], 4), at_least=False
        )
        found["generator: settings of the best"] = told["settings"]
        by_seed = {(row["of"], row["seed"]): row for row in rows["fresh"]}
        seeds = sorted({seed for _, seed in by_seed})
        for which in ("winner", "the winner's rate"):
            found[
                f"fresh seeds, equal time: loss of {which} and of the defaults, and their steps"
            ] = [
                [round(by_seed[name, seed]["validation_loss"], 4) for name in (which, "defaults")]
                + [round(by_seed[name, seed]["steps"]) for name in (which, "defaults")]
                for seed in seeds
            ]
            ratio = median(
                by_seed[which, seed]["validation_loss"]
                / by_seed["defaults", seed]["validation_loss"]
                for seed in seeds
            )
            found[f"fresh seeds, equal time: loss of {which} over that of the defaults, median"] = (
                goal(round(ratio, 4), 1.0, at_least=False)
            )
    for row in rows.get("matches", ()):
        name = f"matches, {row['rate of']}, {row['sampled']}, seed {row['seed']}: once, best of ten"
        found[name] = [round(row["once"], 3), round(row["best of ten"], 3)]
    if "strategy" in rows:
        first, second = rows["strategy"]
        found["strategy: best of both runs"] = [
            [told["best trial"], told["best"], told["settings"]] for told in (first, second)
        ]
        is_same = all(first[key] == second[key] for key in ("best trial", "best", "settings"))
        found["strategy: the same best twice"] = goal(float(is_same), 1.0, at_least=True)
        same = [
            one == other
            for one, other in zip(rows["strategy trials 0"], rows["strategy trials 1"], strict=True)
        ]
        found["strategy: share of trials with the same settings and values"] = goal(
            float(np.mean(same)), 1.0, at_least=True
        )
        found["strategy: trials, share of the replays saved by pruning"] = [
            first["trials"],
            round(first["steps saved by pruning"], 3),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="processor time of each training on fresh seeds",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    SAVED.mkdir(parents=True, exist_ok=True)
    kept = RESULTS / "studies.json"
    rows: dict[str, list[Row]] = json.loads(kept.read_text())["rows"] if kept.exists() else {}
    if "strategy" in arguments.part:
        rows |= strategy_part()
    if "generator" in arguments.part:
        rows |= generator_part(arguments.seeds, arguments.seconds, arguments.workers)
    if "matches" in arguments.part:
        with ProcessPoolExecutor(arguments.workers) as pool:
            rows["matches"] = [
                row
                for found in pool.map(
                    matches, [(which, seed) for seed in MATCH_SEEDS for which in RATES]
                )
                for row in found
            ]
    write("studies", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
