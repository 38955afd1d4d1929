"""Relaxations by one MACE model: one crystal after the other, many at once, ASE's, and torch-sim
called by hand, side by side.

python -m benchmarks.batches --torch-sim PYTHON [--crystals 64] [--repeats 3]

PYTHON is an interpreter with torch-sim-atomistic 0.6 or newer and mace-torch (Python 3.12).
Crystals of 16 atoms with displaced ions and strained cells; ions and cell are relaxed until all
call the same converged: largest force, and V sigma / n on the cell, 0.01 eV/angstrom, and a largest
stress component of 0.05 GPa. Only where it says `old criterion` the stress is judged after the
optimiser has ended. The model is trained here on LAMMPS' labels, with the settings that `oreloop
train mace` takes by default. Each case runs on one core in a process of its own, all cases of a
repeat after one another; processor seconds without imports and the first, warming crystals.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.mace_active import SPACE, labelled_frames
from benchmarks.mace_active import crystals as training_crystals
from benchmarks.record import Row, goal, middle, show, write
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Evaluation, Objective

SEED, FRAMES, EPOCHS = 100, 150, 40
FORCE, STRESS, STEPS, BATCH = 0.01, 0.05, 500, 32
OURS = ("one by one before, old criterion", "one by one before", "one by one", "at once")
PEERS = ("ASE", "torch-sim, fixed", "torch-sim, scaled")
SAME_MINIMUM = 1e-3
"""eV/atom within which two relaxations ended in one minimum."""


def test_crystals(n: int) -> list[Crystal]:
    from generators.perturbed_alloy import PerturbedAlloy, PerturbedAlloyConfig

    generator = PerturbedAlloy(
        PerturbedAlloyConfig(repeats=((2, 2, 2),), displacement=(0.02, 0.15))
    )
    context = GenerationContext(space=SPACE, objective=Objective("energy_per_atom", "minimize"))
    found = generator.generate(20 * n, rng=np.random.default_rng(SEED), context=context)
    return [crystal for crystal, _ in found if len(crystal) == 16][:n]


def train_model(path: Path) -> None:
    import torch

    from oracles.mace import network as networks
    from oracles.mace.training import TrainingConfig, train

    torch.set_num_threads(1)
    frames, architecture = (
        labelled_frames(training_crystals(SEED, FRAMES)),
        networks.ArchitectureConfig(),
    )
    energies, forces = (
        np.array([frame.energy for frame in frames]),
        [frame.forces for frame in frames],
    )
    scales = networks.scales_of(
        [frame.crystal for frame in frames], energies, forces, (24, 26, 28), architecture.cutoff
    )
    network = networks.build(architecture, scales, SEED)
    torch.save(
        train(
            network, frames, TrainingConfig(epochs=EPOCHS), rng=np.random.default_rng(SEED)
        ).double(),
        path,
    )


def plain(crystal: Crystal) -> dict[str, Any]:
    positions = crystal.fractional @ crystal.lattice
    return {
        "numbers": crystal.numbers.tolist(),
        "positions": positions.tolist(),
        "cell": crystal.lattice.tolist(),
    }


def calculator(case: str, model: Path) -> Any:
    """MACE's own for ASE; before, one that makes each graph anew and asks for one crystal."""
    if case == "ASE":
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64")
    from ase.calculators.calculator import Calculator, all_changes

    from oracles.mace import network as networks

    network = networks.read(model.read_bytes(), "cpu").double()

    class Predicting(Calculator):  # type: ignore[misc]
        implemented_properties = ("energy", "forces", "stress")

        def calculate(
            self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            (found,) = networks.predict(network, [Crystal.from_atoms(self.atoms)])
            self.results = {
                "energy": found.energy,
                "forces": found.forces,
                "stress": found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
            }

    return Predicting()


def relax_one_by_one(
    case: str, model: Path, crystals: Sequence[Crystal]
) -> tuple[list[float], int]:
    """Energies (eV), and how many are relaxed as a label needs it."""
    from oracles.relaxation import AseMechanics

    force, stress = (math.inf, math.inf) if "old" in case else (FORCE, STRESS)
    mechanics = AseMechanics(
        calculator(case, model),
        force_tolerance=FORCE,
        max_steps=STEPS,
        residual_force=force,
        residual_pressure=stress,
    )
    energies, converged = [], 0
    for crystal in crystals:
        mechanics.load(crystal)
        left = mechanics.relax(cell=True)
        state = mechanics.state()
        energies.append(state.energy)
        converged += left <= STRESS and state.largest_force <= FORCE
    return energies, converged


def label(case: str, model: Path, crystals: Sequence[Crystal]) -> tuple[list[float], int]:
    """The same by the oracle, whole labels."""
    from oracles.mace.oracle import Mace, MaceConfig

    config = MaceConfig(
        model=model,
        force_tolerance=FORCE,
        residual_force=FORCE,
        residual_pressure=STRESS,
        max_steps=STEPS,
    )
    oracle, found = Mace(config), dict[int, Evaluation]()
    if case == "at once":
        for first in range(0, len(crystals), BATCH):
            found |= {
                first + i: evaluation
                for i, evaluation in oracle.evaluate_many(crystals[first : first + BATCH])
            }
    else:
        found = {i: oracle.evaluate(crystal) for i, crystal in enumerate(crystals)}
    converged = [evaluation.failure is None for evaluation in found.values()]
    energies = [
        found[i].value("energy_per_atom") * len(crystal)
        if found[i].failure is None
        else float("nan")
        for i, crystal in enumerate(crystals)
    ]
    return energies, sum(converged)


def measure(case: str, source: Path, model: Path) -> Row:
    import torch

    torch.set_num_threads(1)
    task = json.loads(source.read_text())["crystals"]
    crystals = [
        Crystal(
            one["cell"],
            np.linalg.solve(np.transpose(one["cell"]), np.transpose(one["positions"])).T,
            one["numbers"],
        )
        for one in task
    ]
    work = label if case in ("one by one", "at once") else relax_one_by_one
    work(case, model, crystals[:2])
    began = time.process_time()
    energies, converged = work(case, model, crystals)
    return {
        "cpu_seconds": (time.process_time() - began) / len(crystals),
        "energies": energies,
        "converged": converged,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-sim", help="Python with torch-sim and MACE")
    parser.add_argument("--crystals", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case, source, model = arguments.case
        print(json.dumps(measure(case, Path(source), Path(model))))
        return
    if not arguments.torch_sim:
        parser.error(
            "--torch-sim PYTHON is needed: an interpreter with torch-sim-atomistic and mace-torch"
        )
    rows: list[Row] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="oreloop-benchmark-") as name:
        source, model, answer = (
            Path(name, file) for file in ("crystals.json", "trained.model", "answer.json")
        )
        train_model(model)
        crystals = [plain(crystal) for crystal in test_crystals(arguments.crystals)]
        source.write_text(
            json.dumps(
                {
                    "crystals": crystals,
                    "force": FORCE,
                    "stress": STRESS,
                    "steps": STEPS,
                    "batch": BATCH,
                }
            )
        )
        peer = str(Path(__file__).with_name("torch_sim_batches.py"))
        for repeat in range(arguments.repeats):
            for case in (*OURS, *PEERS):
                if case.startswith("torch-sim"):
                    mode = case.rpartition(" ")[2]
                    command = [
                        arguments.torch_sim,
                        "-P",
                        "-W",
                        "ignore",
                        peer,
                        str(source),
                        str(model),
                        str(answer),
                        mode,
                    ]
                    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                    found = json.loads(answer.read_text())
                else:
                    command = [
                        sys.executable,
                        "-W",
                        "ignore",
                        "-m",
                        "benchmarks.batches",
                        "--case",
                        case,
                        str(source),
                        str(model),
                    ]
                    done = subprocess.run(
                        command, capture_output=True, text=True, check=True, env=environment
                    )
                    found = json.loads(done.stdout.splitlines()[-1])
                rows.append({"repeat": repeat, "case": case, "atoms": 16, **found})
                print(
                    f"{case:36s} {found['cpu_seconds']:.4f} s each, {found['converged']} of "
                    f"{len(crystals)} converged",
                    flush=True,
                )
    show(summarise({"relaxations": rows}))
    write(
        "batches",
        {"relaxations": rows},
        summarise,
        notes="CPU; the same code takes device: cuda, which was not run.",
    )


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Medians of the seconds; ratios by repeat, and their medians; how the energies agree with ours
    at once.
    """
    rows = parts["relaxations"]
    repeats = sorted({row["repeat"] for row in rows})
    of = {(row["repeat"], row["case"]): row for row in rows}
    found: dict[str, Any] = {}
    for case in (*OURS, *PEERS):
        mine = [of[repeat, case] for repeat in repeats]
        found[f"{case} (CPU s a crystal)"] = middle(mine, "cpu_seconds")
        found[f"{case}: relaxed as a label needs it"] = (
            f"{mine[0]['converged']} of {len(mine[0]['energies'])}"
        )

    def ratio(one: str, other: str) -> list[float]:
        return [
            of[repeat, one]["cpu_seconds"] / of[repeat, other]["cpu_seconds"] for repeat in repeats
        ]

    fastest = min(
        PEERS[1:], key=lambda case: median(of[repeat, case]["cpu_seconds"] for repeat in repeats)
    )
    found["the faster torch-sim"] = fastest
    against = ratio("at once", fastest)
    found["at once over torch-sim"] = goal(median(against), 1.2, at_least=False)
    found["at once over torch-sim, least and most"] = f"{min(against):.3g} to {max(against):.3g}"
    before = ratio("one by one before", "at once")
    found["one by one before over at once"] = goal(median(before), 3.0, at_least=True)
    found["one by one before over at once, least and most"] = (
        f"{min(before):.3g} to {max(before):.3g}"
    )
    found["one by one before, old criterion, over at once"] = median(
        ratio("one by one before, old criterion", "at once")
    )
    found["one by one before over one by one"] = median(ratio("one by one before", "one by one"))
    found["ASE over at once"] = median(ratio("ASE", "at once"))

    ours = np.array(of[0, "at once"]["energies"])
    for case in ("one by one", *PEERS):
        apart = np.abs(np.array(of[0, case]["energies"]) - ours) / rows[0]["atoms"]
        is_same = apart < SAME_MINIMUM
        found[f"{case}: in the same minimum as at once"] = f"{int(is_same.sum())} of {len(apart)}"
        found[f"{case}: largest difference there (meV/atom)"] = 1000 * float(
            apart[is_same].max(initial=0.0)
        )
        found[f"{case}: elsewhere, mean energy above ours (meV/atom)"] = (
            1000
            * float(np.mean((np.array(of[0, case]["energies"]) - ours)[~is_same]))
            / rows[0]["atoms"]
            if not is_same.all()
            else 0.0
        )
    return found


if __name__ == "__main__":
    main()
