"""``read_structures``: the one door for crystals in files. What it gives is what the file means;
the rest is refused by name.

Formats: CIF (each block), POSCAR, extended xyz, ASE databases, ASE's and some programs'
trajectories; .gz, .bz2 and .xz; folders of these.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from campaign.errors import InputError
from campaign.reading.border import library
from campaign.reading.disorder import Disorder, ordered_cells
from campaign.reading.text import is_there, read_text
from campaign.types import Crystal

if TYPE_CHECKING:
    from ase import Atoms

    from campaign.reading.sites import Sites

log = logging.getLogger(__name__)

T = TypeVar("T")
OnError = Literal["refuse", "skip"]
_ASE_FORMATS = {".traj": "traj", ".xsf": "xsf", ".res": "res", ".gen": "gen", ".xml": "vasp-xml"}
_COMPRESSED = (".gz", ".bz2", ".xz")
FORMATS = (".cif", ".vasp", "POSCAR*", "CONTCAR*", ".xyz", ".extxyz", ".db", ".json", *_ASE_FORMATS)


@dataclass(frozen=True)
class Entry:
    """A crystal, where it stands (file, and block, structure or row) and the values that stand
    beside it.
    """

    crystal: Crystal
    where: str
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Draft:
    """A structure that is found but not judged: ``read`` may refuse it."""

    where: str
    read: Callable[[], tuple[Crystal | Sites, Mapping[str, Any]]]


def read_structures(
    path: Path,
    *,
    on_error: OnError = "refuse",
    disorder: Disorder | None = None,
    is_judged: bool = True,
) -> Iterator[Entry]:
    """Crystals of a file, or of a folder's files in order of their names.

    ``on_error``: whether what cannot be read ends the reading or is skipped, counted and told.
    ``disorder``: how partly occupied sites become ordered cells. ``is_judged``: whether slabs,
    molecules and atoms on one another are refused; not where they are to be counted. Raises
    InputError where there is no file, or with file and block, structure or row where one cannot be
    read.
    """
    tally = Tally(on_error, str(path))
    for file in structure_files(path):
        drafts = _drafts(file)
        while (draft := tally.ask(str(file), partial(next, drafts, None))) is not None:
            found = tally.ask(draft.where, partial(_entries, draft, disorder, is_judged))
            yield from found or ()
    tally.tell()


def read_structure_text(
    text: str, where: str, *, disorder: Disorder | None = None
) -> list[Crystal]:
    """The crystal that a CIF text means, such as of a table's cell; several where it is disordered
    and ``disorder`` orders it.

    Raises InputError where the text is no CIF of one crystal, under ``where``.
    """
    from campaign.reading import cif

    drafts = [_Draft(where, lambda read=read: (read(), {})) for _, read in cif.blocks(text, where)]  # type: ignore[misc]
    if len(drafts) != 1:
        raise InputError(
            f"{where}: expected one crystal, found {len(drafts)} blocks",
            hint="give each crystal a row of its own",
        )
    return [entry.crystal for entry in _entries(drafts[0], disorder, is_judged=True)]


def structure_files(path: Path) -> list[Path]:
    """The file itself, or a folder's files of known formats. Raises InputError where there are
    none.
    """
    if not is_there(path):
        raise InputError(f"there is no {path}", hint="check the path")
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.iterdir()
        if _is_or_was_file(file) and not file.name.startswith(".") and _format(file)
    )
    if not found:
        raise InputError(
            f"{path}: the folder holds no file of structures",
            hint=f"expected files such as {', '.join(FORMATS)}",
        )
    return found


def _is_or_was_file(path: Path) -> bool:
    """A file, or a link to one that is gone: a crystal that somebody counts on."""
    return path.is_file() or (path.is_symlink() and not path.exists())


class Tally:
    """Counts what is refused where it may be skipped, and tells it; raises it where not."""

    def __init__(self, on_error: OnError, source: str) -> None:
        self.on_error, self.source = on_error, source
        self.refused: list[InputError] = []

    def ask(self, where: str, read: Callable[[], T]) -> T | None:
        """What the reading of one structure or file gives; None where it is skipped. An InputError
        names the place.
        """
        try:
            return read()
        except InputError as error:
            named = (
                error
                if error.message.startswith(where)
                else InputError(f"{where}: {error.message}", hint=error.hint)
            )
            if self.on_error == "refuse":
                raise named from error
            self.refused.append(named)
            return None

    def tell(self) -> None:
        if self.refused:
            log.warning(
                "%s: %d skipped (on_error: skip); the first: %s",
                self.source,
                len(self.refused),
                self.refused[0].message,
            )


def _entries(draft: _Draft, disorder: Disorder | None, is_judged: bool) -> list[Entry]:
    found, info = draft.read()
    if isinstance(found, Crystal):
        entries = [Entry(found, draft.where, info)]
    elif disorder is None or not found.disordered:
        entries = [Entry(found.crystal(draft.where), draft.where, info)]
    else:
        cells = ordered_cells(found, disorder, draft.where)
        entries = [
            Entry(cell, f"{draft.where}, ordering {row}", info)
            for row, cell in enumerate(cells, start=1)
        ]
    for entry in entries if is_judged else ():
        _judge(entry.crystal, entry.where)
    return entries


def _judge(crystal: Crystal, where: str) -> None:
    from campaign.crystals.extent import REACH, not_bulk

    reason = not_bulk(crystal)
    if reason:
        raise InputError(
            f"{where}: expected a bulk crystal, found {reason}",
            hint="slabs, layers, chains and molecules are not supported; atoms touch up to "
            f"{REACH:g} angstrom beyond their covalent radii",
        )


def _format(file: Path) -> str:
    """The ending that tells what a file holds; empty where it tells nothing."""
    bare = file.with_suffix("") if file.suffix.lower() in _COMPRESSED else file
    if bare.name.upper().startswith(("POSCAR", "CONTCAR")) and bare.suffix.lower() not in FORMATS:
        return ".vasp"
    suffix = {".poscar": ".vasp", ".contcar": ".vasp", ".mcif": ".cif"}.get(
        bare.suffix.lower(), bare.suffix.lower()
    )
    return suffix if suffix in FORMATS else ""


def read_images(path: Path) -> Iterator[tuple[str, Atoms]]:
    """Where each structure of a file with labels stands, and ASE's atoms of it, isolated ones too:
    for training data.

    Raises InputError where there is no such file, or where one cannot be read.
    """
    for file in structure_files(path):
        for where, make, _ in _images(file):
            with library(where):
                atoms = make()
            yield where, atoms


def _drafts(file: Path) -> Iterator[_Draft]:
    from campaign.reading import cif, poscar

    kind, where = _format(file), str(file)
    if kind == ".cif":
        for place, read in cif.blocks(read_text(file), where):
            yield _Draft(place, lambda read=read: (read(), {}))  # type: ignore[misc]
    elif kind == ".vasp":
        text = read_text(file)
        yield _Draft(where, lambda: (poscar.crystal_of_poscar(text, where), {}))
    else:
        for place, make, values in _images(file):
            yield _draft_of_atoms(place, make, values)


def _images(file: Path) -> Iterator[tuple[str, Callable[[], Atoms], Mapping[str, Any]]]:
    """Of a file that ASE has a say in: where each structure stands, how it is made, and values that
    stand beside it.
    """
    from campaign.reading import frames

    kind, where = _format(file), str(file)
    if kind in (".db", ".json"):
        yield from _rows_of_database(file)
    elif kind in _ASE_FORMATS:
        from ase.io import iread

        for row, atoms in enumerate(
            _from_library(iread(file, ":", format=_ASE_FORMATS[kind]), where), start=1
        ):
            yield f"{where}, structure {row}", lambda atoms=atoms: atoms, {}  # type: ignore[misc]
    elif kind in (".xyz", ".extxyz"):
        for place, lines in frames.frames(read_text(file), where):
            yield place, lambda lines=lines, place=place: frames.atoms_of_frame(lines, place), {}  # type: ignore[misc]
    else:
        raise InputError(
            f"{where}: cannot tell from its name what it holds",
            hint=f"expected a name such as {', '.join(FORMATS)}",
        )


def _draft_of_atoms(where: str, make: Callable[[], Atoms], values: Mapping[str, Any]) -> _Draft:
    """``values`` stand beside what the atoms themselves carry."""

    def read() -> tuple[Crystal, Mapping[str, Any]]:
        with library(where):
            atoms = make()
            crystal = Crystal.from_atoms(atoms)
        arrays = {
            name: value
            for name, value in atoms.arrays.items()
            if name not in ("numbers", "positions")
        }
        results = atoms.calc.results if atoms.calc is not None else {}
        return crystal, {**arrays, **atoms.info, **values, **results}

    return _Draft(where, read)


def _rows_of_database(file: Path) -> Iterator[tuple[str, Callable[[], Atoms], Mapping[str, Any]]]:
    from ase.db import connect

    if file.suffix.lower() == ".db":
        _check_database(file)
    with library(str(file)):
        rows = connect(file).select()
    for row in _from_library(rows, str(file)):
        yield f"{file}, row {row.id}", row.toatoms, {**row.data, **row.key_value_pairs}


def _from_library(items: Iterator[T], where: str) -> Iterator[T]:
    """Each item, read inside the library's border and given outside of it."""
    while True:
        with library(where):
            item = next(items, None)
        if item is None:
            return
        yield item


def _check_database(file: Path) -> None:
    """ASE writes its tables into whatever file it opens: so look first."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master")}
    except sqlite3.Error as error:
        raise InputError(f"{file}: no ASE database: {error}", hint="is the file whole?") from error
    if "systems" not in tables:
        raise InputError(
            f"{file}: no ASE database: it has no table of structures",
            hint="give a file that ase.db wrote",
        )
