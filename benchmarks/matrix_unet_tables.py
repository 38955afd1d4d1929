"""The paper's Tables 1 and 2 beside ours: how often a conditional generator gives the polymorph
whose conditions it was given.

python -m benchmarks.matrix_unet_tables [--seeds 100 101 102] [--workers 2] [--seconds 150] [--scale
paper]

Data: benchmarks/data, the distinct crystals of configs/polymorphs_dataset.yaml, whose relaxations
differ a little from machine to machine; cells of 2 to 12 atoms. Every model is trained for the same
processor time on one core, and asked for held-out crystals by formula, space group and formation
energy: of formulas that were held out, and of prototypes that were held out. Beside them: random
symmetric crystals under the same formula and space group, and the nearest learned crystal with its
elements exchanged. A match is StructureMatcher's with 0.2, 0.3 and 5 degrees (the paper's metric).
Modification starts from the highest polymorph of each held-out formula and asks for the lowest;
beside it, the crystal left as it is. With --scale paper the matrix models have the paper's sizes,
and all learn on a GPU, an hour each unless --seconds says otherwise. Each seed, split and model is
a part of its own under benchmarks/results/parts; a new start, also in a fresh checkout, goes on
with what is missing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, Row, goal, restore, show, write
from campaign.files import write_whole
from campaign.types import Crystal
from generators.matrix_unet.model import Design
from generators.matrix_unet.unet import Preset
from generators.matrix_unet.wanted import Wanted
from generators.polymorphs import Filters, Polymorph, PolymorphDataset
from generators.symmetry import symmetric_cell

DATA = Path(__file__).parent / "data" / "polymorphs.extxyz.gz"
SEEDS = (100, 101, 102)
SAMPLES, TARGETS, BEST_SHARE = 10, 60, 0.25
FILTERS = Filters(atoms=(2, 12), least_group=7, least_share=0.01)
Split = Literal["formulas", "prototypes"]


@dataclass(frozen=True)
class Scale:
    """The name and the command of the figures, the sizes of the matrix models, where all learn, and
    for how long (s).
    """

    name: str
    command: str
    preset: Preset
    device: str
    seconds: float


_COMMAND = "python -m benchmarks.matrix_unet_tables"
SCALES = {
    "small": Scale("matrix_unet_tables", _COMMAND, "small", "cpu", 150.0),
    "paper": Scale(
        "matrix_unet_tables_paper", f"{_COMMAND} --scale paper", "paper", "cuda", 3600.0
    ),
}
DESIGNS = {
    "diffusion": Design("diffusion"),
    "flow, normal": Design("flow", noise="normal"),
    "flow, uniform": Design("flow", noise="uniform"),
    "flow, better form": Design("flow", variant="oreloop"),
    "regression": Design("regression", modifies=True),
    "regression, minimum image": Design(
        "regression", modifies=True, coordinate_loss="minimum_image"
    ),
    "Palette": Design("diffusion", modifies=True),
    "flow from the crystal": Design("flow", modifies=True),
}
GENERATIVE = ("diffusion", "flow, normal", "flow, uniform", "flow, better form", "equivariant flow")
MODIFYING = ("regression", "Palette", "flow from the crystal", "regression, minimum image")
PAPER = {
    "DDPM": 0.8074,
    "DDIM": 0.82,
    "flow, normal": 0.482,
    "flow, uniform": 0.8097,
    "regression": 0.4148,
    "Palette": 0.3653,
    "flow from the crystal": 0.2059,
}
OURS, ON_NEW_SITES, RANDOM = (
    "equivariant flow",
    "equivariant flow on new sites",
    "random, same conditions",
)
SIZES = {"at most 8": (1, 8), "up to 4": (1, 4), "5 to 8": (5, 8), "9 to 12": (9, 12)}


@lru_cache(maxsize=1)
def polymorphs() -> PolymorphDataset:
    """The kept crystals, which are distinct already, through the filters."""
    from campaign.cli.pretraining import labelled_of_file

    quantity = "formation_energy_per_atom"
    found = []
    for row, item in enumerate(labelled_of_file(DATA, quantity)):
        cell = symmetric_cell(item.candidate.crystal)
        if cell is not None:
            found.append(Polymorph(cell, item.values[quantity], str(row)))
    return PolymorphDataset(found).filtered(FILTERS)


def split_of(split: Split, seed: int) -> tuple[PolymorphDataset, list[Polymorph]]:
    """What is learned from, and the crystals asked for."""
    rng = np.random.default_rng(seed)
    data = polymorphs()
    learned, held = (data.split_by_formula if split == "formulas" else data.split_by_prototype)(
        BEST_SHARE, rng
    )
    rows = held.targets(rng)[:TARGETS]
    return learned, [held.items[row] for row in rows]


def is_match(one: Crystal | None, other: Crystal) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if one is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(
                StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5).fit(
                    one.structure, other.structure
                )
            )
        except (ValueError, RuntimeError, MemoryError, np.linalg.LinAlgError):
            return False


def run(seed: int, split: Split, model: str, scale: Scale) -> None:
    import torch

    torch.set_num_threads(1)
    path = _part(seed, split, model, scale)
    if path.exists():
        return
    began = time.time()
    learned, targets = split_of(split, seed)
    rows = (
        _baselines(learned, targets, seed)
        if model == "baselines"
        else _model(model, learned, targets, seed, scale)
    )
    common = {"seed": seed, "split": split, "part": model, "learned": len(learned)}
    write_whole(path, json.dumps([common | row for row in rows]).encode())
    print(f"{path.stem}: {time.time() - began:.0f} s", flush=True)


def _row(name: str, item: Polymorph, hits: Sequence[bool], **more: Any) -> Row:
    return {
        "model": name,
        "formula": str(item.formula),
        "atoms": len(item.crystal),
        "hits": [int(hit) for hit in hits],
        **more,
    }


def _model(
    name: str, learned: PolymorphDataset, targets: Sequence[Polymorph], seed: int, scale: Scale
) -> list[Row]:
    from generators.matrix_unet.sample import Way, generate
    from generators.matrix_unet.train import (
        MATRIX_RATE,
        SYMMETRIC_RATE,
        train_matrix,
        train_symmetric,
    )
    from generators.networks.training import Schedule

    if name == "equivariant flow":
        schedule = Schedule(10**7, SYMMETRIC_RATE, seconds=scale.seconds, with_muon=True)
        trained = train_symmetric(learned, schedule, seed=seed, device=scale.device)
    else:
        design = replace(DESIGNS[name], preset=scale.preset)
        trained = train_matrix(
            learned,
            design,
            Schedule(10**7, MATRIX_RATE, seconds=scale.seconds),
            seed=seed,
            device=scale.device,
        )
    steps = {"steps": trained.metrics["steps"]}
    if name in MODIFYING:
        return _modified(name, trained.model, targets, seed, steps)
    ways = {name: Way(steps=100)}
    if name == "diffusion":
        ways = {"DDPM": Way(100, "ddpm"), "DDIM": Way(100, "ddim")}
    if name == "equivariant flow":
        sixteen = Way(starts=16)
        ways = {
            name: sixteen,
            f"{name}, starts by the choice of sites": Way(),
            f"{name}, 100 steps": replace(sixteen, steps=100),
            f"{name} from one start": Way(starts=1),
            f"{name} without recall": replace(sixteen, recall=0.0),
            f"{name} without turns": replace(sixteen, repetition=1.0),
            f"{name} on new sites": replace(sixteen, exploration=1.0),
        }
    rows = []
    for label, way in ways.items():
        began = time.process_time()
        rng = np.random.default_rng(seed)
        wanted = [
            Wanted(item.formula, item.cell.space_group, item.energy)
            for item in targets
            for _ in range(SAMPLES)
        ]
        order = sorted(range(len(wanted)), key=lambda k: wanted[k].formula.n_atoms)
        made: list[Crystal | None] = [None] * len(wanted)
        for k, sample in zip(
            order,
            generate(trained.model, trained.choice, [wanted[k] for k in order], way, rng, learned),
            strict=True,
        ):
            assert sample.wanted is wanted[k]
            made[k] = sample.crystal
        took = (time.process_time() - began) / len(wanted)
        for k, item in enumerate(targets):
            hits = [
                is_match(crystal, item.crystal) for crystal in made[k * SAMPLES : (k + 1) * SAMPLES]
            ]
            rows.append(
                _row(label, item, hits, sample_seconds=round(took, 5), calls=way.steps, **steps)
            )
    return rows


def _modified(
    name: str, model: Any, targets: Sequence[Polymorph], seed: int, steps: Mapping[str, float]
) -> list[Row]:
    """Targets are the lowest of a cell here; each is asked for from the highest polymorph with the
    same atoms.
    """
    from generators.matrix_unet.sample import Way, modify

    pairs = _pairs(targets)
    rows = []
    hits: list[list[bool]] = [[] for _ in pairs]
    for k in range(1 if name.startswith("regression") else SAMPLES):
        made = modify(
            model,
            [high.crystal for high, _ in pairs],
            [low.cell.space_group for _, low in pairs],
            [low.energy - high.energy for high, low in pairs],
            Way(steps=100, sampler="ddpm"),
            seed=seed + k,
        )
        for found, crystal, (_, low) in zip(hits, made, pairs, strict=True):
            found.append(is_match(crystal, low.crystal))
    for found, (high, low) in zip(hits, pairs, strict=True):
        rows.append(_row(name, low, found, **steps))
        if name == "regression":
            rows.append(_row("left as it is", low, [is_match(high.crystal, low.crystal)]))
    return rows


def _pairs(targets: Sequence[Polymorph]) -> list[tuple[Polymorph, Polymorph]]:
    """(highest, lowest) of the cells of the targets, among all polymorphs."""
    data = polymorphs()
    wanted = {item.formula for item in targets}
    by_formula: dict[Any, list[Polymorph]] = {}
    for item in sorted(data.items, key=lambda item: item.energy):
        if item.formula in wanted:
            by_formula.setdefault(item.formula, []).append(item)
    return [(items[-1], items[0]) for items in by_formula.values() if len(items) > 1]


def _baselines(learned: PolymorphDataset, targets: Sequence[Polymorph], seed: int) -> list[Row]:
    """Random symmetric crystals under the same formula and space group; nearest crystals of that
    space group, elements exchanged.
    """
    from generators.formulas import mean_atomic_volume
    from generators.prototypes import Known, substitutions
    from generators.wyckoff import assignments, spread_cell

    rng = np.random.default_rng(seed)
    known = [
        Known(item.crystal, item.formula, str(row), -item.energy)
        for row, item in enumerate(learned.items)
    ]
    group = {str(row): item.cell.space_group for row, item in enumerate(learned.items)}
    rows = []
    for item in targets:
        fitting = assignments(item.cell.space_group, item.formula.counts)
        hits = []
        for _ in range(SAMPLES):
            cell = None
            for _ in range(20):
                chosen = fitting[int(rng.integers(len(fitting)))] if fitting else None
                cell = cell or (
                    spread_cell(
                        item.cell.space_group,
                        chosen,
                        item.formula.numbers,
                        mean_atomic_volume(item.formula),
                        rng,
                    )
                    if chosen is not None
                    else None
                )
            hits.append(cell is not None and is_match(cell.crystal, item.crystal))
        rows.append(_row("random, same conditions", item, hits))
        found = []
        for crystal, name in substitutions(item.formula, known):
            if group[name] == item.cell.space_group:
                found.append(is_match(crystal, item.crystal))
            if len(found) == SAMPLES:
                break
        rows.append(_row("substitution", item, found or [False]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--scale", choices=list(SCALES), default="small", help="paper: the paper's sizes, on a GPU"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="processor time of each training; 150, or 3600 at the paper's scale",
    )
    parser.add_argument("--notes", default="", help="written beside the figures")
    parser.add_argument(
        "--finished",
        action="store_true",
        help="run nothing: write the figures of the parts that are there",
    )
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    scale = replace(scale, seconds=arguments.seconds or scale.seconds)
    _saved(scale).mkdir(parents=True, exist_ok=True)
    restore(scale.name, "targets", lambda row: _part(row["seed"], row["split"], row["part"], scale))
    jobs: list[tuple[int, Split, str, Scale]] = []
    splits: tuple[Split, ...] = ("formulas", "prototypes")
    for models in (("baselines", OURS), (*GENERATIVE[:-1],), MODIFYING):
        for seed in arguments.seeds:
            for split in splits if models != MODIFYING else splits[:1]:
                jobs += [(seed, split, model, scale) for model in models]
    if not arguments.finished:
        with ProcessPoolExecutor(
            arguments.workers, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            list(pool.map(run, *zip(*jobs, strict=True)))
    rows = [
        row for path in sorted(_saved(scale).glob("*.json")) for row in json.loads(path.read_text())
    ]
    parts = {"targets": [row for row in rows if row["seed"] in arguments.seeds]}
    show(summarise(parts))
    write(scale.name, parts, summarise, notes=arguments.notes, command=scale.command)


def _saved(scale: Scale) -> Path:
    return RESULTS / "parts" / scale.name


def _part(seed: int, split: str, model: str, scale: Scale) -> Path:
    return _saved(scale) / f"{seed}-{split}-{model.replace(', ', '_').replace(' ', '_')}.json"


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Shares of targets matched by one sample and by the best of ten, with 95 % intervals over
    targets (bootstrap).
    """
    found: dict[str, Any] = {}
    rows = parts["targets"]
    for split in ("formulas", "prototypes"):
        for name in sorted({row["model"] for row in rows if row["split"] == split}):
            for size in SIZES:
                chosen = _hits(rows, split, name, size)
                if chosen:
                    paper = (
                        f" (paper {PAPER[name]})" if name in PAPER and size == "at most 8" else ""
                    )
                    found[f"held-out {split}, {size} atoms: {name}{paper}"] = {
                        "once": _interval(_once(chosen)),
                        "best of ten": _interval(_best(chosen)),
                        "targets": len(chosen),
                        "seeds": len(
                            {
                                row["seed"]
                                for row in rows
                                if (row["split"], row["model"]) == (split, name)
                            }
                        ),
                    }
    for name in sorted({row["model"] for row in rows if "sample_seconds" in row}):
        mine = [row for row in rows if row["model"] == name]
        took = float(np.median([row["sample_seconds"] for row in mine]))
        found[f"samples a second on one core: {name}"] = {
            "samples": round(1 / took, 1),
            "calls of the network": mine[0]["calls"],
        }

    ours = _hits(rows, "formulas", OURS)
    if ours:
        found["once, held-out formulas, at most 8 atoms"] = goal(
            round(float(np.mean(_once(ours))), 4), 0.5, at_least=True
        )
        found["best of ten, held-out formulas, at most 8 atoms"] = goal(
            round(float(np.mean(_best(ours))), 4), 0.9, at_least=True
        )
    pairs = _paired(rows, "formulas", OURS, RANDOM)
    if pairs and sum(other for _, other in pairs):
        text = "over random crystals of the same conditions, once, held-out formulas"
        ratio = np.array(pairs)[_draws(len(pairs))].mean(1)
        found[text] = goal(round(float(np.divide(*np.mean(pairs, 0))), 3), 4.0, at_least=True)
        found[f"{text}: 95 % interval"] = [
            round(float(v), 3)
            for v in np.quantile(ratio[:, 0] / ratio[:, 1].clip(1e-6), [0.025, 0.975])
        ]
    for name in (RANDOM, "substitution"):
        for what, of in (("once", _once), ("best of ten", _best)):
            pairs = _paired(rows, "prototypes", ON_NEW_SITES, name, of)
            if pairs:
                differences = [one - other for one, other in pairs]
                found[
                    f"held-out prototypes, {what}, flow on new sites less {name} (goal: above "
                    "0 beyond the interval)"
                ] = _interval(differences)
    return found


