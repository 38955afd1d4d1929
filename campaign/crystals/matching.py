"""When two candidates are the same crystal: a cheap key that equal crystals share, then an exact or a tolerant comparison.

The key holds the formula and rounded sums over neighbours that translation, rotation, permutation and uniform scaling leave
unchanged. Different crystals may share a key, so a comparison decides: crystals on the same sites by the symmetry operations of the
bare sites, which is exact; others by pymatgen's StructureMatcher. Equal crystals miss each other only where a sum lies on a rounding edge.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import spglib
from numpy.typing import NDArray

from campaign.crystals.neighbours import geometry_key, scaled_pairs
from campaign.types import Crystal, FloatArray

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

_WIDTHS = (1.2, 1.7)
_SYMMETRY_PRECISION = 1e-4
_CACHED_GEOMETRIES = 128
_permutations: OrderedDict[bytes, NDArray[np.int16]] = OrderedDict()


def site_environments(crystal: Crystal) -> FloatArray:
    """(n, 2 s) for s elements: Gaussian-weighted counts of each element around each atom, at two widths, in units of (V/n)^(1/3)."""
    pairs = scaled_pairs(crystal)
    elements, kind = np.unique(crystal.numbers, return_inverse=True)
    flat = pairs.first * len(elements) + kind[pairs.second]
    columns = []
    for width in _WIDTHS:
        weight = np.exp(-((pairs.distance / width) ** 4))
        around = np.bincount(flat, weights=weight, minlength=len(crystal) * len(elements))
        columns.append(around.reshape(len(crystal), len(elements)))
    return np.concatenate(columns, axis=1)


def equivalence_key(crystal: Crystal) -> str:
    """The formula and 64 bits over rounded invariants: for each element, moments of its site environments."""
    environment = site_environments(crystal)
    invariants = []
    for number in np.unique(crystal.numbers):
        around = environment[crystal.numbers == number]
        invariants += [around.mean(0), (around.T @ around / len(around)).ravel(), (around**3).mean(0)]
    values = np.concatenate(invariants)
    rounded = np.round(values / np.maximum(np.abs(values).max(), 1e-12), 5) + 0.0
    return f"{crystal.formula}:{hashlib.blake2b(rounded.tobytes(), digest_size=8).hexdigest()}"


def site_permutations(crystal: Crystal) -> NDArray[np.int16]:
    """(operations, n): how each symmetry operation of the bare sites, their elements forgotten, permutes them. Kept by geometry."""
    key = geometry_key(crystal)
    known = _permutations.get(key)
    if known is None:
        cell = (crystal.lattice, crystal.fractional, np.ones(len(crystal), dtype=int))
        symmetry = spglib.get_symmetry(cell, symprec=_SYMMETRY_PRECISION)
        found = np.empty((len(symmetry["rotations"]), len(crystal)), dtype=np.int16)
        for row, rotation, shift in zip(found, symmetry["rotations"], symmetry["translations"], strict=True):
            moved = crystal.fractional @ rotation.T + shift
            offset = moved[:, None] - crystal.fractional
            row[:] = np.abs(offset - np.round(offset)).sum(-1).argmin(1)
        known = _permutations[key] = found
        if len(_permutations) > _CACHED_GEOMETRIES:
            _permutations.popitem(last=False)
    return known


def is_same_ordering(one: Crystal, other: Crystal) -> bool:
    """Whether two crystals on the same sites are one ordering, seen from another origin or orientation."""
    return bool((one.numbers[site_permutations(one)] == other.numbers).all(1).any())


@dataclass(frozen=True)
class Matcher:
    """Exact on the same sites; elsewhere StructureMatcher with its tolerances, which are recorded with each verdict.

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
        if len(one) == len(other) and geometry_key(one) == geometry_key(other):
            return is_same_ordering(one, other)
        return bool(self._matcher.fit(one.structure, other.structure))
