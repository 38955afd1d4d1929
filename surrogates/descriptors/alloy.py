"""Descriptors of alloys: composition, phase, and short-range order in the first three neighbour shells.

For shell s and elements a, b the pair probability is P_s(a, b) = N_s(a, b) / N_s, the share of neighbour pairs that are of these
elements (the quantity behind Warren-Cowley parameters, J. M. Cowley, Phys. Rev. 77 (1950) 669). Beside its mean stands the variance
over sites of each element's share of the shell, which tells ordered from random at one mean.

Shells are taken by rank of distance: 12, 6, 24 neighbours in close-packed crystals, 8, 6, 12 in bcc ones, so relaxed cells count
like ideal ones. Cost: 5 ms for a new geometry, about 0.03 ms for another ordering of a known one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from campaign.crystals.neighbours import geometry_key, nearest
from campaign.crystals.phases import Phase, fractions
from campaign.types import Crystal, FloatArray

_SHELLS = {Phase.BCC: (8, 6, 12), Phase.FCC: (12, 6, 24)}
_PHASES = (Phase.FCC, Phase.HCP, Phase.BCC)
_CACHED_GEOMETRIES = 512
_CHUNK = 512


@dataclass(frozen=True)
class _Geometry:
    shells: tuple[NDArray[np.int64], ...]
    phases: FloatArray


_geometries: OrderedDict[bytes, _Geometry] = OrderedDict()


def _geometry(crystal: Crystal, key: bytes) -> _Geometry:
    """Neighbour shells and phase of the sites; shared by all orderings on the same sites, at any volume."""
    if key in _geometries:
        _geometries.move_to_end(key)
        return _geometries[key]
    share = fractions(crystal)
    counts = _SHELLS[Phase.BCC if share[Phase.BCC] >= 0.5 else Phase.FCC]
    indices = nearest(crystal.lattice, crystal.fractional, sum(counts)).indices
    edges = np.cumsum((0, *counts))
    shells = tuple(indices[:, low:high] for low, high in itertools.pairwise(edges))
    geometry = _Geometry(shells, np.array([share[phase] for phase in _PHASES]))
    _geometries[key] = geometry
    if len(_geometries) > _CACHED_GEOMETRIES:
        _geometries.popitem(last=False)
    return geometry


class AlloyEmbedder:
    """The embedder ``alloy``."""

    is_worth_keeping = False
    version = "alloy"

    @staticmethod
    def columns(elements: Sequence[str]) -> list[str]:
        return column_names(elements)

    @staticmethod
    def embed(crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        return describe(crystals, elements)


def column_names(elements: Sequence[str]) -> list[str]:
    """Names of the columns of ``describe`` in their fixed order."""
    names = [f"fraction_{element}" for element in elements] + [f"phase_{phase.name.lower()}" for phase in _PHASES]
    for shell in (1, 2, 3):
        names += [f"shell{shell}_{a}-{b}" for a, b in itertools.combinations_with_replacement(elements, 2)]
        names += [f"shell{shell}_variance_{element}" for element in elements]
    return names


def describe(crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
    """(n, d) descriptors, one row per crystal, columns as in ``column_names``. Crystals on the same sites are described together."""
    kinds = np.array([atomic_numbers[element] for element in elements], dtype=np.uint8)
    rows = np.empty((len(crystals), len(column_names(elements))))
    groups: dict[bytes, list[int]] = {}
    for i, crystal in enumerate(crystals):
        groups.setdefault(geometry_key(crystal), []).append(i)
    for key, members in groups.items():
        geometry = _geometry(crystals[members[0]], key)
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            rows[chunk] = _describe_orderings(np.stack([crystals[i].numbers for i in chunk]), kinds, geometry)
    return rows


def _describe_orderings(numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], geometry: _Geometry) -> FloatArray:
    """(m, d) descriptors of m orderings (m, atoms) on the sites of one geometry."""
    m, n_atoms = numbers.shape
    upper = np.triu_indices(len(kinds))
    occupied = (numbers[:, :, None] == kinds).astype(float)
    parts = [occupied.mean(1), np.broadcast_to(geometry.phases, (m, len(_PHASES)))]
    for shell in geometry.shells:
        around = np.zeros_like(occupied)
        for neighbour in shell.T:
            around += occupied[:, neighbour]
        around /= shell.shape[1]
        pair = occupied.transpose(0, 2, 1) @ around / n_atoms
        pair = pair + pair.transpose(0, 2, 1) - pair * np.eye(len(kinds))
        parts += [pair[:, *upper], around.var(1)]
    return np.concatenate(parts, axis=1)
