"""Training data of MACE: keys, signs and units as its users have them, and nothing learned that was
not said.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

pytest.importorskip("mace")

from campaign.errors import InputError
from oracles.mace.frames import held_out, read_frames

FORCES = np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])


def frame(i: int = 0, *, forces: Any = FORCES, pbc: bool = True, **results: Any) -> Atoms:
    atoms = Atoms(
        "NiFe", positions=[[0, 0, 0], [1.44 + 0.01 * i, 1.44, 1.44]], cell=[2.88] * 3, pbc=pbc
    )
    results = {"energy": -8.5 - 0.01 * i, "forces": forces} | results
    atoms.calc = SinglePointCalculator(
        atoms, **{key: value for key, value in results.items() if value is not None}
    )
    return atoms


def saved(folder: Path, *images: Atoms) -> Path:
    write(folder / "data.extxyz", list(images), format="extxyz")
    return folder / "data.extxyz"


def test_keys_of_ase_and_of_mace_are_one(tmp_path: Path) -> None:
    theirs = []
    for i in range(3):
        atoms = frame(i)
        atoms.calc = None
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -8.5 - 0.01 * i, FORCES
        theirs.append(atoms)
    reading = read_frames(saved(tmp_path, *theirs))
    plain = read_frames(saved(tmp_path, *(frame(i) for i in range(3))))
    assert [one.energy for one in reading.frames] == [other.energy for other in plain.frames]
    assert all(
        np.array_equal(one.forces, other.forces)
        for one, other in zip(reading.frames, plain.frames, strict=True)
    )
    assert "labels are read from REF_energy, REF_forces" in reading.words


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial"])
def test_a_virial_is_minus_stress_times_volume(tmp_path: Path, name: str) -> None:
    stress = np.array([[0.01, 0.002, 0.003], [0.002, 0.02, 0.004], [0.003, 0.004, 0.03]])
    with_stress, with_virial = frame(stress=stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]), frame()
    with_virial.info[name] = -stress * with_virial.get_volume()
    (one,) = read_frames(saved(tmp_path, with_stress)).frames
    (other,) = read_frames(saved(tmp_path, with_virial)).frames
    assert one.stress is not None
    assert other.stress is not None
    assert np.allclose(one.stress, stress)
    assert np.allclose(other.stress, stress)
    with_stress.info[name] = stress
    with pytest.raises(InputError, match="not -virial / volume"):
        read_frames(saved(tmp_path, with_stress))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (frame(1, energy=float("nan")), "structure 2 (line 5): energy is not finite"),
        (frame(1, forces=FORCES * np.inf), "structure 2 (line 5): forces is not finite"),
        (frame(1, stress=np.full(6, np.nan)), "structure 2 (line 5): stress is not finite"),
        (frame(1, energy=None), "structure 2 (line 5): has no energy"),
        (frame(1, forces=None), "structure 2 (line 5): has no forces"),
        (frame(1, pbc=False), "structure 2 (line 5): is no crystal: its pbc are F F F"),
        (frame(0, energy=-9.0), "structures 1 and 2 are one crystal"),
    ],
)
def test_what_is_refused(tmp_path: Path, bad: Atoms, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_frames(saved(tmp_path, frame(0), bad))


def test_isolated_atoms_copies_and_outliers_are_told(tmp_path: Path) -> None:
    lone = Atoms("Ni", positions=[[0, 0, 0]])
    lone.calc = SinglePointCalculator(lone, energy=-0.3, forces=np.zeros((1, 3)))
    ordinary = [frame(i, stress=np.full(6, 0.01)) for i in range(4)]
    reading = read_frames(
        saved(
            tmp_path,
            lone,
            *ordinary,
            ordinary[0],
            frame(5, stress=np.full(6, -251.0)),
            frame(6, energy=-85000.0),
        )
    )
    told = "\n".join(reading.words)
    assert len(reading.frames) == 6
    assert "1 isolated atoms (Ni) are left out" in told
    assert "1 structures stand there more than once" in told
    assert "structure 7: its stress" in told
    assert "structure 8: its energy, -4.25e+04 eV per atom" in told


def test_settings_of_one_crystal_stay_on_one_side(tmp_path: Path) -> None:
    moved = []
    for i in range(6):
        for shift in (0.0, 0.7, 1.1):
            atoms = frame(i)
            atoms.positions += shift
            moved.append(atoms)
    frames = read_frames(saved(tmp_path, *moved)).frames
    for seed in range(5):
        kept, known = held_out(frames, 0.2, np.random.default_rng(seed))
        assert len(kept) + len(known) == 18
        assert not {round(one.energy, 6) for one in kept} & {round(one.energy, 6) for one in known}


def test_frames_of_one_crystal_in_motion_are_parted_and_their_copies_are_not(
    tmp_path: Path,
) -> None:
    frames = read_frames(saved(tmp_path, *(frame(i) for i in range(10)))).frames
    turned = []
    for i in range(10):
        atoms = frame(i)
        atoms.rotate(30, "z", rotate_cell=True)
        turned.append(atoms)
    copies = read_frames(saved(tmp_path, *turned)).frames
    kept, known = held_out([*frames, *copies], 0.2, np.random.default_rng(0))
    assert len(kept) == 4
    assert len(known) == 16
    assert not {round(one.energy, 6) for one in kept} & {round(one.energy, 6) for one in known}
