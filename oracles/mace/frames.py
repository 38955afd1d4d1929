"""Training data of MACE from files: energies, forces and stresses of crystals, read strictly, and
what was made of them.

Energies are of the whole cell (eV), forces eV/angstrom, stresses eV/angstrom^3; a virial is -stress
times volume. Keys are ASE's (``energy``, ``forces``, ``stress``) or MACE's (``REF_energy``, ...),
virials in place of stresses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.errors import InputError
from campaign.reading.structures import read_images
from campaign.reading.tables import Problems
from campaign.types import Crystal, FloatArray
from oracles.mace.training import Frame

if TYPE_CHECKING:
    from ase import Atoms

_ENERGIES, _FORCES, _STRESSES = (
    ("energy", "REF_energy"),
    ("forces", "REF_forces"),
    ("stress", "REF_stress"),
)
_VIRIALS = ("virial", "virials", "REF_virial", "REF_virials")
_SAME_ENERGY = 1e-6
_OUTLIER, _LEAST_DEVIATION = 100.0, 0.05
_COPY = Matcher(length=1e-3, site=1e-3, angle=0.05, same="structure", volume=1e-3)
"""How far two settings of one and the same frame may be apart."""


@dataclass(frozen=True)
class Reading:
    """The frames of a file, and what was done to get them, for people."""

    frames: tuple[Frame, ...]
    words: tuple[str, ...]


def read_frames(path: Path) -> Reading:
    """Every crystal of a file once. Raises InputError, which names all structures at fault, for
    labels that are missing, not finite or ambiguous, for molecules, and for one crystal with two
    energies.
    """
    problems, words = Problems(), []
    frames: dict[str, tuple[int, Frame]] = {}
    used: set[str] = set()
    lone: list[str] = []
    copies = 0
    for i, (where, atoms) in enumerate(read_images(path), start=1):
        if len(atoms) == 1 and not (atoms.pbc.all() and atoms.cell.rank == 3):
            lone.append(atoms.get_chemical_formula())
            continue
        try:
            frame = _frame(atoms, where, used)
        except InputError as error:
            problems.add(error)
            continue
        first, known = frames.setdefault(frame.crystal.id, (i, frame))
        if known is not frame:
            copies += 1
            if abs(known.energy - frame.energy) > _SAME_ENERGY * len(atoms):
                message = (
                    f"{path}: structures {first} and {i} are one crystal with energies "
                    f"of {known.energy:.6g} and {frame.energy:.6g} eV"
                )
                problems.add(InputError(message, hint="keep one of them"))
    problems.check()
    foreign = sorted(used - {"energy", "forces", "stress"})
    if foreign:
        words.append(
            f"labels are read from {', '.join(foreign)}"
            + ("; stress = -virial / volume" if set(foreign) & {*_VIRIALS} else "")
        )
    if lone:
        words.append(
            f"{len(lone)} isolated atoms ({', '.join(sorted(set(lone)))}) are left out: "
            "energies of atoms are fitted to the crystals"
        )
    if copies:
        words.append(f"{copies} structures stand there more than once and count once")
    kept = tuple(frame for _, frame in frames.values())
    return Reading(kept, (*words, *_told(path, dict(frames.values()))))


def _frame(atoms: Atoms, where: str, used: set[str]) -> Frame:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        periodic = " ".join("T" if value else "F" for value in atoms.pbc)
        raise InputError(
            f"{where}: is no crystal: its pbc are {periodic}",
            hint="give crystals, periodic in three directions",
        )
    found: dict[str, Any] = {
        **atoms.info,
        **atoms.arrays,
        **(atoms.calc.results if atoms.calc is not None else {}),
    }
    energy, forces = (
        _one(found, _ENERGIES, 1, where, used),
        _one(found, _FORCES, 3 * len(atoms), where, used),
    )
    missing = "energy" if energy is None else "forces" if forces is None else ""
    if energy is None or forces is None:
        keys = sorted(set(found) - {"numbers", "positions"})
        raise InputError(
            f"{where}: has no {missing}",
            hint=f"it has {', '.join(keys) or 'no labels'}; {missing} or REF_{missing} is read",
        )
    stress = _one(
        {name: _full(found[name]) for name in _STRESSES if name in found}, _STRESSES, 9, where, used
    )
    virial = _one(
        {name: _full(found[name]) for name in _VIRIALS if name in found}, _VIRIALS, 9, where, used
    )
    if virial is not None:
        by_virial = -virial / atoms.get_volume()
        if stress is not None and not np.allclose(stress, by_virial, rtol=1e-3, atol=1e-5):
            raise InputError(
                f"{where}: its stress is not -virial / volume",
                hint="keep one of them; units are eV/angstrom^3 and eV",
            )
        stress = by_virial
    return Frame(
        Crystal.from_atoms(atoms),
        float(energy[0]),
        forces.reshape(-1, 3),
        stress.reshape(3, 3) if stress is not None else None,
    )


def _one(
    found: Mapping[str, Any], names: Sequence[str], size: int, where: str, used: set[str]
) -> FloatArray | None:
    """(size,) the values under the one of ``names`` that is there. Raises InputError where they are
    not finite, or two that differ.
    """
    values: dict[str, FloatArray] = {}
    for name in names:
        if name not in found or found[name] is None:
            continue
        try:
            values[name] = np.array(found[name], dtype=float).ravel()
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {name} holds no numbers") from error
        if values[name].size != size:
            raise InputError(f"{where}: {name} holds {values[name].size} numbers, expected {size}")
        if not np.isfinite(values[name]).all():
            raise InputError(
                f"{where}: {name} is not finite", hint="leave the structure out, or correct it"
            )
    first, *others = values or [""]
    for other in others:
        if not np.allclose(values[first], values[other], rtol=1e-6, atol=1e-8):
            raise InputError(
                f"{where}: {first} and {other} differ", hint="keep the one that is meant"
            )
    used.update(values)
    return values.get(first)


def _full(stress: Any) -> Any:
    """(9,) of a stress in Voigt order or in full."""
    flat = np.ravel(stress)
    return flat[[0, 5, 4, 5, 1, 3, 4, 3, 2]] if flat.size == 6 else flat


def _told(path: Path, frames: Mapping[int, Frame]) -> list[str]:
    """The range of energies per atom, and what lies far outside of everything else."""
    if not frames:
        return []
    energies = np.array([frame.energy / len(frame.crystal) for frame in frames.values()])
    words = [
        f"{path}: energies of the cells are {energies.min():.4g} to {energies.max():.4g} eV "
        "per atom"
    ]
    deviation = np.abs(energies - np.median(energies))
    scale = max(float(np.median(deviation)), _LEAST_DEVIATION)
    words += [
        f"structure {i}: its energy, {energy:.4g} eV per atom, lies far from all others"
        for i, energy, off in zip(frames, energies, deviation, strict=True)
        if off > _OUTLIER * scale
    ]
    sizes = {
        i: float(np.abs(frame.stress).max())
        for i, frame in frames.items()
        if frame.stress is not None
    }
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    words += [
        f"structure {i}: its stress, up to {size:.4g} eV/angstrom^3, is {size / usual:.0f} "
        "times the usual one; is it in another unit?"
        for i, size in sizes.items()
        if usual > 0 and size > _OUTLIER * usual
    ]
    return words


def held_out(
    frames: Sequence[Frame], share: float, rng: np.random.Generator
) -> tuple[list[Frame], list[Frame]]:
    """About ``share`` of the frames, at least one, and the others. Settings of one crystal stay on
    one side; where that would hold out more than half, as of one crystal in motion, only its copies
    do.
    """
    kept, known = _parted(frames, share, rng, Matcher())
    return (kept, known) if len(kept) <= len(known) else _parted(frames, share, rng, _COPY)


def _parted(
    frames: Sequence[Frame], share: float, rng: np.random.Generator, matcher: Matcher
) -> tuple[list[Frame], list[Frame]]:
    groups: defaultdict[str, list[Frame]] = defaultdict(list)
    distinct = Distinct(matcher)
    for frame in frames:
        crystal, key = frame.crystal, equivalence_key(frame.crystal)
        name = distinct.find(crystal, key)
        if name is None:
            name = crystal.id
            distinct.add(name, key, crystal)
        groups[name].append(frame)
    found = list(groups.values())
    wanted = max(1, round(share * len(frames)))
    kept: list[Frame] = []
    known: list[Frame] = []
    for i in rng.permutation(len(found)):
        (kept if len(kept) < wanted else known).extend(found[i])
    return kept, known
