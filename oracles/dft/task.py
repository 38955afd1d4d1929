"""One calculation, in a process of its own: ``python -m oracles.dft.task FOLDER``.

Reads ``job.json`` in the folder, keeps ``last.json`` (the geometry so far) up to date, writes ``result.json`` at the end; files are written
whole. What the engine prints goes to files in the folder. The process dies with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from campaign.types import Crystal
from oracles import eos
from oracles.dft import engines
from oracles.dft.settings import DftConfig, starting_moments
from oracles.relaxation import AseMechanics

_DIE_WITH_PARENT = 1


def crystal_to_json(crystal: Crystal) -> dict[str, Any]:
    return {"lattice": crystal.lattice.tolist(), "fractional": crystal.fractional.tolist(), "numbers": crystal.numbers.tolist()}


def crystal_from_json(data: dict[str, Any]) -> Crystal:
    return Crystal(np.array(data["lattice"]), np.array(data["fractional"]), np.array(data["numbers"], dtype=np.uint8))


def write_json(path: Path, data: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data))
    os.replace(part, path)


def run(folder: Path) -> dict[str, Any]:
    """The figures of a job: energy (eV), volume (angstrom^3), bulk modulus (GPa or None), moment (Bohr magnetons), crystal."""
    job = json.loads((folder / "job.json").read_text())
    crystal, config = crystal_from_json(job["crystal"]), DftConfig(**job["config"])
    last = folder / "last.json"
    if last.exists():
        crystal = crystal_from_json(json.loads(last.read_text()))
    calculator = engines.make(job["engine"], job["engine_settings"], config, crystal, folder)
    mechanics = AseMechanics(
        calculator, force_tolerance=config.force_tolerance, max_steps=config.max_steps, largest_step=config.largest_step
    )
    mechanics.load(crystal)
    mechanics.atoms.set_initial_magnetic_moments(starting_moments(crystal, config))
    mechanics.on_step = lambda atoms: write_json(last, crystal_to_json(Crystal.from_atoms(atoms)))
    if config.relax in ("cell", "ions"):
        mechanics.relax(cell=config.relax == "cell")
    atoms = mechanics.atoms
    energy = float(atoms.get_potential_energy())
    moment = engines.espresso_moment(folder) if job["engine"] == "espresso" else _moment(atoms)
    ground, modulus = Crystal.from_atoms(atoms), None
    volume, force = ground.volume, 0.0
    if config.relax in ("cell", "ions"):
        force = float(np.abs(atoms.get_forces()).max())
    if config.relax == "volume" or config.bulk_modulus:
        curve = _scan(mechanics, config)
        modulus = curve.bulk_modulus
        if config.relax == "volume":
            energy, volume = curve.energy, curve.volume
            ground = Crystal(ground.lattice * (volume / ground.volume) ** (1 / 3), ground.fractional, ground.numbers)
    return {
        "energy": energy,
        "volume": volume,
        "bulk_modulus": modulus if config.bulk_modulus else None,
        "moment": moment,
        "largest_force": force,
        "crystal": crystal_to_json(ground),
    }


def _moment(atoms: Any) -> float:
    try:
        return float(atoms.get_magnetic_moment())
    except Exception:
        return 0.0


def _scan(mechanics: AseMechanics, config: DftConfig) -> eos.Curve:
    """Energies around the cell; where the minimum lies outside, the window moves to the lower end and the scan is done again."""
    start = Crystal.from_atoms(mechanics.atoms)
    for _ in range(4):
        volumes, energies = [], []
        for strain in eos.strains(config.window, config.points):
            cell = Crystal(start.lattice * (1 + strain), start.fractional, start.numbers)
            mechanics.atoms.set_cell(cell.lattice, scale_atoms=True)
            volumes.append(cell.volume)
            energies.append(float(mechanics.atoms.get_potential_energy()))
        try:
            return eos.fit(volumes, energies)
        except ValueError:
            lowest = volumes[int(np.argmin(energies))]
            start = Crystal(start.lattice * (lowest / start.volume) ** (1 / 3), start.fractional, start.numbers)
    return eos.fit(volumes, energies)


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
