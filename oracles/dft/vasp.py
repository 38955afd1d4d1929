"""The oracle ``vasp``: VASP by the input sets of pymatgen that large databases are made with.

A label's folder is ``<candidate id>`` below ``folder``. VASP runs there under custodian's handlers,
or by itself; in mode ``inputs_only`` the folders are written and results that come back later are
read: a folder is answered when its vasprun.xml is complete. Potentials are licensed: pymatgen finds
them below PMG_VASP_PSP_DIR; without them, in that mode, a POTCAR.spec names the ones to use. A
relaxation that was cut off, or did not converge, goes on from its last geometry (CONTCAR) where the
same label is tried again. eV, angstrom.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath, Former, Formers, Parameters
from campaign.types import (
    ENERGY_PER_ATOM,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    Observation,
)

InputSet = Literal[
    "MPRelaxSet",
    "MPStaticSet",
    "MPMetalRelaxSet",
    "MPScanRelaxSet",
    "MPScanStaticSet",
    "MP24RelaxSet",
    "MP24StaticSet",
    "MatPESRelaxSet",
    "MatPESStaticSet",
]
_R2SCAN = ("MPScan", "MP24")
_NO_LABEL = frozenset({"NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LWAVE", "LCHARG", "LAECHG"})
"""Settings that say how VASP computes or what it writes, not what."""
_OUTPUTS = ("vasp.out", "std_err.txt", "custodian.log")
_TAIL_BYTES = 20_000
_MEMORY = re.compile(
    r"out of memory|out-of-memory|oom.kill|insufficient virtual memory|cannot allocate memory",
    re.IGNORECASE,
)
_BAD_INPUT = re.compile(
    r"refuse to continue|error reading item|could not read|no such tag|wrong number of|"
    r"POTCAR.*(not|incompatible)|there must be 1 or 3 items|unknown tag",
    re.IGNORECASE,
)
_NOT_CONVERGED = re.compile(
    r"UnconvergedErrorHandler|NonConvergingErrorHandler|electronic self-consistency was not "
    r"achieved|EDDDAV|ZBRENT|BRMIX",
    re.IGNORECASE,
)
_CUSTODIAN = (
    "import sys; from custodian import Custodian; from custodian.vasp.handlers import "
    "NonConvergingErrorHandler, StdErrHandler, UnconvergedErrorHandler, VaspErrorHandler; "
    "from custodian.vasp.jobs import VaspJob; "
    "Custodian([VaspErrorHandler(), NonConvergingErrorHandler(), UnconvergedErrorHandler(), "
    "StdErrHandler()], [VaspJob(sys.argv[1:])], max_errors=5).run()"
)


class VaspConfig(Parameters):
    former: ClassVar[Formers] = {
        "set": Former(
            "input_set",
            {"relax": "MPRelaxSet", "static": "MPStaticSet", "matpes": "MatPESStaticSet"},
        )
    }

    folder: ConfigPath = Field(description="Folder for the calculations.")
    set: InputSet = Field("MPRelaxSet", description="Class of pymatgen's input sets.")
    inputs_only: bool = Field(
        True,
        description="Write the folders and wait for results from elsewhere; otherwise run VASP "
        "here.",
    )
    command: tuple[str, ...] = Field(
        ("vasp_std",), min_length=1, description="Program and arguments that run VASP in a folder."
    )
    custodian: bool = Field(
        True, description="Run VASP under custodian's handlers, which mend known faults."
    )
    version: str | None = Field(
        None,
        description="VASP's version, such as 6.4.3: a label that another made is a failure; not "
        "asked for where absent.",
    )
    cutoff: float | None = Field(
        None, gt=0, description="Plane-wave cutoff (eV); the input set's by default."
    )
    moments: dict[str, float] = Field(
        default_factory=dict, description="Starting moment by element (Bohr magnetons)."
    )
    incar: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Further settings of INCAR in VASP's own words and units, such as NCORE.",
    )
    poll_seconds: float = Field(5.0, gt=0, description="Time between two looks for results (s).")


class Vasp:
    """Energy, volume and relaxed crystal."""

    Config = VaspConfig
    quantities = (ENERGY_PER_ATOM, VOLUME_PER_ATOM)

    def __init__(self, config: VaspConfig) -> None:
        self.config = config
        if config.inputs_only:
            return
        if shutil.which(config.command[0]) is None:
            raise InputError(
                f"VASP's program {config.command[0]} is not found",
                hint="set command:, or inputs_only: true to run the folders elsewhere",
            )
        if config.custodian and find_spec("custodian") is None:
            raise InputError(
                "custodian, which runs VASP, is not installed",
                hint='install it: pip install "oreloop[vasp]", or set custodian: false',
            )
        if self._potentials is None:
            raise InputError(
                "VASP's potentials are not found: PMG_VASP_PSP_DIR "
                f"{f'names no folder ({told})' if (told := _potentials_root()) else 'is not set'}",
                hint="have pymatgen set up the potentials that you are licensed for: "
                "`pmg config -p SOURCE TARGET`, then `pmg config --add PMG_VASP_PSP_DIR TARGET`",
            )

    @property
    def relaxes_volume(self) -> bool:
        return "Relax" in self.config.set

    @property
    def fidelity(self) -> Fidelity:
        config = self.config
        incar = {name: value for name, value in config.incar.items() if name not in _NO_LABEL}
        functional = "r2scan" if config.set.startswith(_R2SCAN) else "pbe"
        return Fidelity(
            f"dft-{functional}-vasp",
            {
                "set": config.set,
                "cutoff": config.cutoff,
                "moments": config.moments,
                "incar": incar,
                "pymatgen": version("pymatgen"),
                "potentials": self._potentials_hash,
                "vasp": config.version,
                "protocol": 2,
            },
        )

    @property
    def elements(self) -> frozenset[str]:
        """Those that there are potentials for; where none are here, those of the input set."""
        return frozenset(self._files) or frozenset(self._symbols)

    @cached_property
    def _symbols(self) -> dict[str, str]:
        """Potential by element, as the input set names them."""
        chosen = self._kind.CONFIG["POTCAR"]
        return {
            element: one["symbol"] if isinstance(one, dict) else str(one)
            for element, one in chosen.items()
        }

    @property
    def _kind(self) -> Any:
        from pymatgen.io.vasp import sets

        return getattr(sets, self.config.set)

    @cached_property
    def _potentials(self) -> Path | None:
        """The folder of the input set's potentials, where there is one."""
        from pymatgen.core import SETTINGS
        from pymatgen.io.vasp.inputs import PotcarSingle

        root, kind = _potentials_root(), self._kind
        functional = (
            kind.__dataclass_fields__["user_potcar_functional"].default
            or kind.CONFIG["POTCAR_FUNCTIONAL"]
        )
        folders = PotcarSingle.functional_dir | SETTINGS.get("PMG_VASP_PSP_SUB_DIRS", {})
        found = Path(root).expanduser() / folders.get(functional, functional) if root else None
        return found if found is not None and found.is_dir() else None

    @cached_property
    def _files(self) -> dict[str, Path]:
        """File of the potential by element."""
        found = {}
        for element, symbol in self._symbols.items() if self._potentials is not None else ():
            assert self._potentials is not None
            places = [self._potentials / f"POTCAR.{symbol}", self._potentials / symbol / "POTCAR"]
            names = [place.with_name(place.name + end) for place in places for end in ("", ".gz")]
            if (path := next((name for name in names if name.is_file()), None)) is not None:
                found[element] = path
        return found

    @cached_property
    def _potentials_hash(self) -> str:
        """Of what the potentials' files hold; empty where none are here."""
        lines = [
            f"{element} {self._symbols[element]} {hashlib.sha256(_content(path)).hexdigest()}"
            for element, path in sorted(self._files.items())
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""

    def write(self, crystal: Crystal) -> Path:
        """The calculation's folder with its inputs, written whole; an existing one is kept."""
        folder = self.config.folder / crystal.id
        if folder.exists():
            return folder
        incar: dict[str, Any] = dict(self.config.incar)
        if self.config.cutoff is not None:
            incar["ENCUT"] = self.config.cutoff
        if self.config.moments:
            incar |= {
                "ISPIN": 2,
                "MAGMOM": {
                    symbol: self.config.moments.get(symbol, 0.0)
                    for symbol in sorted(set(crystal.symbols))
                },
            }
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kind(
                crystal.structure, user_incar_settings=incar, sort_structure=False
            ).write_input(str(part), potcar_spec=self._potentials is None)
        part.rename(folder)
        return folder

    def evaluate(self, crystal: Crystal) -> Evaluation:
        try:
            folder = self.write(crystal)
        except (OSError, ValueError, KeyError) as error:
            return Evaluation.failed(
                FailureKind.CRASH, f"VASP's inputs cannot be made: {error}", retryable=False
            )
        if self.config.inputs_only:
            while (answer := self._read(folder, crystal)) is None:
                time.sleep(self.config.poll_seconds)
            return answer
        if (earlier := self._read(folder, crystal)) is not None and earlier.failure is None:
            return earlier
        _go_on_from_last_geometry(folder, crystal)
        code = self._run(folder)
        answer = self._read(folder, crystal)
        return _why(folder, code) if answer is None else answer

    def _run(self, folder: Path) -> int:
        """How VASP, or custodian, ended, in a process of its own."""
        config = self.config
        words = [sys.executable, "-c", _CUSTODIAN] if config.custodian else []
        name = "custodian.log" if config.custodian else "vasp.out"
        with (folder / name).open("wb") as log:
            return subprocess.run(
                [*words, *config.command],
                cwd=folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                check=False,
            ).returncode

    def _read(self, folder: Path, crystal: Crystal) -> Evaluation | None:
        """The label in a folder; None while there is none."""
        from pymatgen.io.vasp import Vasprun

        path = folder / "vasprun.xml"
        if not path.exists():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = Vasprun(
                    str(path), parse_dos=False, parse_eigen=False, parse_potcar_file=False
                )
        except (SyntaxError, ValueError, IndexError):
            return None
        wanted, found = self.config.version, str(run.vasp_version)
        if wanted is not None and not f"{found}.".startswith(f"{wanted}."):
            return Evaluation.failed(
                FailureKind.CRASH,
                f"VASP {wanted} was asked for (version), {found} ran; files in {folder}",
                retryable=False,
            )
        if not run.converged:
            what = "the geometry" if run.converged_electronic else "the electrons"
            return Evaluation.failed(
                FailureKind.NOT_CONVERGED, f"VASP did not converge {what}; files in {folder}"
            )
        relaxed = Crystal.from_structure(run.final_structure)
        values = {
            ENERGY_PER_ATOM: float(run.final_energy) / len(crystal),
            VOLUME_PER_ATOM: relaxed.volume / len(relaxed),
        }
        observations = tuple(
            Observation(quantity.name, value, quantity.unit) for quantity, value in values.items()
        )
        return Evaluation(observations=observations, crystal=relaxed)


def _go_on_from_last_geometry(folder: Path, crystal: Crystal) -> None:
    """Where an earlier try left a geometry of the crystal's atoms, begin with it. What that try
    left is kept as ``*.1``, ``*.2``, ...
    """
    from pymatgen.io.vasp import Poscar

    last = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Poscar.from_file(str(folder / "CONTCAR"), check_for_potcar=False).structure
        if [site.specie.symbol for site in found] == list(crystal.symbols):
            last = folder / "CONTCAR"
    earlier = [
        path for name in ("vasprun.xml", "OUTCAR", *_OUTPUTS) if (path := folder / name).exists()
    ]
    n = 1 + len(list(folder.glob("POSCAR.*")))
    if last is not None:
        shutil.copy2(folder / "POSCAR", folder / f"POSCAR.{n}")
        last.replace(folder / "POSCAR")
    for path in earlier:
        path.replace(path.with_name(f"{path.name}.{n}"))


def _why(folder: Path, code: int) -> Evaluation:
    """What a run without a label came to, by how it ended and what it printed."""
    *own, handled = (_tail(folder / name) for name in _OUTPUTS)
    said = "\n".join([*own, handled])
    words = [line.strip() for line in said.splitlines() if line.strip()]
    tail = f"; {words[-1][:200]}" if words else ""
    ended = f"VASP ended with code {code}"
    killed = -code if code < 0 else code - 128
    if _MEMORY.search(said):
        kind, ended = FailureKind.OUT_OF_MEMORY, f"VASP ran out of memory (code {code})"
    elif killed in (signal.SIGKILL, signal.SIGTERM):
        kind, ended = FailureKind.INFRASTRUCTURE, f"VASP was killed by signal {killed}"
    elif _BAD_INPUT.search("\n".join(own)):
        return Evaluation.failed(
            FailureKind.CRASH,
            f"VASP refuses its input (code {code}); files in {folder}{tail}",
            retryable=False,
        )
    elif _NOT_CONVERGED.search(said):
        kind, ended = FailureKind.NOT_CONVERGED, f"VASP did not converge (code {code})"
    else:
        kind = FailureKind.CRASH
    return Evaluation.failed(kind, f"{ended}; files in {folder}{tail}")


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""


def _content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _potentials_root() -> str:
    """Where pymatgen was told that VASP's potentials lie."""
    from pymatgen.core import SETTINGS

    return str(SETTINGS.get("PMG_VASP_PSP_DIR") or "")
