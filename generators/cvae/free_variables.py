"""Many crystals of different size as one set of arrays, by their free variables: what the compiled
loops and the networks work on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.types import FloatArray
from generators.cvae.table import (
    FAMILIES,
    TabularCrystal,
    cell_map,
    family_of,
    free_cell,
    site_of,
    variables_of,
    with_variables,
)
from generators.wyckoff import group_of


@dataclass(frozen=True, eq=False)
class Batch:
    """B crystals with S sites in all.

    variables: (B, f) free variables, zero beyond counts (B,). site_start: (B + 1,). positions: (S,)
    rows of ``tables``. multiplicities: (S,) atoms of each site. elements: (S,) rows of ``species``,
    atomic numbers. names: what each crystal is a table of.
    """

    names: tuple[TabularCrystal, ...]
    families: NDArray[np.int64]
    site_start: NDArray[np.int64]
    positions: NDArray[np.int64]
    multiplicities: NDArray[np.int64]
    elements: NDArray[np.int64]
    species: tuple[int, ...]
    variables: FloatArray
    counts: NDArray[np.int64]
    tables: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def atoms(self) -> NDArray[np.int64]:
        """(B,) atoms of each conventional cell."""
        return np.add.reduceat(self.multiplicities, self.site_start[:-1])

    @property
    def n_cell(self) -> NDArray[np.int64]:
        """(B,) how many of the variables are of the cell."""
        return np.asarray(self.tables[0][self.families, 0, 7].astype(np.int64))

    @property
    def is_cell(self) -> NDArray[np.bool_]:
        """(B, f) the variables of the cell."""
        return np.asarray(np.arange(self.variables.shape[1]) < self.n_cell[:, None])

    @property
    def is_length(self) -> NDArray[np.bool_]:
        """(B, f) the variables that are lengths of the cell."""
        width = min(6, self.variables.shape[1])
        found = np.zeros((len(self), self.variables.shape[1]), dtype=bool)
        found[:, :width] = self.tables[0][self.families, :3, :width].sum(1) > 0.5
        return found & self.is_cell

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As the compiled loops take them."""
        return (
            self.families,
            self.site_start,
            self.positions,
            self.multiplicities,
            self.elements,
            self.variables,
            self.counts,
            self.tables,
        )

    def with_variables(self, variables: FloatArray) -> Batch:
        return replace(self, variables=np.ascontiguousarray(variables, dtype=np.float64))

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Some of the crystals, also several times, with copies of their variables."""
        index = np.asarray(rows, dtype=np.int64)
        lengths = np.diff(self.site_start)[index]
        start = np.concatenate([[0], np.cumsum(lengths)])
        sites = np.repeat(self.site_start[index] - start[:-1], lengths) + np.arange(start[-1])
        return replace(
            self,
            names=tuple(self.names[row] for row in index),
            families=self.families[index],
            site_start=start,
            positions=self.positions[sites],
            multiplicities=self.multiplicities[sites],
            elements=self.elements[sites],
            variables=self.variables[index].copy(),
            counts=self.counts[index],
        )

    def as_tables(self) -> list[TabularCrystal]:
        """The crystals with their present variables."""
        return [
            with_variables(name, row[:n])
            for name, row, n in zip(self.names, self.variables, self.counts, strict=True)
        ]


def batch_of(tables: Sequence[TabularCrystal], species: Sequence[int]) -> Batch:
    """``species``: the atomic numbers that elements are counted in. Raises ValueError for another
    element.
    """
    rows: dict[tuple[int, int], int] = {}
    positions, multiplicities, elements, lengths = [], [], [], []
    order = list(species)
    for table in tables:
        lengths.append(len(table.sites))
        for index, number in zip(table.sites, table.numbers, strict=True):
            positions.append(rows.setdefault((table.space_group, index), len(rows)))
            multiplicities.append(group_of(table.space_group).positions[index].multiplicity)
            elements.append(order.index(number))
    values = [variables_of(table) for table in tables]
    counts = np.array([len(value) for value in values], dtype=np.int64)
    variables = np.zeros((len(tables), max(1, counts.max(initial=0))))
    for row, value in enumerate(values):
        variables[row, : len(value)] = value
    return Batch(
        tuple(tables),
        np.array(
            [FAMILIES.index(family_of(table.space_group)) for table in tables], dtype=np.int64
        ),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(positions, dtype=np.int64),
        np.array(multiplicities, dtype=np.int64),
        np.array(elements, dtype=np.int64),
        tuple(species),
        variables,
        counts,
        _arrays_of(list(rows)),
    )


def _arrays_of(positions: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    sites = [site_of(*position) for position in positions]
    counts = np.array([len(site.shifts) for site in sites], dtype=np.int64)
    cells = np.zeros((len(FAMILIES), 6, 8))
    for row, family in enumerate(FAMILIES):
        cells[row, :, :7] = cell_map(family)
        cells[row, :, 7] = len(free_cell(family, [0.0] * 6))
    return (
        cells,
        np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64),
        counts,
        np.array([site.degrees_of_freedom for site in sites], dtype=np.int64),
        np.concatenate([site.rotations for site in sites]),
        np.concatenate([site.shifts for site in sites]),
    )
