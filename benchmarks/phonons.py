"""Which share of generated crystals, relaxed, does not shake itself apart: random crystals,
prototypes, the equivariant flow.

python -m benchmarks.phonons [--seed 100] [--crystals 40] [--seconds 60] [--workers 2]

Every way makes crystals of the same formulas of at most 8 atoms, drawn from the benchmark's
polymorphs (benchmarks/data); the flow learns from these polymorphs for --seconds of processor time
and is asked for energies up to 50 meV/atom below each formula's lowest. Each crystal is relaxed and
shaken by the oracle `phonons` with the 2NN-MEAM potential MoCoNiVFeAlCr_2nn.meam by LAMMPS, which
labelled the polymorphs. Stable is what has no frequency below -0.1 THz on the mesh; what does not
relax to a crystal is counted apart. Control: the lowest known polymorph of each formula. Beside
them stand shares from the literature, of other generators and chemistries by other potentials
(PhononBench: 32 % on average, 45 % of MatterGen's at the same tolerance): shares compare as orders
of magnitude alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.matrix_unet_tables import polymorphs
from benchmarks.record import RESULTS, Row, middle, restore, show, write
from campaign.files import write_whole
from campaign.types import Crystal
from generators.formulas import Formula

SAVED = RESULTS / "parts" / "phonons"
ENGINE = {"potential": "MoCoNiVFeAlCr_2nn.meam", "residual_pressure": 0.5, "residual_force": 0.01}
TOLERANCE, MOST_ATOMS = 0.1, 8
RANDOM, PROTOTYPES, FLOW, KNOWN = (
    "random_crystal",
    "prototypes",
    "flow_matching",
    "lowest known polymorphs",
)
WAYS = (RANDOM, PROTOTYPES, FLOW, KNOWN)
LITERATURE = {"literature: mean of generators (%)": 32.0, "literature: MatterGen (%)": 45.0}


@lru_cache(maxsize=1)
def _oracle() -> Any:
    from campaign import plugins
    from campaign.protocols import PluginSpec

    params = {"oracle": "lammps", "params": ENGINE, "tolerance": TOLERANCE}
    return plugins.build(PluginSpec(group="oracles", use="phonons", params=params))


def drawn(seed: int, n: int) -> list[tuple[Formula, float]]:
    """Formulas of small polymorphs with the lowest known energy of each (eV/atom), no cell twice
    before all have come.
    """
    lowest: dict[Formula, float] = {}
    for item in polymorphs().items:
        if item.formula.n_atoms <= MOST_ATOMS:
            lowest[item.formula] = min(item.energy, lowest.get(item.formula, np.inf))
    cells = sorted(lowest)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(cells)) for _ in range(-(-n // len(cells)))])[:n]
    return [(cells[row], lowest[cells[row]]) for row in order.tolist()]


def made(way: str, seed: int, n: int, seconds: float) -> list[Crystal | None]:
    """One crystal for each drawn formula; None where there is none."""
    from campaign.protocols import GenerationContext
    from campaign.types import Objective, SearchSpace
    from generators.prototypes import Known, library, substitutions
    from generators.random_crystal import RandomCrystal, RandomCrystalConfig

    rng = np.random.default_rng(seed)
    wanted = drawn(seed, n)
    if way == FLOW:
        return _by_flow(wanted, seed, seconds, rng)
    if way == KNOWN:
        best = {
            item.formula: item.crystal
            for item in sorted(polymorphs().items, key=lambda item: -item.energy)
        }
        return [best[formula] for formula, _ in wanted]
    found: list[Crystal | None] = []
    elements = tuple(sorted({symbol for formula, _ in wanted for symbol in formula.symbols}))
    context = GenerationContext(
        space=SearchSpace(elements), objective=Objective("energy_per_atom", "minimize")
    )
    lent = (
        [Known(crystal, formula, name) for name, crystal, formula in _small(library())]
        if way == PROTOTYPES
        else []
    )
    for formula, _ in wanted:
        if way == RANDOM:
            generator = RandomCrystal(RandomCrystalConfig(formulas=(str(formula),)))
            found.append(
                next(
                    (crystal for crystal, _ in generator.generate(20, rng=rng, context=context)),
                    None,
                )
            )
        else:
            found.append(
                next((crystal for crystal, _ in substitutions(formula, lent, rng=rng)), None)
            )
    return found


def _small(named: Sequence[tuple[str, Crystal]]) -> list[tuple[str, Crystal, Formula]]:
    from generators.formulas import formula_of

    return [
        (name, crystal, formula_of(crystal))
        for name, crystal in named
        if len(crystal) <= MOST_ATOMS
    ]


def _by_flow(
    wanted: Sequence[tuple[Formula, float]], seed: int, seconds: float, rng: np.random.Generator
) -> list[Crystal | None]:
    from generators.matrix_unet.sample import Way, generate
    from generators.matrix_unet.train import SYMMETRIC_RATE, train_symmetric
    from generators.matrix_unet.wanted import Wanted
    from generators.networks.training import Schedule

    trained = train_symmetric(
        polymorphs(), Schedule(10**7, SYMMETRIC_RATE, seconds=seconds, with_muon=True), seed=seed
    )
    wishes = [
        Wanted(formula, None, lowest - abs(float(rng.normal(0.0, 0.05))))
        for formula, lowest in wanted
    ]
    return [
        sample.crystal
        for sample in generate(trained.model, trained.choice, wishes, Way(), rng, polymorphs())
    ]


def shaken(way: str, crystal: Crystal | None) -> Row:
    """The lowest frequency (THz) of a crystal as it relaxes, or why there is none, and the
    processor seconds that both took.
    """
    from campaign.executors import sanity

    if crystal is None:
        return {
            "way": way,
            "formula": "",
            "failure": "not generated",
            "lowest": None,
            "seconds": 0.0,
        }
    oracle = _oracle()
    began = time.process_time()
    answer = oracle.evaluate(crystal)
    seconds = time.process_time() - began
    failure = sanity.check(answer, crystal, oracle.quantities, {})
    lowest = None if failure is not None else round(answer.value("lowest_frequency"), 4)
    told = "" if failure is None else f"{failure.kind.value}: {failure.message[:120]}"
    return {
        "way": way,
        "formula": crystal.formula,
        "failure": told,
        "lowest": lowest,
        "seconds": round(seconds, 2),
    }


def run(way: str, seed: int, n: int, seconds: float) -> None:
    path = _part(way)
    if path.exists():
        return
    import torch

    torch.set_num_threads(1)
    rows = [shaken(way, crystal) for crystal in made(way, seed, n, seconds)]
    write_whole(path, json.dumps(rows).encode())
    print(f"{way}: {sum(row['seconds'] for row in rows):.0f} s", flush=True)


def _part(way: str) -> Path:
    return SAVED / f"{way.replace(' ', '_')}.json"


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Shares are of the crystals that relaxed, with the standard error of a share."""
    found: dict[str, Any] = {"engine": f"LAMMPS, {ENGINE['potential']}"}
    generated = [row for row in rows["crystals"] if row["way"] != KNOWN]
    for name, mine in (
        *((way, [row for row in rows["crystals"] if row["way"] == way]) for way in WAYS),
        ("all generated", generated),
    ):
        relaxed = [row for row in mine if row["lowest"] is not None]
        if not relaxed:
            continue
        share = sum(row["lowest"] >= -TOLERANCE for row in relaxed) / len(relaxed)
        found[f"{name}: crystals, of them relaxed"] = [len(mine), len(relaxed)]
        found[f"{name}: dynamically stable (%)"] = round(100 * share, 1)
        found[f"{name}: standard error (%)"] = round(
            100 * (share * (1 - share) / len(relaxed)) ** 0.5, 1
        )
        found[f"{name}: processor seconds a crystal, median"] = middle(relaxed, "seconds")
    return found | LITERATURE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--crystals", type=int, default=40)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="processor time of the flow's training"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    SAVED.mkdir(parents=True, exist_ok=True)
    restore("phonons", "crystals", lambda row: _part(row["way"]))
    jobs = [(way, arguments.seed, arguments.crystals, arguments.seconds) for way in WAYS]
    with ProcessPoolExecutor(
        arguments.workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        list(pool.map(run, *zip(*jobs, strict=True)))
    rows = {"crystals": [row for way in WAYS for row in json.loads(_part(way).read_text())]}
    write("phonons", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
