"""The one door: encodings, formats, folders and databases; what is no bulk crystal is refused by
name.
"""

from __future__ import annotations

import gzip
import logging
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.db import connect
from ase.io import write
from ase.spacegroup import crystal as ase_crystal
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar
from reading.texts import FRAME, POSCAR, cif

from campaign.crystals.extent import not_bulk
from campaign.errors import InputError
from campaign.reading.structures import Entry, read_structures
from campaign.types import Crystal


def entries(path: Path) -> list[Entry]:
    return list(read_structures(path))


TEXTS = {"a.cif": cif(), "a.vasp": POSCAR, "POSCAR_1": POSCAR, "a.extxyz": FRAME}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_text_is_read_in_any_encoding_and_with_any_line_ends(
    name: str, encoding: str, tmp_path: Path
) -> None:
    text = TEXTS[name].replace("made here", "gemäß Ångström")
    text = text.replace("data_x", "# gemäß Ångström\ndata_x").replace(
        "energy=", 'note="gemäß Ångström" energy='
    )
    for ends in ("\n", "\r\n", "\r"):
        (tmp_path / name).write_bytes(text.replace("\n", ends).encode(encoding))
        (entry,) = entries(tmp_path / name)
        assert (entry.crystal.formula, round(entry.crystal.volume, 3)) == ("Fe1Ni1", 23.888)


@pytest.mark.parametrize("name", TEXTS)
def test_cut_off_empty_and_binary_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    whole = TEXTS[name].encode()
    beginning = whole.index(
        {"a.cif": b"0.5 0.5 1", "a.extxyz": b"Fe ", "a.vasp": b"0.5", "POSCAR_1": b"Direct"}[name]
    )
    for data in (
        b"",
        b" \n\n",
        whole[:beginning],
        whole.replace(b"2.88", b"\x00\x01"),
        bytes(range(256)),
        b"\xff\xfe" + whole[:-1] + b"x",
    ):
        path.write_bytes(data)
        with pytest.raises(InputError) as refused:
            entries(path)
        assert name in refused.value.message


