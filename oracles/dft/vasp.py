"""The oracle ``vasp``: VASP through pymatgen's input sets.

Where VASP is licensed and installed it is run by custodian with its error handlers. In mode ``inputs_only`` the folders are written and
results that come back later are read: a folder ``<candidate id>`` below ``folder`` is answered when its vasprun.xml is complete. Potentials
are licensed too: without them a POTCAR.spec names the ones to use. ``workers`` of the oracle says how many folders wait at a time, its
``wall_limit`` how long (s).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath
from campaign.types import ENERGY_PER_ATOM, VOLUME_PER_ATOM, Crystal, Evaluation, FailureKind, Fidelity, Observation

_SETS = {"relax": "MPRelaxSet", "static": "MPStaticSet", "matpes": "MatPESStaticSet"}


class VaspConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: ConfigPath = Field(description="Folder for the calculations.")
    input_set: Literal["relax", "static", "matpes"] = Field("relax", description="pymatgen's MPRelaxSet, MPStaticSet or MatPESStaticSet.")
    inputs_only: bool = Field(True, description="Write the folders and wait for results from elsewhere; otherwise run VASP here.")
    command: tuple[str, ...] = Field(("vasp_std",), min_length=1, description="Program and arguments that run VASP in a folder.")
    cutoff: float | None = Field(None, gt=0, description="Plane-wave cutoff (eV); the input set's by default.")
    moments: dict[str, float] = Field(default_factory=dict, description="Starting moment by element (Bohr magnetons).")
    poll_seconds: float = Field(5.0, gt=0, description="Time between two looks for results (s).")


class Vasp:
    """Energy, volume and relaxed crystal."""

    Config = VaspConfig
    quantities = (ENERGY_PER_ATOM, VOLUME_PER_ATOM)

    def __init__(self, config: VaspConfig) -> None:
        self.config = config
        if not config.inputs_only and shutil.which(config.command[0]) is None:
            raise InputError(
                f"VASP's program {config.command[0]} is not found",
                hint="set command:, or inputs_only: true to run the folders elsewhere",
            )
        if not config.inputs_only and find_spec("custodian") is None:
            raise InputError("custodian, which runs VASP, is not installed", hint='install it: pip install "oreloop[vasp]"')

    @property
    def relaxes_volume(self) -> bool:
        return self.config.input_set == "relax"

    @property
    def fidelity(self) -> Fidelity:
        settings = self.config.model_dump(mode="json", include={"input_set", "cutoff", "moments"})
        return Fidelity("dft-pbe-vasp", settings | {"protocol": 1})

    def write(self, crystal: Crystal) -> Path:
        """The calculation's folder with its inputs, written whole; an existing one is kept."""
        from pymatgen.io.vasp import sets

        folder = self.config.folder / crystal.id
        if folder.exists():
            return folder
        incar: dict[str, Any] = {"ENCUT": self.config.cutoff} if self.config.cutoff is not None else {}
        if self.config.moments:
            incar |= {"ISPIN": 2, "MAGMOM": {symbol: self.config.moments.get(symbol, 0.0) for symbol in sorted(set(crystal.symbols))}}
        kind = getattr(sets, _SETS[self.config.input_set])
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        kind(crystal.structure, user_incar_settings=incar, sort_structure=False).write_input(str(part), potcar_spec=not _has_potentials())
        part.rename(folder)
        return folder

    def evaluate(self, crystal: Crystal) -> Evaluation:
        folder = self.write(crystal)
        if not self.config.inputs_only and not (folder / "vasprun.xml").exists():
            failure = self._run(folder)
            if failure is not None:
                return failure
        while (answer := self._read(folder, crystal)) is None:
            if not self.config.inputs_only:
                return Evaluation.failed(FailureKind.CRASH, f"VASP left no complete vasprun.xml in {folder}")
            time.sleep(self.config.poll_seconds)
        return answer

    def _run(self, folder: Path) -> Evaluation | None:
        """VASP under custodian's handlers, in a process of its own."""
        code = (
            "import sys; from custodian import Custodian; from custodian.vasp.handlers import VaspErrorHandler, UnconvergedErrorHandler;"
            "from custodian.vasp.jobs import VaspJob;"
            "Custodian([VaspErrorHandler(), UnconvergedErrorHandler()], [VaspJob(sys.argv[1:])], max_errors=5).run()"
        )
        with (folder / "custodian.log").open("wb") as log:
            done = subprocess.run(
                [sys.executable, "-c", code, *self.config.command],
                cwd=folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        if done.returncode == 0:
            return None
        return Evaluation.failed(FailureKind.NOT_CONVERGED, f"custodian gave VASP up (code {done.returncode}); files in {folder}")

    def _read(self, folder: Path, crystal: Crystal) -> Evaluation | None:
        """The label in a folder; None while there is none."""
        from pymatgen.io.vasp import Vasprun

        path = folder / "vasprun.xml"
        if not path.exists():
            return None
        try:
            run = Vasprun(str(path), parse_dos=False, parse_eigen=False, parse_potcar_file=False)
        except (SyntaxError, ValueError, IndexError):
            return None
        if not run.converged:
            return Evaluation.failed(FailureKind.NOT_CONVERGED, f"VASP did not converge; files in {folder}")
        relaxed = Crystal.from_structure(run.final_structure)
        values = {ENERGY_PER_ATOM: float(run.final_energy) / len(crystal), VOLUME_PER_ATOM: relaxed.volume / len(relaxed)}
        observations = tuple(Observation(quantity.name, value, quantity.unit) for quantity, value in values.items())
        return Evaluation(observations=observations, crystal=relaxed)


def _has_potentials() -> bool:
    """Whether pymatgen knows where VASP's potentials lie."""
    from pymatgen.core import SETTINGS

    return bool(SETTINGS.get("PMG_VASP_PSP_DIR"))
