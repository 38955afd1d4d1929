"""Columns of a crystal from columns of its atoms: averages over all of them, or over those of each
element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from ase.data import atomic_numbers

from campaign.types import Crystal, FloatArray

Average = Literal["all", "by_element"]


def names_by(average: Average, elements: Sequence[str], names: Sequence[str]) -> list[str]:
    return (
        list(names)
        if average == "all"
        else [f"{element}_{name}" for element in elements for name in names]
    )


def rows_by(
    average: Average, elements: Sequence[str], crystal: Crystal, atoms: FloatArray
) -> FloatArray:
    """(d,) of columns by atom (n, k); zeros for an element that the crystal does not hold."""
    if average == "all":
        found: FloatArray = atoms.mean(0)
        return found
    zeros = np.zeros(atoms.shape[1])
    masks = [crystal.numbers == atomic_numbers[element] for element in elements]
    return np.concatenate([atoms[mask].mean(0) if mask.any() else zeros for mask in masks])
