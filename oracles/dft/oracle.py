"""The oracles ``gpaw`` and ``espresso``: energy, volume, moment and bulk modulus from density
functional theory.

Each evaluation runs in a process of its own with the worker's threads, in a folder of its own below
the scratch folder. The folder is removed on success, and kept and named on failure; a retry of the
same crystal goes on from the last geometry in it. GPAW on one core: a two-atom magnetic cell takes
half a minute to two minutes with its equation of state, a four-atom one two to five; memory 200 to
500 MB. Energies refer to the engine's own reference atoms: only differences at the same settings
mean anything.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from pydantic import Field

from campaign.parameters import ConfigPath
from campaign.types import (
    BULK_MODULUS,
    ENERGY_PER_ATOM,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    Observation,
    Quantity,
)
from oracles.dft import engines
from oracles.dft.settings import DftConfig, label_settings
from oracles.dft.task import crystal_from_json, crystal_to_json, write_json

MOMENT = Quantity("magnetic_moment_per_atom", "Bohr magneton/atom")
_TAIL = 400


class ScratchConfig(DftConfig):
    scratch: ConfigPath | None = Field(
        None,
        description="Folder for the calculations' files; below the system's temporary one by "
        "default.",
    )


class EspressoConfig(ScratchConfig):
    command: str = Field("pw.x", description="Name or path of the program.")
    pseudopotentials: str = Field("", description="Folder of UPF files; the system's by default.")


class DftOracle(ABC):
    """Base of the oracles whose calculations are tasks in processes of their own."""

    engine: str
    config: ScratchConfig

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        found = (ENERGY_PER_ATOM, VOLUME_PER_ATOM, MOMENT)
        return (*found, BULK_MODULUS) if self.config.bulk_modulus else found

    @property
    def relaxes_volume(self) -> bool:
        return self.config.relax in ("volume", "cell")

    @property
    def fidelity(self) -> Fidelity:
        functional = self.config.functional.lower()
        return Fidelity(
            f"dft-{functional}-{self.engine}",
            {**label_settings(self.config), **self.version(), "protocol": 1},
        )

    @abstractmethod
    def version(self) -> dict[str, str]:
        """What of the engine changes a label."""

    def engine_settings(self) -> dict[str, Any]:
        return {}

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if len(crystal) == 0:
            return Evaluation.failed(
                FailureKind.UNPHYSICAL, "the crystal holds no atoms", retryable=False
            )
        root = self.config.scratch or Path(tempfile.gettempdir()) / "oreloop-dft"
        folder = root / f"{crystal.id}-{self.fidelity.key}"
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "result.json"
        result.unlink(missing_ok=True)
        job = {
            "crystal": crystal_to_json(crystal),
            "config": {
                name: value
                for name, value in self.config.model_dump(mode="json").items()
                if name in DftConfig.model_fields
            },
            "engine": self.engine,
            "engine_settings": self.engine_settings(),
        }
        write_json(folder / "job.json", job)
        with (folder / "task.log").open("wb") as log:
            done = subprocess.run(
                [sys.executable, "-m", "oracles.dft.task", str(folder)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        if not result.exists():
            tail = (folder / "task.log").read_text(errors="replace")[-_TAIL:]
            memory = done.returncode == -9 or "MemoryError" in tail
            kind = FailureKind.OUT_OF_MEMORY if memory else FailureKind.CRASH
            return Evaluation.failed(
                kind,
                f"the calculation ended with code {done.returncode}; files in {folder}. {tail}",
            )
        evaluation = self._read(json.loads(result.read_text()), crystal, folder)
        if evaluation.failure is None:
            shutil.rmtree(folder, ignore_errors=True)
        return evaluation

    def _read(self, answer: dict[str, Any], crystal: Crystal, folder: Path) -> Evaluation:
        if "error" in answer:
            text = f"{answer['error']}: {answer['message']}; files in {folder}"
            is_scf = any(
                word in text
                for word in (
                    "KohnShamConvergence",
                    "did not converge",
                    "convergence NOT achieved",
                    "no minimum",
                    "no equation of state",
                )
            )
            return Evaluation.failed(
                FailureKind.NOT_CONVERGED if is_scf else FailureKind.CRASH, text
            )
        if answer["largest_force"] > 2 * self.config.force_tolerance:
            return Evaluation.failed(
                FailureKind.NOT_CONVERGED,
                f"{answer['largest_force']:.3g} eV/angstrom are left; files in {folder}",
            )
        n = len(crystal)
        values = {
            ENERGY_PER_ATOM: answer["energy"] / n,
            VOLUME_PER_ATOM: answer["volume"] / n,
            MOMENT: answer["moment"] / n,
        }
        if self.config.bulk_modulus:
            values[BULK_MODULUS] = answer["bulk_modulus"]
        observations = tuple(
            Observation(quantity.name, float(value), quantity.unit)
            for quantity, value in values.items()
        )
        relaxed = crystal_from_json(answer["crystal"]) if self.config.relax != "none" else None
        return Evaluation(observations=observations, crystal=relaxed)


class Gpaw(DftOracle):
    """Plane waves and projector-augmented waves by GPAW."""

    Config = ScratchConfig
    engine = "gpaw"

    def __init__(self, config: ScratchConfig) -> None:
        self.config = config

    unavailable = staticmethod(engines.missing_gpaw)

    def version(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"gpaw": version("gpaw"), "gpaw-data": version("gpaw-data")}


class Espresso(DftOracle):
    """Plane waves by Quantum ESPRESSO's pw.x."""

    Config = EspressoConfig
    config: EspressoConfig
    engine = "espresso"

    def __init__(self, config: EspressoConfig) -> None:
        self.config = config

    unavailable = staticmethod(engines.missing_espresso)

    def engine_settings(self) -> dict[str, Any]:
        return {"command": self.config.command, "pseudopotentials": self.config.pseudopotentials}

    def version(self) -> dict[str, str]:
        """The pseudopotential files by name and size, wherever they lie."""
        folder = engines.pseudopotential_folder(self.config.pseudopotentials)
        files = (
            sorted(path for path in folder.iterdir() if path.suffix.lower() == ".upf")
            if folder is not None
            else []
        )
        listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in files)
        return {"pseudopotentials": hashlib.sha256(listing.encode()).hexdigest()}
