"""Crystals relaxed by torch-sim called by hand, for benchmarks/batches.py: runs where torch-sim and
MACE are, without oreloop.

python torch_sim_batches.py CRYSTALS.json MODEL ANSWER.json MODE: L-BFGS with a cell filter by the
logarithm of the deformation, in batches. MODE is `fixed` (the inverse Hessian begins at 1 / 70, as
ASE's) or `scaled` (it begins at the last step's curvature).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch_sim as ts
from ase import Atoms
from torch_sim.models.mace import MaceModel


def main() -> None:
    source, weights, target, mode = sys.argv[1:]
    task = json.loads(Path(source).read_text())
    torch.set_num_threads(1)
    device, double = torch.device("cpu"), torch.float64
    model = MaceModel(
        model=weights, device=device, dtype=double, compute_forces=True, compute_stress=True
    )
    crystals = [
        Atoms(numbers=one["numbers"], positions=one["positions"], cell=one["cell"], pbc=True)
        for one in task["crystals"]
    ]

    def converged(state: Any, last_energy: Any = None) -> torch.Tensor:
        """On atoms and, of each component, on the cell: V sigma / n; and the stress itself, 1
        eV/angstrom^3 = 160.2 GPa.
        """
        on_cell = state.cell_forces.norm(dim=2).amax(1)
        stress = state.stress.abs().amax((1, 2)) * 160.21766208
        force = ts.system_wise_max_force(state)
        found: torch.Tensor = (
            (force <= task["force"]) & (on_cell <= task["force"]) & (stress <= task["stress"])
        )
        return found

    def relax(some: list[Atoms]) -> Any:
        return ts.optimize(
            some,
            model,
            optimizer=ts.Optimizer.lbfgs,
            convergence_fn=converged,
            max_steps=task["steps"],
            steps_between_swaps=1,
            init_kwargs={
                "cell_filter": ts.CellFilter.frechet,
                "alpha": 70.0 if mode == "fixed" else None,
            },
        )

    relax(crystals[:2])
    energies: list[float] = []
    n_converged = 0
    began = time.process_time()
    for first in range(0, len(crystals), task["batch"]):
        state = relax(crystals[first : first + task["batch"]])
        energies += state.energy.tolist()
        n_converged += int(converged(state).sum())
    seconds = time.process_time() - began
    found = {
        "cpu_seconds": seconds / len(crystals),
        "energies": energies,
        "converged": n_converged,
        "versions": [torch.__version__, ts.__version__],
    }
    Path(target).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
