"""A crystal of VASP's POSCAR and CONTCAR files, read by pymatgen once the head is seen to name its
elements and count its atoms.
"""

from __future__ import annotations

from campaign.errors import InputError
from campaign.reading import elements
from campaign.reading.border import library
from campaign.types import Crystal

_SYMBOLS, _COUNTS = 5, 6


def crystal_of_poscar(text: str, where: str) -> Crystal:
    """Raises InputError on what is no POSCAR, a head without symbols (VASP 4), or another number of
    atoms than it counts.
    """
    from ase.data import chemical_symbols
    from pymatgen.io.vasp import Poscar

    lines = text.split("\n")
    if len(lines) <= _COUNTS + 1:
        raise InputError(
            f"{where}: no POSCAR: it ends after {len(lines)} lines", hint="is the file whole?"
        )
    symbols, counts = lines[_SYMBOLS].split(), lines[_COUNTS].split()
    if symbols and all(symbol.isdecimal() for symbol in symbols):
        raise InputError(
            f"{where}, line {_SYMBOLS + 1}: no symbols of elements",
            hint="add a line with them above the numbers of atoms",
        )
    if (
        not symbols
        or len(counts) != len(symbols)
        or not all(count.isdecimal() and len(count) < 8 for count in counts)
    ):
        raise InputError(
            f"{where}, lines {_SYMBOLS + 1} and {_COUNTS + 1}: expected symbols and as many "
            "numbers of atoms, "
            f"found {lines[_SYMBOLS].strip()!r} and {lines[_COUNTS].strip()!r}"
        )
    numbers = [
        elements.element(symbol.split("/")[0].split("_")[0], f"{where}, line {_SYMBOLS + 1}")
        for symbol in symbols
    ]
    n = sum(map(int, counts))
    first = _COUNTS + 2 + lines[_COUNTS + 1].strip().lower().startswith("s")
    rows = [line for line in lines[first : first + n] if line.strip()]
    if not n or len(rows) < n:
        raise InputError(
            f"{where}: {n} atoms are counted, {len(rows)} have coordinates",
            hint="is the file whole?",
        )
    following = lines[first + n].split() if len(lines) > first + n else []
    if len(following) > 2 and all(_is_number(word) for word in following[:3]):
        raise InputError(
            f"{where}, line {first + n + 1}: more coordinates than the {n} atoms that are counted"
        )
    head = ["POSCAR", *lines[1:_SYMBOLS], " ".join(chemical_symbols[number] for number in numbers)]
    with library(where):
        structure = Poscar.from_str("\n".join([*head, *lines[_COUNTS : first + n]])).structure
    return Crystal.from_structure(structure)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
