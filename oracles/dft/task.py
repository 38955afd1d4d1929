"""One calculation, in a process of its own: ``python -m oracles.dft.task FOLDER``.

Reads ``job.json`` in the folder, keeps ``last.json`` (the geometry so far) up to date, writes
``result.json`` at the end; files are written whole. What the engine prints goes to files in the
folder. The process dies with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaign.types import Crystal
from oracles import eos
from oracles.dft import engines
from oracles.dft.settings import DftConfig, starting_moments
from oracles.relaxation import AseMechanics

_DIE_WITH_PARENT = 1
_SCANS = 4


def crystal_to_json(crystal: Crystal) -> dict[str, Any]:
    return {
        "lattice": crystal.lattice.tolist(),
        "fractional": crystal.fractional.tolist(),
        "numbers": crystal.numbers.tolist(),
    }


def crystal_from_json(data: dict[str, Any]) -> Crystal:
    return Crystal(
        np.array(data["lattice"]),
        np.array(data["fractional"]),
        np.array(data["numbers"], dtype=np.uint8),
    )


def write_json(path: Path, data: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data))
    os.replace(part, path)


def run(folder: Path) -> dict[str, Any]:
    """The figures of a job: energy (eV), volume (angstrom^3), bulk modulus (GPa or None), moment
    (Bohr magnetons), crystal.
    """
    job = json.loads((folder / "job.json").read_text())
    crystal, config = crystal_from_json(job["crystal"]), DftConfig(**job["config"])
    last = folder / "last.json"
    if last.exists():
        crystal = crystal_from_json(json.loads(last.read_text()))
    calculator = engines.make(job["engine"], job["engine_settings"], config, crystal, folder)
    mechanics = AseMechanics(
        calculator,
        force_tolerance=config.force_tolerance,
        max_steps=config.max_steps,
        largest_step=config.largest_step,
    )
    mechanics.load(crystal)
    mechanics.atoms.set_initial_magnetic_moments(starting_moments(crystal, config))
    mechanics.on_step = lambda atoms: write_json(last, crystal_to_json(Crystal.from_atoms(atoms)))
    atoms, force, modulus = mechanics.atoms, 0.0, None
    if config.relax in ("cell", "ions"):
        mechanics.relax(cell=config.relax == "cell")
        force = float(np.abs(atoms.get_forces()).max())
    if config.relax != "volume":
        energy, moment = float(atoms.get_potential_energy()), _moment(atoms, job["engine"], folder)
        ground = Crystal.from_atoms(atoms)
    if config.relax == "volume" or config.bulk_modulus:
        curve, moment_there = _scan(
            mechanics, config, lambda: _moment(atoms, job["engine"], folder)
        )
        modulus = curve.bulk_modulus
        if config.relax == "volume":
            energy, moment, now = curve.energy, moment_there, Crystal.from_atoms(atoms)
            ground = Crystal(
                now.lattice * (curve.volume / now.volume) ** (1 / 3), now.fractional, now.numbers
            )
    return {
        "energy": energy,
        "volume": ground.volume,
        "bulk_modulus": modulus if config.bulk_modulus else None,
        "moment": moment,
        "largest_force": force,
        "crystal": crystal_to_json(ground),
    }


def _moment(atoms: Any, engine: str, folder: Path) -> float:
    """Bohr magnetons of the cell; 0 where nothing is polarised."""
    if engine == "espresso":
        return engines.espresso_moment(folder)
    try:
        return float(atoms.get_magnetic_moment())
    except Exception:
        return 0.0


def _scan(
    mechanics: AseMechanics, config: DftConfig, moment: Callable[[], float], scans: int = _SCANS
) -> tuple[eos.Curve, float]:
    """Energies around the cell, and the moment at the lowest; where the minimum lies outside, the
    window moves to the lower end.
    """
    start = mechanics.atoms.cell.array.copy()
    volumes, energies, moments, cells = (
        [],
        [],
        [],
        [start * (1 + strain) for strain in eos.strains(config.window, config.points)],
    )
    for cell in cells:
        mechanics.atoms.set_cell(cell, scale_atoms=True)
        volumes.append(float(mechanics.atoms.get_volume()))
        energies.append(float(mechanics.atoms.get_potential_energy()))
        moments.append(moment())
    lowest = int(np.argmin(energies))
    try:
        return eos.fit(volumes, energies), moments[lowest]
    except ValueError:
        if scans == 1:
            raise
    mechanics.atoms.set_cell(cells[lowest], scale_atoms=True)
    return _scan(mechanics, config, moment, scans - 1)


def main() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() == 1:
        return
    folder = Path(sys.argv[1])
    os.chdir(folder)
    try:
        answer = run(folder)
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)[:1500]}
    write_json(folder / "result.json", answer)


if __name__ == "__main__":
    main()
