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
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from campaign.crystals.neighbours import nearest
from campaign.crystals.phases import Phase, fractions
from campaign.types import Crystal, FloatArray

_SHELLS = {Phase.BCC: (8, 6, 12), Phase.FCC: (12, 6, 24)}
_PHASES = (Phase.FCC, Phase.HCP, Phase.BCC)
_CACHED_GEOMETRIES = 4096
"""About 10 KB each for 54 atoms."""
_CHUNK = 512


@dataclass(frozen=True)
class _Geometry:
    """Neighbour shells (n, k) and shares of the phases."""

    shells: tuple[NDArray[np.int32], ...]
    phases: FloatArray

    @property
    def triangles(self) -> NDArray[np.int64]:
        """(m, 3): a site between two of its first neighbours, and both of them."""
        first = self.shells[0]
        one, other = np.triu_indices(first.shape[1], 1)
        sites = np.repeat(np.arange(len(first)), len(one))
        return np.stack([first[:, one].ravel(), sites, first[:, other].ravel()], axis=1)


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
    shells = tuple(indices[:, low:high].astype(np.int32) for low, high in itertools.pairwise(edges))
    geometry = _Geometry(shells, np.array([share[phase] for phase in _PHASES]))
    _geometries[key] = geometry
    if len(_geometries) > _CACHED_GEOMETRIES:
        _geometries.popitem(last=False)
    return geometry


class AlloyConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    triplets: bool = Field(False, description="Triplet probabilities of first neighbours beside the pairs.")


class AlloyEmbedder:
    """The embedder ``alloy``."""

    Config = AlloyConfig
    is_worth_keeping = False

    def __init__(self, config: AlloyConfig) -> None:
        self._triplets = config.triplets

    @property
    def version(self) -> str:
        return "alloy-triplets" if self._triplets else "alloy"

    def columns(self, elements: Sequence[str]) -> list[str]:
        return column_names(elements, triplets=self._triplets)

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        return describe(crystals, elements, triplets=self._triplets)


def column_names(elements: Sequence[str], *, triplets: bool = False) -> list[str]:
    """Names of the columns of ``describe`` in their fixed order."""
    names = [f"fraction_{element}" for element in elements] + [f"phase_{phase.name.lower()}" for phase in _PHASES]
    for shell in (1, 2, 3):
        names += [f"shell{shell}_{a}-{b}" for a, b in itertools.combinations_with_replacement(elements, 2)]
        names += [f"shell{shell}_variance_{element}" for element in elements]
    if triplets:
        names += [f"triplet_{a}-{b}-{c}" for a, b, c in itertools.combinations_with_replacement(elements, 3)]
    return names


def describe(crystals: Sequence[Crystal], elements: Sequence[str], *, triplets: bool = False) -> FloatArray:
    """(n, d) descriptors, one row per crystal, columns as in ``column_names``. Crystals on the same sites are described together."""
    kinds = np.array([atomic_numbers[element] for element in elements], dtype=np.uint8)
    rows = np.empty((len(crystals), len(column_names(elements, triplets=triplets))))
    groups: dict[bytes, list[int]] = {}
    for i, crystal in enumerate(crystals):
        groups.setdefault(crystal.sites, []).append(i)
    for key, members in groups.items():
        geometry = _geometry(crystals[members[0]], key)
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            numbers = np.stack([crystals[i].numbers for i in chunk])
            parts = [_describe_orderings(numbers, kinds, geometry)]
            if triplets:
                parts.append(_triplets(numbers, kinds, geometry.triangles))
            rows[chunk] = np.concatenate(parts, axis=1)
    return rows


def _describe_orderings(numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], geometry: _Geometry) -> FloatArray:
    """(m, d) descriptors of m orderings (m, atoms) on the sites of one geometry."""
    m, n_atoms = numbers.shape
    upper = np.triu_indices(len(kinds))
    occupied = (numbers[:, :, None] == kinds).astype(float)
    by_site = occupied.transpose(1, 0, 2).reshape(n_atoms, -1)
    parts = [occupied.mean(1), np.broadcast_to(geometry.phases, (m, len(_PHASES)))]
    for shell in geometry.shells:
        neighbours = csr_array((np.ones(shell.size), shell.ravel(), np.arange(n_atoms + 1) * shell.shape[1]), shape=(n_atoms, n_atoms))
        around = np.ascontiguousarray((neighbours @ by_site).reshape(n_atoms, m, -1).transpose(1, 0, 2)) / shell.shape[1]
        pair = occupied.transpose(0, 2, 1) @ around / n_atoms
        pair = pair + pair.transpose(0, 2, 1) - pair * np.eye(len(kinds))
        parts += [pair[:, *upper], around.var(1)]
    return np.concatenate(parts, axis=1)


def _triplets(numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], sites: NDArray[np.int64]) -> FloatArray:
    """(m, t) the share of triplets (first neighbour, site, first neighbour) by their three elements, whatever the order."""
    n = len(kinds)
    index = np.full(256, -1, dtype=np.int64)
    index[kinds] = np.arange(n)
    combinations = list(itertools.combinations_with_replacement(range(n), 3))
    place = np.zeros((n, n, n), dtype=np.int64)
    for column, members in enumerate(combinations):
        for order in set(itertools.permutations(members)):
            place[order] = column
    found = np.empty((len(numbers), len(combinations)))
    for row, occupied in enumerate(index[numbers]):
        columns = place[occupied[sites[:, 0]], occupied[sites[:, 1]], occupied[sites[:, 2]]]
        found[row] = np.bincount(columns, minlength=len(combinations)) / len(columns)
    return found
