"""Local crystal structure by adaptive common-neighbour analysis.

Method: A. Stukowski, Modelling Simul. Mater. Sci. Eng. 20 (2012) 045021, section 2. The cutoff of
each atom follows from the mean distance of its 12 (fcc, hcp) or 14 (bcc) nearest neighbours; pairs
are classified by the number of common neighbours, the bonds among these, and the longest chain of
bonds.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from campaign.crystals.neighbours import nearest
from campaign.types import Crystal, FloatArray

_SQRT2 = float(np.sqrt(2.0))
NEIGHBOURS = 14
"""Whom the phase of an atom follows from."""


class Phase(IntEnum):
    OTHER = 0
    FCC = 1
    HCP = 2
    BCC = 3


def _signatures(
    vectors: FloatArray, cutoff: FloatArray
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the k neighbours bear the signatures 421, 422, 444, 666. vectors (n, k, 3), cutoff
    (n,).

    Bonds of a neighbour with the others are bits of a number, so that what two of them share are
    the bits of both. In 666 each of the six has two bonds, so that they form a chain of six where
    the two that one is bonded to are not bonded themselves.
    """
    k = vectors.shape[1]
    between = np.linalg.norm(vectors[:, :, None] - vectors[:, None], axis=-1)
    bonded = (between < cutoff[:, None, None]) & ~np.eye(k, dtype=bool)
    bonds = (bonded * (1 << np.arange(k))).sum(-1)
    common = bonds[:, :, None] & bonds[:, None, :]
    degree = np.where(bonded, np.bitwise_count(common), 0)
    n_common, n_bonds = bonded.sum(-1), degree.sum(-1) // 2
    highest, lowest = degree.max(-1), np.where(bonded, degree, k).min(-1)
    s421 = (n_common == 4) & (n_bonds == 2) & (highest == 1)
    s422 = (n_common == 4) & (n_bonds == 2) & (highest == 2)
    s444 = (n_common == 4) & (n_bonds == 4) & (highest == 2) & (lowest == 2)
    s666 = (n_common == 6) & (n_bonds == 6) & (highest == 2) & (lowest == 2)
    atom, neighbour = np.nonzero(s666)
    ends = common[atom, neighbour]
    one = np.bitwise_count((ends & -ends) - 1)
    is_triangle = bonded[atom, neighbour] & (bonds[atom[:, None], one] & ends != 0)
    s666[atom, neighbour] = ~is_triangle.any(-1)
    return s421, s422, s444, s666


def classify(crystal: Crystal) -> NDArray[np.int64]:
    """(n,) the Phase of each atom."""
    neighbours = nearest(crystal.lattice, crystal.fractional, NEIGHBOURS)
    return classify_neighbours(neighbours.distances, neighbours.vectors)


def classify_neighbours(distances: FloatArray, vectors: FloatArray) -> NDArray[np.int64]:
    """(n,) the Phase of n atoms, of any number of crystals, from their nearest neighbours:
    distances (n, 14), vectors (n, 14, 3).
    """
    close_cutoff = 0.5 * (1 + _SQRT2) * distances[:, :12].mean(1)
    s421, s422, _, _ = _signatures(vectors[:, :12], close_cutoff)
    n421, n422 = s421.sum(1), s422.sum(1)
    bcc_unit = (2 / np.sqrt(3) * distances[:, :8].sum(1) + distances[:, 8:14].sum(1)) / 14
    _, _, s444, s666 = _signatures(vectors, 0.5 * (1 + _SQRT2) * bcc_unit)
    phase = np.full(len(distances), Phase.OTHER, dtype=np.int64)
    phase[(s666.sum(1) == 8) & (s444.sum(1) == 6)] = Phase.BCC
    phase[(n421 == 6) & (n422 == 6)] = Phase.HCP
    phase[n421 == 12] = Phase.FCC
    return phase


def fractions(crystal: Crystal) -> dict[Phase, float]:
    """The share of atoms in each phase."""
    counts = np.bincount(classify(crystal), minlength=len(Phase))
    return {phase: float(counts[phase] / len(crystal)) for phase in Phase}
