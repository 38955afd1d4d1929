"""Texts of small structure files, written for these tests."""

from __future__ import annotations

CUBE = {
    "length_a": 2.88,
    "length_b": 2.88,
    "length_c": 2.88,
    "angle_alpha": 90,
    "angle_beta": 90,
    "angle_gamma": 90,
}
B2 = "Ni1 Ni 0 0 0 1\nFe1 Fe 0.5 0.5 0.5 1"
COLUMNS = "label type_symbol fract_x fract_y fract_z occupancy"


def cif(
    sites: str = B2,
    *,
    cell: dict[str, float] | None = None,
    symmetry: str = "P 1",
    head: str = "",
    columns: str = COLUMNS,
) -> str:
    """A CIF of one block. ``symmetry``: a Hermann-Mauguin name, none where empty; ``head``: further
    lines.
    """
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in (cell or CUBE).items())]
    lines += [f"_space_group_name_H-M_alt '{symmetry}'"] if symmetry else []
    lines += [head, "loop_", *(f"_atom_site_{name}" for name in columns.split()), sites, ""]
    return "\n".join(line for line in lines if line) + "\n"


def looped(*operations: str) -> str:
    return "\n".join(
        [
            "loop_",
            "_space_group_symop_operation_xyz",
            *(f"'{operation}'" for operation in operations),
        ]
    )


POSCAR = """made here
1.0
2.88 0 0
0 2.88 0
0 0 2.88
Ni Fe
1 1
Direct
0 0 0
0.5 0.5 0.5
"""
FRAME = """2
Lattice="2.88 0 0 0 2.88 0 0 0 2.88" Properties=species:S:1:pos:R:3 pbc="T T T" energy=-9.0
Ni 0 0 0
Fe 1.44 1.44 1.44
"""
