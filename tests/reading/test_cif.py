"""CIF blocks are read as the file means them, or refused by the name of the block and of what is
wrong.
"""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from reading.texts import COLUMNS, CUBE, cif, looped

from campaign.crystals.neighbours import shortest_distance
from campaign.errors import InputError
from campaign.reading.structures import read_structure_text, read_structures
from campaign.types import Crystal

DIAMOND = CUBE | {"length_a": 5.43, "length_b": 5.43, "length_c": 5.43}
RHOMBOHEDRAL = {
    "length_a": 4.75,
    "length_b": 4.75,
    "length_c": 4.75,
    "angle_alpha": 57.2,
    "angle_beta": 57.2,
    "angle_gamma": 57.2,
}
HEXAGONAL = CUBE | {"length_a": 2.46, "length_b": 2.46, "length_c": 6.70, "angle_gamma": 120}


def one(text: str) -> Crystal:
    (crystal,) = read_structure_text(text, "here")
    return crystal


@pytest.mark.parametrize("occupancy", ["1", "1.0", ".", "?", "1.000(3)", "0.9995"])
def test_a_site_of_unknown_or_whole_occupancy_is_whole(occupancy: str) -> None:
    assert one(cif(f"Ni1 Ni 0 0 0 {occupancy}\nFe1 Fe 0.5 0.5 0.5 .")).formula == "Fe1Ni1"


@pytest.mark.parametrize(
    ("symbol", "formula"),
    [
        ("Fe3+", "Fe2"),
        ("Fe+3", "Fe2"),
        ("Fe0+", "Fe2"),
        ("D", "H2"),
        ("T", "H2"),
        ("O2-", "O2"),
        ("Mn2.5+", "Mn2"),
    ],
)
def test_charges_and_isotopes_are_their_element(symbol: str, formula: str) -> None:
    assert one(cif(f"A1 {symbol} 0 0 0 1\nA2 {symbol} 0.5 0.5 0.5 1")).formula == formula


@pytest.mark.parametrize(
    "symbol",
    ["Va", "X", "Q", "OH", "Wat", "FE", "fe", "Xx", "M", "O-H", "H2O", "Vac", "Fe/Ni", "Og2a"],
)
def test_what_is_no_element_is_refused_by_name(symbol: str) -> None:
    with pytest.raises(InputError, match=r"here, block 'x', site S1: .* is no element") as refused:
        one(cif(f"S1 {symbol} 0 0 0 1\nFe1 Fe 0.5 0.5 0.5 1"))
    assert symbol in str(refused.value)


@pytest.mark.parametrize(
    ("label", "symbol"),
    [
        ("Fe1", "Fe"),
        ("O1A", "O"),
        ("Fe(2)", "Fe"),
        ("Co", "Co"),
        ("C_1", "C"),
        ("D2", "H"),
        ("O2-", "O"),
    ],
)
def test_labels_name_the_element_where_there_is_no_type(label: str, symbol: str) -> None:
    columns = COLUMNS.replace("type_symbol ", "")
    assert one(cif(f"{label} 0 0 0 1", columns=columns)).symbols == [symbol]


@pytest.mark.parametrize("label", ["OW1", "Va1", "CO1", "Wat1", "O-H", "X1", "1"])
def test_labels_that_begin_like_an_element_are_not_guessed(label: str) -> None:
    with pytest.raises(InputError, match="is no element"):
        one(cif(f"{label} 0 0 0 1", columns=COLUMNS.replace("type_symbol ", "")))


@pytest.mark.parametrize(
    ("name", "point", "atoms", "distance"),
    [
        ("F d -3 m :1", 0, 8, 2.351),
        ("F d -3 m S", 0, 8, 2.351),
        ("Fd-3m:1", 0, 8, 2.351),
        ("F d -3 m :2", 0.125, 8, 2.351),
        ("F d -3 m Z", 0.125, 8, 2.351),
        ("F m -3 m", 0, 4, 3.840),
        ("Fm3m", 0, 4, 3.840),
    ],
)
def test_a_name_with_its_origin_gives_all_atoms(
    name: str, point: float, atoms: int, distance: float
) -> None:
    crystal = one(cif(f"Si1 Si {point} {point} {point} 1", cell=DIAMOND, symmetry=name))
    assert len(crystal) == atoms
    assert shortest_distance(crystal) == pytest.approx(distance, abs=1e-3)


