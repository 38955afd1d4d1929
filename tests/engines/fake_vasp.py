"""A program that takes VASP's place: it reads INCAR, POSCAR and POTCAR, shrinks the cell step by
step, and writes vasprun.xml, OUTCAR and CONTCAR as pymatgen reads them. Not a test by itself.

What ``FAKE_VASP`` says happens: ``memory``, ``input``, ``crash``, ``killed`` (after one step),
``electrons``, ``steps`` (ends before the geometry is relaxed). Each run leaves a line in ``runs``
beside it: the lattice parameter (angstrom) that it began with.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

VERSION = "6.4.3"
RELAXED = 0.9
"""Edge of the relaxed cell over that of the first POSCAR."""

POTCAR = """  PAW_PBE {symbol} 01Jan2000
 {valence}.00000000000000
 parameters from PSCTR are:
   VRHFIN ={element}: s1
   LEXCH  = PE
   EATOM  =   100.0000 eV,    7.0000 Ry

   TITEL  = PAW_PBE {symbol} 01Jan2000
   LULTRA =        F    use ultrasoft PP ?
   POMASS =   50.000; ZVAL   =   {valence}.000    mass and valenz
   ENMAX  =  270.000; ENMIN  =  200.000 eV
   LPAW   =        T    paw PP
 END of PSCTR-controll parameters
 local part
  1.00000000E+00 2.00000000E+00 -3.00000000E+00
 End of Dataset
"""


def install(folder: Path) -> Path:
    """A program ``vasp_std`` in a folder."""
    program = folder / "vasp_std"
    program.write_text(
        f"#!{sys.executable}\nimport runpy; runpy.run_path({__file__!r}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    return program


def potentials(folder: Path, symbols: dict[str, str], functional: str = "POT_GGA_PAW_PBE") -> Path:
    """A folder of potentials, such as of Ni_pv for Ni."""
    for element, symbol in symbols.items():
        place = folder / functional / symbol
        place.mkdir(parents=True)
        text = POTCAR.format(symbol=symbol, element=element, valence=10)
        (place / "POTCAR").write_text(text)
    return folder


@dataclass(frozen=True)
class Cell:
    """Of a POSCAR: lattice rows (angstrom), its lines of symbols and numbers, fractions (n, 3)."""

    lattice: np.ndarray
    kinds: tuple[str, str]
    fractions: np.ndarray

    @property
    def symbols(self) -> list[str]:
        names, numbers = (line.split() for line in self.kinds)
        return [name for name, n in zip(names, numbers, strict=True) for _ in range(int(n))]

    @property
    def edge(self) -> float:
        return float(np.linalg.norm(self.lattice[0]))

    @staticmethod
    def read(path: Path) -> Cell:
        lines = path.read_text().splitlines()
        lattice = float(lines[1]) * np.array([line.split()[:3] for line in lines[2:5]], dtype=float)
        n = sum(map(int, lines[6].split()))
        fractions = np.array([line.split()[:3] for line in lines[8 : 8 + n]], dtype=float)
        return Cell(lattice, (lines[5], lines[6]), fractions)

    def write(self, path: Path) -> None:
        rows = [" ".join(f"{x:.12f}" for x in row) for row in (*self.lattice, *self.fractions)]
        path.write_text("\n".join(["cell", "1.0", *rows[:3], *self.kinds, "direct", *rows[3:], ""]))


def settings(path: Path) -> dict[str, str]:
    """Of an INCAR."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def vector(name: str, rows: np.ndarray) -> str:
    lines = "".join(f"<v> {' '.join(f'{x:.8f}' for x in row)} </v>\n" for row in rows)
    return f'<varray name="{name}">\n{lines}</varray>\n'


def structure_text(cell: Cell, name: str = "") -> str:
    label = f' name="{name}"' if name else ""
    return (
        f"<structure{label}>\n<crystal>\n{vector('basis', cell.lattice)}"
        f'<i name="volume"> {abs(np.linalg.det(cell.lattice)):.8f} </i>\n'
        f"{vector('rec_basis', np.linalg.inv(cell.lattice).T)}</crystal>\n"
        f"{vector('positions', cell.fractions)}</structure>\n"
    )


