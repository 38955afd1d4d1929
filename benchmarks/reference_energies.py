"""Energies of crystals by an ASE calculator in the interpreter that runs this file: reads JSON from
standard input, prints a JSON row each.

Imports nothing of oreloop, so that it runs in an environment of its own. Energies in eV/atom,
volumes in cubic angstrom per atom.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

PACKAGES = {"7net-l3i5": "sevenn", "chgnet": "chgnet"}
LARGEST_FORCE, MOST_STEPS = 0.02, 300


def calculator(model: str) -> Any:
    if model == "chgnet":
        return import_module("chgnet.model.dynamics").CHGNetCalculator(use_device="cpu")
    return import_module("sevenn.calculator").SevenNetCalculator(model, device="cpu")


def main() -> None:
    from importlib.metadata import version

    import torch
    from ase import Atoms
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    calculate = calculator(asked["model"])
    for row in asked["crystals"]:
        atoms = Atoms(
            numbers=row["numbers"],
            scaled_positions=row["fractional"],
            cell=row["lattice"],
            pbc=True,
        )
        atoms.calc = calculate
        single = float(atoms.get_potential_energy()) / len(atoms)
        has_converged = bool(
            FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=LARGEST_FORCE, steps=MOST_STEPS)
        )
        found = {
            "element": row["element"],
            "single_point": single,
            "relaxed": float(atoms.get_potential_energy()) / len(atoms),
            "volume": float(atoms.get_volume()) / len(atoms),
            "has_converged": has_converged,
            "package": f"{PACKAGES[asked['model']]} {version(PACKAGES[asked['model']])}",
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