def test_compressed_files_are_unpacked_and_cut_off_ones_refused(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz.gz").write_bytes(gzip.compress((FRAME * 3).encode()))
    assert len(entries(tmp_path / "a.extxyz.gz")) == 3
    (tmp_path / "a.extxyz.gz").write_bytes(gzip.compress((FRAME * 3).encode())[:-12])
    with pytest.raises(InputError, match=r"a\.extxyz\.gz: cannot be read"):
        entries(tmp_path / "a.extxyz.gz")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Ni Fe", "Va Fe", "line 6: 'Va' is no element"),
        ("Ni Fe", "X Fe", "'X' is no element"),
        ("Ni Fe\n", "", "no symbols of elements"),
        ("1 1\n", "1\n", "as many numbers of atoms"),
        ("1 1\n", "1 2\n", "3 atoms are counted, 2 have coordinates"),
        ("0.5 0.5 0.5\n", "0.5 0.5 0.5\n0.2 0.2 0.2\n", "more coordinates than the 2 atoms"),
        ("2.88 0 0", "0 0 0", "cannot be read|overlap"),
        ("2.88 0 0", "2.88 0", "cannot be read"),
        ("0.5 0.5 0.5", "0.5 0.5 here", "cannot be read"),
        ("0.5 0.5 0.5", "0 0 0", "at one place"),
    ],
)
def test_a_poscar_whose_head_and_atoms_disagree_is_refused(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "POSCAR").write_text(POSCAR.replace(old, new))
    with pytest.raises(InputError, match=f"POSCAR.*(?:{told})"):
        entries(tmp_path / "POSCAR")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n1.0\n2.88 0 0\n0 2.88 0\n0 0 2.88", "\n-23.887872\n1 0 0\n0 1 0\n0 0 1"),
        (
            "Direct\n0 0 0\n0.5 0.5 0.5",
            "Selective dynamics\nCartesian\n0 0 0 F F F\n1.44 1.44 1.44 T T F",
        ),
        ("Ni Fe", "Ni_pv Fe/3f2a"),
        ("made here", ""),
        ("0.5 0.5 0.5\n", "0.5 0.5 0.5\n\n0 0 0\n0 0 0\n"),
    ],
)
def test_forms_of_a_poscar_mean_one_crystal(old: str, new: str, tmp_path: Path) -> None:
    assert old in POSCAR
    (tmp_path / "CONTCAR").write_text(POSCAR.replace(old, new, 1))
    ((entry),) = entries(tmp_path / "CONTCAR")
    assert (entry.crystal.symbols, round(entry.crystal.volume, 3)) == (["Ni", "Fe"], 23.888)
    np.testing.assert_allclose(entry.crystal.fractional, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Ni ", "X ", r"structure 1 \(line 1\), atom 1: 'X' is no element"),
        ("Ni ", "NI ", "'NI' is no element"),
        ("Ni ", "CO ", "'CO' is no element"),
        ("Ni ", "28 ", "'28' is no element"),
        ('pbc="T T T"', 'pbc="F F F"', "pbc F F F"),
        ('pbc="T T T"', 'pbc="T T F"', "pbc T T F"),
        ('Lattice="2.88 0 0 0 2.88 0 0 0 2.88"', "", "expected three cell vectors"),
        (
            '0 2.88" ',
            '0 2.88" occupancy="_JSON {\\"0\\": {\\"Ni\\": 0.4, \\"Fe\\": 0.6}}" ',
            "partly occupied",
        ),
        ("Fe 1.44 1.44 1.44", "Fe 1.44 1.44", "expected 4 columns, found 3"),
        ("Fe 1.44 1.44 1.44", "Fe 1.44 1.44 nan", "not finite"),
        ("2.88 0 0 0", "2.88 -inf 0 0", "three cell vectors"),
        ("Fe 1.44 1.44 1.44\n", "", "2 atoms are counted, 1 are there"),
        ("2\n", "two\n", "expected a number of atoms"),
        ("2\n", "2\n2\n", "structure"),
        ("species:S:1:pos:R:3", "species:S:1:pos:R", "name:type:columns"),
    ],
)
def test_a_frame_that_is_no_crystal_is_refused_with_its_line(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    assert old in FRAME
    (tmp_path / "a.xyz").write_text(FRAME.replace(old, new, 1))
    with pytest.raises(InputError, match=told):
        entries(tmp_path / "a.xyz")


def test_deuterium_is_hydrogen_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(cif("D1 D 0 0 0 1\nPd1 Pd 0.5 0.5 0.5 1"))
    (tmp_path / "b.vasp").write_text(POSCAR.replace("Ni Fe", "D Pd"))
    (tmp_path / "c.extxyz").write_text(FRAME.replace("Ni", "D").replace("Fe", "Pd"))
    assert [entry.crystal.formula for entry in entries(tmp_path)] == ["H1Pd1"] * 3


def test_values_beside_a_structure_come_with_it(tmp_path: Path) -> None:
    atoms = bulk("Ni")
    (tmp_path / "a.extxyz").write_text(FRAME)
    with connect(tmp_path / "a.db") as database:
        database.write(atoms, key_value_pairs={"hardness": 3.5})
    found = entries(tmp_path)
    assert found[0].info["hardness"] == 3.5
    assert found[0].where.endswith("a.db, row 1")
    assert found[1].info["energy"] == -9.0


def test_a_database_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(InputError, match="there is no"):
        entries(path)
    assert not path.exists()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"a\.db: no ASE database"):
        entries(path)
    path.unlink()
    sqlite3.connect(path).execute("create table mine (x)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="it has no table of structures"):
        entries(path)
    assert path.read_bytes() == before
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(InputError, match=r"b\.json"):
        entries(tmp_path / "b.json")


def test_a_folder_is_read_in_order_and_other_files_are_passed_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file of structures"):
        entries(tmp_path)
    for name, text in {**TEXTS, "b.CIF": cif(), "README.txt": "x", ".hidden.cif": "x"}.items():
        (tmp_path / name).write_text(text)
    assert [Path(entry.where.split(",")[0]).name for entry in entries(tmp_path)] == [
        "POSCAR_1",
        "a.cif",
        "a.extxyz",
        "a.vasp",
        "b.CIF",
    ]


def test_what_cannot_be_read_is_skipped_and_counted_where_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.cif").write_text(
        cif() + cif("X1 X 0 0 0 1").replace("data_x", "data_y") + cif().replace("data_x", "data_z")
    )
    (tmp_path / "b.cif").write_text("nonsense")
    (tmp_path / "c.extxyz").write_text(FRAME + FRAME.replace("Ni", "X") + FRAME)
    with pytest.raises(InputError, match=r"a.cif, block 'y', site X1"):
        entries(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = list(read_structures(tmp_path, on_error="skip"))
    assert len(found) == 4
    assert "3 skipped (on_error: skip); the first:" in caplog.text
    assert "a.cif, block 'y', site X1: 'X' is no element" in caplog.text


def boxed(name: str) -> Atoms:
    atoms = molecule(name)
    atoms.center(vacuum=5.0)
    return atoms


def skewed(atoms: Atoms) -> Atoms:
    """The same crystal on vectors none of which lies in a slab's plane."""
    cell = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]]) @ atoms.cell
    atoms.set_cell(cell, scale_atoms=False)
    return atoms


