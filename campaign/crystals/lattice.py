"""Parent lattices: ideal cells whose sites an alloy's atoms occupy.

Lattice rows in angstrom. ``bcc`` is the two-atom cubic cell; ``fcc`` the two-atom body-centred
tetragonal description (edges a/sqrt2, a/sqrt2, a), so that both give 54 atoms in a 3 x 3 x 3
supercell.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
from ase.data import atomic_numbers as numbers_by_symbol
from ase.data import covalent_radii, reference_states

from campaign.crystals.ground_states import ground_states
from campaign.types import Crystal, FloatArray

ParentLattice = Literal["bcc", "fcc"]
_ATOMS_PER_CUBIC_CELL = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8}

VOLUMES_IN_COMPOUNDS = {
    "H": 5.08,
    "N": 11.8,
    "O": 11.39,
    "F": 11.17,
    "Cl": 25.8,
    "Br": 32.7,
    "I": 46.2,
}
"""Of elements whose own crystals are loosely packed molecules: means over crystals (angstrom^3).

D. W. M. Hofmann, Acta Cryst. B 58 (2002) 489.
"""


@cache
def atomic_volume(symbol: str) -> float:
    """Volume per atom of an element in cubic angstrom: of its crystal by ASE's table where the
    structure is a simple one, elsewhere of its ground state by PBE. Molecules take their atoms'
    volume in compounds; the covalent radius is left where nothing is known.
    """
    state = reference_states[numbers_by_symbol[symbol]] or {}
    kind = str(state.get("symmetry", ""))
    if kind in _ATOMS_PER_CUBIC_CELL:
        return float(state["a"]) ** 3 / _ATOMS_PER_CUBIC_CELL[kind]
    if kind == "hcp":
        return float(np.sqrt(3) / 4 * state["a"] ** 3 * state["c/a"])
    if symbol in VOLUMES_IN_COMPOUNDS:
        return VOLUMES_IN_COMPOUNDS[symbol]
    found = ground_states().get(symbol)
    if found is not None:
        return found.crystal.volume / len(found.crystal)
    return float((2 * covalent_radii[numbers_by_symbol[symbol]]) ** 3 / np.sqrt(2))


@cache
def sites(repeats: tuple[int, int, int]) -> FloatArray:
    """(n, 3) fractional coordinates of the sites of a supercell of either two-atom cell; n is twice
    the product of the repeats.
    """
    corners = np.array(list(itertools.product(*(range(count) for count in repeats))), dtype=float)
    found: FloatArray = np.concatenate([corners, corners + 0.5]) / np.asarray(repeats, dtype=float)
    found.flags.writeable = False
    return found


def supercell(
    parent: ParentLattice, repeats: tuple[int, int, int], symbols: Sequence[str]
) -> Crystal:
    """An ideal cell with ``symbols`` (n,) on its sites, its volume the mean of the elements' atomic
    volumes (Vegard).
    """
    volume = float(np.mean([atomic_volume(symbol) for symbol in symbols]))
    cubic = (2 * volume) ** (1 / 3) if parent == "bcc" else (4 * volume) ** (1 / 3)
    edges = (
        np.array([cubic] * 3)
        if parent == "bcc"
        else cubic * np.array([np.sqrt(0.5), np.sqrt(0.5), 1.0])
    )
    numbers = [numbers_by_symbol[symbol] for symbol in symbols]
    return Crystal(
        np.diag(edges * np.asarray(repeats)), sites(repeats), np.array(numbers, dtype=np.uint8)
    )