def calculation(cell: Cell, n_electronic: int) -> str:
    value = f"{-3.0 * len(cell.symbols):.8f}"
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    energy = "".join(f'<i name="{name}"> {value} </i>\n' for name in names)
    step = f"<scstep>\n<energy>\n{energy}</energy>\n</scstep>\n"
    forces = vector("forces", np.zeros((len(cell.symbols), 3)))
    return (
        f"<calculation>\n{step * n_electronic}{structure_text(cell)}{forces}"
        f"{vector('stress', np.zeros((3, 3)))}<energy>\n{energy}</energy>\n</calculation>\n"
    )


def vasprun(incar: dict[str, str], steps: list[Cell], n_electronic: int) -> str:
    symbols = steps[0].symbols
    nsw, nelm = int(incar.get("NSW", 0)), int(incar.get("NELM", 60))
    ibrion = int(incar.get("IBRION", -1))
    atoms = "".join(f"<rc><c>{symbol} </c><c> 1</c></rc>\n" for symbol in symbols)
    types = "".join(
        f"<rc><c> 1</c><c>{symbol} </c><c> 50.0</c><c> 10.0</c>"
        f"<c> PAW_PBE {symbol} 01Jan2000 </c></rc>\n"
        for symbol in symbols
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>\n'
        f'<i name="program" type="string">vasp </i>\n<i name="version" type="string">{VERSION} '
        "</i>\n</generator>\n<incar>\n"
        f'<i type="int" name="NSW"> {nsw}</i>\n</incar>\n<kpoints>\n<generation param="Gamma">\n'
        '<v type="int" name="divisions"> 1 1 1 </v>\n</generation>\n<varray name="kpointlist">\n'
        '<v> 0.0 0.0 0.0 </v>\n</varray>\n<varray name="weights">\n<v> 1.0 </v>\n</varray>\n'
        f'</kpoints>\n<parameters>\n<separator name="general">\n<i type="int" name="NSW"> {nsw}'
        f'</i>\n<i type="int" name="NELM"> {nelm}</i>\n<i type="int" name="IBRION"> {ibrion}</i>\n'
        '<i type="logical" name="LEPSILON"> F </i>\n</separator>\n</parameters>\n<atominfo>\n'
        f'<atoms> {len(symbols)} </atoms>\n<types> {len(symbols)} </types>\n<array name="atoms">\n'
        f'<set>\n{atoms}</set>\n</array>\n<array name="atomtypes">\n<set>\n{types}</set>\n'
        f"</array>\n</atominfo>\n{structure_text(steps[0], 'initialpos')}"
        f"{''.join(calculation(step, n_electronic) for step in steps)}"
        f"{structure_text(steps[-1], 'finalpos')}</modeling>\n"
    )


def main() -> int:
    fault = os.environ.get("FAKE_VASP", "")
    incar, cell = settings(Path("INCAR")), Cell.read(Path("POSCAR"))
    if not Path("POTCAR").read_text().count("End of Dataset"):
        fault = "input"
    with open("runs", "a") as runs:
        runs.write(f"{cell.edge:.6f}\n")
    if fault == "memory":
        sys.stdout.write("slurmstepd: error: Detected 1 oom-kill event(s) in step 1.0 cgroup.\n")
        return 137
    if fault == "input":
        sys.stdout.write(" Error reading item 'ENCUT' from file INCAR.\n")
        return 1
    if fault == "crash":
        sys.stdout.write("forrtl: severe (174): SIGSEGV, segmentation fault occurred\n")
        return 174
    first = Path("POSCAR.1")
    is_relaxed = int(incar.get("NSW", 0)) > 0
    start = Cell.read(first) if first.exists() else cell
    goal = start.edge * (RELAXED if is_relaxed else 1.0)
    steps = [cell]
    while steps[-1].edge > goal + 1e-6:
        scale = max(0.95, goal / steps[-1].edge)
        steps.append(replace(cell, lattice=steps[-1].lattice * scale))
        steps[-1].write(Path("CONTCAR"))
        Path("OUTCAR").write_text(f" vasp.{VERSION}\n")
        if fault in ("killed", "steps"):
            break
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "steps":
        incar["NSW"] = str(len(steps))
    n_electronic = int(incar.get("NELM", 60)) if fault == "electrons" else 5
    steps[-1].write(Path("CONTCAR"))
    Path("vasprun.xml").write_text(vasprun(incar, steps, n_electronic))
    return 0


if __name__ == "__main__":
    sys.exit(main())
