"""Situations of files of structures."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.input_cases import Case, structures
from campaign.reading.disorder import Disorder

_CELL = "\n".join(
    f"_cell_{name} {value}"
    for name, value in (
        ("length_a", 2.88),
        ("length_b", 2.88),
        ("length_c", 2.88),
        ("angle_alpha", 90),
        ("angle_beta", 90),
        ("angle_gamma", 90),
    )
)
_COLUMNS = "label type_symbol fract_x fract_y fract_z occupancy"
_B2 = "Ni1 Ni 0 0 0 1\nFe1 Fe 0.5 0.5 0.5 1"


def _cif(
    sites: str = _B2,
    *,
    columns: str = _COLUMNS,
    head: str = "_space_group_name_H-M_alt 'P 1'",
    cell: str = _CELL,
    name: str = "x",
) -> str:
    loop = "\n".join(["loop_", *(f"_atom_site_{column}" for column in columns.split())])
    return f"data_{name}\n{cell}\n{head}\n{loop}\n{sites}\n"


def _poscar(
    *, scale: str = "1.0", cell: str = "2.88 0 0\n0 2.88 0\n0 0 2.88", symbols: str = "Ni Fe\n", counts: str = "1 1", kind: str = "Direct",  # noqa: E501
    rows: str = "0 0 0\n0.5 0.5 0.5", tail: str = "",
) -> str:  # fmt: skip
    return f"made here\n{scale}\n{cell}\n{symbols}{counts}\n{kind}\n{rows}\n{tail}"


def _frame(
    rows: str = "Ni 0 0 0\nFe 1.44 1.44 1.44", *, lattice: str = '"2.88 0 0 0 2.88 0 0 0 2.88"', rest: str = "", count: str = "2",  # noqa: E501
    properties: str = "species:S:1:pos:R:3",
) -> str:  # fmt: skip
    head = (f"Lattice={lattice} " if lattice else "") + f"Properties={properties} {rest}"
    return f"{count}\n{head.strip()}\n{rows}\n"


_ONE = ["Fe1Ni1"]


def cases() -> Iterator[Case]:
    yield from _cifs()
    yield from _symmetries()
    yield from _poscars()
    yield from _frames()
    yield from _files()


def _cifs() -> Iterator[Case]:
    for mark in ("?", "."):
        yield structures(
            f"occupancy {mark}",
            _cif(_B2.replace("0.5 1", f"0.5 {mark}")),
            file="a.cif",
            formulas=_ONE,
        )
    yield structures(
        "occupancy 1.000(3)",
        _cif(_B2.replace("0.5 1", "0.5 1.000(3)")),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "no occupancies at all",
        _cif("Ni1 Ni 0 0 0\nFe1 Fe 0.5 0.5 0.5", columns=_COLUMNS[:-10]),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "occupancy above one",
        _cif(_B2.replace("0.5 1", "0.5 1.3")),
        file="a.cif",
        refusal=("a.cif", "Fe1", "occupancy"),
    )
    yield structures(
        "negative occupancy",
        _cif(_B2.replace("0.5 1", "0.5 -0.2")),
        file="a.cif",
        refusal=("a.cif", "Fe1", "occupancy"),
    )
    yield structures(
        "site of occupancy zero", _cif(_B2 + "\nFe2 Fe 0.5 0.5 0 0"), file="a.cif", formulas=_ONE
    )
    mixed = _cif("Ni1 Ni 0 0 0 0.4\nFe1 Fe 0 0 0 0.6\nFe2 Fe 0.5 0.5 0.5 1")
    yield structures(
        "a mixed site", mixed, file="a.cif", refusal=("a.cif", "disordered", "Ni1/Fe1")
    )
    half = _cif("Ni1 Ni 0 0 0 0.5\nFe1 Fe 0 0 0 0.5\nFe2 Fe 0.5 0.5 0.5 1")
    yield structures(
        "a mixed site, ordered on request", half, file="a.cif", formulas=["Fe3Ni1"],
        disorder=Disorder(method="enumerate", max_atoms=4, count=1), holds=lambda found: len(found) == 1 and len(found[0]) == 4,  # noqa: E501
    )  # fmt: skip
    yield structures(
        "a partly empty site",
        _cif(_B2.replace("0.5 1", "0.5 0.9")),
        file="a.cif",
        refusal=("a.cif", "disordered", "Fe1"),
    )
    for symbol, formula in (
        ("D", "H1Ni1"),
        ("T", "H1Ni1"),
        ("Fe3+", "Fe1Ni1"),
        ("Fe+3", "Fe1Ni1"),
        ("O2-", "Ni1O1"),
        ("Fe0+", "Fe1Ni1"),
        ("Cu2", "Cu1Ni1"),
    ):
        yield structures(
            f"type symbol {symbol}",
            _cif(_B2.replace("Fe1 Fe", f"A1 {symbol}")),
            file="a.cif",
            formulas=[formula],
        )
    for symbol in ("Va", "X", "Vac", "M", "Wat", "OH", "FE", "fe", "Qq", "0", "Du", "?+"):
        yield structures(
            f"type symbol {symbol}",
            _cif(_B2.replace("Fe1 Fe", f"A1 {symbol}")),
            file="a.cif",
            refusal=("a.cif", "A1", "no element"),
        )
    yield structures(
        "labels in place of types",
        _cif("Ni1 0 0 0\nFe2A 0.5 0.5 0.5", columns="label fract_x fract_y fract_z"),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "types in place of labels",
        _cif("Ni 0 0 0\nFe 0.5 0.5 0.5", columns="type_symbol fract_x fract_y fract_z"),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "water's label",
        _cif("O1W 0 0 0\nFe1 0.5 0.5 0.5", columns="label fract_x fract_y fract_z"),
        file="a.cif",
        formulas=["Fe1O1"],
    )
    attached = _cif(
        "O1 O 0 0 0 1 2\nFe1 Fe 0.5 0.5 0.5 1 0", columns=_COLUMNS + " attached_hydrogens"
    )
    yield structures(
        "attached hydrogens", attached, file="a.cif", refusal=("a.cif", "O1", "hydrogens")
    )
    several = "".join(_cif(_B2.replace("Fe", symbol), name=symbol) for symbol in ("Fe", "Co", "Cr"))
    yield structures("three blocks", several, file="a.cif", formulas=["Fe1Ni1", "Co1Ni1", "Cr1Ni1"])
    yield structures(
        "a head without a cell",
        "data_global\n_journal_year 2019\n" + _cif(),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "the formula has one more",
        _cif(head="_chemical_formula_sum 'Ni Fe H2'\n_space_group_name_H-M_alt 'P 1'"),
        file="a.cif",
        refusal=("a.cif", "formula"),
    )
    yield structures(
        "thrice the units",
        _cif(
            head="_chemical_formula_sum 'Ni Fe'\n_cell_formula_units_Z "
            "3\n_space_group_name_H-M_alt 'P 1'"
        ),
        file="a.cif",
        refusal=("a.cif", "units"),
    )
    for text, what in (
        ("x,y", "number"),
        ("nan", "number"),
        ("inf", "number"),
        ("1e400", "too large"),
        ("0,5", "number"),
        ("?", "number"),
    ):
        yield structures(
            f"coordinate {text}",
            _cif(_B2.replace("Fe1 Fe 0.5", f"Fe1 Fe {text}")),
            file="a.cif",
            refusal=("a.cif", "Fe1", what),
        )
    yield structures(
        "coordinate with an error",
        _cif(_B2.replace("Fe1 Fe 0.5", "Fe1 Fe 0.5000(12)")),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "coordinates beyond the cell",
        _cif("Ni1 Ni 1 0 -2 1\nFe1 Fe -0.5 1.5 0.5 1"),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "an atom at 0 and at 1",
        _cif(_B2 + "\nNi2 Ni 1 1 1 1"),
        file="a.cif",
        refusal=("a.cif", "Ni1/Ni2"),
    )
    yield structures(
        "a zero cell",
        _cif(cell=_CELL.replace("length_c 2.88", "length_c 0")),
        file="a.cif",
        refusal=("a.cif", "cell"),
    )
    yield structures(
        "a flat cell",
        _cif(cell=_CELL.replace("length_c 2.88", "length_c 0.001")),
        file="a.cif",
        refusal=("a.cif", "cell"),
    )
    yield structures(
        "an impossible cell",
        _cif(cell=_CELL.replace("90", "170")),
        file="a.cif",
        refusal=("a.cif", "no cell has"),
    )
    yield structures(
        "a cell length of ?",
        _cif(cell=_CELL.replace("length_b 2.88", "length_b ?")),
        file="a.cif",
        refusal=("a.cif", "length_b"),
    )
    yield structures(
        "a cell length with an error",
        _cif(cell=_CELL.replace("2.88", "2.880(4)")),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "Cartesian coordinates alone",
        _cif(columns="label type_symbol Cartn_x Cartn_y Cartn_z occupancy"),
        file="a.cif",
        refusal=("a.cif", "Cartesian"),
    )
    yield structures(
        "a molecule",
        _cif("O1 O 0 0 0 1\nH1 H 0.05 0 0 1", cell=_CELL.replace("2.88", "20")),
        file="a.cif",
        refusal=("a.cif", "bulk"),
    )
    yield structures(
        "a slab",
        _cif(cell=_CELL.replace("length_c 2.88", "length_c 30")),
        file="a.cif",
        refusal=("a.cif", "slab"),
    )
    yield structures(
        "a modulated structure",
        _cif(head="_cell_modulation_dimension 1\n_space_group_name_H-M_alt 'P 1'"),
        file="a.cif",
        refusal=("a.cif", "modulated"),
    )
    yield structures("cut off in a loop", _cif()[:-14], file="a.cif", refusal=("a.cif",))
    yield structures("no atoms", _cif("").replace("loop_", "#"), file="a.cif", refusal=("a.cif",))
    yield structures(
        "mmCIF tags with points",
        _cif().replace("_atom_site_", "_atom_site."),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "tags in capitals",
        _cif().replace("_cell_", "_CELL_").replace("_atom_site_", "_Atom_Site_"),
        file="a.cif",
        formulas=_ONE,
    )
    yield structures(
        "quotes, comments and text fields",
        _cif(head='# Å comment\n_x.note\n;\nloop_ data_y\n;\n_space_group_name_H-M_alt "P 1"'),
        file="a.cif",
        formulas=_ONE,
    )
    for encoding in ("utf-8-sig", "utf-16", "latin-1", "utf-32"):
        yield structures(
            f"in {encoding}",
            _cif(head="# 20 °C\n_space_group_name_H-M_alt 'P 1'").encode(encoding),
            file="a.cif",
            formulas=_ONE,
        )
    yield structures(
        "Windows' line ends", _cif().replace("\n", "\r\n"), file="a.cif", formulas=_ONE
    )
    yield structures(
        "old Macintosh line ends", _cif().replace("\n", "\r"), file="a.cif", formulas=_ONE
    )


def _symmetries() -> Iterator[Case]:
    a = _CELL.replace("2.88", "5.43")
    one = "Si1 Si 0 0 0 1"
    for name, n in (
        ("F d -3 m :1", 8),
        ("F d -3 m :2", None),
        ("F d -3 m S", 8),
        ("Fd-3m:1", 8),
        ("F m -3 m", 4),
        ("Fm-3m", 4),
        ("I m -3 m", 2),
        ("F m 3 m", 4),
    ):
        text = _cif(
            one,
            cell=a.replace("5.43", "5.43" if name.startswith("F") else "2.87"),
            head=f"_symmetry_space_group_name_H-M '{name}'",
        )
        wanted = n or 16
        yield structures(
            f"by name alone: {name}",
            text,
            file="a.cif",
            formulas=[f"Si{wanted}"],
            refusal=("a.cif", "space group"),
        )
    yield structures(
        "by Hall symbol alone",
        _cif(one, cell=a, head="_space_group_name_Hall 'F 4d 2 3 -1d'"),
        file="a.cif",
        formulas=["Si8"],
    )
    yield structures(
        "by number alone",
        _cif(one, cell=a, head="_space_group_IT_number 225"),
        file="a.cif",
        formulas=["Si4"],
    )
    yield structures(
        "a number of two settings",
        _cif(one, cell=a, head="_space_group_IT_number 227"),
        file="a.cif",
        refusal=("a.cif", "settings"),
    )
    yield structures(
        "a number that is none",
        _cif(one, cell=a, head="_space_group_IT_number 300"),
        file="a.cif",
        refusal=("a.cif", "300"),
    )
    yield structures(
        "a name that is none",
        _cif(one, cell=a, head="_symmetry_space_group_name_H-M 'Q 7'"),
        file="a.cif",
        refusal=("a.cif", "Q 7"),
    )
    yield structures(
        "no symmetry at all",
        _cif(one, cell=a, head=""),
        file="a.cif",
        refusal=("a.cif", "symmetry"),
    )
    yield structures(
        "a name and number at odds",
        _cif(one, cell=a, head="_space_group_IT_number 229\n_space_group_name_H-M_alt 'F m -3 m'"),
        file="a.cif",
        refusal=("a.cif", "225"),
    )
    yield structures(
        "a symmetry that the cell lacks",
        _cif(
            one,
            cell=a.replace("length_b 5.43", "length_b 6.1"),
            head="_space_group_name_H-M_alt 'F m -3 m'",
        ),
        file="a.cif",
        refusal=("a.cif",),
    )
    unlooped = _cif(
        "Si1 Si 0 0 0 1\nSi2 Si 0.25 0.25 0.25 1",
        cell=a.replace("5.43", "2.6"),
        head="_symmetry_equiv_pos_as_xyz 'x,y,z'",
    )
    yield structures(
        "an operation without a loop", unlooped, file="a.cif", refusal=("a.cif",), formulas=["Si2"]
    )
    operations = (
        "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 'x, y, "
        "z'\n2 '1/2+X, 1/2+Y, 1/2+Z'"
    )
    yield structures(
        "operations in capitals, shift first",
        _cif("Fe1 Fe 0 0 0 1", head=operations),
        file="a.cif",
        formulas=["Fe2"],
    )
    yield structures(
        "an operation that is none",
        _cif("Fe1 Fe 0 0 0 1", head=operations.replace("1/2+Z", "1/2+Q")),
        file="a.cif",
        refusal=("a.cif",),
    )
    thirds = _cif(
        "C1 C 0.3333 0.6667 0.25 1", head="_space_group_name_H-M_alt 'P 63/m m c'",
        cell=a.replace("length_c 5.43", "length_c 2.0").replace("5.43", "1.6").replace("gamma 90", "gamma 120"),  # noqa: E501
    )  # fmt: skip
    yield structures("thirds of four digits", thirds, file="a.cif", formulas=["C2"])


def _poscars() -> Iterator[Case]:
    volume = 2.88**3
    yield structures(
        "a negative scale is a volume",
        _poscar(scale=f"{-volume}", cell="1 0 0\n0 1 0\n0 0 1"),
        file="POSCAR",
        formulas=_ONE,
        holds=lambda f: abs(f[0].volume - volume) < 1e-6,
    )
    yield structures(
        "three scales",
        _poscar(scale="1.0 1.0 2.0", cell="2.88 0 0\n0 2.88 0\n0 0 1.44"),
        file="POSCAR",
        formulas=_ONE,
        refusal=("POSCAR",),
        holds=lambda f: abs(f[0].volume - volume) < 1e-6,
    )
    selective = _poscar(kind="Selective dynamics\nDirect", rows="0 0 0 T T F\n0.5 0.5 0.5 F F F")
    yield structures("selective dynamics", selective, file="POSCAR", formulas=_ONE)
    yield structures(
        "Cartesian and scaled",
        _poscar(
            scale="2.88", cell="1 0 0\n0 1 0\n0 0 1", kind="Cartesian", rows="0 0 0\n0.5 0.5 0.5"
        ),
        file="POSCAR",
        formulas=_ONE,
        holds=lambda f: abs(f[0].fractional[1, 0] - 0.5) < 1e-9,
    )
    yield structures(
        "no symbols (VASP 4)", _poscar(symbols=""), file="POSCAR", refusal=("POSCAR", "symbols")
    )
    yield structures(
        "symbols in two blocks",
        _poscar(symbols="Ni Fe Ni\n", counts="1 1 1", rows="0 0 0\n0.5 0.5 0\n0.5 0 0.5"),
        file="POSCAR",
        formulas=["Fe1Ni2"],
    )
    yield structures(
        "symbols of potentials", _poscar(symbols="Ni_pv Fe/abc\n"), file="POSCAR", formulas=_ONE
    )
    yield structures(
        "too few rows", _poscar(counts="1 2"), file="POSCAR", refusal=("POSCAR", "3 atoms")
    )
    yield structures(
        "too many rows",
        _poscar(rows="0 0 0\n0.5 0.5 0.5\n0.5 0 0"),
        file="POSCAR",
        refusal=("POSCAR", "more coordinates"),
    )
    yield structures(
        "comments after rows",
        _poscar(rows="0 0 0 Ni1\n0.5 0.5 0.5 Fe1"),
        file="POSCAR",
        formulas=_ONE,
    )
    yield structures(
        "velocities below", _poscar(tail="\n0 0 0\n0 0 0\n"), file="CONTCAR", formulas=_ONE
    )
    yield structures(
        "a count of zero",
        _poscar(symbols="Ni Fe Cr\n", counts="1 1 0"),
        file="POSCAR",
        formulas=_ONE,
    )
    yield structures("a negative count", _poscar(counts="1 -1"), file="POSCAR", refusal=("POSCAR",))
    yield structures("a scale of zero", _poscar(scale="0"), file="POSCAR", refusal=("POSCAR",))
    yield structures("a scale of nan", _poscar(scale="nan"), file="POSCAR", refusal=("POSCAR",))
    yield structures(
        "a singular cell", _poscar(cell="1 0 0\n1 0 0\n0 0 1"), file="POSCAR", refusal=("POSCAR",)
    )
    yield structures(
        "a left-handed cell",
        _poscar(cell="0 2.88 0\n2.88 0 0\n0 0 2.88"),
        file="POSCAR",
        formulas=_ONE,
    )
    yield structures(
        "Fortran's exponent",
        _poscar(rows="0 0 0\n0.5D0 5.0D-1 0.5"),
        file="POSCAR",
        formulas=_ONE,
        refusal=("POSCAR",),
        holds=lambda f: abs(f[0].fractional[1, 1] - 0.5) < 1e-9,
    )
    yield structures(
        "stars in place of a number",
        _poscar(rows="0 0 0\n****** 0.5 0.5"),
        file="POSCAR",
        refusal=("POSCAR",),
    )
    yield structures(
        "a decimal comma", _poscar(rows="0 0 0\n0,5 0,5 0,5"), file="POSCAR", refusal=("POSCAR",)
    )
    yield structures(
        "two atoms at one place",
        _poscar(rows="0 0 0\n0 0 0"),
        file="POSCAR",
        refusal=("POSCAR", "one place"),
    )
    yield structures(
        "a blank line within",
        _poscar(rows="0 0 0\n\n0.5 0.5 0.5"),
        file="POSCAR",
        refusal=("POSCAR",),
    )
    yield structures(
        "an unknown kind of coordinates",
        _poscar(kind="Fractional"),
        file="POSCAR",
        refusal=("POSCAR",),
        formulas=_ONE,
    )


def _frames() -> Iterator[Case]:
    yield structures(
        "no lattice", _frame(lattice=""), file="a.extxyz", refusal=("a.extxyz", "structure 1")
    )
    yield structures(
        "a lattice of zeros",
        _frame(lattice='"0 0 0 0 0 0 0 0 0"'),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "three lengths as lattice",
        _frame(lattice='"2.88 2.88 2.88"'),
        file="a.extxyz",
        formulas=_ONE,
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "not periodic",
        _frame(rest='pbc="F F F"'),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1", "pbc"),
    )
    yield structures(
        "periodic in two directions",
        _frame(rest='pbc="T T F"'),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1", "pbc"),
    )
    yield structures(
        "a dummy",
        _frame("X 0 0 0\nFe 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1", "'X'"),
    )
    yield structures(
        "symbols with numbers",
        _frame("Ni1 0 0 0\nFe2 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "'Ni1'"),
        formulas=_ONE,
    )
    yield structures(
        "symbols in capitals",
        _frame("NI 0 0 0\nFE 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "'NI'"),
    )
    yield structures(
        "a charged symbol",
        _frame("Ni 0 0 0\nFe3+ 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "'Fe3+'"),
    )
    yield structures(
        "deuterium", _frame("Ni 0 0 0\nD 1.44 1.44 1.44"), file="a.extxyz", formulas=["H1Ni1"]
    )
    yield structures(
        "atomic numbers",
        _frame("28 0 0 0\n26 1.44 1.44 1.44", properties="Z:I:1:pos:R:3"),
        file="a.extxyz",
        formulas=_ONE,
    )
    yield structures(
        "the number 0",
        _frame("0 0 0 0\n26 1.44 1.44 1.44", properties="Z:I:1:pos:R:3"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "the number 119",
        _frame("119 0 0 0\n26 1.44 1.44 1.44", properties="Z:I:1:pos:R:3"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "a count too small", _frame(count="1"), file="a.extxyz", refusal=("a.extxyz", "structure 2")
    )
    yield structures(
        "a count too large", _frame(count="3"), file="a.extxyz", refusal=("a.extxyz", "structure 1")
    )
    yield structures(
        "a count of zero",
        _frame("", count="0"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "positions of nan",
        _frame("Ni nan 0 0\nFe 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "positions of 1e400",
        _frame("Ni 1e400 0 0\nFe 1.44 1.44 1.44"),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "the second frame is cut off",
        _frame() + _frame()[:-20],
        file="a.extxyz",
        refusal=("a.extxyz", "structure 2"),
    )
    yield structures(
        "the second frame is bad and skipped",
        _frame() + _frame("X 0 0 0\nFe 1.44 1.44 1.44"),
        file="a.extxyz",
        formulas=_ONE,
        on_error="skip",
    )
    yield structures(
        "blank lines between frames",
        _frame() + "\n\n" + _frame(),
        file="a.extxyz",
        formulas=_ONE * 2,
    )
    yield structures(
        "plain xyz of a molecule",
        "2\nwater\nO 0 0 0\nH 0.96 0 0\n",
        file="a.xyz",
        refusal=("a.xyz", "structure 1"),
    )
    yield structures(
        "a slab in vacuum",
        _frame(lattice='"2.88 0 0 0 2.88 0 0 0 40"'),
        file="a.extxyz",
        refusal=("a.extxyz", "bulk"),
    )
    yield structures(
        "a huge cell",
        _frame(lattice='"1e7 0 0 0 1e7 0 0 0 1e7"'),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "a skewed cell",
        _frame(lattice='"2.88 0 0 28800000 2.88 0 0 0 2.88"'),
        file="a.extxyz",
        refusal=("a.extxyz", "structure 1"),
    )
    yield structures(
        "an info key without value",
        _frame(rest="converged config_type=bulk"),
        file="a.extxyz",
        formulas=_ONE,
    )
    yield structures(
        "tabs between the columns",
        _frame("Ni\t0\t0\t0\nFe\t1.44\t1.44\t1.44"),
        file="a.extxyz",
        formulas=_ONE,
    )


def _files() -> Iterator[Case]:
    yield structures("an empty file", "", file="a.cif", refusal=("a.cif", "empty"))
    yield structures("blanks alone", " \n\t\n", file="a.extxyz", refusal=("a.extxyz", "empty"))
    yield structures(
        "a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), file="a.cif", refusal=("a.cif",)
    )
    yield structures(
        "a picture as POSCAR",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        file="POSCAR",
        refusal=("POSCAR",),
    )
    yield structures("gzip", gzip.compress(_cif().encode()), file="a.cif.gz", formulas=_ONE)
    yield structures(
        "gzip, cut off", gzip.compress(_cif().encode())[:-9], file="a.cif.gz", refusal=("a.cif.gz",)
    )
    yield structures("gzip by name alone", _cif(), file="a.cif.gz", refusal=("a.cif.gz",))
    yield structures(
        "gzip by content alone", gzip.compress(_cif().encode()), file="a.cif", refusal=("a.cif",)
    )
    yield structures(
        "gzipped frames", gzip.compress(_frame().encode()), file="a.extxyz.gz", formulas=_ONE
    )
    yield structures(
        "a gzipped POSCAR", gzip.compress(_poscar().encode()), file="POSCAR.gz", formulas=_ONE
    )
    yield structures("no file", {}, file="missing.cif", refusal=("missing.cif",))
    yield structures(
        "an empty folder",
        {"pool/readme.txt": "x"},
        file="pool",
        refusal=("pool", "no file of structures"),
    )
    yield structures(
        "a folder with one bad file",
        {"pool/a.cif": _cif(), "pool/b.cif": "data_b"},
        file="pool",
        refusal=("b.cif",),
    )
    yield structures(
        "a folder with one bad file, skipped",
        {"pool/a.cif": _cif(), "pool/b.cif": "data_b"},
        file="pool",
        formulas=_ONE,
        on_error="skip",
    )
    yield structures(
        "a folder with hidden files",
        {"pool/a.cif": _cif(), "pool/._a.cif": b"\x00\x05"},
        file="pool",
        formulas=_ONE,
    )
    yield structures(
        "a folder named like a file", {"a.cif/POSCAR": _poscar()}, file="a.cif", formulas=_ONE
    )
    yield structures("POSCAR with an ending", _poscar(), file="POSCAR_relaxed.2", formulas=_ONE)
    yield structures("an unknown ending", _cif(), file="a.dat", refusal=("a.dat", "name"))
    yield structures("a name with blanks and signs", _cif(), file="a b?#%&$'é.cif", formulas=_ONE)
    yield structures("capital endings", _cif(), file="A.CIF", formulas=_ONE)
    yield structures(
        "a database that is none",
        b"SQLite format 3\x00" + bytes(200),
        file="a.db",
        refusal=("a.db",),
    )
    yield structures(
        "another database", {}, file="a.db", make=_other_database, refusal=("a.db", "table")
    )
    yield structures(
        "a database with three rows", {}, file="a.db", make=_database, formulas=["Fe1Ni1"] * 3
    )
    yield structures("JSON that is no database", '{"a": 1}', file="a.json", refusal=("a.json",))
    yield structures("a list as JSON", "[1, 2]", file="a.json", refusal=("a.json",))
    yield structures(
        "a link that leads to itself",
        {},
        file="a.cif",
        make=lambda folder: os.symlink(folder / "a.cif", folder / "a.cif"),
        refusal=("a.cif",),
    )
    yield structures(
        "a folder with a loop of links",
        {"pool/a.cif": _cif()},
        file="pool",
        make=lambda folder: os.symlink(folder / "pool", folder / "pool" / "up"),
        formulas=_ONE,
    )
    yield structures(
        "a folder with a dead link",
        {"pool/a.cif": _cif()},
        file="pool",
        make=lambda folder: os.symlink(folder / "gone", folder / "pool" / "b.cif"),
        refusal=("b.cif",),
    )
    yield structures(
        "a pipe in a folder",
        {"pool/a.cif": _cif()},
        file="pool",
        make=lambda folder: os.mkfifo(folder / "pool" / "b.cif"),
        formulas=_ONE,
    )
    yield structures(
        "a pipe",
        {},
        file="b.cif",
        make=lambda folder: os.mkfifo(folder / "b.cif"),
        refusal=("b.cif",),
    )
    yield structures(
        "a file behind a file", {"a.cif": _cif()}, file="a.cif/b.cif", refusal=("b.cif",)
    )
    yield structures("a very long name", {}, file="a" * 300 + ".cif", refusal=("aaa", "long"))


def _other_database(folder: Path) -> None:
    import sqlite3

    with sqlite3.connect(folder / "a.db") as database:
        database.execute("create table persons (name text)")


def _database(folder: Path) -> None:
    from ase import Atoms
    from ase.db import connect

    for energy in (1.0, 2.0, 3.0):
        connect(folder / "a.db").write(
            Atoms("NiFe", positions=[[0, 0, 0], [1.44] * 3], cell=[2.88] * 3, pbc=True),
            note=f"e{energy}",
        )
