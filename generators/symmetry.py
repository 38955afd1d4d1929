"""A crystal with its space group: its standard primitive cell, the operations, and the projections
that keep them.

Lattice vectors are rows; fractional coordinates (n, 3); an operation takes x to W x + w. The metric
of a cell is L L^T (3, 3). Space groups, Wyckoff letters and standard cells are those of spglib (A.
Togo, K. Shinohara, I. Tanaka, Sci. Technol. Adv. Mater. Meth. 4 (2024) 2384822). Prototypes that
differ by the choice of origin or of the axes have one name (R. E. A. Goodall et al., Sci. Adv. 8
(2022) eabn4117), for which pymatgen has the tables.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import spglib
from numpy.typing import NDArray

from campaign.types import Crystal, FloatArray
from generators.prototype_tables import canonical

PRECISION = 0.1
"""Distance (angstrom) within which atoms count as symmetric."""
_EXACT = 1e-3
_SMALL_STEPS = np.array([step for step in itertools.product(range(-3, 4), repeat=3) if any(step)])


@dataclass(frozen=True, eq=False)
class Orbit:
    """Atoms that the operations take onto each other.

    first: the one that the others are made of. taken: (g,) where each operation takes it. basis:
    (r, 3), the whole vectors along which it is free.
    """

    first: int
    taken: NDArray[np.int64]
    basis: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SymmetricCell:
    """A standard primitive cell, made exactly symmetric, with its g operations.

    rotations: (g, 3, 3) whole numbers in the basis of the cell. permutations: (g, n), the atom that
    each atom is taken onto.
    """

    crystal: Crystal
    space_group: int
    prototype: str
    rotations: NDArray[np.int64]
    permutations: NDArray[np.int64]

    @cached_property
    def position_projector(self) -> FloatArray:
        """(3 n, 3 n): takes displacements, in fractional coordinates, onto those that keep every
        operation.
        """
        n = len(self.crystal)
        found = np.zeros((n, 3, n, 3))
        for rotation, permutation in zip(self.rotations, self.permutations, strict=True):
            found[permutation, :, np.arange(n), :] += rotation
        return found.reshape(3 * n, 3 * n) / len(self.rotations)

    @cached_property
    def metric_projector(self) -> FloatArray:
        """(9, 9): takes a metric, or a change of one, onto those that keep every operation."""
        turned = self.rotations.transpose(0, 2, 1)
        return np.asarray(
            np.einsum("gij,gkl->ikjl", turned, turned).reshape(9, 9) / len(self.rotations)
        )

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """The sets of atoms that the operations take onto each other."""
        found, seen = [], np.zeros(len(self.crystal), dtype=bool)
        for atom in range(len(self.crystal)):
            if not seen[atom]:
                taken = self.permutations[:, atom]
                seen[taken] = True
                found.append(Orbit(atom, taken, _invariant_basis(self.rotations[taken == atom])))
        return tuple(found)

    @cached_property
    def free_directions(self) -> FloatArray:
        """(f, n, 3): fractional displacements along each free coordinate of the sites; a whole step
        is a lattice vector.
        """
        fields = [np.zeros((0, len(self.crystal), 3))]
        for orbit in self.orbits:
            field = np.zeros((len(orbit.basis), len(self.crystal), 3))
            field[:, orbit.taken] = np.einsum("gij,fj->fgi", self.rotations, orbit.basis)
            fields.append(field)
        return np.concatenate(fields)

    @cached_property
    def site_symmetry(self) -> NDArray[np.int64]:
        """(n,) how many operations leave each atom where it is."""
        return np.asarray((self.permutations == np.arange(len(self.crystal))).sum(0))


def _invariant_basis(rotations: NDArray[np.int64]) -> NDArray[np.int64]:
    """The shortest whole vectors that span those that every rotation (g, 3, 3) leaves where they
    are.
    """
    mean = rotations.mean(0)
    rank = round(float(np.trace(mean)))
    steps = _SMALL_STEPS[np.abs(_SMALL_STEPS @ mean.T - _SMALL_STEPS).max(1) < 1e-6]
    basis: list[NDArray[np.int64]] = []
    for step in steps[np.argsort((steps**2).sum(1), kind="stable")]:
        if len(basis) < rank and np.linalg.matrix_rank(np.array([*basis, step])) > len(basis):
            basis.append(step)
    return np.array(basis, dtype=np.int64).reshape(-1, 3)


def symmetric_cell(crystal: Crystal, precision: float = PRECISION) -> SymmetricCell | None:
    """The standard primitive cell within ``precision`` (angstrom); None where spglib finds no
    symmetry that holds.
    """
    cell = (crystal.lattice, crystal.fractional, crystal.numbers.astype(int))
    dataset = spglib.get_symmetry_dataset(cell, symprec=precision)
    if dataset is None:
        return None
    primitive = spglib.standardize_cell(
        cell, to_primitive=True, no_idealize=False, symprec=precision
    )
    if primitive is None:
        return None
    lattice, fractional, numbers = primitive
    order = np.lexsort((*np.round(fractional % 1.0, 6).T[::-1], numbers))
    made = Crystal(lattice, fractional[order] % 1.0, numbers[order])
    found = spglib.get_symmetry(
        (lattice, made.fractional, made.numbers.astype(int)), symprec=_EXACT
    )
    if found is None:
        return None
    rotations, shifts = found["rotations"].astype(np.int64), found["translations"]
    moved = np.einsum("gij,nj->gni", rotations, made.fractional) + shifts[:, None]
    offset = moved[:, :, None] - made.fractional
    permutations = np.abs(offset - np.round(offset)).sum(-1).argmin(-1)
    return SymmetricCell(
        made, int(dataset.number), _prototype_of(dataset, crystal), rotations, permutations
    )


def space_group_of(crystal: Crystal, precision: float = PRECISION) -> int:
    """The number of the space group; 0 where none is found."""
    cell = (crystal.lattice, crystal.fractional, crystal.numbers.astype(int))
    dataset = spglib.get_symmetry_dataset(cell, symprec=precision)
    return 0 if dataset is None else int(dataset.number)


def _prototype_of(dataset: spglib.SpglibDataset, crystal: Crystal) -> str:
    letters: dict[int, Counter[str]] = {}
    for orbit in np.unique(dataset.crystallographic_orbits):
        letters.setdefault(int(crystal.numbers[orbit]), Counter())[dataset.wyckoffs[orbit]] += 1
    counts = Counter(crystal.numbers.tolist())
    return prototype_name(
        int(dataset.number), [(counts[number], letters[number]) for number in letters]
    )


def prototype_name(space_group: int, elements: Sequence[tuple[int, Mapping[str, int]]]) -> str:
    """Such as ``225:a_b``: the space group and the Wyckoff letters of each element, the elements
    forgotten.

    ``elements``: for each its number of atoms and how often it takes each letter. Elements stand by
    their numbers of atoms; among equal ones, and among the choices of origin and axes, the first
    name in alphabetical order counts.
    """
    by_count = sorted(elements, key=lambda item: item[0])
    groups = [
        [_letters(sites) for _, sites in group]
        for _, group in itertools.groupby(by_count, key=lambda item: item[0])
    ]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    names = {"_".join(itertools.chain.from_iterable(order)) for order in orders}
    return f"{space_group}:{min(canonical(space_group, name) for name in names)}"


def group_of_prototype(name: str) -> int:
    """The space group that a prototype's name begins with."""
    return int(name.partition(":")[0])


def _letters(sites: Mapping[str, int]) -> str:
    return "".join(f"{sites[letter]}{letter}" for letter in sorted(sites))
