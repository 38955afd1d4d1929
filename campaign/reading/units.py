"""Units as people write them: read strictly, converted by dimension, refused by name.

A unit is a product of powers of the names below, such as ``eV/A^3`` or ``g/cm^3``. What an energy
or a volume is divided by, an atom or the cell, is no dimension but a matter of the crystal:
``split`` takes it off. Values of the names come from ASE's table (CODATA).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from campaign.errors import InputError

Dimension = tuple[int, int, int, int]
"""Powers of energy, length, mass and temperature."""

_ENERGY, _LENGTH, _MASS, _TEMPERATURE, _NONE = (
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (0, 0, 0, 0),
)
_PRESSURE, _FORCE = (1, -3, 0, 0), (1, -1, 0, 0)
_EXAMPLES: Final = {
    _ENERGY: "eV, meV, Ry, Ha, J, kJ/mol, kcal/mol",
    _LENGTH: "A, angstrom, nm, pm, bohr",
    _PRESSURE: "GPa, MPa, Pa, kbar, bar, eV/A^3, Ry/bohr^3, Ha/bohr^3",
    _FORCE: "eV/A, meV/A, Ry/bohr, Ha/bohr, nN",
    (0, 3, 0, 0): "A^3, nm^3, bohr^3, cm^3",
    (0, -3, 1, 0): "g/cm^3, kg/m^3, u/A^3",
    _NONE: "1, %",
    _TEMPERATURE: "K",
}
_WHAT = r"atom|at\.|cell|unit cell|f\.?u\.?|formula unit|formula|molecule|ion"
_PER = re.compile(rf"\s*(?:/|\bper\b|·|\*)?\s*\(?(?P<what>{_WHAT})s?(?P<power>\s*\^?-1)?\)?$", re.I)
_FACTOR = re.compile(
    r"(?P<sign>[/*·]?)\s*(?P<name>[A-Za-z%µ°]+|1)\s*(?:\^|\*\*)?\s*(?P<power>[-+]?\d+)?\s*"
)
_SPELLINGS = {
    "Å": "angstrom",
    "\u212b": "angstrom",
    "⁻": "-",
    "¹": "1",
    "²": "2",
    "³": "3",
    "\u2212": "-",
    "\u03bc": "µ",
}


@cache
def _names() -> dict[str, tuple[float, Dimension]]:
    """Value in ASE's units (eV, angstrom, atomic mass unit, K) and dimension of each name."""
    from ase import units

    found: dict[str, tuple[float, Dimension]] = {
        "1": (1.0, _NONE),
        "%": (0.01, _NONE),
        "K": (1.0, _TEMPERATURE),
    }
    found |= {
        name: (units.eV * factor, _ENERGY)
        for name, factor in (("eV", 1), ("meV", 1e-3), ("keV", 1e3))
    }
    found |= {
        name: (units.J * factor, _ENERGY)
        for name, factor in (("J", 1), ("kJ", 1e3), ("cal", 4.184), ("kcal", 4184))
    }
    found |= dict.fromkeys(("Ha", "hartree", "Hartree", "Eh"), (units.Ha, _ENERGY)) | {
        "mHa": (1e-3 * units.Ha, _ENERGY)
    }
    found |= dict.fromkeys(("Ry", "rydberg", "Rydberg"), (units.Ry, _ENERGY)) | {
        "mRy": (1e-3 * units.Ry, _ENERGY)
    }
    found |= dict.fromkeys(
        ("A", "Ang", "ang", "angstrom", "Angstrom", "angstroms"), (units.Ang, _LENGTH)
    )
    found |= {
        name: (units.m * factor, _LENGTH)
        for name, factor in (("m", 1), ("cm", 1e-2), ("mm", 1e-3), ("nm", 1e-9), ("pm", 1e-12))
    }
    found |= dict.fromkeys(("µm", "um"), (1e-6 * units.m, _LENGTH)) | dict.fromkeys(
        ("bohr", "Bohr"), (units.Bohr, _LENGTH)
    )
    pascals = (
        ("Pa", 1),
        ("kPa", 1e3),
        ("MPa", 1e6),
        ("GPa", 1e9),
        ("TPa", 1e12),
        ("bar", 1e5),
        ("kbar", 1e8),
        ("Mbar", 1e11),
    )
    found |= {
        name: (units.Pascal * factor, _PRESSURE) for name, factor in (*pascals, ("atm", 101325))
    }
    found |= {
        name: (units.J / units.m * factor, _FORCE)
        for name, factor in (("N", 1), ("mN", 1e-3), ("nN", 1e-9))
    }
    found |= {
        "g": (1e-3 * units.kg, _MASS),
        "kg": (units.kg, _MASS),
        "mg": (1e-6 * units.kg, _MASS),
        "u": (1.0, _MASS),
        "amu": (1.0, _MASS),
    }
    return found | {"mol": (units.mol, _NONE)}


def split(unit: str) -> tuple[str, str]:
    """A unit without what it is divided by, and that: ``atom``, ``cell`` or nothing. ``kJ/mol``
    keeps its mole.

    Raises InputError for formula units, molecules and ions: how many of them a crystal holds is not
    known.
    """
    text = unit.strip()
    found = _PER.search(text)
    if found is None or (
        not found["power"] and not re.match(r"\s*(?:/|per\b)", found.group(0), re.I)
    ):
        return text, ""
    what = found["what"].lower().rstrip(".")
    if what not in ("atom", "at", "cell", "unit cell"):
        raise InputError(
            f"the unit {unit!r} is per {found['what']}", hint="give values per atom or per cell"
        )
    return text[: found.start()].strip() or "1", "atom" if what in ("atom", "at") else "cell"


def _value(unit: str) -> tuple[float, Dimension] | None:
    """Value in ASE's units and dimension of a unit; None where it holds a name that is not
    known.
    """
    text = unit.strip()
    for spelling, name in _SPELLINGS.items():
        text = text.replace(spelling, name)
    value, dimension, place = 1.0, [0, 0, 0, 0], 0
    if not text:
        return None
    while place < len(text):
        found = _FACTOR.match(text, place)
        known = _names().get(found["name"]) if found is not None else None
        if found is None or known is None:
            return None
        power = int(found["power"] or 1) * (-1 if found["sign"] == "/" else 1)
        value *= known[0] ** power
        dimension = [own + power * other for own, other in zip(dimension, known[1], strict=True)]
        place = found.end()
    return value, (dimension[0], dimension[1], dimension[2], dimension[3])


def is_unit(text: str) -> bool:
    """Whether a text is a unit that can be converted."""
    try:
        return _value(split(text)[0]) is not None
    except InputError:
        return True


def factor(unit: str, wanted: str) -> float:
    """What a value in ``unit`` is multiplied by to be in ``wanted``, both without what they are
    divided by.

    Raises InputError where one is not known or they measure different things; the units that can be
    converted are listed.
    """
    if unit.strip() == wanted.strip():
        return 1.0
    one, other = _value(unit), _value(wanted)
    if one is not None and other is not None and one[1] == other[1]:
        return one[0] / other[0]
    known = _EXAMPLES.get(other[1], "") if other is not None else ""
    raise InputError(
        f"the unit {unit!r} {'is not known' if one is None else f'cannot become {wanted}'}",
        hint=f"expected {wanted}"
        + (
            f", or what can be converted to it: {known}"
            if known
            else "; other units cannot be converted to it"
        ),
    )


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, not more than a line of them."""
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
