"""Descriptors of alloys: composition, phase, and short-range order in the first three neighbour
shells.

For shell s and elements a, b the pair probability is P_s(a, b) = N_s(a, b) / N_s, the share of
neighbour pairs that are of these elements (the quantity behind Warren-Cowley parameters, J. M.
Cowley, Phys. Rev. 77 (1950) 669). Beside its mean stands the variance over sites of each element's
share of the shell, which tells ordered from random at one mean.

Shells are taken by rank of distance: 12, 6, 24 neighbours in close-packed crystals, 8, 6, 12 in bcc
ones, so relaxed cells count like ideal ones. Geometries are taken at one volume and to five
decimals, as files give them: crystals on the sites of one lattice are one geometry, whatever their
lattice constants. New geometries are looked at many together, a small fraction of a millisecond
each; another ordering of a known one costs about 0.03 ms.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array

from campaign.crystals.neighbours import nearest
from campaign.crystals.phases import NEIGHBOURS, Phase, classify_neighbours
from campaign.parameters import Parameters
from campaign.types import Crystal, FloatArray

_SHELLS = {Phase.BCC: (8, 6, 12), Phase.FCC: (12, 6, 24)}
_PHASES = (Phase.FCC, Phase.HCP, Phase.BCC)
_CACHED_GEOMETRIES = 4096
"""About 10 KB each for 54 atoms."""
_CHUNK = 512
_GEOMETRIES_AT_ONCE = 256
_FEW = 4
"""Orderings of one geometry that are described beside those of others."""
_DECIMALS = 5
_MOST_NEIGHBOURS = max(sum(counts) for counts in _SHELLS.values())


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


def _key(crystal: Crystal) -> bytes:
    """Cell, over (V/n)^(1/3), and coordinates of what a geometry is made of."""
    edge = (abs(np.linalg.det(crystal.lattice)) / len(crystal)) ** (1 / 3)
    lattice = np.round(crystal.lattice / edge, _DECIMALS)
    fractional = np.round(crystal.fractional, _DECIMALS) % 1.0
    return bytes((np.concatenate([lattice, fractional]) + 0.0).tobytes())


def _geometries_of(keys: Sequence[bytes]) -> dict[bytes, _Geometry]:
    """Neighbour shells and phase of sites; shared by all orderings on the same sites, at any
    volume.
    """
    found = {key: _geometries[key] for key in keys if key in _geometries}
    missing = [key for key in keys if key not in found]
    for start in range(0, len(missing), _GEOMETRIES_AT_ONCE):
        some = missing[start : start + _GEOMETRIES_AT_ONCE]
        found |= zip(some, _new_geometries(some), strict=True)
    for key in found:
        _geometries[key] = found[key]
        _geometries.move_to_end(key)
    while len(_geometries) > _CACHED_GEOMETRIES:
        _geometries.popitem(last=False)
    return found


def _new_geometries(keys: Sequence[bytes]) -> Iterator[_Geometry]:
    rows = [np.frombuffer(key).reshape(-1, 3) for key in keys]
    each = [nearest(row[:3], row[3:], _MOST_NEIGHBOURS) for row in rows]
    phases = classify_neighbours(
        np.concatenate([found.distances[:, :NEIGHBOURS] for found in each]),
        np.concatenate([found.vectors[:, :NEIGHBOURS] for found in each]),
    )
    edges = np.cumsum([0, *(len(row) - 3 for row in rows)])
    for found, low, high in zip(each, edges[:-1], edges[1:], strict=True):
        share = np.bincount(phases[low:high], minlength=len(Phase)) / (high - low)
        counts = _SHELLS[Phase.BCC if share[Phase.BCC] >= 0.5 else Phase.FCC]
        shells = tuple(
            found.indices[:, a:b].astype(np.int32)
            for a, b in itertools.pairwise(itertools.accumulate(counts, initial=0))
        )
        yield _Geometry(shells, share[list(_PHASES)])


class AlloyConfig(Parameters):
    triplets: bool = Field(
        False, description="Triplet probabilities of first neighbours beside the pairs."
    )


class AlloyEmbedder:
    """The embedder ``alloy``."""

    Config = AlloyConfig
    is_worth_keeping = False

    def __init__(self, config: AlloyConfig) -> None:
        self._triplets = config.triplets

    @property
    def version(self) -> str:
        """Rows of geometries to other decimals differ where neighbours are as far as each other."""
        return f"alloy-{_DECIMALS}-triplets" if self._triplets else f"alloy-{_DECIMALS}"

    def columns(self, elements: Sequence[str]) -> list[str]:
        return column_names(elements, triplets=self._triplets)

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        return describe(crystals, elements, triplets=self._triplets)


def column_names(elements: Sequence[str], *, triplets: bool = False) -> list[str]:
    """Names of the columns of ``describe`` in their fixed order."""
    names = [f"fraction_{element}" for element in elements] + [
        f"phase_{phase.name.lower()}" for phase in _PHASES
    ]
    for shell in (1, 2, 3):
        names += [
            f"shell{shell}_{a}-{b}" for a, b in itertools.combinations_with_replacement(elements, 2)
        ]
        names += [f"shell{shell}_variance_{element}" for element in elements]
    if triplets:
        names += [
            f"triplet_{a}-{b}-{c}"
            for a, b, c in itertools.combinations_with_replacement(elements, 3)
        ]
    return names


def describe(
    crystals: Sequence[Crystal], elements: Sequence[str], *, triplets: bool = False
) -> FloatArray:
    """(n, d) descriptors, one row per crystal, columns as in ``column_names``. Crystals on the same
    sites are described together.
    """
    kinds = np.array([atomic_numbers[element] for element in elements], dtype=np.uint8)
    rows = np.empty((len(crystals), len(column_names(elements, triplets=triplets))))
    keys: dict[bytes, bytes] = {}
    groups: dict[bytes, list[int]] = {}
    for i, crystal in enumerate(crystals):
        key = keys.get(crystal.sites) or keys.setdefault(crystal.sites, _key(crystal))
        groups.setdefault(key, []).append(i)
    geometries = _geometries_of(list(groups))
    alone: dict[tuple[int, ...], list[tuple[int, _Geometry]]] = {}
    for key, members in groups.items():
        geometry = geometries[key]
        if len(members) <= _FEW and not triplets:
            kind = tuple(shell.size for shell in geometry.shells)
            alone.setdefault(kind, []).extend((i, geometry) for i in members)
            continue
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            numbers = np.stack([crystals[i].numbers for i in chunk])
            parts = [_describe_orderings(numbers, kinds, geometry)]
            if triplets:
                parts.append(_triplets(numbers, kinds, geometry.triangles))
            rows[chunk] = np.concatenate(parts, axis=1)
    for alike in alone.values():
        for start in range(0, len(alike), _CHUNK):
            chosen, of = zip(*alike[start : start + _CHUNK], strict=True)
            numbers = np.stack([crystals[i].numbers for i in chosen])
            rows[list(chosen)] = _describe_apart(numbers, kinds, of)
    return rows


def _describe_orderings(
    numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], geometry: _Geometry
) -> FloatArray:
    """(m, d) descriptors of m orderings (m, atoms) on the sites of one geometry."""
    m, n_atoms = numbers.shape
    occupied = (numbers[:, :, None] == kinds).astype(float)
    by_site = occupied.transpose(1, 0, 2).reshape(n_atoms, -1)
    parts = [occupied.mean(1), np.broadcast_to(geometry.phases, (m, len(_PHASES)))]
    for shell in geometry.shells:
        neighbours = csr_array(
            (np.ones(shell.size), shell.ravel(), np.arange(n_atoms + 1) * shell.shape[1]),
            shape=(n_atoms, n_atoms),
        )
        around = (
            np.ascontiguousarray((neighbours @ by_site).reshape(n_atoms, m, -1).transpose(1, 0, 2))
            / shell.shape[1]
        )
        parts += _pairs(occupied, around)
    return np.concatenate(parts, axis=1)


def _describe_apart(
    numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], geometries: Sequence[_Geometry]
) -> FloatArray:
    """As ``_describe_orderings``, of m orderings (m, atoms) each on sites of its own, whose shells
    are as large.
    """
    occupied = (numbers[:, :, None] == kinds).astype(float)
    parts = [occupied.mean(1), np.stack([geometry.phases for geometry in geometries])]
    each = np.arange(len(numbers))[:, None]
    for shells in zip(*(geometry.shells for geometry in geometries), strict=True):
        sites = np.stack(shells)
        around = sum(occupied[each, sites[:, :, rank]] for rank in range(sites.shape[2]))
        parts += _pairs(occupied, around / sites.shape[2])
    return np.concatenate(parts, axis=1)


def _pairs(occupied: FloatArray, around: FloatArray) -> list[FloatArray]:
    """Pair probabilities, and the variance over sites of each element's share of the shell, from
    elements (m, n, e) of the sites and shares (m, n, e) of their shells.
    """
    n_elements = occupied.shape[2]
    pair = occupied.transpose(0, 2, 1) @ around / occupied.shape[1]
    pair = pair + pair.transpose(0, 2, 1) - pair * np.eye(n_elements)
    return [pair[:, *np.triu_indices(n_elements)], around.var(1)]


def _triplets(
    numbers: NDArray[np.uint8], kinds: NDArray[np.uint8], sites: NDArray[np.int64]
) -> FloatArray:
    """(m, t) the share of triplets (first neighbour, site, first neighbour) by their three
    elements, whatever the order.
    """
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
