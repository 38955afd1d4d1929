"""Files of structures as accidents make them: whole ones with bytes, words and lines changed, lost,
doubled or cut off.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["flip", "drop", "double", "swap", "cut", "replace", "insert", "remove", "digit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS: tuple[str, ...] = (
    "?",
    ".",
    "",
    "nan",
    "-inf",
    "1e400",
    "-1",
    "0",
    "1/3",
    "0,5",
    "99999999999",
    "1e-9",
    "Va",
    "X",
    "D",
    "Fe3+",
    "loop_",
    "data_",
    "'",
    '"',
)
WORDS += (
    ";",
    "#",
    "T",
    "F",
    "\x00",
    "é",
    "_cell_length_a",
    "x,y,z",
    "{",
    "\\",
    "Lattice=",
    "Selective",
    "3",
    "\t",
)

_CELL = "\n".join(
    f"_cell_{name} {value}"
    for name, value in zip(
        ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"),
        (4.2, 4.2, 4.2, 90, 90, 90),
        strict=True,
    )
)
_LOOP = "loop_\n" + "\n".join(
    f"_atom_site_{name}"
    for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
)
WHOLE: dict[str, str] = {
    "name.cif": f"data_rocksalt\n{_CELL}\n_space_group_name_H-M_alt 'F m -3 "
    "m'\n_chemical_formula_sum 'Mg4 O4'\n"
    f"{_LOOP}\nMg1 Mg 0 0 0 1\nO1 O 0.5 0.5 0.5 1\n",
    "operations.cif": f"data_one\n{_CELL}\nloop_\n_space_group_symop_operation_xyz\n'x, y, "
    "z'\n'-x, -y, z'\n'-x, y, -z'\n'x, -y, -z'\n"
    f"{_LOOP}\nNi1 Ni2+ 0 0 0 1.0\nO1 O2- 0.5 0.5 0.5 "
    f"?\n\ndata_two\n{_CELL}\n_space_group_IT_number 221\n{_LOOP}\nFe1 Fe 0 0 0 .\n",
    "disorder.cif": f"data_x\n{_CELL}\n_space_group_name_Hall '-P 4 2 3'\n{_LOOP}\nM1 Cu 0 0 0 "
    "0.5\nM1 Au 0 0 0 0.5\nO1 O 0.5 0.5 0.5 1\n",
    "POSCAR": "made here\n1.0\n2.88 0.0 0.0\n0.0 2.88 0.0\n0.0 0.0 2.88\nNi Fe\n1 "
    "1\nDirect\n0.0 0.0 0.0\n0.5 0.5 0.5\n",
    "selective.vasp": "x\n-47.8\n2.0 0 0\n0 1 0\n0 0 1\nNi Fe\n2 2\nSelective "
    "dynamics\nCartesian\n0 0 0 T T F\n2.88 0 0 T T T\n"
    "1.44 1.44 1.44 F F F\n4.32 1.44 1.44 T T T\n\n0 0 0\n0 0 0\n0 0 0\n0 0 0\n",
    "frames.extxyz": '2\nLattice="2.88 0 0 0 2.88 0 0 0 2.88" '
    'Properties=species:S:1:pos:R:3:forces:R:3 energy=-9.0 pbc="T T T"\n'
    'Ni 0 0 0 0.1 0 0\nFe 1.44 1.44 1.44 -0.1 0 0\n1\nLattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0" '
    'Properties=species:S:1:pos:R:3 name="a b"\n'
    "Ni 0 0 0\n",
    "numbers.xyz": '1\nLattice="2.5 0 0 0 2.5 0 0 0 2.5" Properties=Z:I:1:pos:R:3 stress="0 0 '
    '0 0 0 0 0 0 0"\n26 0 0 0\n',
}


@dataclass(frozen=True)
class Mutation:
    """``place``: where in the file, from 0 to 1; ``byte`` and ``word`` are what stands there
    afterwards.
    """

    kind: Kind
    place: float
    byte: int = 0
    word: str = ""


def mutated(data: bytes, mutation: Mutation) -> bytes:
    if mutation.kind in ("flip", "cut"):
        at = int(mutation.place * len(data))
        return data[:at] + (
            bytes([mutation.byte]) + data[at + 1 :] if mutation.kind == "flip" else b""
        )
    if mutation.kind == "digit":
        places = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
        at = places[int(mutation.place * len(places))] if places else 0
        return data[:at] + b"%d" % (mutation.byte % 10) + data[at + 1 :]
    if mutation.kind in ("replace", "insert", "remove"):
        return _with_word(data, mutation)
    lines = data.split(b"\n")
    row = int(mutation.place * len(lines))
    if mutation.kind == "drop":
        del lines[row]
    elif mutation.kind == "double":
        lines.insert(row, lines[row])
    else:
        lines[row], lines[row - 1] = lines[row - 1], lines[row]
    return b"\n".join(lines)


def _with_word(data: bytes, mutation: Mutation) -> bytes:
    words = data.split(b" ")
    at = int(mutation.place * len(words))
    before, _, after = words[at].rpartition(b"\n")
    new = {
        "replace": mutation.word.encode(),
        "insert": mutation.word.encode() + b" " + after,
        "remove": b"",
    }[mutation.kind]
    words[at] = before + b"\n" * bool(before) + new
    return b" ".join(words)


def drawn(random_stream: random.Random) -> tuple[str, bytes]:
    """A name and the bytes of one mutated file."""
    name = random_stream.choice(tuple(WHOLE))
    data = WHOLE[name].encode()
    for _ in range(random_stream.choice((1, 1, 1, 2, 3, 6))):
        kind = random_stream.choice(KINDS)
        data = mutated(
            data,
            Mutation(
                kind,
                random_stream.random(),
                random_stream.randrange(256),
                random_stream.choice(WORDS),
            ),
        )
    return name, data
