"""The door for tables: what is right is read as it was meant, everything doubtful is refused by
file, row and column.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ase import units as ase_units
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.errors import InputError
from campaign.reading import units
from campaign.reading.tables import Column, measure, number, plain_facts, read_table
from campaign.types import BULK_MODULUS, ENERGY_PER_ATOM, VOLUME_PER_ATOM, Quantity


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("a,b\n1,2\n", "utf-8"),
        ("a,b\r\n1,2\r\n", "utf-8-sig"),
        ("a,b\n1,2\n\n", "utf-16"),
        ("a;b\n1;2\n", "utf-8"),
        ("a\tb\n1\t2\n", "utf-8"),
        ('"a","b"\n"1","2"\n ,\n', "utf-8"),
        (" a , b \n1,2\n", "utf-8"),
    ],
)
def test_tables_as_programs_save_them(tmp_path: Path, text: str, encoding: str) -> None:
    table = read_table(written(tmp_path, text, encoding))
    assert table.header == ("a", "b")
    assert [dict(row.cells) for row in table] == [{"a": "1", "b": "2"}]


def test_text_of_windows_and_fields_of_several_lines(tmp_path: Path) -> None:
    (row,) = read_table(written(tmp_path, 'name,cif\nAngstr\xf6m,"data_x\n_cell 1\n"\n', "cp1252"))
    assert row.cells == {"name": "Angstr\xf6m", "cif": "data_x\n_cell 1\n"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2\n", "there are 2 columns 'a'"),
        ("a,b\n1,2\n1,2,3\n", "row 2: 3 fields, but the header has 2"),
        ("a,b\n1\n", "row 1: 1 fields, but the header has 2"),
        ("a,b;c\n1,2\n", "commas and semicolons"),
        ('a,b\n1,"2\n', "is no table"),
        ("", "is empty"),
        ("a,b\n\x00,1\n", "is no text"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "-4,31",
        "1_805",
        "nan",
        "-inf",
        "1.0D+02",
        "0x1F",
        "",
        "1 805",
        "1.2.3",
        "4.5 eV",
        "true",
        "١٢",
    ],
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InputError, match="row 3, 'E'"):
        number(text, "row 3, 'E'")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_round_trips(value: float) -> None:
    assert number(repr(value), "x") == value
    assert number(value, "x") == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "t.csv"
    path.write_bytes(data)
    try:
        table = read_table(path)
    except InputError:
        return
    assert len(set(table.header)) == len(table.header)
    assert all(row.cells.keys() == set(table.header) for row in table)


@pytest.mark.parametrize(
    ("unit", "wanted", "value"),
    [
        ("meV", "eV", 1e-3),
        ("Ry", "eV", ase_units.Ry),
        ("kcal/mol", "eV", 0.0433641),
        ("kbar", "GPa", 0.1),
        ("eV/A^3", "GPa", 160.21766),
        ("eV/Å³", "GPa", 160.21766),
        ("eV angstrom^-3", "GPa", 160.21766),
        ("Ry/bohr^3", "GPa", 14710.5),
        ("nm^3", "angstrom^3", 1000.0),
        ("kg/m^3", "g/cm^3", 1e-3),
        ("%", "1", 0.01),
        ("furlong", "furlong", 1.0),
    ],
)
def test_units_become_each_other(unit: str, wanted: str, value: float) -> None:
    assert units.factor(unit, wanted) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [("eV", "GPa"), ("HV", "GPa"), ("GPA", "GPa"), ("", "eV"), ("eV/", "eV"), ("a.u.", "eV")],
)
def test_units_that_cannot_be_converted_list_those_that_can(unit: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        units.factor(unit, wanted)
    assert wanted in caught.value.hint


@pytest.mark.parametrize(
    ("column", "header", "stated", "value"),
    [
        (Column("E"), ["E"], None, -8.0),
        (Column("E"), ["E (eV/atom)"], None, -8.0),
        (Column("E (meV/atom)"), ["E (meV/atom)"], None, -8e-3),
        (Column("E"), ["E [meV/atom]", "F"], None, -8e-3),
        (Column("E", per="cell"), ["E"], None, -4.0),
        (Column("E", unit="eV", per="cell"), ["E"], None, -4.0),
        (Column("E"), ["E (eV/cell)"], None, -4.0),
        (Column("energy"), ["energy"], {}, -4.0),
        (Column("energy", per="atom"), ["energy"], {}, -8.0),
        (Column("REF_energy"), ["REF_energy"], {}, -4.0),
        (Column("energy_per_atom"), ["energy_per_atom"], {"energy_per_atom": "meV/atom"}, -8e-3),
        (Column("energy_per_atom"), ["energy_per_atom (eV)"], None, -8.0),
        (Column("E"), ["E (kJ/mol/atom)"], None, -8.0 * ase_units.kJ / ase_units.mol),
    ],
)
def test_energies_of_cells_and_per_atom(
    column: Column, header: list[str], stated: dict[str, str] | None, value: float
) -> None:
    found = measure("e", ENERGY_PER_ATOM, column, header, "t.csv", stated=stated)
    assert found.of("-8.0", 2, "row 1") == pytest.approx(value)


@pytest.mark.parametrize(
    ("quantity", "column", "header", "message"),
    [
        (ENERGY_PER_ATOM, Column("energy"), ["energy"], "of the cell or per atom"),
        (ENERGY_PER_ATOM, Column("E"), ["E (eV)"], "of the cell or per atom"),
        (ENERGY_PER_ATOM, Column("total energy"), ["total energy"], "of the cell or per atom"),
        (ENERGY_PER_ATOM, Column("E"), ["E (kcal/mol)"], "of the cell or per atom"),
        (ENERGY_PER_ATOM, Column("E"), ["E (eV/f.u.)"], "per f.u."),
        (ENERGY_PER_ATOM, Column("E"), ["E (GPa)"], "cannot become eV"),
        (ENERGY_PER_ATOM, Column("E", per="atom"), ["E (GPa)"], "cannot become eV"),
        (ENERGY_PER_ATOM, Column("E"), ["E (DFT)"], "is no unit"),
        (ENERGY_PER_ATOM, Column("E"), ["E (eV/atom)", "E (Ry/atom)"], "may be"),
        (ENERGY_PER_ATOM, Column("E", per="cell"), ["E (eV/atom)"], "says per: cell"),
        (ENERGY_PER_ATOM, Column("E", unit="Ry/atom"), ["E (eV/atom)"], "says Ry/atom"),
        (BULK_MODULUS, Column("K"), ["K (GPa/atom)"], "is per atom"),
        (BULK_MODULUS, Column("K"), ["B (GPa)"], "no column 'K'"),
        (VOLUME_PER_ATOM, Column("V"), ["V (A^3)"], "of the cell or per atom"),
        (None, Column("K"), ["K (GPa)"], "say units"),
    ],
)
def test_columns_that_are_refused(
    quantity: Quantity | None, column: Column, header: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measure("q", quantity, column, header, "t.csv")


def test_facts_are_plain() -> None:
    import numpy as np

    found = plain_facts(
        {
            "id": "mp-1",
            "n": np.int64(3),
            "bad": math.nan,
            "forces": np.ones(3),
            "E": "1",
            "empty": "",
        },
        {"E"},
    )
    assert found == {"id": "mp-1", "n": 3, "bad": "nan"}