@pytest.mark.parametrize(
    ("head", "atoms"),
    [
        ("_space_group_name_Hall 'F 4d 2 3 -1d'", 8),
        ("_symmetry_space_group_name_Hall '-F 4 2 3'", 4),
        ("_space_group_IT_number 225", 4),
        ("_symmetry_Int_Tables_number 221", 1),
        ("_symmetry_equiv_pos_as_xyz 'x,y,z'", 1),
        ("_space_group_symop.operation_xyz x,y,z", 1),
    ],
)
def test_a_hall_symbol_a_number_or_an_unlooped_operation_alone_is_enough(
    head: str, atoms: int
) -> None:
    cell = CUBE | {f"length_{axis}": 4.2 for axis in "abc"}
    assert len(one(cif("Si1 Si 0 0 0 1", cell=cell, symmetry="", head=head))) == atoms


@pytest.mark.parametrize(
    ("name", "cell", "atoms"),
    [("R -3 m :R", RHOMBOHEDRAL, 2), ("R -3 m", RHOMBOHEDRAL, 2), ("R -3 m R", RHOMBOHEDRAL, 2)],
)
def test_rhombohedral_axes_are_told_by_name_or_cell(
    name: str, cell: dict[str, float], atoms: int
) -> None:
    assert len(one(cif("Bi1 Bi 0.234 0.234 0.234 1", cell=cell, symmetry=name))) == atoms
    hexagonal = CUBE | {"length_a": 4.55, "length_b": 4.55, "length_c": 11.86, "angle_gamma": 120}
    assert len(one(cif("Bi1 Bi 0 0 0.234 1", cell=hexagonal, symmetry="R -3 m"))) == 6


@pytest.mark.parametrize(
    ("symmetry", "head", "told"),
    [
        ("", "", "no symmetry is given"),
        ("F d -3 m", "", "several settings"),
        ("", "_space_group_IT_number 227", "several settings"),
        ("F q -3 m", "", "no known space group"),
        ("P 63/m m c", "", "do not have the symmetry"),
        ("R -3 m :H", "", "do not have the symmetry"),
        ("F m -3 m", looped("x,y,z"), "names space group 225"),
        (
            "F m -3 m",
            looped(
                *(op.triplet() for op in gemmi.find_spacegroup_by_name("P m -3 m").operations())
            ),
            "are those of 221",
        ),
        ("", looped("x,y,z", "-x,-y,z", "x,-y,-z"), "no group"),
        ("", looped("x,y,z", "x,y,z"), "listed twice"),
        ("", looped("x,y,w"), "no symmetry operation"),
        ("", looped("2x,y,z"), "no symmetry operation"),
        ("F m -3 m", "_space_group_IT_number 227", "number is 227"),
        ("", "_space_group_IT_number 231", "no number of a space group"),
        ("P 1", "_cell_modulation_dimension 1", "modulated"),
    ],
)
def test_symmetry_that_leaves_something_to_guess_is_refused(
    symmetry: str, head: str, told: str
) -> None:
    with pytest.raises(InputError, match=rf"here, block 'x': .*{told}"):
        one(cif("Si1 Si 0 0 0 1", cell=DIAMOND, symmetry=symmetry, head=head))


def test_every_setting_of_every_group_is_a_group_of_its_number() -> None:
    from campaign.reading.symmetry import _number_of, _of_group

    for group in gemmi.spacegroup_table():
        found = _of_group(group)
        assert (
            _number_of(found.rotations.tobytes(), found.translations.tobytes(), len(found))
            == group.number
        ), group.xhm()


def test_a_point_given_to_few_digits_lies_on_its_special_position() -> None:
    for third, two_thirds in (("0.333", "0.667"), ("0.3333", "0.6667"), ("0.33", "0.67")):
        crystal = one(
            cif(
                f"C1 C 0 0 0.25 1\nC2 C {third} {two_thirds} 0.25 1",
                cell=HEXAGONAL,
                symmetry="P 63/m m c",
            )
        )
        assert len(crystal) == 4
        assert shortest_distance(crystal) == pytest.approx(1.420, abs=0.01)


