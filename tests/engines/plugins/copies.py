"""Generators of one crystal's cells and of its volumes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk

from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal


def cells() -> list[Atoms]:
    """Nickel in three cells; ordered NiFe in two, and rattled in a third."""
    alloy = Atoms("NiFe", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.88] * 3, pbc=True)
    rattled = alloy.repeat((2, 1, 2))
    rattled.rattle(0.03, seed=1)
    nickel = bulk("Ni", a=3.52)
    return [
        nickel,
        bulk("Ni", a=3.52, cubic=True),
        nickel.repeat(2),
        alloy,
        alloy.repeat(2),
        rattled,
    ]


class Cells:
    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        for atoms in cells():
            yield Crystal.from_atoms(atoms), Proposal()


class Volumes:
    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        for strain in (-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03):
            yield Crystal.from_atoms(bulk("Ni", a=3.52 * (1 + strain))), Proposal()


class Turned:
    """Cells of the same crystals, none of them as before."""

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        for atoms in cells():
            atoms.rotate(float(rng.uniform(1, 90)), (1, 2, 3), rotate_cell=True)
            yield Crystal.from_atoms(atoms), Proposal()
