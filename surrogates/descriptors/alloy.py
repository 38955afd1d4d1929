"""Descriptors of alloys: composition, phase, and short-range order in the first three neighbour shells.

For shell s and elements a, b the pair probability is P_s(a, b) = N_s(a, b) / N_s, the share of neighbour pairs that are of these
elements (the quantity behind Warren-Cowley parameters, J. M. Cowley, Phys. Rev. 77 (1950) 669). Beside its mean stands the variance
over sites of each element's share of the shell, which tells ordered from random at one mean.

Shells are taken by rank of distance: 12, 6, 24 neighbours in close-packed crystals, 8, 6, 12 in bcc ones, so relaxed cells count
like ideal ones. Cost: 1 ms for a new geometry, about 0.1 ms for another ordering of a known one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from campaign.crystals.neighbours import length_scale, nearest
from campaign.crystals.phases import Phase, fractions
from campaign.types import Crystal, FloatArray

_SHELLS = {Phase.BCC: (8, 6, 12), Phase.FCC: (12, 6, 24)}
_PHASES = (Phase.FCC, Phase.HCP, Phase.BCC)
_CACHED_GEOMETRIES = 512
_CACHED_ROWS = 50_000


@dataclass(frozen=True)
class _Geometry:
    shells: tuple[NDArray[np.int64], ...]
    phases: FloatArray


_geometries: OrderedDict[bytes, _Geometry] = OrderedDict()
_rows: OrderedDict[tuple[str, tuple[str, ...]], FloatArray] = OrderedDict()


def _geometry(crystal: Crystal) -> _Geometry:
    """Neighbour shells and phase of the sites; shared by all orderings on the same sites, at any volume."""
    shape = crystal.lattice / length_scale(crystal.lattice, len(crystal))
    key = np.round(shape, 9).tobytes() + crystal.fractional.tobytes()
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


def elements_of(crystals: Sequence[Crystal]) -> tuple[str, ...]:
    """All elements of the crystals in alphabetical order."""
    numbers = set(itertools.chain.from_iterable(np.unique(crystal.numbers).tolist() for crystal in crystals))
    return tuple(sorted(chemical_symbols[number] for number in numbers))


def column_names(elements: Sequence[str]) -> list[str]:
    """Names of the columns of ``describe`` in their fixed order."""
    names = [f"fraction_{element}" for element in elements] + [f"phase_{phase.name.lower()}" for phase in _PHASES]
    for shell in (1, 2, 3):
        names += [f"shell{shell}_{a}-{b}" for a, b in itertools.combinations_with_replacement(elements, 2)]
        names += [f"shell{shell}_variance_{element}" for element in elements]
    return names


def _row(crystal: Crystal, elements: tuple[str, ...]) -> FloatArray:
    kinds = np.array([atomic_numbers[element] for element in elements])
    upper = np.triu_indices(len(kinds))
    geometry = _geometry(crystal)
    occupied = (crystal.numbers[:, None] == kinds).astype(float)
    parts = [occupied.mean(0), geometry.phases]
    for shell in geometry.shells:
        around = occupied[shell].mean(1)
        pair = occupied.T @ around / len(crystal)
        pair = pair + pair.T - np.diag(np.diag(pair))
        parts += [pair[upper], around.var(0)]
    return np.concatenate(parts)


def describe(crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
    """(n, d) descriptors, one row per crystal, columns as in ``column_names``. Rows are kept by crystal id in a bounded cache."""
    wanted = tuple(elements)
    rows = np.empty((len(crystals), len(column_names(wanted))))
    for row, crystal in zip(rows, crystals, strict=True):
        key = crystal.id, wanted
        found = _rows.get(key)
        if found is None:
            found = _rows[key] = _row(crystal, wanted)
        row[:] = found
    while len(_rows) > _CACHED_ROWS:
        _rows.popitem(last=False)
    return rows
