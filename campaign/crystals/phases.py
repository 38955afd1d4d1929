"""Local crystal structure by adaptive common-neighbour analysis.

Method: A. Stukowski, Modelling Simul. Mater. Sci. Eng. 20 (2012) 045021, section 2. The cutoff of each atom follows
from the mean distance of its 12 (fcc, hcp) or 14 (bcc) nearest neighbours; pairs are classified by the number of
common neighbours, the bonds among these, and the longest chain of bonds.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from campaign.crystals.neighbours import nearest
from campaign.types import Crystal, FloatArray

_SQRT2 = float(np.sqrt(2.0))


class Phase(IntEnum):
    OTHER = 0
    FCC = 1
    HCP = 2
    BCC = 3


def _signatures(
    vectors: FloatArray, cutoff: FloatArray
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the k neighbours bear the signatures 421, 422, 444, 666. vectors (n, k, 3), cutoff (n,)."""
    between = np.linalg.norm(vectors[:, :, None] - vectors[:, None], axis=-1)
    bonded = between < cutoff[:, None, None]
    bonded &= ~np.eye(vectors.shape[1], dtype=bool)
    common = bonded[:, :, :, None] & bonded[:, :, None, :] & bonded[:, None, :, :]
    degree = common.sum(-1)
    n_common = bonded.sum(-1)
    n_bonds = degree.sum(-1) // 2
    highest = degree.max(-1)
    lowest = np.where(bonded, degree, 99).min(-1)
    adjacency = common.astype(np.float32)
    has_triangle = np.einsum("nkab,nkbc,nkca->nk", adjacency, adjacency, adjacency, optimize=True) > 0.5
    s421 = (n_common == 4) & (n_bonds == 2) & (highest == 1)
    s422 = (n_common == 4) & (n_bonds == 2) & (highest == 2)
    s444 = (n_common == 4) & (n_bonds == 4) & (highest == 2) & (lowest == 2)
    s666 = (n_common == 6) & (n_bonds == 6) & (highest == 2) & (lowest == 2) & ~has_triangle
    return s421, s422, s444, s666


def classify(crystal: Crystal) -> NDArray[np.int64]:
    """(n,) the Phase of each atom."""
    neighbours = nearest(crystal.lattice, crystal.fractional, 14)
    r = neighbours.distances
    close_cutoff = 0.5 * (1 + _SQRT2) * r[:, :12].mean(1)
    s421, s422, _, _ = _signatures(neighbours.vectors[:, :12], close_cutoff)
    n421, n422 = s421.sum(1), s422.sum(1)
    bcc_unit = (2 / np.sqrt(3) * r[:, :8].sum(1) + r[:, 8:14].sum(1)) / 14
    _, _, s444, s666 = _signatures(neighbours.vectors, 0.5 * (1 + _SQRT2) * bcc_unit)
    phase = np.full(len(crystal), Phase.OTHER, dtype=np.int64)
    phase[(s666.sum(1) == 8) & (s444.sum(1) == 6)] = Phase.BCC
    phase[(n421 == 6) & (n422 == 6)] = Phase.HCP
    phase[n421 == 12] = Phase.FCC
    return phase


def fractions(crystal: Crystal) -> dict[Phase, float]:
    """The share of atoms in each phase."""
    counts = np.bincount(classify(crystal), minlength=len(Phase))
    return {phase: float(counts[phase] / len(crystal)) for phase in Phase}
