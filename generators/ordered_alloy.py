"""The generator ``ordered_alloy``: every ordering of the elements on fcc and bcc with a small cell,
in random order.

Cells are the superlattices of the primitive cell, one for each Hermite normal form of their size
(G. L. W. Hart and R. W. Forcade, Phys. Rev. B 77, 224115 (2008), section II.A), Minkowski-reduced;
on each, all assignments of elements that the search space allows and that no smaller cell
describes. Orderings that a rotation or reflection makes equal are left to the duplicate screen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import atomic_numbers
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from pydantic import Field

from campaign.crystals.lattice import ParentLattice, atomic_volume
from campaign.parameters import Parameters
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal

_PRIMITIVE = {
    "fcc": np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "bcc": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
}


class OrderedAlloyConfig(Parameters):
    lattices: tuple[ParentLattice, ...] = Field(
        ("fcc", "bcc"), min_length=1, description="Parent lattices."
    )
    atoms: tuple[int, ...] = Field(
        (2, 3, 4), min_length=1, description="Numbers of atoms of the cells."
    )


def hermite_normal_forms(n: int) -> list[NDArray[np.int64]]:
    """One basis (rows, integer combinations of the primitive vectors) of each sublattice of index
    n.

    Lower-triangular with a positive diagonal, and each column's entries below the diagonal from 0
    to less than it.
    """
    found = []
    for a, b in itertools.product(range(1, n + 1), repeat=2):
        if n % (a * b):
            continue
        c = n // (a * b)
        for d, e, f in itertools.product(range(a), range(a), range(b)):
            found.append(np.array([[a, 0, 0], [d, b, 0], [e, f, c]]))
    return found


def superlattice(
    parent: ParentLattice, form: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (3, 3) in units of the cubic edge, reduced and right-handed, and the fractional
    coordinates (n, 3) of its sites.
    """
    primitive = _PRIMITIVE[parent]
    cell, _ = minkowski_reduce(form @ primitive)
    if np.linalg.det(cell) < 0:
        cell = -cell
    n = round(float(np.linalg.det(form)))
    steps = np.array(list(itertools.product(range(-n, n + 1), repeat=3)))
    fractional = np.round(steps @ primitive @ np.linalg.inv(cell) % 1.0 % 1.0, 9) % 1.0
    return cell, np.unique(fractional, axis=0)


def is_primitive(sites: NDArray[np.float64], symbols: Sequence[str]) -> bool:
    """Whether no translation from one site (n, 3) to another leaves the elements (n,) where they
    are.
    """
    for shift in sites[1:] - sites[0]:
        offset = (sites + shift)[:, None] - sites
        image = np.abs(offset - np.round(offset)).sum(-1).argmin(1)
        if all(symbols[i] == symbols[j] for i, j in enumerate(image)):
            return False
    return True


class OrderedAlloy:
    Config = OrderedAlloyConfig

    def __init__(self, config: OrderedAlloyConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        space = context.space
        orderings = [
            (lattice, cell, sites, symbols)
            for lattice in self.config.lattices
            for size in self.config.atoms
            for cell, sites in (superlattice(lattice, form) for form in hermite_normal_forms(size))
            for symbols in itertools.product(space.elements, repeat=size)
            if not space.violation(symbols) and is_primitive(sites, symbols)
        ]
        for row in rng.permutation(len(orderings))[:n]:
            lattice, cell, sites, symbols = orderings[row]
            volume = float(np.mean([atomic_volume(symbol) for symbol in symbols]))
            edge = (volume * len(symbols) / abs(float(np.linalg.det(cell)))) ** (1 / 3)
            numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8)
            yield (
                Crystal(cell * edge, sites, numbers),
                Proposal(condition={"lattice": lattice, "atoms": len(symbols)}),
            )
