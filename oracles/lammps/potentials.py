"""Interatomic potentials by name. The built-in one is data with a reference; LAMMPS' own files are written from it.

Elements are mapped by name throughout: a position in a list never decides which parameters an atom gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from campaign.errors import InputError

_LIBRARY_COLUMNS = (
    ("alpha", "b0", "b1", "b2", "b3", "alat", "esub", "asub"),
    ("t0", "t1", "t2", "t3", "rozero", "ibar"),
)


@dataclass(frozen=True)
class MeamPotential:
    """Parameters of a modified embedded-atom potential, ``pair_style meam``, in metal units."""

    name: str
    reference: str
    species_order: tuple[str, ...]
    elements: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, float]
    indexed: Mapping[str, Mapping[str, Any]]
    sha256: str

    def library(self) -> str:
        """LAMMPS' element library file."""
        lines = [f"# {self.name}: {self.reference}", "# elt lat z ielement atwt / alpha b0..b3 alat esub asub / t0..t3 rozero ibar"]
        for symbol in self.species_order:
            values = self.elements[symbol]
            head = (f"'{symbol}'", f"'{values['lattice']}'", values["z"], values["atomic_number_field"], values["mass"])
            lines.append(" ".join(str(value) for value in head))
            lines += [" ".join(repr(values[column]) for column in row) for row in _LIBRARY_COLUMNS]
        return "\n".join(lines) + "\n"

    def parameters(self) -> str:
        """LAMMPS' parameter file; indices follow ``species_order``."""
        index = {symbol: i for i, symbol in enumerate(self.species_order, start=1)}
        lines = [f"# {self.name}: indices {index}"] + [f"{key} = {value}" for key, value in self.settings.items()]
        for key, by_species in self.indexed.items():
            for species, value in by_species.items():
                where = ",".join(str(index[symbol]) for symbol in species.split("-"))
                lines.append(f"{key}({where}) = '{value}'" if isinstance(value, str) else f"{key}({where}) = {value!r}")
        return "\n".join(lines) + "\n"

    def commands(self, folder: Path, elements: Sequence[str]) -> list[str]:
        """Write the files into ``folder`` and give LAMMPS' commands for atom types 1.. = ``elements``.

        Raises InputError where the potential lacks one of the elements.
        """
        self.require(elements)
        library, parameters = folder / "library.meam", folder / "parameters.meam"
        library.write_text(self.library())
        parameters.write_text(self.parameters())
        order, types = " ".join(self.species_order), " ".join(elements)
        return ["pair_style meam", f"pair_coeff * * {library} {order} {parameters} {types}"] + [
            f"mass {i} {self.elements[symbol]['mass']}" for i, symbol in enumerate(elements, start=1)
        ]

    def require(self, elements: Sequence[str]) -> None:
        missing = [symbol for symbol in elements if symbol not in self.elements]
        if missing:
            raise InputError(
                f"potential {self.name} has parameters for {', '.join(self.species_order)}, but not for {', '.join(missing)}",
                hint="take a potential with these elements, or change the elements of the search space",
            )


@cache
def load(name: str) -> MeamPotential:
    """A built-in potential. Raises InputError for an unknown name."""
    folder = files("oracles.lammps") / "data"
    known = sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f"there is no built-in potential {name!r}", hint=f"choose one of: {', '.join(known)}")
    text = (folder / f"{name}.yaml").read_text()
    data = YAML(typ="safe", pure=True).load(text)
    return MeamPotential(
        name=data["name"],
        reference=data["reference"],
        species_order=tuple(data["species_order"]),
        elements=data["elements"],
        settings=data["settings"],
        indexed=data["indexed"],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
