"""Tables of labels made by our own oracles, for replays: python -m benchmarks.tables [--only NAME
...]

Each is made from a fixed seed, saved as extxyz under benchmarks/results/parts (not committed) and
found there the next time.

nifecr: 1,200 cells of 16 atoms, half bcc and half fcc, with the bulk modulus (GPa) by the MEAM
potential of Wu, Lee and Su.
polymorphs: orderings of up to 6 atoms of five binary systems on fcc and bcc, with the formation
energy (eV/atom), MEAM (MoCoNiVFeAlCr).
carbon_as_proposed: 1,000 random carbon crystals in random space groups (PyXtal), as a campaign has
them before the label, with the energy (eV/atom) after relaxation, Tersoff potential.
thermal_repeated: cells of 54 atoms with the bulk modulus (GPa) static and at 300 K, the latter
once, as a campaign has it, and as the mean of six repeats.
network: 1,000 cells of 16 atoms, with the energy (eV/atom) by MEAM, and by a small MACE network
trained on 6 others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS
from campaign.crystals.extent import not_bulk
from campaign.crystals.lattice import ParentLattice, supercell
from campaign.types import Crystal, Evaluation, SearchSpace

FOLDER = RESULTS / "parts" / "tables"
NIFECR = SearchSpace(("Ni", "Fe", "Cr"), {}, dict.fromkeys(("Ni", "Fe", "Cr"), 0.9))
SEVEN = "MoCoNiVFeAlCr_2nn.meam"
BINARIES = (("Fe", "Ni"), ("Al", "Ni"), ("Cr", "Ni"), ("Al", "Fe"), ("Co", "Cr"))
LATTICES: tuple[ParentLattice, ...] = ("bcc", "fcc")
TRAINING, SMALL_NETWORK = (
    6,
    ("--epochs", "60", "--channels", "8", "--layers", "1", "--cutoff", "3.5"),
)
THERMAL_REPEATS = 6
Row = tuple[Crystal, dict[str, float]]


def path_of(name: str) -> Path:
    """The table's file; made where it is not there."""
    path = FOLDER / f"{name}.extxyz"
    if not path.exists():
        write(name, path)
    return path


def write(name: str, path: Path) -> None:
    from ase.io import write as write_frames

    began = time.time()
    frames = []
    for crystal, values in MAKERS[name]():
        atoms = crystal.atoms
        atoms.info.update(values)
        frames.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    write_frames(part, frames, format="extxyz")
    os.replace(part, path)
    print(f"{name}: {len(frames)} rows, {time.time() - began:.0f} s", flush=True)


def random_cells(
    lattices: tuple[str, ...], repeats: tuple[int, int, int], n: int, seed: int
) -> Iterator[Crystal]:
    from generators.random_alloy import draw_counts

    rng = np.random.default_rng(seed)
    for i in range(n):
        counts = draw_counts(NIFECR, 2 * int(np.prod(repeats)), rng)
        symbols = [str(symbol) for symbol in rng.permutation(np.repeat(NIFECR.elements, counts))]
        yield supercell(lattices[i % len(lattices)], repeats, symbols)  # type: ignore[arg-type]


def label(
    use: str, params: dict[str, Any], crystals: list[Crystal], seed: int = 0
) -> list[Evaluation]:
    """Labels of crystals, on two cores. Where an oracle draws numbers, another ``seed`` gives
    repeats.
    """
    shares = [crystals[i::2] for i in range(2)]
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(_label, [use] * 2, [params] * 2, shares, [2 * seed, 2 * seed + 1]))
    found: list[Evaluation] = [None] * len(crystals)  # type: ignore[list-item]
    for i, part in enumerate(parts):
        found[i::2] = part
    return found


def _label(
    use: str, params: dict[str, Any], crystals: list[Crystal], seed: int
) -> list[Evaluation]:
    from campaign import plugins
    from campaign.protocols import PluginSpec

    os.nice(10)
    np.random.seed(seed)
    oracle = plugins.build(PluginSpec(group="oracles", use=use, params=params))
    return [oracle.evaluate(crystal) for crystal in crystals]


def nifecr() -> Iterator[Row]:
    """Bulk modulus, energy, and formation energy from the elements' bcc or fcc crystal, whichever
    is lower.
    """
    crystals = list(
        {
            crystal.id: crystal for crystal in random_cells(("bcc", "fcc"), (2, 2, 2), 1200, 1)
        }.values()
    )
    lowest = elemental(NIFECR.elements, {})
    for crystal, answer in zip(crystals, label("lammps_bulk_modulus", {}, crystals), strict=True):
        if answer.failure is None:
            energy = answer.value("energy_per_atom")
            formation = energy - float(
                np.mean([lowest[number] for number in crystal.numbers.tolist()])
            )
            yield crystal, {"bulk_modulus": answer.value("bulk_modulus"), "formation": formation}


def elemental(elements: Sequence[str], params: dict[str, Any]) -> dict[int, float]:
    """By atomic number the lower energy (eV/atom) of the element's bcc and fcc crystal."""
    pure = [
        supercell(lattice, (1, 1, 1), [element] * 2) for element in elements for lattice in LATTICES
    ]
    lowest: dict[int, float] = {}
    for crystal, answer in zip(pure, label("lammps", params, pure), strict=True):
        number = int(crystal.numbers[0])
        lowest[number] = min(lowest.get(number, np.inf), answer.value("energy_per_atom"))
    return lowest


