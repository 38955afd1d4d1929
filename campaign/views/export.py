"""A campaign's labels in the formats that other tools read: extxyz, CIF, ASE database, parquet.
Units go with every value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from campaign.decide import ranking
from campaign.errors import InputError
from campaign.files import write_whole
from campaign.ledger import CampaignState
from campaign.ledger.leaders import Wanted
from campaign.ledger.state import CandidateRecord, LabelRecord
from campaign.text import cell, file_name
from campaign.types import ENERGY_PER_ATOM, FORCES, STRESS, Crystal
from campaign.views import tables

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms

_WORDS_OF_EXTXYZ = ("Lattice", "Properties", "pbc", "comment", "tags", "move_mask")
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


class HasCrystals(Protocol):
    """A ledger, or what a bundle holds of one."""

    def crystals(self, identities: Sequence[str]) -> list[Crystal]: ...


def export(
    state: CampaignState,
    reader: HasCrystals,
    folder: Path,
    formats: tuple[str, ...] = FORMATS,
    wanted: Wanted | None = None,
) -> list[Path]:
    """Write every label in each format and return the files; with what is ``wanted`` their ranking
    too.

    Raises InputError for an unknown format.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown:
        raise InputError(
            f"cannot export {', '.join(sorted(unknown))}", hint=f"formats are {', '.join(FORMATS)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(state.labels.values())
    crystals = reader.crystals([label.crystal or label.candidate for label in labels])
    written: list[Path] = []
    if "parquet" in formats:
        best = {"best": tables.best(state, wanted)} if wanted is not None else {}
        for name, table in {
            "labels": tables.labels(state),
            "candidates": tables.candidates(state),
            **best,
        }.items():
            written.append(folder / f"{name}.parquet")
            write_whole(written[-1], _as_cells(table).to_parquet())
    if "cif" in formats:
        for label, crystal in zip(labels, crystals, strict=True):
            path = folder / "cif" / file_name(f"{label.candidate}-{label.oracle}.cif")
            write_whole(path, crystal.structure.to(fmt="cif").encode())
        written.append(folder / "cif")
    ranks = (
        {id(item.label): item for item in ranking.ranked(state, wanted)}
        if wanted is not None
        else {}
    )
    atoms = [
        _with_labels(crystal.atoms, label, state.candidates[label.candidate], ranks.get(id(label)))
        for label, crystal in zip(labels, crystals, strict=True)
    ]
    if "extxyz" in formats:
        written.append(_write_extxyz(folder / "labels.extxyz", atoms))
    if "ase" in formats:
        written.append(_write_database(folder / "labels.db", atoms))
    return written


def _as_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Texts and headers as a spreadsheet may hold them."""
    import pandas as pd

    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    plain = {
        name: table[name].map(lambda value: cell(value) if isinstance(value, str) else value)
        for name in words
    }
    return table.assign(**plain).rename(columns=cell)


def _with_labels(
    atoms: Atoms, label: LabelRecord, record: CandidateRecord, ranked: ranking.Ranked | None
) -> Atoms:
    """Labels beside the atoms under their own names; total energy, forces and stress also where ASE
    and its users look for them.

    What the candidate's source calls it is its ``name``, what else the source says of it stands
    under the source's own keys; those that mean something here begin with ``source_``.
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
        results["stress"] = (
            np.array(values.pop(STRESS.name))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * GPa
        )
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    atoms.info = {
        "candidate": label.candidate,
        "oracle": label.oracle,
        "fidelity": label.fidelity,
        "round": label.round,
    }
    if ranked is not None:
        atoms.info |= {"rank": ranked.rank, "holds_constraints": ranked.holds}
    atoms.info |= {
        name: value if np.ndim(value) == 0 else np.array(value) for name, value in values.items()
    }
    atoms.info["units"] = json.dumps({row.quantity: row.unit for row in label.observations})
    facts = ({"name": record.name} if record.name else {}) | dict(record.facts)
    reserved = {*atoms.info, *results, *_KEYS_OF_ASE}
    atoms.info |= {
        f"source_{key}" if key in reserved else key: value for key, value in facts.items()
    }
    return atoms


def _write_extxyz(path: Path, atoms: list[Atoms]) -> Path:
    import io

    from ase.io import write

    text = io.StringIO()
    for image in atoms:
        kept, image.info = (
            image.info,
            {_key(name): _value(value) for name, value in image.info.items()},
        )
        write(text, image, format="extxyz")
        image.info = kept
    write_whole(path, text.getvalue().encode())
    return path


def _key(name: str) -> str:
    """A name that extxyz can hold: other characters as ``_``, ASE's own words with ``label_``
    before them.
    """
    from ase.calculators.calculator import all_properties

    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return (
        f"label_{plain}"
        if plain in (*all_properties, *_WORDS_OF_EXTXYZ) or not plain[0].isalpha()
        else plain
    )


def _value(value: Any) -> Any:
    """A text that ASE would not read back as it is becomes JSON, which it does."""
    from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

    if not isinstance(value, str):
        return value
    line = (
        key_val_dict_to_str({"text": value, "next": "found"})
        if value.isprintable() and value[:1] != "_"
        else ""
    )
    is_read_back = key_val_str_to_dict(line) == {"text": value, "next": "found"}
    return value if is_read_back else "_JSON " + json.dumps(value).replace("\\", "\\\\")


def _write_database(path: Path, atoms: list[Atoms]) -> Path:
    from ase.db import connect

    part = path.with_name(f"part-{path.name}")
    part.unlink(missing_ok=True)
    with connect(part) as database:
        for image in atoms:
            units = json.loads(image.info["units"])
            own = {"oracle", "fidelity", "round", "rank", "holds_constraints", *units}
            # ASE refuses values that read as numbers, as some hexadecimal ids do.
            pairs: dict[str, Any] = {"candidate": f"id-{image.info['candidate']}"}
            data: dict[str, Any] = {"units": units, "facts": {}}
            for name, value in image.info.items():
                if np.ndim(value):
                    data[name] = np.asarray(value).tolist()
                elif name in own and _is_pair(name, value):
                    pairs[name] = value
                elif name in own:
                    data[name] = value
                elif name not in ("units", "candidate"):
                    data["facts"][name] = value
            database.write(image, key_value_pairs=pairs, data=data)
    part.replace(path)
    return path


def _is_pair(name: str, value: Any) -> bool:
    """Whether ASE's database takes a key with its value; what it does not take lies in a row's
    ``data``.
    """
    from ase.db.core import check

    try:
        check({name: value})
    except ValueError:
        return False
    return True