def _hits(
    rows: Sequence[Row], split: str, name: str, size: str = "at most 8"
) -> list[tuple[str, list[int]]]:
    """The name, and the hits of each target."""
    low, high = SIZES[size]
    return [
        (name, row["hits"])
        for row in rows
        if (row["split"], row["model"]) == (split, name) and low <= row["atoms"] <= high
    ]


def _once(hits: Sequence[tuple[str, list[int]]]) -> list[float]:
    """Shares of the samples; of substitutions the first, as they are in an order."""
    return [
        float(values[0]) if name == "substitution" else float(np.mean(values))
        for name, values in hits
    ]


def _best(hits: Sequence[tuple[str, list[int]]]) -> list[float]:
    return [float(max(values)) for _, values in hits]


def _paired(
    rows: Sequence[Row], split: str, one: str, other: str, of: Callable[..., list[float]] = _once
) -> list[tuple[float, float]]:
    """What two ways reach on the same targets, of the seeds that both have."""
    seeds = [
        {row["seed"] for row in rows if (row["split"], row["model"]) == (split, name)}
        for name in (one, other)
    ]
    both = [row for row in rows if row["seed"] in seeds[0] & seeds[1]]
    return list(zip(of(_hits(both, split, one)), of(_hits(both, split, other)), strict=True))


def _draws(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(n, size=(1000, n))


def _interval(values: Sequence[float]) -> list[float]:
    draws = np.array(values)[_draws(len(values))].mean(1)
    return [
        round(float(np.mean(values)), 4),
        *(round(float(value), 4) for value in np.quantile(draws, [0.025, 0.975])),
    ]


if __name__ == "__main__":
    main()
