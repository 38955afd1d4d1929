"""Situations of inputs, small and written here: what a user may hand in, and what is right of it,
as a predicate.

A case reads its input through the door that a campaign uses. It is right where its predicate finds
what the file means, refused by name where the error holds the words that tell place and fault, and
wrong in every other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.config import loaded as configs
from campaign.config.schema import SourceConfig
from campaign.reading.structures import read_structures
from campaign.rounds import sources
from campaign.types import Quantity

RIGHT = ""


@dataclass(frozen=True)
class Case:
    """``run`` in a folder gives ``RIGHT`` or what is wrong. ``refusal``: words that a refusal must
    hold; None where none is allowed.
    """

    kind: str
    name: str
    run: Callable[[Path], str]
    refusal: tuple[str, ...] | None = None


def compared(found: object, wanted: object) -> str:
    return RIGHT if found == wanted else f"expected {wanted}, found {found}"


def _written(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def structures(
    name: str,
    content: str | bytes | Mapping[str, str | bytes],
    *,
    file: str,
    formulas: Sequence[str] | None = None,
    refusal: Sequence[str] | None = None,
    holds: Callable[[Sequence[Any]], bool] | None = None,
    make: Callable[[Path], object] | None = None,
    **settings: Any,
) -> Case:
    """A file or folder of structures: the formulas it holds, or a refusal. ``make`` writes what is
    no plain file.
    """

    def run(folder: Path) -> str:
        _written(folder, content if isinstance(content, Mapping) else {file: content})
        if make is not None:
            make(folder)
        found = [entry.crystal for entry in read_structures(folder / file, **settings)]
        if holds is not None and not holds(found):
            return f"read as {[(crystal.formula, round(crystal.volume, 3)) for crystal in found]}"
        return compared(
            [crystal.formula for crystal in found],
            list(formulas) if formulas is not None else "a refusal",
        )

    return Case("structures", name, run, tuple(refusal) if refusal is not None else None)


QUANTITIES = {
    "energy_per_atom": Quantity("energy_per_atom", "eV/atom"),
    "volume_per_atom": Quantity("volume_per_atom", "angstrom^3/atom"),
    "hardness": Quantity("hardness", "GPa"),
    "density": Quantity("density", "g/cm^3"),
    "share": Quantity("share", "1"),
}


def table(
    name: str,
    content: str | bytes,
    *,
    file: str = "d.csv",
    columns: Mapping[str, Any],
    values: Mapping[str, Sequence[float]] | None = None,
    refusal: Sequence[str] | None = None,
    **settings: Any,
) -> Case:
    """Labels beside structures: their values by quantity in the quantities' units, or a refusal."""

    def run(folder: Path) -> str:
        _written(folder, {file: content})
        source = SourceConfig(path=file, columns=dict(columns), oracle="any", **settings)
        found = sources.imported(
            source, folder=folder, purpose="initial_data", quantities=QUANTITIES
        )
        rows = [item for row in found.rows.values() for item in row.observations]
        taken = {
            quantity: [item.value for item in rows if item.quantity == quantity]
            for quantity in columns
        }
        if values is None:
            return f"expected a refusal, found {taken}"
        is_near = all(
            len(taken[key]) == len(wanted)
            and all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(taken[key], wanted, strict=True))
            for key, wanted in values.items()
        )
        return RIGHT if is_near else f"expected {dict(values)}, found {taken}"

    return Case("tables and units", name, run, tuple(refusal) if refusal is not None else None)


CONFIG = """name: case
seed: 1
space: {elements: [Ni, Fe]}
objective: {quantity: energy_per_atom, direction: minimize}
mode: rounds
budget: {labels: 4}
generators: [{use: random_alloy, count: 6, params: {repeats: [1, 1, 2]}}]
acquisition: {use: random, initial_labels: 2, batch_size: 2}
oracles: [{use: lennard_jones}]
executor: {use: serial}
tracking: {use: none}
"""


def config(
    name: str,
    change: tuple[str, str] | str | bytes,
    refusal: Sequence[str] | None = None,
    *,
    kind: str = "configs",
) -> Case:
    """A config with one piece of its text replaced, or a text of its own: valid, or a refusal."""

    def run(folder: Path) -> str:
        if isinstance(change, tuple):
            assert change[0] in CONFIG, change
            text: str | bytes = CONFIG.replace(*change, 1)
        else:
            text = change
        _written(folder, {"case.yaml": text})
        loaded = configs.read(folder / "case.yaml")
        _ = loaded.parts
        return RIGHT if refusal is None else "taken as valid"

    return Case(kind, name, run, tuple(refusal) if refusal is not None else None)