def wire() -> Atoms:
    return Atoms("Ni", cell=[12, 12, 2.5])


NOT_BULK = {
    "slab": (fcc111("Ni", (1, 1, 4), vacuum=6.0), "a slab or layers"),
    "skewed slab": (skewed(fcc111("Ni", (1, 1, 4), vacuum=6.0)), "a slab or layers"),
    "layer": (graphene(vacuum=7.0), "a slab or layers"),
    "wire": (wire(), "a chain or wire"),
    "molecule": (boxed("C6H6"), "a molecule or cluster"),
    "atom": (Atoms("Ni", cell=[12, 12, 12]), "a molecule or cluster"),
}


@pytest.mark.parametrize("kind", NOT_BULK)
def test_slabs_layers_wires_and_boxed_molecules_are_refused_by_name(
    kind: str, tmp_path: Path
) -> None:
    atoms, told = NOT_BULK[kind]
    atoms = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    for name in ("a.extxyz", "a.vasp", "a.cif"):
        write(tmp_path / name, atoms)
        with pytest.raises(InputError, match=f"{name}.* found {told} in vacuum"):
            entries(tmp_path / name)
        assert list(read_structures(tmp_path / name, is_judged=False))


OPEN = {
    "graphite": ase_crystal(
        ["C", "C"],
        [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)],
        spacegroup=194,
        cellpar=[2.46, 2.46, 6.70, 90, 90, 120],
    ),
    "molybdenite": ase_crystal(
        ["Mo", "S"],
        [(1 / 3, 2 / 3, 0.25), (1 / 3, 2 / 3, 0.621)],
        spacegroup=194,
        cellpar=[3.16, 3.16, 12.29, 90, 90, 120],
    ),
    "sodalite": ase_crystal(
        ["Si", "O"],
        [(0.25, 0.5, 0), (0.139, 0.139, 0.5)],
        spacegroup=229,
        cellpar=[8.83, 8.83, 8.83, 90, 90, 90],
    ),
    "dry ice": ase_crystal(
        ["C", "O"],
        [(0, 0, 0), (0.119, 0.119, 0.119)],
        spacegroup=205,
        cellpar=[5.62, 5.62, 5.62, 90, 90, 90],
    ),
    "caesium": bulk("Cs"),
    "argon": bulk("Ar"),
    "polonium": bulk("Po", "sc", a=3.36),
    "expanded nickel": bulk("Ni", a=4.4),
}


@pytest.mark.parametrize("name", OPEN)
def test_layered_open_and_molecular_crystals_are_bulk(name: str) -> None:
    assert not_bulk(Crystal.from_atoms(OPEN[name])) == ""


def test_the_same_crystal_by_two_readers(tmp_path: Path) -> None:
    """A conventional oxide written by pymatgen as POSCAR and CIF is the crystal that it was."""
    spinel = Structure.from_spacegroup(
        227, Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0.125] * 3, [0.5] * 3, [0.2624] * 3]
    )
    Poscar(spinel).write_file(str(tmp_path / "a.vasp"))
    spinel.to(str(tmp_path / "b.cif"), symprec=0.01)
    first, second = (entry.crystal for entry in entries(tmp_path))
    assert first.formula == second.formula == Crystal.from_structure(spinel).formula
    assert not_bulk(second) == ""


def test_what_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.cif")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "gone.cif").symlink_to(tmp_path / "nowhere.cif")
    numbers = tmp_path / "numbers.extxyz"
    numbers.write_text('1\nLattice="3 0 0 0 3 0 0 0 3" Properties=Z:I:1:pos:R:3\n119 0 0 0\n')
    named = {
        tmp_path / "pipe.cif": "neither a file",
        tmp_path / "pool": "gone.cif",
        tmp_path / f"{'a' * 300}.cif": "long",
        numbers: "118",
    }
    for path, word in named.items():
        with pytest.raises(InputError, match=word):
            list(read_structures(path))
