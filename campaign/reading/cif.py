"""Crystals of CIF files: every block, each site and operation as the file means it, checked against
the file's own formula.

The grammar is gemmi's (M. Wojdyr, J. Open Source Softw. 7 (2022) 4200). Where the file leaves
something to guess (no symmetry, no position, a symbol that is no element, hydrogens without sites,
a formula of other atoms) the block is refused by name. Order and digits of what is read are
pymatgen's: by electronegativity, then as listed.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from campaign.errors import InputError
from campaign.reading import elements
from campaign.reading.sites import WHOLE, Sites
from campaign.reading.symmetry import Named, Operations, operations
from campaign.types import FloatArray

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?(?:\(\d+\))?")
_SAME_FRACTION = 1e-4
_SAME_PLACE = 0.05
_LARGEST = 1e6
_AXES = ("x", "y", "z")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NAMES = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m",
)
_HALLS = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_MODULATED = ("_cell_modulation_dimension", "_space_group_ssg_name")
_MAGNETIC = "_space_group_symop_magn_operation_xyz"

Tags = Mapping[str, Sequence[str]]


def blocks(text: str, where: str) -> Iterator[tuple[str, Callable[[], Sites]]]:
    """Each block with a structure: where it stands, and what reads it. A paper's head has neither
    and is passed over.

    Raises InputError where the text is no CIF, or no block holds a structure.
    """
    import gemmi

    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{where}: no CIF: {error}",
            hint="is the file whole? check the place that is named, or write it anew",
        ) from error
    n = 0
    for block in document:
        tags = _tags(block)
        if any(tag.startswith(("_cell_length", "_atom_site_")) for tag in tags):
            n += 1
            place = f"{where}, block {block.name!r}" if len(document) > 1 or block.name else where
            yield place, lambda tags=tags, place=place: _sites(tags, place)  # type: ignore[misc]
    if not n:
        raise InputError(
            f"{where}: no block holds a structure: there is neither a cell nor an atom",
            hint="is the file whole?",
        )


def _tags(block: object) -> dict[str, list[str]]:
    """Values by tag, in lower case and with underscores alone; unknown (?) and inapplicable (.)
    values are empty.
    """
    from gemmi import cif

    def value(raw: str) -> str:
        return "" if cif.is_null(raw) else cif.as_string(raw).strip()

    found: dict[str, list[str]] = {}
    for item in block:  # type: ignore[attr-defined]
        if item.pair is not None:
            tag, raw = item.pair
            found.setdefault(tag.lower().replace(".", "_"), [value(raw)])
        elif item.loop is not None:
            width = item.loop.width()
            values = [value(raw) for raw in item.loop.values]
            for column, tag in enumerate(item.loop.tags):
                found.setdefault(tag.lower().replace(".", "_"), values[column::width])
    return found


def _sites(tags: Tags, where: str) -> Sites:
    for tag in _MODULATED:
        if _first(tags, (tag,)):
            raise InputError(
                f"{where}: a modulated structure ({tag})",
                hint="give an approximant in three dimensions",
            )
    lattice = _lattice(tags, where)
    found = _operations(tags, lattice, where)
    rows = _rows(tags, where)
    sites = _expanded(rows, found, lattice, where)
    _check_formula(sites, tags, where)
    return sites


def _first(tags: Tags, names: Sequence[str]) -> str:
    return next((values[0] for name in names if (values := tags.get(name)) and values[0]), "")


def _number(text: str, where: str, what: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{where}: expected a number for {what}, found {text or '? or .'!r}")
    value = float(text.partition("(")[0])
    if abs(value) > _LARGEST:
        raise InputError(f"{where}: {text} is too large for {what}")
    return value


def _lattice(tags: Tags, where: str) -> FloatArray:
    from pymatgen.core import Lattice

    missing = [name for name in _CELL if not _first(tags, (f"_cell_{name}",))]
    if missing:
        raise InputError(
            f"{where}: the cell has no {missing[0]}", hint="give all lengths and angles of the cell"
        )
    a, b, c, *angles = (_number(_first(tags, (f"_cell_{name}",)), where, name) for name in _CELL)
    cosines = [math.cos(math.radians(angle)) for angle in angles]
    square = 1 - sum(cosine**2 for cosine in cosines) + 2 * math.prod(cosines)
    if not (
        min(a, b, c) > 0
        and max(a, b, c) < 1e4
        and all(0 < angle < 180 for angle in angles)
        and square > 1e-6
    ):
        raise InputError(
            f"{where}: no cell has the lengths {a:g}, {b:g}, {c:g} angstrom and the angles "
            f"{', '.join(f'{x:g}' for x in angles)}"
        )
    return np.asarray(Lattice.from_parameters(a, b, c, *angles).matrix, dtype=float)


def _operations(tags: Tags, lattice: FloatArray, where: str) -> Operations:
    listed = next(
        (
            values
            for name in _OPERATIONS
            if (values := [value for value in tags.get(name, ()) if value])
        ),
        [],
    )
    number = _first(tags, _NUMBERS)
    if number and not number.isdecimal():
        raise InputError(f"{where}: expected a space group's number, found {number!r}")
    named = Named(_first(tags, _HALLS), _first(tags, _NAMES), int(number[:6] or 0))
    if not listed and named == Named() and _MAGNETIC in tags:
        raise InputError(
            f"{where}: a magnetic CIF without the operations of its crystal",
            hint="give the crystal without moments",
        )
    return operations(listed, named, lattice, where)


@dataclass(frozen=True)
class _Row:
    label: str
    number: int
    occupancy: float
    fractional: FloatArray


def _rows(tags: Tags, where: str) -> list[_Row]:
    columns = [tags.get(f"_atom_site_fract_{axis}", ()) for axis in _AXES]
    n = len(columns[0])
    if not n or any(len(column) != n for column in columns):
        cartesian = "_atom_site_cartn_x" in tags
        reason = (
            "only Cartesian coordinates are given"
            if cartesian
            else "there are no atoms with fractional coordinates"
        )
        raise InputError(f"{where}: {reason}", hint="give _atom_site_fract_x, _y and _z")
    labels = _column(tags, "label", n) or [f"{row}" for row in range(1, n + 1)]
    types, shares = _column(tags, "type_symbol", n), _column(tags, "occupancy", n)
    hydrogens, flags = _column(tags, "attached_hydrogens", n), _column(tags, "calc_flag", n)
    found = []
    for row in range(n):
        place = f"{where}, site {labels[row]}"
        if hydrogens and hydrogens[row] not in ("", "0"):
            raise InputError(
                f"{place}: {hydrogens[row]} attached hydrogens have no sites",
                hint="give each hydrogen a site of its own",
            )
        if flags and flags[row].lower() == "dum":
            raise InputError(f"{place}: a dummy site", hint="leave the site out")
        is_typed = bool(types and types[row])
        number = (
            elements.element_of_type(types[row], place)
            if is_typed
            else elements.element_of_label(labels[row], place)
        )
        occupancy = _number(shares[row], place, "its occupancy") if shares and shares[row] else 1.0
        if not -WHOLE < occupancy < 1 + WHOLE:
            raise InputError(f"{place}: expected an occupancy from 0 to 1, found {shares[row]}")
        point = [
            _number(column[row], place, f"its coordinate {axis}")
            for axis, column in zip(_AXES, columns, strict=True)
        ]
        if occupancy > WHOLE:
            found.append(
                _Row(labels[row], number, occupancy, np.array([_ideal(value) for value in point]))
            )
    if not found:
        raise InputError(f"{where}: every site is empty: all occupancies are 0")
    return found


def _column(tags: Tags, name: str, n: int) -> Sequence[str]:
    found = tags.get(f"_atom_site_{name}", ())
    return found if len(found) == n else ()


def _ideal(value: float) -> float:
    """Thirds that are rounded to four digits, whole again."""
    return next(
        (third for third in (1 / 3, 2 / 3) if abs(value / third - 1) <= _SAME_FRACTION), value
    )


def _expanded(rows: Sequence[_Row], found: Operations, lattice: FloatArray, where: str) -> Sites:
    """All sites of the cell. Rows at one place share it; raises InputError where it would hold more
    than one atom.
    """
    orbits: list[tuple[FloatArray, list[_Row]]] = []
    for row in rows:
        known = next(
            (rows for points, rows in orbits if _near(points, row.fractional, lattice).any()), None
        )
        if known is None:
            orbits.append((_orbit(row.fractional, found, lattice), [row]))
        else:
            known.append(row)
    expanded = []
    for points, rows_here in orbits:
        share: dict[int, float] = {}
        for row in rows_here:
            share[row.number] = share.get(row.number, 0.0) + row.occupancy
        labels = "/".join(row.label for row in rows_here)
        if sum(share.values()) > 1 + 2 * WHOLE:
            raise InputError(
                f"{where}: the sites {labels} lie on one another, with occupancies that add up "
                f"to {sum(share.values()):g}",
                hint="leave one of them out, or correct the occupancies",
            )
        expanded += [(share, point, labels) for point in points]
    expanded.sort(key=lambda site: _electronegativity(site[0]))
    shares, places, labels_of = zip(*expanded, strict=True)
    return Sites(lattice, np.array(places), shares, labels_of)


def _near(points: FloatArray, point: FloatArray, lattice: FloatArray) -> NDArray[np.bool_]:
    difference = points - point
    difference -= np.round(difference)
    return np.asarray(np.linalg.norm(difference @ lattice, axis=-1) < _SAME_PLACE)


def _orbit(point: FloatArray, found: Operations, lattice: FloatArray) -> FloatArray:
    """(m, 3) distinct images. A point that an operation moves by less than rounding is first put
    where that operation keeps it.
    """
    images = found.rotations @ point + found.translations
    keeping = _near(images, point, lattice)
    shift = images[keeping] - point
    shift -= np.round(shift)
    if np.abs(shift).max() > _SAME_FRACTION:
        point = point + shift.mean(0)
        images = found.rotations @ point + found.translations
    images = images - np.floor(images)
    kept: list[FloatArray] = []
    for image in images:
        if not kept or not _near(np.array(kept), image, lattice).any():
            kept.append(image)
    return np.array(kept)


def _electronegativity(share: Mapping[int, float]) -> tuple[float, str]:
    pairs = [_of_element(number) for number in share]
    total = sum(share.values())
    return sum(
        value * part for (value, _), part in zip(pairs, share.values(), strict=True)
    ) / total, "".join(name for _, name in pairs)


@cache
def _of_element(number: int) -> tuple[float, str]:
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Element.from_Z(number)
        value = float(found.X)
    return (value if math.isfinite(value) else 10.0), str(found.symbol)


def _check_formula(sites: Sites, tags: Tags, where: str) -> None:
    """That the sites make up the formula, and as many of its units as the file says."""
    text = _first(tags, ("_chemical_formula_sum",))
    wanted = elements.formula(text, where) if text else None
    if wanted is None:
        return
    counts: dict[int, float] = {}
    for share in sites.shares:
        for number, value in share.items():
            counts[number] = counts.get(number, 0.0) + value
    is_exact = not sites.disordered and all(value == round(value) for value in wanted.values())
    total, whole = sum(counts.values()), sum(wanted.values())
    tolerance = 1e-9 if is_exact else 0.02
    if any(
        abs(counts.get(number, 0) / total - wanted.get(number, 0) / whole) > tolerance
        for number in counts | wanted
    ):
        raise InputError(
            f"{where}: the sites make up {_written(counts)}, the file's own formula is {text}",
            hint="a site is missing, doubled or of another element; correct the file, or its "
            "formula",
        )
    units = _first(tags, ("_cell_formula_units_z",))
    if not (is_exact and units.isdecimal() and len(units) < 6 and int(units)):
        return
    structural = elements.formula(_first(tags, ("_chemical_formula_structural",)), where) or {}
    reduced = whole / math.gcd(*(int(value) for value in wanted.values()))
    if not any(
        math.isclose(total, int(units) * size)
        for size in (whole, reduced, sum(structural.values()))
    ):
        raise InputError(
            f"{where}: the cell holds {total:g} atoms, but {units} units of {text} are "
            f"{int(units) * whole:g}",
            hint="symmetry operations may be missing; correct them, or _cell_formula_units_Z",
        )


def _written(counts: Mapping[int, float]) -> str:
    from ase.data import chemical_symbols

    return " ".join(
        f"{chemical_symbols[number]}{value:g}" for number, value in sorted(counts.items())
    )
