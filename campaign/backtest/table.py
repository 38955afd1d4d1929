"""The oracle ``table``: labels that stand in a file or in another campaign's ledger. A row without
a value is a failure.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from campaign.config.schema import ColumnConfig, SourceConfig
from campaign.errors import InputError
from campaign.parameters import ConfigPath, Parameters
from campaign.reading.structures import structure_files
from campaign.rounds.sources import HOUSE_UNITS, read
from campaign.types import Crystal, Evaluation, FailureKind, Fidelity, Observation, Quantity


class TableConfig(Parameters):
    path: ConfigPath = Field(
        description="CSV with a CIF column, extxyz, ASE database, or a campaign's folder."
    )
    structure_column: str = Field("cif", description="CSV: the column that holds the CIF text.")
    columns: dict[str, str | ColumnConfig] = Field(
        min_length=1,
        description="Quantity name: column or key that holds its value, or {column, unit, "
        "per}; other units are converted.",
    )
    units: dict[str, str] = Field(
        default_factory=dict,
        description="Quantity name: its unit; where absent the house's unit of energies and "
        "volumes per atom, else 1.",
    )

    noise: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Quantity name: the standard deviation of its values, in its unit, which "
        "every label states.",
    )

    @model_validator(mode="after")
    def _noise_is_of_columns(self) -> TableConfig:
        if foreign := sorted(self.noise.keys() - self.columns.keys()):
            raise ValueError(f"noise of {', '.join(foreign)}, which columns does not name")
        return self

    @property
    def source(self) -> SourceConfig:
        return SourceConfig(
            path=str(self.path), structure_column=self.structure_column, columns=self.columns
        )

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        return tuple(
            Quantity(name, self.units.get(name, HOUSE_UNITS.get(name, "1")))
            for name in self.columns
        )


class Table:
    Config = TableConfig

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        if not config.path.exists():
            raise InputError(
                f"there is no table {config.path}",
                hint="relative paths start at the config's folder",
            )
        self.quantities = config.quantities

    @property
    def fidelity(self) -> Fidelity:
        columns = self.config.model_dump(mode="json")["columns"]
        settings = {"sha256": _digest(self.config.path), "columns": columns}
        if self.config.noise:
            settings["noise"] = dict(self.config.noise)
        return Fidelity("table", settings)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """Look the crystal up by its id."""
        rows = rows_of(self.config)
        if crystal.id not in rows:
            return Evaluation.failed(
                FailureKind.CRASH,
                f"the table {self.config.path.name} has no such crystal",
                retryable=False,
            )
        values = rows[crystal.id][1]
        observations = tuple(
            Observation(item.name, values[item.name], item.unit, self.config.noise.get(item.name))
            for item in self.quantities
            if item.name in values
        )
        if not observations:
            return Evaluation.failed(
                FailureKind.NOT_CONVERGED, "the table's row has no value", retryable=False
            )
        return Evaluation(observations=observations)


def _digest(path: Path) -> str:
    """SHA-256 over what a table says: its file, or a folder's structures or journal."""
    journal = path / "journal.jsonl"
    files = [journal] if journal.exists() else structure_files(path)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def _rows(config: str) -> dict[str, tuple[Crystal, dict[str, float]]]:
    table = TableConfig.model_validate_json(config)
    quantities = {
        quantity.name: quantity
        for quantity in table.quantities
        if quantity.name in table.units or quantity.unit != "1"
    }
    found: dict[str, tuple[Crystal, dict[str, float]]] = {}
    places: dict[str, str] = {}
    for entry in read(table.path, table.source, quantities=quantities, has_gaps=True, has_nan=True):
        known = found.get(entry.crystal.id)
        if known is not None and known[1] != entry.values:
            raise InputError(
                f"{table.path}: {places[entry.crystal.id]} and {entry.name} are one crystal "
                "with different values",
                hint="keep one of them",
            )
        found[entry.crystal.id] = entry.crystal, dict(entry.values)
        places[entry.crystal.id] = entry.name
    return found


def rows_of(config: TableConfig) -> dict[str, tuple[Crystal, dict[str, float]]]:
    """Crystals and values of a table by id, read once. Raises InputError for a crystal with several
    values.
    """
    return _rows(config.model_dump_json())
