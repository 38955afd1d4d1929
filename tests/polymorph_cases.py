"""Polymorphs of metals that tests of the conditional generators learn from."""

from __future__ import annotations

import itertools

import numpy as np
from ase.data import atomic_numbers
from torch import Tensor

from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.matrix_unet.symmetric_flow import (
    Cells,
    Outlook,
    SymmetricFlow,
)
from generators.networks.periodic import PeriodicSizes
from generators.polymorphs import Polymorph, PolymorphDataset
from generators.symmetry import symmetric_cell

METALS = SearchSpace(("Al", "Fe", "Ni"))
CONTEXT = GenerationContext(
    space=METALS, objective=Objective("formation_energy_per_atom", "minimize")
)
SIZES = PeriodicSizes(width=24, layers=2, n_radial=8, n_vectors=4)


def two_kinds() -> list[Polymorph]:
    """Fifteen formulas, each as B2 at -0.4 eV/atom and drawn out along one axis at 0.2."""
    items = []
    for symbols in itertools.combinations(("Al", "Co", "Cr", "Fe", "Ni", "V"), 2):
        for group, (lattice, energy) in {
            221: (2.9 * np.eye(3), -0.4),
            123: (np.diag([2.5, 2.5, 3.6]), 0.2),
        }.items():
            numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
            cell = symmetric_cell(Crystal(lattice, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), numbers))
            assert cell is not None
            assert cell.space_group == group
            items.append(Polymorph(cell, energy))
    return items


def labelled_of(data: PolymorphDataset) -> tuple[LabelledCandidate, ...]:
    return tuple(
        LabelledCandidate(
            candidate=Candidate(item.crystal), values={"formation_energy_per_atom": item.energy}
        )
        for item in data.items
    )


class ByFreedom(SymmetricFlow):
    """Expects the free coordinates over the atoms as energy."""

    def forward(self, cells: Cells, time: Tensor, energy: Tensor) -> Outlook:
        outlook = super().forward(cells, time, energy)
        return outlook._replace(energy=cells.group[:, 1])
