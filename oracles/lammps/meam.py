"""Modified embedded-atom potentials: the built-in ones as data, and LAMMPS' files read and written.

LAMMPS' parameter files name elements by index alone; which index is which element is stated
elsewhere, and a wrong order gives wrong numbers without a word. So the order is read from the
file's comment, or from its values: most parameter files repeat each element's cohesive energy and
alpha under its index (i,i), and these must be the library's of that element. Where a file says
neither, the config has to. What a file is called proves nothing; the files that LAMMPS itself
brings, whose names were checked, are the exception.

A library may hold several entries of one element (W and WL, Si and Si97), fitted for different
parameter files. Which of them a file goes with is said by its comment, by its values where these
fit one alone, or by the config, which then names the library's label.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers
from ruamel.yaml import YAML

from campaign.errors import InputError

_LIBRARY_COLUMNS = (
    ("alpha", "b0", "b1", "b2", "b3", "alat", "esub", "asub"),
    ("t0", "t1", "t2", "t3", "rozero", "ibar"),
)
_DIAGONAL = re.compile(
    r"^\s*(Ec|alpha)\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*=\s*([-+.\dEeDd]+)", re.MULTILINE
)
_INDEX = re.compile(r"^\s*\w+\(([\d\s,]+)\)\s*=", re.MULTILINE)
_STATED = (
    re.compile(r"pair_coeff\s+\*\s+\*\s+\S+((?:\s+'?[A-Z][A-Za-z0-9]*'?)+)\s+\S+\.meam"),
    re.compile(r"use with((?:\s+'?[A-Z][A-Za-z0-9]*'?)+)\s+from", re.IGNORECASE),
)
_SYMBOL = re.compile(r"[A-Z][a-z]?")
_TOLERANCE = 2e-3


@dataclass(frozen=True)
class MeamPotential:
    """Parameters of a modified embedded-atom potential, ``pair_style meam``, in metal units."""

    name: str
    reference: str
    elements: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, float]
    indexed: Mapping[str, Mapping[str, Any]]
    sha256: str
    style: str = "meam"

    def library_text(self) -> str:
        """LAMMPS' element library file."""
        lines = [
            f"# {self.name}: {self.reference}",
            "# elt lat z ielement atwt / alpha b0..b3 alat esub asub / t0..t3 rozero ibar",
        ]
        for symbol in self.elements:
            values = self.parameters[symbol]
            head = (
                f"'{symbol}'",
                f"'{values['lattice']}'",
                values["z"],
                values["atomic_number_field"],
                values["mass"],
            )
            lines.append(" ".join(str(value) for value in head))
            lines += [" ".join(repr(values[column]) for column in row) for row in _LIBRARY_COLUMNS]
        return "\n".join(lines) + "\n"

    def parameter_text(self) -> str:
        """LAMMPS' parameter file; indices follow ``elements``."""
        index = {symbol: i for i, symbol in enumerate(self.elements, start=1)}
        lines = [f"# {self.name}: indices {index}"] + [
            f"{key} = {value}" for key, value in self.settings.items()
        ]
        for key, by_species in self.indexed.items():
            for species, value in by_species.items():
                where = ",".join(str(index[symbol]) for symbol in species.split("-"))
                lines.append(
                    f"{key}({where}) = '{value}'"
                    if isinstance(value, str)
                    else f"{key}({where}) = {value!r}"
                )
        return "\n".join(lines) + "\n"

    def commands(self, folder: Path, elements: Sequence[str]) -> list[str]:
        """Write the files into ``folder`` and give LAMMPS' commands for atom types 1.. =
        ``elements``.
        """
        library, parameters = folder / "library.meam", folder / "parameters.meam"
        library.write_text(self.library_text())
        parameters.write_text(self.parameter_text())
        order, types = " ".join(self.elements), " ".join(elements)
        return [
            "pair_style meam",
            f"pair_coeff * * {quoted(library)} {order} {quoted(parameters)} {types}",
        ] + [
            f"mass {i} {self.parameters[symbol]['mass']}"
            for i, symbol in enumerate(elements, start=1)
        ]


def quoted(path: Path) -> str:
    """A path as one word of a LAMMPS command, whatever its folders are called: within quotes LAMMPS
    expands no ``$`` and sees no ``#``.
    """
    text = str(path)
    mark = next((mark for mark in ('"', "'", '"""') if mark not in text), None)
    if mark is None or "\n" in text:
        raise InputError(
            f"LAMMPS cannot open {text!r}",
            hint="set TMPDIR to a folder whose name has no quotation marks",
        )
    return f"{mark}{text}{mark}"


