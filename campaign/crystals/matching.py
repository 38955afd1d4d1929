"""When two candidates are the same crystal: a cheap key that equal crystals share, then pymatgen's StructureMatcher.

The key holds the formula and rounded sums over neighbours that translation, rotation, permutation and uniform scaling leave
unchanged. Different crystals may share a key, so the matcher decides; equal crystals miss each other only where a sum
sits within 1e-6 of a rounding edge.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from campaign.crystals.neighbours import length_scale, pairs
from campaign.types import Crystal, FloatArray

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

_WIDTHS = (1.2, 1.7)


def site_environments(crystal: Crystal) -> FloatArray:
    """(n, 2 s) for s elements: Gaussian-weighted counts of each element around each atom, at two widths, in units of (V/n)^(1/3)."""
    scale = length_scale(crystal.lattice, len(crystal))
    first, second, distance, _ = pairs(crystal.lattice, crystal.fractional, 2.2 * scale)
    elements, kind = np.unique(crystal.numbers, return_inverse=True)
    columns = []
    for width in _WIDTHS:
        weight = np.exp(-((distance / (width * scale)) ** 4))
        flat = np.bincount(first * len(elements) + kind[second], weights=weight, minlength=len(crystal) * len(elements))
        columns.append(flat.reshape(len(crystal), len(elements)))
    return np.concatenate(columns, axis=1)


def equivalence_key(crystal: Crystal) -> str:
    """The formula and 64 bits over rounded invariants: for each element, mean and second moments of its site environments."""
    environment = site_environments(crystal)
    invariants = []
    for number in np.unique(crystal.numbers):
        around = environment[crystal.numbers == number]
        invariants += [around.mean(0), (around.T @ around / len(around)).ravel(), (around**3).mean(0)]
    values = np.concatenate(invariants)
    rounded = np.round(values / np.maximum(np.abs(values).max(), 1e-12), 5) + 0.0
    return f"{crystal.formula}:{hashlib.blake2b(rounded.tobytes(), digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class Matcher:
    """StructureMatcher with its tolerances, which are recorded with each verdict.

    ``length``: fractional length tolerance; ``site``: in units of (V/n)^(1/3); ``angle`` in degrees.
    """

    length: float = 0.05
    site: float = 0.05
    angle: float = 1.0

    @cached_property
    def _matcher(self) -> StructureMatcher:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        return StructureMatcher(ltol=self.length, stol=self.site, angle_tol=self.angle, primitive_cell=False)

    def is_same(self, one: Crystal, other: Crystal) -> bool:
        return bool(self._matcher.fit(one.structure, other.structure))