def polymorphs() -> Iterator[Row]:
    """Formation energies from the elements' fcc or bcc crystal, whichever is lower."""
    from campaign import plugins
    from campaign.protocols import GenerationContext, PluginSpec
    from campaign.types import Objective

    settings = {"lattices": ["fcc", "bcc"], "atoms": [2, 3, 4, 5, 6]}
    generator = plugins.build(PluginSpec(group="generators", use="ordered_alloy", params=settings))
    found: dict[str, Crystal] = {}
    for pair in BINARIES:
        context = GenerationContext(
            space=SearchSpace(pair), objective=Objective("energy_per_atom", "minimize")
        )
        drawn = generator.generate(320, rng=np.random.default_rng(2), context=context)
        found |= {crystal.id: crystal for crystal, _ in drawn}
    crystals = list(found.values())
    elements = sorted({element for pair in BINARIES for element in pair})
    answers, lowest = (
        label("lammps", {"potential": SEVEN}, crystals),
        elemental(elements, {"potential": SEVEN}),
    )
    for crystal, answer in zip(crystals, answers, strict=True):
        if answer.failure is None:
            reference = float(np.mean([lowest[number] for number in crystal.numbers.tolist()]))
            yield (
                crystal,
                {"formation_energy_per_atom": answer.value("energy_per_atom") - reference},
            )


def carbon_as_proposed() -> Iterator[Row]:
    from pyxtal import pyxtal

    rng = np.random.default_rng(3)
    crystals: list[Crystal] = []
    while len(crystals) < 1150:
        group, n = int(rng.integers(1, 231)), int(rng.choice([4, 6, 8, 12, 16]))
        made = pyxtal()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made.from_random(
                    3,
                    group,
                    ["C"],
                    [n],
                    factor=float(rng.uniform(0.9, 1.6)),
                    random_state=int(rng.integers(2**31)),
                )
        except Exception:
            continue
        if made.valid:
            crystals.append(Crystal.from_atoms(made.to_ase()))
    answers = label(
        "lammps",
        {"potential": "SiC.tersoff", "residual_pressure": 5.0, "residual_force": 0.2},
        crystals,
    )
    for crystal, answer in zip(crystals, answers, strict=True):
        if answer.failure is None and not not_bulk(crystal):
            yield crystal, {"energy_per_atom": answer.value("energy_per_atom")}


def thermal_repeated() -> Iterator[Row]:
    """``warm`` is one label, ``warm_mean`` the mean of all."""
    crystals = list(random_cells(("fcc",), (3, 3, 3), 150, 4))
    static = label("lammps_bulk_modulus", {}, crystals)
    settings = {"temperature": 300.0, "equilibration": 4.0, "production": 8.0}
    repeats = [
        label("lammps_finite_temperature", settings, crystals, seed)
        for seed in range(THERMAL_REPEATS)
    ]
    for crystal, cold, *warm in zip(crystals, static, *repeats, strict=True):
        if cold.failure is None and all(hot.failure is None for hot in warm):
            found = [hot.value("bulk_modulus") for hot in warm]
            yield (
                crystal,
                {
                    "static": cold.value("bulk_modulus"),
                    "warm": found[0],
                    "warm_mean": float(np.mean(found)),
                    "warm_deviation": float(np.std(found, ddof=1)),
                },
            )


def network() -> Iterator[Row]:
    """Energies of cells near their sites by MEAM and by a small MACE that `oreloop train mace`
    makes of a few others.
    """
    crystals = list(random_cells(LATTICES, (2, 2, 2), 1000 + TRAINING, 5))
    dear = label("lammps", {"relax": "none", "measure": ["forces"]}, crystals)
    with tempfile.TemporaryDirectory() as name:
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io import write as write_frames

        frames = []
        for crystal, answer in zip(crystals[:TRAINING], dear[:TRAINING], strict=True):
            forces = next(item.value for item in answer.observations if item.quantity == "forces")
            atoms = crystal.atoms
            atoms.calc = SinglePointCalculator(
                atoms, energy=answer.value("energy_per_atom") * len(crystal), forces=forces
            )
            frames.append(atoms)
        write_frames(f"{name}/train.extxyz", frames)
        model = f"{name}/model.safetensors"
        train = [
            sys.executable,
            "-m",
            "campaign.cli",
            "train",
            "mace",
            f"{name}/train.extxyz",
            model,
            *SMALL_NETWORK,
        ]
        subprocess.run(train, check=True)
        cheap = label("mace", {"model": model, "relax": "none"}, crystals[TRAINING:])
    for crystal, low, high in zip(crystals[TRAINING:], cheap, dear[TRAINING:], strict=True):
        yield crystal, {"mace": low.value("energy_per_atom"), "meam": high.value("energy_per_atom")}


MAKERS: dict[str, Callable[[], Iterator[Row]]] = {
    "nifecr": nifecr,
    "polymorphs": polymorphs,
    "carbon_as_proposed": carbon_as_proposed,
    "thermal_repeated": thermal_repeated,
    "network": network,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    for name in parser.parse_args().only:
        print(name, path_of(name))


if __name__ == "__main__":
    main()