def builtin_names() -> list[str]:
    folder = files("oracles.lammps") / "data"
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


@cache
def builtin(name: str) -> MeamPotential:
    """A potential that ships with oreloop."""
    text = (files("oracles.lammps") / "data" / f"{name}.yaml").read_text()
    data = YAML(typ="safe", pure=True).load(text)
    return MeamPotential(
        name=data["name"],
        reference=data["reference"],
        elements=tuple(data["species_order"]),
        parameters=data["elements"],
        settings=data["settings"],
        indexed=data["indexed"],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


@dataclass(frozen=True)
class LibraryEntry:
    """What a library file says of an element: cohesive energy (eV) and alpha (1), under the file's
    own label.
    """

    label: str
    element: str
    cohesive_energy: float
    alpha: float


def element_of(label: str) -> str:
    """The chemical element of a library label such as ``Ni``, ``AlS`` or ``Sn5``; empty where there
    is none.
    """
    for length in (2, 1):
        if (
            label[:length] in atomic_numbers
            and label[:length] != "X"
            and (length == 1 or label[1:2].islower())
        ):
            return label[:length]
    return ""


def read_library(text: str, file: str) -> dict[str, LibraryEntry]:
    """The entries of a library file by label; of several with one label the first, as LAMMPS takes
    it.

    Raises InputError for a file of another kind.
    """
    words = [word for line in text.splitlines() for word in line.partition("#")[0].split()]
    if len(words) % 19:
        raise InputError(
            f"{file} is no MEAM library: expected 19 values an element, came {len(words)} in all",
            hint="name a library file",
        )
    entries: dict[str, LibraryEntry] = {}
    for start in range(0, len(words), 19):
        label = words[start].strip("'\"")
        entries.setdefault(
            label,
            LibraryEntry(
                label, element_of(label), float(words[start + 11]), float(words[start + 5])
            ),
        )
    return entries


def index_order(
    parameters: str,
    library: Mapping[str, LibraryEntry],
    file: str,
    given: Sequence[str] = (),
    *,
    is_named_by_order: bool = False,
) -> tuple[str, ...]:
    """The library labels that indices 1.. of a parameter file stand for: by its comment, its
    values, or the config.

    ``given``: the config's order of elements or labels, which must agree with what the file says
    and is taken where the file is silent. ``is_named_by_order``: the file's name is known to say
    its order. Raises InputError where the file contradicts itself or the given order, or where
    nothing says it.
    """
    stated, named = _stated(parameters, library), _named(file, library) if is_named_by_order else ()
    asked = _labels(given, library, stated or named)
    told = ((stated, "its own comment"), (named, "its own name"), (asked, "the config"))
    statements = [(order, source) for order, source in told if order]
    evidence = _diagonal(parameters)
    for order, source in statements:
        _check_evidence(order, source, evidence, library, file)
    fits = _fits(parameters, evidence, library)
    deduced = (
        tuple(labels[0] for labels in fits) if all(len(labels) == 1 for labels in fits) else ()
    )
    of_file = next((order for order, source in statements if source != "the config"), ()) or deduced
    if not of_file and given:
        return _of_all_indices(asked, parameters, file)
    if (
        not of_file
        and fits
        and all(len({library[label].element for label in labels}) == 1 for labels in fits)
    ):
        several = next(labels for labels in fits if len(labels) > 1)
        raise InputError(
            f"{file}: the values under index {fits.index(several) + 1} fit {len(several)} "
            f"entries of the library, {', '.join(several)}, "
            "which give different energies",
            hint="name the entry that the file was made for, as its source tells it: "
            f"elements: [{several[-1]}] in the config, or in the "
            f"file's first line, as in `# use with {several[-1]} from library.meam`",
        )
    if not of_file:
        raise InputError(
            f"{file} does not say which element each index is, and what a file is called "
            "proves nothing",
            hint="name the elements of indices 1, 2, ... in this order with elements: [Ni, Fe] "
            "in the config, as the source of the file "
            "tells it, or in the file's first line, as in `# use with Ni Fe from library.meam`",
        )
    said = [
        library[label].element if name in atomic_numbers else label
        for name, label in zip(given, of_file, strict=False)
    ]
    if given and (said != list(given) or len(given) != len(of_file)):
        raise InputError(
            f"{file} says that its indices are {' '.join(of_file)}, the config says "
            f"{' '.join(given)}"
        )
    return of_file


def _of_all_indices(order: tuple[str, ...], parameters: str, file: str) -> tuple[str, ...]:
    """Raises InputError where the parameters have an index beyond the order."""
    largest = max(_indices(parameters), default=0)
    if largest > len(order):
        raise InputError(
            f"{file} has parameters for index {largest}, but elements: names {len(order)}: "
            f"{' '.join(order)}"
        )
    return order


def _indices(parameters: str) -> set[int]:
    return {int(i) for group in _INDEX.findall(parameters) for i in group.split(",")}


def _check_evidence(
    order: Sequence[str],
    source: str,
    evidence: Mapping[int, Mapping[str, float]],
    library: Mapping[str, LibraryEntry],
    file: str,
) -> None:
    """Raises InputError where the values under an index are not the library's of the element that
    the order calls it.
    """
    for index, values in evidence.items():
        if index > len(order):
            raise InputError(
                f"{file} has parameters for index {index}, but {source} names {len(order)} "
                f"elements: {' '.join(order)}"
            )
        entry = library[order[index - 1]]
        if not _agrees(entry, values):
            fits = [label for label in dict.fromkeys(order) if _agrees(library[label], values)]
            raise InputError(
                f"{file}: index {index} has {_tell(values)}, but {source} calls it {entry.label}, "
                f"whose library entry has cohesive energy {entry.cohesive_energy:g} eV and "
                f"alpha {entry.alpha:g}"
                + (f"; the values are those of {' or '.join(fits)}" if fits else ""),
                hint="two species are swapped: correct the order of the elements or the "
                "indices in the file",
            )


def _labels(
    given: Sequence[str], library: Mapping[str, LibraryEntry], stated: Sequence[str]
) -> tuple[str, ...]:
    """The library's labels of the config's elements, where an element has several the one that the
    file states.
    """
    found = []
    for name in given:
        labels = (
            [name]
            if name in library
            else [label for label, entry in library.items() if entry.element == name]
        )
        labels = [label for label in labels if label in stated] or labels
        if not labels:
            raise InputError(
                f"the MEAM library has no entry for {name}", hint=f"it holds {', '.join(library)}"
            )
        if len(labels) > 1:
            raise InputError(
                f"the MEAM library has {len(labels)} entries for {name}: {', '.join(labels)}",
                hint="name one of them with elements: in the config, as the source of the file "
                "tells it",
            )
        found.append(labels[0])
    return tuple(found)


def _stated(parameters: str, library: Mapping[str, LibraryEntry]) -> tuple[str, ...]:
    for pattern in _STATED:
        found = pattern.search(parameters)
        if found:
            labels = tuple(word.strip("'") for word in found[1].split())
            if all(label in library for label in labels):
                return labels
    return ()


def _named(file: str, library: Mapping[str, LibraryEntry]) -> tuple[str, ...]:
    """The labels that a file's name is made of, such as WL.meam, SiC.meam or
    MoCoNiVFeAlCr_2nn.meam; empty where it is another word.
    """
    stem = file.removesuffix(".meam").removesuffix("_2nn")
    if stem in library:
        return (stem,)
    words = tuple(_SYMBOL.findall(stem))
    return words if "".join(words) == stem and all(word in library for word in words) else ()


def _diagonal(parameters: str) -> dict[int, dict[str, float]]:
    evidence: dict[int, dict[str, float]] = {}
    for key, i, j, value in _DIAGONAL.findall(parameters):
        if i == j:
            evidence.setdefault(int(i), {})[key] = float(value.replace("D", "E").replace("d", "e"))
    return evidence


def _agrees(entry: LibraryEntry, values: Mapping[str, float]) -> bool:
    known = {"Ec": entry.cohesive_energy, "alpha": entry.alpha}
    return all(
        abs(value - known[key]) <= _TOLERANCE * abs(known[key]) for key, value in values.items()
    )


def _tell(values: Mapping[str, float]) -> str:
    names = {"Ec": "cohesive energy {:g} eV", "alpha": "alpha {:g}"}
    return " and ".join(names[key].format(value) for key, value in sorted(values.items()))


def _fits(
    parameters: str,
    evidence: Mapping[int, Mapping[str, float]],
    library: Mapping[str, LibraryEntry],
) -> list[list[str]]:
    """For indices 1, 2, ... the labels that the values on the diagonal leave; none where the file
    has no such value.
    """
    every = range(1, max(_indices(parameters), default=0) + 1)
    return [
        [
            label
            for label, entry in library.items()
            if index in evidence and _agrees(entry, evidence[index])
        ]
        for index in every
    ]
