"""The one door for tables: text decoded once, rows read strictly, numbers that are numbers, and
columns with units.

Everything that is doubtful is an InputError that names file, row and column: a number with a comma,
a surplus or missing field, a column that is there twice, a value that is not finite, a unit that
cannot be converted. Rows are counted from 1 below the header.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.errors import InputError
from campaign.reading import units
from campaign.reading.text import unpacked
from campaign.types import Quantity

TOTALS = ("energy", "free_energy", "REF_energy")
"""Keys of extxyz files and ASE databases that hold, by convention, the energy of the whole cell in
eV.
"""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_HEADER = re.compile(r"(?P<name>.*\S)\s*(?:\((?P<round>[^()]*)\)|\[(?P<square>[^\[\]]*)\])")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_MOST_PROBLEMS = 10


class Problems:
    """What is wrong with a file, gathered, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[InputError] = []

    def add(self, error: InputError) -> None:
        self.found.append(error)

    def check(self) -> None:
        """Raises InputError with the first of what was found, if anything was."""
        if self.found:
            lines = [error.message for error in self.found[:_MOST_PROBLEMS]]
            if len(self.found) > _MOST_PROBLEMS:
                lines.append(f"and {len(self.found) - _MOST_PROBLEMS} more")
            raise InputError(
                "\n".join(lines), hint=next((error.hint for error in self.found if error.hint), "")
            )


@dataclass(frozen=True)
class Row:
    """A row with its number from 1 below the header, and its cells by column."""

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table of text: its columns in order and its rows."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    separator: str = ","

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark, or Windows' Latin alphabet; .gz, .bz2 and
    .xz are unpacked.

    Raises InputError for anything else.
    """
    data = unpacked(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    for name in dict.fromkeys((encoding, "cp1252")):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise InputError(f"{path} is no text", hint="save it as UTF-8")


def read_table(path: Path) -> Table:
    """A table whose fields are separated by commas, or by semicolons or tabs where its header shows
    no other of these.

    Raises InputError for columns that are there twice, fields that are too many or too few, and
    quotes that do not close.
    """
    text = text_of(path)
    header_text = next((line for line in text.splitlines() if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", header_text)
    separators = [sign for sign in _SEPARATORS if sign in outside] or [","]
    if len(separators) > 1:
        names = " and ".join(_SEPARATORS[sign] for sign in separators)
        raise InputError(
            f"{path}: its header holds {names}: what separates the columns?",
            hint="save it with commas, names that hold commas in quotes",
        )
    csv.field_size_limit(2**31 - 1)
    try:
        lines = [
            line
            for line in csv.reader(
                io.StringIO(text, newline=""), delimiter=separators[0], strict=True
            )
            if line
        ]
    except csv.Error as error:
        raise InputError(
            f"{path} is no table: {error}", hint="each quote that opens a field has to close it"
        ) from error
    if not lines:
        raise InputError(
            f"{path} is empty", hint="the first row of a table holds the names of its columns"
        )
    header = tuple(name.strip() for name in lines[0])
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise InputError(
            f"{path}: there are {header.count(doubled[0])} columns {doubled[0]!r}",
            hint="give each column a name of its own",
        )
    rows, problems = [], Problems()
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header) and any(cell.strip() for cell in line):
            wrong = f"{path}, row {number}: {len(line)} fields, but the header has {len(header)}"
            problems.add(
                InputError(
                    wrong,
                    hint="a field that holds a separator belongs in quotes; decimals are "
                    "written with a point",
                )
            )
        rows.append(Row(number, dict(zip(header, line, strict=False))))
    problems.check()
    rows = [row for row in rows if any(cell.strip() for cell in row.cells.values())]
    return Table(path, header, tuple(rows), separators[0])


def number(value: object, where: str) -> float:
    """A finite number from a cell or a value of a file. Raises InputError, which begins with
    ``where``, for everything else.
    """
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text) or text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            found = float(text)
        else:
            is_comma = re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text) is not None
            raise InputError(
                f"{where}: expected a number, found {value!r}",
                hint="write decimals with a point" if is_comma else "write it like -4.31 or 1.2e-3",
            )
    else:
        shape = getattr(value, "shape", ())
        if (
            shape not in ((), (1,))
            or isinstance(value, list | tuple | dict | bool)
            or type(value).__name__ in ("bool_", "bool")
        ):
            what = f"an array of shape {tuple(shape)}" if shape else repr(value)
            raise InputError(
                f"{where}: expected one number, found {what}", hint="write it like -4.31 or 1.2e-3"
            )
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where}: expected a number, found {value!r}", hint="write it like -4.31 or 1.2e-3"
            ) from error
    if not math.isfinite(found):
        raise InputError(
            f"{where}: {found} is no value",
            hint="leave the cell empty, or the row out, where nothing was measured",
        )
    return found


def is_gap(value: object) -> bool:
    """Whether a cell or a value of a file is empty."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True)
class Column:
    """Where a quantity stands: the column's name, its unit where the header does not say it, and
    ``per``: ``atom`` or ``cell``.
    """

    name: str
    unit: str = ""
    per: str = ""


@dataclass(frozen=True)
class Measure:
    """How a column's values become a quantity's: times ``factor``, over the number of atoms where
    they are of the whole cell.
    """

    quantity: str
    key: str
    factor: float = 1.0
    is_total: bool = False

    def of(self, value: object, n_atoms: int, where: str) -> float:
        """Raises InputError where it is no finite number."""
        found = number(value, f"{where}, {self.key!r}") * self.factor
        return found / n_atoms if self.is_total else found


