"""Frames of xyz and extended xyz files, cut apart by their counts and read by ASE once their
symbols are seen to be elements.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from campaign.errors import InputError
from campaign.reading import elements

if TYPE_CHECKING:
    from ase import Atoms

_PROPERTIES = re.compile(r"(?:^|\s)Properties\s*=\s*\"?([^\s\"]+)", re.IGNORECASE)


def frames(text: str, where: str) -> Iterator[tuple[str, list[str]]]:
    """Lines of each frame, and where it stands. Raises InputError where a count or atoms are
    missing: the rest cannot be told.
    """
    lines = text.split("\n")
    start, n_frame = 0, 0
    while True:
        while start < len(lines) and not lines[start].strip():
            start += 1
        if start == len(lines):
            return
        n_frame += 1
        place = f"{where}, structure {n_frame} (line {start + 1})"
        count = lines[start].strip()
        if not count.isdecimal() or len(count) > 8 or not int(count):
            raise InputError(
                f"{place}: expected a number of atoms, found {count[:40]!r}",
                hint="is a line lost, or one too many?",
            )
        end = start + 2 + int(count)
        atoms = [line for line in lines[start + 2 : end] if line.strip()]
        if len(atoms) < int(count):
            raise InputError(
                f"{place}: {count} atoms are counted, {len(atoms)} are there",
                hint="is the file whole?",
            )
        yield place, lines[start:end]
        start = end


def atoms_of_frame(lines: list[str], where: str) -> Atoms:
    """Raises InputError on symbols that are no elements, and rows of another width than the frame's
    properties.
    """
    from ase.data import chemical_symbols
    from ase.io import read

    column, width = _columns(lines[1], where)
    rows = []
    for row, line in enumerate(lines[2:], start=1):
        words = line.split()
        if len(words) != width if width else len(words) < 4:
            raise InputError(
                f"{where}, atom {row}: expected {width or 'at least 4'} columns, found {len(words)}"
            )
        if column is not None:
            words[column] = chemical_symbols[
                elements.element(words[column], f"{where}, atom {row}")
            ]
        rows.append(" ".join(words))
    found = read(io.StringIO("\n".join([*lines[:2], *rows, ""])), index=0, format="extxyz")
    if len(found) != len(rows):
        raise InputError(f"{where}: {len(rows)} atoms are given, {len(found)} were read")
    return found


def _columns(comment: str, where: str) -> tuple[int | None, int | None]:
    """Where the symbols stand and how many columns a row has; no symbols where atomic numbers are
    given.
    """
    found = _PROPERTIES.search(comment)
    if found is None:
        return 0, None
    parts = found[1].split(":")
    names, widths = parts[::3], parts[2::3]
    if len(parts) % 3 or not all(width.isdecimal() and len(width) < 6 for width in widths):
        raise InputError(
            f"{where}: Properties={found[1]} is not name:type:columns, again and again"
        )
    begins = [sum(int(width) for width in widths[:i]) for i in range(len(widths))]
    symbols = next(
        (begins[i] for i, name in enumerate(names) if name.lower() in ("species", "symbols")), None
    )
    return symbols, sum(int(width) for width in widths)
