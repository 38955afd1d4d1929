"""A campaign's labels in the formats that other tools read: extxyz, CIF, ASE database, parquet. Units go with every value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from campaign import tables
from campaign.artifacts import write_whole
from campaign.errors import InputError
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.state import CandidateRecord, LabelRecord
from campaign.types import ENERGY_PER_ATOM, FORCES, STRESS

if TYPE_CHECKING:
    from ase import Atoms

_KEYS_OF_ASE = (
    "Lattice",
    "Properties",
    "pbc",
    "energy",
    "forces",
    "stress",
    "virial",
    "free_energy",
    "dipole",
    "magmom",
    "magmoms",
    "units",
)

FORMATS = ("extxyz", "cif", "ase", "parquet")


def export(state: CampaignState, reader: LedgerReader, folder: Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write every label in each format and return the files. Raises InputError for an unknown format."""
    unknown = set(formats) - set(FORMATS)
    if unknown:
        raise InputError(f"cannot export {', '.join(sorted(unknown))}", hint=f"formats are {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(state.labels.values())
    crystals = reader.crystals([label.crystal or label.candidate for label in labels])
    written: list[Path] = []
    if "parquet" in formats:
        for name, table in (("labels", tables.labels(state)), ("candidates", tables.candidates(state))):
            written.append(folder / f"{name}.parquet")
            write_whole(written[-1], table.to_parquet())
    if "cif" in formats:
        for label, crystal in zip(labels, crystals, strict=True):
            path = folder / "cif" / f"{label.candidate}-{label.oracle}.cif"
            write_whole(path, crystal.structure.to(fmt="cif").encode())
        written.append(folder / "cif")
    atoms = [_with_labels(crystal.atoms, label, state.candidates[label.candidate]) for label, crystal in zip(labels, crystals, strict=True)]
    if "extxyz" in formats:
        written.append(_write_extxyz(folder / "labels.extxyz", atoms))
    if "ase" in formats:
        written.append(_write_database(folder / "labels.db", atoms))
    return written


def _with_labels(atoms: Atoms, label: LabelRecord, record: CandidateRecord) -> Atoms:
    """Labels beside the atoms under their own names; total energy, forces and stress also where ASE and its users look for them.

    What the candidate's source calls it is its ``name``, what else the source says of it stands under the source's own keys; those that
    mean something here begin with ``source_``.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.units import GPa

    values = {row.quantity: row.value for row in label.observations}
    results = {}
    if ENERGY_PER_ATOM.name in values:
        results["energy"] = values[ENERGY_PER_ATOM.name] * len(atoms)
    if FORCES.name in values:
        results["forces"] = np.array(values.pop(FORCES.name))
    if STRESS.name in values:
        results["stress"] = np.array(values.pop(STRESS.name))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * GPa
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    atoms.info = {"candidate": label.candidate, "oracle": label.oracle, "fidelity": label.fidelity, "round": label.round}
    atoms.info |= {name: value if np.ndim(value) == 0 else np.array(value) for name, value in values.items()}
    atoms.info["units"] = json.dumps({row.quantity: row.unit for row in label.observations})
    facts = ({"name": record.name} if record.name else {}) | dict(record.facts)
    reserved = {*atoms.info, *results, *_KEYS_OF_ASE}
    atoms.info |= {_key(f"source_{key}" if key in reserved else key): value for key, value in facts.items()}
    return atoms


def _key(text: str) -> str:
    """A key that extxyz takes: no blanks, quotes or signs of its own."""
    return re.sub(r"[^A-Za-z0-9_./()%-]", "_", text)


def _write_extxyz(path: Path, atoms: list[Atoms]) -> Path:
    import io

    from ase.io import write

    text = io.StringIO()
    write(text, atoms, format="extxyz")
    write_whole(path, text.getvalue().encode())
    return path


def _write_database(path: Path, atoms: list[Atoms]) -> Path:
    from ase.db import connect

    part = path.with_name(f"part-{path.name}")
    part.unlink(missing_ok=True)
    with connect(part) as database:
        for image in atoms:
            own = ("oracle", "fidelity", "round", *json.loads(image.info["units"]))
            scalars: dict[str, Any] = {key: value for key, value in image.info.items() if key in own and np.ndim(value) == 0}
            facts = {key: value for key, value in image.info.items() if key not in (*own, "units", "candidate")}
            arrays = {key: value.tolist() for key, value in image.info.items() if np.ndim(value)}
            # ASE refuses values that read as numbers, as some hexadecimal ids do.
            scalars["candidate"] = f"id-{image.info['candidate']}"
            database.write(image, key_value_pairs=scalars, data={"units": json.loads(image.info["units"]), "facts": facts, **arrays})
    part.replace(path)
    return path
