"""A condition as numbers that all space groups have, so that a network can be asked for sites that
it never learned: the group's own, and for each site its atoms, freedom and symmetry, its element,
and the map from free coordinates to its first point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from campaign.types import FloatArray
from generators.cvae.feasible import Condition
from generators.cvae.forest import LAST_GROUPS, of_group, system_of
from generators.cvae.table import MOST_SITES
from generators.wyckoff import group_of

_OF_SITE = 1 + 3 + 12
_LEAST_SPREAD = 1e-6


@lru_cache(maxsize=16384)
def _site(group: int, index: int) -> tuple[float, ...]:
    """(16,) that it is there, atoms of the primitive cell, freedom, logarithm of the operations
    that keep it, and the map of its first point (3, 4).
    """
    position = group_of(group).positions[index]
    general = group_of(group).positions[0].multiplicity
    return (
        1.0,
        position.multiplicity / group_of(group).centring,
        float(position.degrees_of_freedom),
        float(np.log(general / position.multiplicity)),
        *position.operations[0, :3].ravel().tolist(),
    )


def rows_of(conditions: Sequence[Condition], species: Sequence[int]) -> FloatArray:
    """(n, 13 + 8 (16 + elements)), zeros where there is no site."""
    width = _OF_SITE + len(species)
    n_systems = len(LAST_GROUPS)
    found = np.zeros((len(conditions), 6 + n_systems + MOST_SITES * width))
    for row, (group, sites) in zip(found, conditions, strict=True):
        row[:6] = of_group(group)
        row[6 + system_of(group)] = 1.0
        for place, (index, number) in enumerate(sites):
            first = 6 + n_systems + place * width
            row[first : first + _OF_SITE] = _site(group, index)
            row[first + _OF_SITE + list(species).index(number)] = 1.0
    return found


@dataclass(frozen=True, eq=False)
class Described:
    """Scales (k,) of the columns of ``rows_of`` over what was learned; what did not differ there is
    left out.
    """

    center: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, conditions: Sequence[Condition], species: Sequence[int]) -> Described:
        rows = rows_of(conditions, species)
        return cls(rows.mean(0), rows.std(0))

    @property
    def n_inputs(self) -> int:
        return len(self.center)

    def encode(self, conditions: Sequence[Condition], species: Sequence[int]) -> Tensor:
        """(n, k) in units of the spreads, within five of them."""
        differs = self.spread > _LEAST_SPREAD
        scaled = (rows_of(conditions, species) - self.center) / np.where(differs, self.spread, 1.0)
        return torch.from_numpy(np.clip(np.where(differs, scaled, 0.0), -5.0, 5.0)).float()

    def knows(self, condition: Condition, species: Sequence[int]) -> bool:
        """Any condition of the elements."""
        return {number for _, number in condition[1]} <= set(species)
