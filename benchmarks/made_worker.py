"""Relaxes crystals with a machine-learned potential, in the environment that has it: one JSON object a line in, one a line out.

In: id, lattice (3, 3) rows in angstrom, fractional (n, 3), numbers (n,). Out: id, energy_per_atom (eV), the relaxed crystal, steps,
seconds, is_converged; or id and failure. Needs no package of this project:

    python benchmarks/made_worker.py 7net-l3i5 < crystals.jsonl
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

_FORCE = 0.05
"""Largest force (eV/angstrom) of a relaxed crystal, and largest force on its cell (eV)."""
_STEPS = 200
_LARGEST_VOLUME, _LEAST_DISTANCE = 100.0, 0.8


def calculator(model: str) -> Any:
    """A SevenNet potential by its name, or CHGNet."""
    if model == "chgnet":
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(use_device="cpu")
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(model, device="cpu")


def relaxed(row: dict[str, Any], potential: Any) -> dict[str, Any]:
    """Cell and positions relaxed; a failure where the crystal falls apart or collapses."""
    from ase import Atoms
    from ase.filters import FrechetCellFilter
    from ase.geometry import get_distances
    from ase.optimize import FIRE

    atoms = Atoms(numbers=row["numbers"], scaled_positions=row["fractional"], cell=row["lattice"], pbc=True)
    atoms.calc = potential
    started = time.perf_counter()
    search = FIRE(FrechetCellFilter(atoms), logfile=None)
    is_converged = False
    for finished in search.irun(fmax=_FORCE, steps=_STEPS):
        is_converged = finished
        if atoms.get_volume() / len(atoms) > _LARGEST_VOLUME:
            return {"id": row["id"], "failure": "it fell apart", "seconds": time.perf_counter() - started}
    if len(atoms) > 1:
        _, distances = get_distances(atoms.positions, cell=atoms.cell, pbc=True)
        if distances[~(distances < 1e-9)].min() < _LEAST_DISTANCE:
            return {"id": row["id"], "failure": "it collapsed", "seconds": time.perf_counter() - started}
    return {
        "id": row["id"],
        "energy_per_atom": float(atoms.get_potential_energy()) / len(atoms),
        "lattice": atoms.cell.tolist(),
        "fractional": atoms.get_scaled_positions(wrap=False).tolist(),
        "numbers": atoms.numbers.tolist(),
        "steps": int(search.nsteps),
        "is_converged": bool(is_converged),
        "seconds": time.perf_counter() - started,
    }


def work(model: str, rows: Iterable[str], answers: TextIO) -> None:
    import torch

    torch.set_num_threads(1)
    potential = calculator(model)
    for line in rows:
        row = json.loads(line)
        try:
            answer = relaxed(row, potential)
        except Exception as error:  # whatever a potential raises for a strange crystal is that crystal's failure
            answer = {"id": row["id"], "failure": f"{type(error).__name__}: {error}"[:200], "seconds": 0.0}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    output, sys.stdout = sys.stdout, sys.stderr
    work(sys.argv[1], sys.stdin, output)
