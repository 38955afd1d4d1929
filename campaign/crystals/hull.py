"""The lower convex hull of energies against composition, for any number of elements; energies above
it for many crystals at once.

Compositions are rows of atomic fractions (n, elements), energies eV per atom. The hull's energy at
a composition x is the least energy of a mixture of phases with that composition, min_w w.e with w.X
= x, w >= 0: the largest of the planes through the lower facets (C. B. Barber, D. P. Dobkin, H.
Huhdanpaa, ACM Trans. Math. Softw. 22 (1996) 469); beyond five elements, where facets are many, a
linear program for each composition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from campaign.types import FloatArray

_MOST_ELEMENTS_OF_FACETS = 5
_STEEPEST = 1e-7
"""Least share of the energy in a lower facet's normal: steeper ones are the sides of the hull."""
_RESOLUTION = 1e-9
"""Energies (eV/atom) nearer to the hull than this lie on it."""
_CHUNK = 4096


@dataclass(frozen=True)
class LowerHull:
    """``ends`` (k,) the lowest energy of each element alone; ``vertices``: rows of the phases on
    the hull, among those it was made of.

    ``planes`` (f, k): formation energies on the lower facets are planes.x; of a hull by linear
    programs None.
    """

    ends: FloatArray
    vertices: NDArray[np.int64]
    fractions: FloatArray
    formation: FloatArray
    planes: FloatArray | None

    def at(self, fractions: FloatArray) -> FloatArray:
        """(m,) the hull's energy (eV/atom) at compositions (m, k)."""
        return fractions @ self.ends + self.formation_at(fractions)

    def formation_at(self, fractions: FloatArray) -> FloatArray:
        """(m,) the hull's formation energy (eV/atom) at compositions (m, k); at most zero."""
        distinct, place = np.unique(np.round(fractions, 12), axis=0, return_inverse=True)
        parts = [
            self._formation(distinct[start : start + _CHUNK])
            for start in range(0, len(distinct), _CHUNK)
        ]
        return np.minimum(np.concatenate(parts or [np.empty(0)]), 0.0)[place.reshape(-1)]

    def _formation(self, fractions: FloatArray) -> FloatArray:
        if self.planes is not None:
            return np.asarray((fractions @ self.planes.T).max(1))
        return np.array([_mixed(row, self.fractions, self.formation) for row in fractions])

    def above(self, fractions: FloatArray, energies: FloatArray) -> FloatArray:
        """(m,) how far energies (m,) at compositions (m, k) lie above the hull, eV/atom; below it
        negative, on it exactly 0.
        """
        found = energies - self.at(fractions)
        return np.where(np.abs(found) < _RESOLUTION, 0.0, found)


def lower_hull(fractions: FloatArray, energies: FloatArray) -> LowerHull:
    """Of phases (n, k) with energies (n,), among them one of each element alone, without which
    there is no hull (ValueError).
    """
    n_elements = fractions.shape[1]
    is_pure = fractions > 1 - 1e-9
    if not is_pure.any(0).all():
        raise ValueError("a hull needs a phase of each element alone")
    pure = np.array([np.flatnonzero(column)[np.argmin(energies[column])] for column in is_pure.T])
    ends = energies[pure]
    formation = energies - fractions @ ends
    below = np.flatnonzero((formation < -_RESOLUTION) & ~is_pure.any(1))
    rows = np.concatenate([pure, _lowest(fractions, formation, below)]).astype(np.int64)
    if len(rows) == n_elements:
        return LowerHull(ends, rows, fractions[rows], formation[rows], np.zeros((1, n_elements)))
    if n_elements > _MOST_ELEMENTS_OF_FACETS:
        on_hull = np.array(
            [
                i < n_elements or _is_vertex(i, fractions[rows], formation[rows])
                for i in range(len(rows))
            ]
        )
        return LowerHull(
            ends, rows[on_hull], fractions[rows[on_hull]], formation[rows[on_hull]], None
        )
    planes, corners = _facets(fractions[rows], formation[rows])
    vertices = rows[np.union1d(corners, np.arange(n_elements))]
    return LowerHull(ends, vertices, fractions[vertices], formation[vertices], planes)


def _lowest(
    fractions: FloatArray, formation: FloatArray, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Of each composition among the rows the one of lowest energy, the first of equals."""
    order = rows[np.argsort(formation[rows], kind="stable")]
    _, first = np.unique(np.round(fractions[order], 12), axis=0, return_index=True)
    return np.sort(order[first])


def _facets(fractions: FloatArray, formation: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Planes (f, k) of the lower facets, and the points that are their corners. A point far above
    closes the body.
    """
    from scipy.spatial import ConvexHull

    scale = float(np.abs(formation).max())
    n_elements = fractions.shape[1]
    top = np.append(np.full(n_elements - 1, 1 / n_elements), 1.0)
    body = ConvexHull(np.vstack([np.column_stack([fractions[:, :-1], formation / scale]), top]))
    normal, offset = body.equations[:, :-1], body.equations[:, -1]
    is_lower = normal[:, -1] < -_STEEPEST
    slope = -normal[is_lower, :-1] / normal[is_lower, -1:]
    start = -offset[is_lower] / normal[is_lower, -1]
    planes = scale * np.column_stack([slope + start[:, None], start])
    return planes, np.unique(body.simplices[is_lower])


def _mixed(wanted: FloatArray, fractions: FloatArray, formation: FloatArray) -> float:
    """The least formation energy of a mixture of phases (n, k) with a composition (k,)."""
    from scipy.optimize import linprog

    is_there = wanted > 1e-12
    fits = ~(fractions[:, ~is_there] > 1e-12).any(1)
    answer = linprog(
        formation[fits], A_eq=fractions[fits][:, is_there].T, b_eq=wanted[is_there], method="highs"
    )
    return float(answer.fun)


def _is_vertex(row: int, fractions: FloatArray, formation: FloatArray) -> bool:
    others = np.arange(len(fractions)) != row
    return bool(
        formation[row] < _mixed(fractions[row], fractions[others], formation[others]) - _RESOLUTION
    )
