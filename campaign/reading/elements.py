"""Symbols of elements as files write them: exactly those of the periodic table, in its spelling.

Deuterium and tritium (D, T) are read as hydrogen: energies and forces of a crystal do not know the
isotope, its density does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from campaign.errors import InputError
from campaign.types import HEAVIEST

_ISOTOPES = {"D": "H", "T": "H"}
_CHARGE = r"(?:[\d.]*[+-]|[+-]\d*|\d+)?"
_SITE_TYPE = re.compile(rf"([A-Za-z]+){_CHARGE}")
_LABEL = re.compile(r"([A-Za-z]+)(?:$|[\d_'\"*(.+].*|[+-]\d*)", re.DOTALL)
_PART = re.compile(r"([A-Z][a-z]*)\s*(\d+(?:\.\d*)?|\.\d+)?\s*")


@cache
def _numbers() -> Mapping[str, int]:
    from ase.data import chemical_symbols

    return {
        symbol: number for number, symbol in enumerate(chemical_symbols[: HEAVIEST + 1]) if number
    }


def element(symbol: str, where: str) -> int:
    """The atomic number. Raises InputError on anything but an element's symbol in its own
    spelling.
    """
    known = _numbers()
    name = _ISOTOPES.get(symbol, symbol)
    if name in known:
        return known[name]
    meant = (
        f", such as {symbol.capitalize()}"
        if symbol.capitalize() in known and len(symbol) < 3
        else ""
    )
    raise InputError(
        f"{where}: {symbol!r} is no element",
        hint=f"write symbols as the periodic table does{meant}; leave vacancies (Va) and "
        "dummies (X) out; give each hydrogen a site",
    )


def element_of_type(text: str, where: str) -> int:
    """Of a type symbol such as Fe, Fe3+ or O2-."""
    found = _SITE_TYPE.fullmatch(text)
    return element(found[1] if found else text, where)


def element_of_label(text: str, where: str) -> int:
    """Of a site's label such as Fe1, O1A or Fe(2), where the file names no type."""
    found = _LABEL.fullmatch(text)
    return element(found[1] if found else text, where)


def formula(text: str, where: str) -> dict[int, float] | None:
    """Atomic numbers and amounts of a formula such as ``Fe2 O3``; None where it is written in
    another way, or has an unknown amount.
    """
    amounts: dict[int, float] = {}
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return None
        number = element(part[1], f"{where}, formula {text!r}")
        amounts[number] = amounts.get(number, 0.0) + float(part[2] or 1)
        position = part.end()
    return amounts or None
