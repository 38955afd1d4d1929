"""G-vectors: what surrounds each atom, as radial and angular functions by element, and distances
between crystals made of them.

Distances in angstrom. The modified Behler-Parrinello form of PANNA (R. Lot et al., Comput. Phys.
Commun. 256 (2020) 107402) with the constants of the NiFeCr study (A. D. Naghdi et al., 2024,
appendix A.5). Layout: elements in alphabetical order of their symbols; 8 radial shells for each,
then 4 shells x 8 angles for each unordered pair (first with first, first with second, ...). One
array operation over all pairs and one over all triplets within 3.1 angstrom; about 3 ms for 54
atoms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from campaign.crystals.neighbours import pairs
from campaign.errors import InputError
from campaign.types import Crystal, FloatArray


@dataclass(frozen=True)
class GVectorConstants:
    """Widths in 1/angstrom^2, radii in angstrom."""

    radial_width: float = 8.0
    radial_cutoff: float = 4.6
    radial_start: float = 0.5
    radial_shells: int = 8
    angular_width: float = 6.0
    angular_cutoff: float = 3.1
    angular_start: float = 0.5
    angular_shells: int = 4
    angles: int = 8
    sharpness: float = 50.0
    smoothing: float = 0.001

    @property
    def radial_centres(self) -> FloatArray:
        step = (self.radial_cutoff - self.radial_start) / self.radial_shells
        return np.asarray(self.radial_start + step * np.arange(self.radial_shells), dtype=float)

    @property
    def angular_centres(self) -> FloatArray:
        step = (self.angular_cutoff - self.angular_start) / self.angular_shells
        return np.asarray(self.angular_start + step * np.arange(self.angular_shells), dtype=float)

    @property
    def angle_centres(self) -> FloatArray:
        return math.pi * (np.arange(self.angles) + 0.5) / self.angles


CONSTANTS = GVectorConstants()


def gvectors(
    crystal: Crystal, elements: Sequence[str] | None = None, constants: GVectorConstants = CONSTANTS
) -> FloatArray:
    """(n, d), one row per atom; d = 8 s + 32 s (s + 1) / 2 for s elements, by default those of the
    crystal.

    Raises InputError where the crystal holds another element.
    """
    names = sorted(set(crystal.symbols) if elements is None else elements)
    if unknown := set(crystal.symbols) - set(names):
        raise InputError(
            f"expected a crystal of {', '.join(names)}, got {', '.join(sorted(unknown))} in "
            f"{crystal.formula}"
        )
    kind = np.array([names.index(symbol) for symbol in crystal.symbols])
    first, second, distance, vector = pairs(
        crystal.lattice, crystal.fractional, constants.radial_cutoff
    )
    radial = _radial(len(crystal), len(names), kind, first, second, distance, constants)
    near = distance < constants.angular_cutoff
    angular = _angular(
        len(crystal),
        len(names),
        kind,
        first[near],
        second[near],
        distance[near],
        vector[near],
        constants,
    )
    return np.concatenate([radial, angular], axis=1)


def _cut(distance: FloatArray, cutoff: float) -> FloatArray:
    return 0.5 * (1 + np.cos(np.pi * distance / cutoff))


def _radial(
    n: int,
    s: int,
    kind: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    r: FloatArray,
    c: GVectorConstants,
) -> FloatArray:
    """sum_j exp(-eta (r_ij - R_k)^2) f(r_ij) by the element of j."""
    terms = (
        np.exp(-c.radial_width * (r[:, None] - c.radial_centres) ** 2)
        * _cut(r, c.radial_cutoff)[:, None]
    )
    found = np.zeros((n * s, c.radial_shells))
    np.add.at(found, first * s + kind[second], terms)
    return found.reshape(n, -1)


def _angular(
    n: int,
    s: int,
    kind: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    r: FloatArray,
    vector: FloatArray,
    c: GVectorConstants,
) -> FloatArray:
    """sum over pairs j < k of 2 [(1 + cos th cos t + sin t sqrt(1 - cos^2 th + e sin^2 t)) / (1 +
    sqrt(1 + e sin^2 t))]^z

    times exp(-eta ((r_ij + r_ik) / 2 - R)^2) f(r_ij) f(r_ik), by the elements of j and k.
    """
    n_pairs = s * (s + 1) // 2
    one, two = _pairs_of_edges(first)
    cosine = np.clip((vector[one] * vector[two]).sum(1) / (r[one] * r[two]), -1, 1)[:, None]
    angle, smooth = c.angle_centres, c.smoothing * np.sin(c.angle_centres) ** 2
    overlap = (1 + cosine * np.cos(angle) + np.sin(angle) * np.sqrt(1 - cosine**2 + smooth)) / (
        1 + np.sqrt(1 + smooth)
    )
    shell = np.exp(-c.angular_width * ((r[one] + r[two])[:, None] / 2 - c.angular_centres) ** 2)
    weight = 2 * _cut(r[one], c.angular_cutoff) * _cut(r[two], c.angular_cutoff)
    terms = (weight[:, None] * shell)[:, :, None] * (overlap**c.sharpness)[:, None, :]
    low, high = (
        np.minimum(kind[second[one]], kind[second[two]]),
        np.maximum(kind[second[one]], kind[second[two]]),
    )
    which = low * s - low * (low - 1) // 2 + high - low
    found = np.zeros((n * n_pairs, c.angular_shells * c.angles))
    np.add.at(
        found, first[one] * n_pairs + which, terms.reshape(len(one), c.angular_shells * c.angles)
    )
    return found.reshape(n, -1)


def _pairs_of_edges(first: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all unordered pairs of edges that leave the same atom; ``first`` is sorted."""
    starts = np.searchsorted(first, first, side="left")
    rank = np.arange(len(first)) - starts
    one = np.repeat(np.arange(len(first)), rank)
    two = np.arange(len(one)) - np.repeat(np.cumsum(rank) - rank, rank) + np.repeat(starts, rank)
    return one, two


def g_distance(one: Crystal, other: Crystal, *, by_element: bool = True) -> float:
    """Mean Euclidean distance of the G-vectors over the best assignment of atoms; without elements
    the CP G-distance.

    Raises InputError where the crystals differ in their number of atoms, or by element in their
    composition.
    """
    if (by_element and one.formula != other.formula) or len(one) != len(other):
        raise InputError(
            f"expected two crystals of one composition, got {one.formula} and {other.formula}"
        )
    if not by_element:
        one, other = (
            crystal.with_numbers(np.full(len(crystal), 30, dtype=np.uint8))
            for crystal in (one, other)
        )
    apart = cdist(gvectors(one), gvectors(other))
    return float(apart[linear_sum_assignment(apart)].mean())
