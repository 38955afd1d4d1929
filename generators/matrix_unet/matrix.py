"""The matrix form of a crystal: 64 rows of 3, of which 60 are fractional coordinates, one is empty
and three are lattice vectors.

L. Novitskiy et al. (2024), section 2.1. Rows beyond the crystal's atoms are zero. Conditions stand
beside it: what each row is (one-hot elements H to Lr and their properties), the operations of a
space group as sorted affine matrices (192, 4, 4), and an energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from campaign.errors import InputError
from campaign.types import Crystal
from generators.formulas import MOST_ATOMS
from generators.matrix_unet.features import N_ELEMENTS, N_PROPERTIES, element_properties

ROWS, SITES, FIRST_LATTICE_ROW = 64, 60, 61
ELEMENT_COLUMNS = N_ELEMENTS + N_PROPERTIES
_LEAST_VOLUME = 1.0


@dataclass(frozen=True)
class Conditions:
    """elements (b, 64, 125); operations (b, 192, 4, 4); energy (b,); counts (b,); numbers (b, 64),
    0 where there is no atom.
    """

    elements: Tensor
    operations: Tensor
    energy: Tensor
    counts: Tensor
    numbers: Tensor

    def to(self, device: torch.device) -> Conditions:
        return Conditions(*(getattr(self, field.name).to(device) for field in fields(self)))


def matrices(crystals: Sequence[Crystal]) -> Tensor:
    """(b, 64, 3), lattice vectors in angstrom. Raises InputError on more than 60 atoms."""
    found = np.zeros((len(crystals), ROWS, 3), dtype=np.float32)
    for matrix, crystal in zip(found, crystals, strict=True):
        check_size(len(crystal))
        matrix[: len(crystal)] = crystal.fractional
        matrix[FIRST_LATTICE_ROW:] = crystal.lattice
    return torch.from_numpy(found)


def check_size(n_atoms: int) -> None:
    """Raises InputError on more than 60 atoms."""
    if n_atoms > MOST_ATOMS:
        raise InputError(
            f"expected at most {MOST_ATOMS} atoms, which the matrix form has rows for, got "
            f"{n_atoms}"
        )


def crystals_of(found: Tensor, numbers: Tensor) -> list[Crystal | None]:
    """Of matrices (b, 64, 3) and the elements of their rows (b, 64); None where the lattice vectors
    span no volume.
    """
    crystals: list[Crystal | None] = []
    for matrix, row in zip(found.double().cpu().numpy(), numbers.cpu().numpy(), strict=True):
        lattice, n = matrix[FIRST_LATTICE_ROW:], int((row > 0).sum())
        is_cell = bool(np.isfinite(matrix).all()) and abs(np.linalg.det(lattice)) > _LEAST_VOLUME
        crystals.append(Crystal(lattice, matrix[:n] % 1.0, row[:n]) if is_cell else None)
    return crystals


def conditions_of(
    numbers: Sequence[Sequence[int]], space_groups: Sequence[int], energies: Sequence[float]
) -> Conditions:
    """``numbers``: the elements of each crystal's atoms in order. Energies in the unit that the
    network is trained in.
    """
    rows = np.zeros((len(numbers), ROWS), dtype=np.int64)
    for row, elements in zip(rows, numbers, strict=True):
        check_size(len(elements))
        row[: len(elements)] = elements
    return Conditions(
        torch.from_numpy(element_table()[rows]),
        torch.from_numpy(np.stack([operations(number) for number in space_groups])),
        torch.tensor(list(energies), dtype=torch.float32),
        torch.tensor([len(elements) for elements in numbers]),
        torch.from_numpy(rows),
    )


@lru_cache(maxsize=1)
def element_table() -> NDArray[np.float32]:
    """(119, 125) float32 by atomic number, zeros for no atom."""
    one_hot = np.zeros((119, N_ELEMENTS))
    one_hot[np.arange(1, N_ELEMENTS + 1), np.arange(N_ELEMENTS)] = 1
    return np.concatenate([one_hot, element_properties()], 1).astype(np.float32)


@lru_cache(maxsize=230)
def operations(space_group: int) -> NDArray[np.float32]:
    """(192, 4, 4) float32 affine matrices of the conventional cell, sorted, zeros beyond the
    group's order.
    """
    from pymatgen.symmetry.groups import SpaceGroup

    matrices_ = np.array(
        [
            operation.affine_matrix
            for operation in SpaceGroup.from_int_number(space_group).symmetry_ops
        ]
    )
    flat = np.round(matrices_.reshape(len(matrices_), 16), 6)
    found = np.zeros((192, 4, 4), dtype=np.float32)
    found[: len(flat)] = flat[np.lexsort(flat.T[::-1])].reshape(-1, 4, 4)
    return found
