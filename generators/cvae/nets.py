"""The nets of many crystals: their dimensions and their keys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from campaign.crystals.topology import DEPTH, LARGEST_RING, IntArray, bonds_of, dimensions, net_key
from generators.cvae import kernel
from generators.cvae.environment import Environment, limits_of
from generators.cvae.free_variables import Batch


def nets(batch: Batch, environment: Environment) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Of each crystal its bonds (m, 5), the kind of each atom (n,), and the first atom of each
    site; no bonds where it has no cell.
    """
    lattices, fractional, found = kernel.atoms_all(*batch.arguments, limits_of(batch))
    ends = np.cumsum(batch.atoms)
    for row, end in enumerate(ends):
        n = batch.atoms[row]
        low, high = batch.site_start[row], batch.site_start[row + 1]
        multiplicity = batch.multiplicities[low:high]
        kinds = np.repeat(batch.elements[low:high], multiplicity)
        roots = np.concatenate([[0], np.cumsum(multiplicity)[:-1]]).astype(np.int64)
        if found[row]:
            yield (
                bonds_of(lattices[row], fractional[end - n : end], kinds, environment.bond_lengths),
                kinds,
                roots,
            )
        else:
            yield np.empty((0, 5), dtype=np.int64), kinds, roots


def dimensions_of(batch: Batch, environment: Environment) -> IntArray:
    """(B,) the least dimension of any component of each net: 3 where all is one framework, or
    several through each other.
    """
    return np.array(
        [min(dimensions(len(kinds), bonds)) for bonds, kinds, _ in nets(batch, environment)],
        dtype=np.int64,
    )


def keys_of(
    batch: Batch, environment: Environment, depth: int = DEPTH, largest: int = LARGEST_RING
) -> list[str]:
    """The key of each net, by the first atom of each site."""
    found = []
    for row, (bonds, kinds, roots) in enumerate(nets(batch, environment)):
        weights = batch.multiplicities[batch.site_start[row] : batch.site_start[row + 1]].tolist()
        found.append(net_key(len(kinds), bonds, kinds, roots.tolist(), weights, depth, largest))
    return found