@pytest.mark.parametrize(
    ("sites", "columns", "told"),
    [
        ("Ni1 Ni 0 0 0 1\nNi2 Ni 1 0 0 1", COLUMNS, "Ni1/Ni2 lie on one another"),
        ("Ni1 Ni 0 0 0 1\nFe1 Fe 0.001 0 0 1", COLUMNS, "lie on one another"),
        ("Ni1 Ni 0 0 0 0.7\nFe1 Fe 0 0 0 0.6", COLUMNS, "add up to 1.3"),
        ("Ni1 Ni 0 0 0 1.2", COLUMNS, "occupancy from 0 to 1"),
        ("Ni1 Ni 0 0 0 -0.1", COLUMNS, "occupancy from 0 to 1"),
        ("Ni1 Ni 0 0 0 0", COLUMNS, "every site is empty"),
        ("Ni1 Ni 0 0 ? 1", COLUMNS, "site Ni1: expected a number for its coordinate z"),
        ("Ni1 Ni 0 0 1/3 1", COLUMNS, "expected a number"),
        (
            "O1 O 0 0 0 2",
            COLUMNS.replace("occupancy", "attached_hydrogens"),
            "2 attached hydrogens",
        ),
        ("O1 O 0 0 0 dum", COLUMNS.replace("occupancy", "calc_flag"), "dummy site"),
        ("O1 O 0 0 0 1", COLUMNS.replace("fract", "Cartn"), "only Cartesian"),
        ("Ni1 Ni 0 0 0 0.4\nFe1 Fe 0 0 0 0.6", COLUMNS, r"disordered.*Ni 0.4 Fe 0.6"),
        ("Ni1 Ni 0 0 0 0.9", COLUMNS, r"disordered.*Ni 0.9"),
    ],
)
def test_sites_that_are_no_atom_are_refused_by_name(sites: str, columns: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        one(cif(sites, columns=columns))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("_chemical_formula_sum 'Ni1 Fe1'", ""),
        ("_chemical_formula_sum 'Fe Ni'\n_cell_formula_units_Z 1", ""),
        ("_chemical_formula_sum 'Fe0.5 Ni0.5'", ""),
        ("_chemical_formula_sum ?", ""),
        ("_chemical_formula_sum 'Ni1'", "file's own formula is Ni1"),
        ("_chemical_formula_sum 'Ni1 Fe1 H2'", "file's own formula"),
        ("_chemical_formula_sum 'Ni1 Fe2'", "file's own formula"),
        ("_chemical_formula_sum 'Ni1 Fe1'\n_cell_formula_units_Z 4", "4 units of Ni1 Fe1"),
    ],
)
def test_the_sites_make_up_the_files_own_formula(head: str, told: str) -> None:
    if told:
        with pytest.raises(InputError, match=told):
            one(cif(head=head))
    else:
        assert one(cif(head=head)).formula == "Fe1Ni1"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            {name: value for name, value in CUBE.items() if name != "length_b"},
            "the cell has no length_b",
        ),
        (CUBE | {"length_a": -2.88}, "no cell has"),
        (CUBE | {"angle_alpha": 120, "angle_beta": 120, "angle_gamma": 125}, "no cell has"),
        (CUBE | {"length_a": "long"}, "expected a number for length_a"),
        (CUBE | {"length_a": "1e999"}, "too large for length_a"),
    ],
)
def test_cells_without_volume_are_refused(cell: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        one(cif(cell=cell))


def test_every_block_is_read_and_a_papers_head_is_passed_over(tmp_path: Path) -> None:
    texts = [
        "data_global\n_publ_author_name 'A. Author'\n",
        *(cif().replace("data_x", f"data_{name}") for name in ("one", "two", "three")),
    ]
    (tmp_path / "a.cif").write_text("\n".join(texts))
    assert [entry.where.rpartition(" ")[2] for entry in read_structures(tmp_path / "a.cif")] == [
        "'one'",
        "'two'",
        "'three'",
    ]
    with pytest.raises(InputError, match="expected one crystal, found 3 blocks"):
        read_structure_text("\n".join(texts), "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "data_x\n_cell_length_a 'x",
        "data_x\nloop_\n_a\n_b\n1 2 3\n",
        "data_x\n_publ_author_name ?\n",
    ],
)
def test_what_is_no_cif_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="here"):
        read_structure_text(text, "here")


@pytest.mark.parametrize(
    "structure",
    [
        Structure(Lattice.cubic(2.88), ["Ni", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(
            Lattice.from_parameters(3.1, 4.2, 5.3, 81, 95, 102),
            ["O", "Ti", "O"],
            [[0.1, 0.2, 0.3], [0.6, 0.5, 0.55], [0.9, 0.8, 0.05]],
        ),
        Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(5.64), ["Cl", "Na"], [[0.5, 0.5, 0.5], [0, 0, 0]]
        ),
        Structure.from_spacegroup(
            194, Lattice.hexagonal(2.46, 6.70), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]
        ),
    ],
)
@pytest.mark.parametrize("precision", [None, 0.01])
def test_candidates_of_pymatgens_files_keep_their_ids(
    structure: Structure, precision: float | None
) -> None:
    text = str(CifWriter(structure, symprec=precision))
    expected = Crystal.from_structure(Structure.from_str(text, fmt="cif"))
    assert one(text).id == expected.id


@pytest.mark.parametrize(("symbol", "atoms"), [("Si", 8), ("Cu", 4), ("Fe", 2), ("Ti", 2)])
def test_what_ase_writes_is_read_as_it_is(symbol: str, atoms: int, tmp_path: Path) -> None:
    made = bulk(symbol, cubic=symbol != "Ti")
    made.write(tmp_path / "a.cif")
    (entry,) = read_structures(tmp_path / "a.cif")
    assert len(entry.crystal) == atoms
    np.testing.assert_allclose(entry.crystal.volume, made.get_volume(), rtol=1e-6)