def header_parts(header: str) -> tuple[str, str]:
    """Name and unit of a header such as ``hardness (GPa)`` or ``E [eV/atom]``; no unit where there
    are no such brackets at its end.
    """
    found = _HEADER.fullmatch(header)
    return (
        (header, "")
        if found is None
        else (found["name"], (found["round"] or found["square"] or "").strip())
    )


def found_in(column: str, header: Collection[str], where: str) -> str:
    """The header that a column's name means: itself, or the one that has it before its unit. Raises
    InputError for none or several.
    """
    if column in header:
        return column
    fits = [name for name in header if header_parts(name)[0] == column]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(
            f"{where}: {column!r} may be {' or '.join(map(repr, fits))}",
            hint="write the column's whole name",
        )
    raise InputError(
        f"{where}: there is no column {column!r}", hint=f"its columns are {units.listed(header)}"
    )


def measure(
    quantity: str,
    wanted: Quantity | None,
    column: Column,
    header: Collection[str],
    where: str,
    *,
    stated: Mapping[str, str] | None = None,
) -> Measure:
    """How ``column`` of a file gives ``quantity``. ``stated``: units that the file itself states
    beside its values, by key; ``TOTALS`` have their conventional meaning where it is given.

    Raises InputError for a column that is not there, a unit that is not the quantity's and cannot
    be converted, or an energy of which it is not known whether it is of the cell or per atom.
    """
    key = found_in(column.name, header, where)
    name, in_header = header_parts(key)
    if in_header and not units.is_unit(in_header) and (wanted is None or in_header != wanted.unit):
        if not column.unit:
            raise InputError(
                f"{where}: {key!r}: {in_header!r} is no unit that is known",
                hint="say it: {column: ..., unit: ...}",
            )
        in_header = ""
    told = in_header or (stated or {}).get(key, "")
    if column.unit and told and column.unit.replace(" ", "") != told.replace(" ", ""):
        raise InputError(
            f"{where}: {key!r} is in {told}, but the config says {column.unit}",
            hint="leave unit: out, or correct it",
        )
    unit = column.unit or told
    target, target_per = units.split(wanted.unit) if wanted is not None else ("", "")
    base, per = _split(unit, f"{where}, {key!r}") if unit else ("", "")
    if column.per and per and column.per != per:
        raise InputError(
            f"{where}: {key!r} is in {unit}, but the config says per: {column.per}",
            hint="leave per: out, or correct it",
        )
    per = column.per or per
    if wanted is None:
        if unit and unit != "1":
            raise InputError(
                f"{where}: {key!r} is in {unit}, but {quantity} has no unit",
                hint=f"say units: {{{quantity}: {unit}}}",
            )
        return Measure(quantity, key)
    try:
        factor = units.factor(base or target, target)
    except InputError as error:
        raise InputError(
            f"{where}, {key!r}: {error.message}", hint=error.hint.replace(target, wanted.unit, 1)
        ) from error
    if target_per == "atom":
        says_atom = re.search(r"per[ _-]?atom|/\s*at", name, re.I) is not None
        if not per:
            per = "cell" if stated is not None and name in TOTALS else "atom" if says_atom else ""
        if not per and (base or _sounds_total(name)):
            raise InputError(
                f"{where}: is {key!r} of the cell or per "
                f"atom?{f' {quantity} is in {wanted.unit}' if base else ''}",
                hint=f"say it: {quantity}: {{column: {key!r}, per: cell}}, or per: atom",
            )
    elif per and target_per != per:
        raise InputError(
            f"{where}: {key!r} is per {per}, but {quantity} is in {wanted.unit}",
            hint="per: belongs to energies and volumes",
        )
    return Measure(quantity, key, factor, target_per == "atom" and per == "cell")


def _split(unit: str, where: str) -> tuple[str, str]:
    try:
        return units.split(unit)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from error


def _sounds_total(name: str) -> bool:
    return name in TOTALS or re.search(r"total|toten|e_?tot|\bper[ _]?cell", name, re.I) is not None


@dataclass
class Reader:
    """The columns of one file: found once for each set of keys that its rows have."""

    columns: Mapping[str, Column]
    quantities: Mapping[str, Quantity]
    _known: dict[tuple[object, ...], dict[str, Measure]] = field(default_factory=dict)

    def measures(
        self, keys: Sequence[str], where: str, stated: Mapping[str, str] | None = None
    ) -> dict[str, Measure]:
        """How each quantity is read from a file, or from a row, that has these keys. Raises
        InputError as ``measure``.
        """
        which = (tuple(keys), tuple(sorted(stated.items())) if stated is not None else None)
        if which not in self._known:
            self._known[which] = {
                quantity: measure(
                    quantity, self.quantities.get(quantity), column, keys, where, stated=stated
                )
                for quantity, column in self.columns.items()
            }
        return self._known[which]


def plain_facts(
    found: Mapping[str, Any], taken: Collection[str], longest: int = 500
) -> dict[str, str | int | float | bool]:
    """What else a row says, as it may stand in the ledger: short text, numbers and truth values
    under keys that are not ``taken``.
    """
    facts: dict[str, str | int | float | bool] = {}
    for key, value in found.items():
        plain = (
            value.item()
            if hasattr(value, "item") and getattr(value, "shape", None) == ()
            else value
        )
        if key in taken or not key or not isinstance(plain, str | int | float) or plain == "":
            continue
        if isinstance(plain, float) and not math.isfinite(plain):
            plain = str(plain)
        facts[key] = plain[:longest] if isinstance(plain, str) else plain
    return facts
