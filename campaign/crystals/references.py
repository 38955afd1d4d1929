"""Crystals of the elements and simple ordered binaries: what formation energies refer to, and what
sentinels and checks score.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from campaign.crystals.ground_states import ground_states
from campaign.crystals.lattice import atomic_volume
from campaign.errors import InputError
from campaign.types import Crystal

COHESIVE_ENERGIES = {
    "Li": 1.63,
    "Be": 3.32,
    "C": 7.37,
    "Na": 1.113,
    "Mg": 1.51,
    "Al": 3.39,
    "Si": 4.63,
    "K": 0.934,
    "Ca": 1.84,
    "Sc": 3.90,
    "Ti": 4.85,
    "V": 5.31,
    "Cr": 4.10,
    "Mn": 2.92,
    "Fe": 4.28,
    "Co": 4.39,
    "Ni": 4.44,
    "Cu": 3.49,
    "Zn": 1.35,
    "Ga": 2.81,
    "Ge": 3.85,
    "Zr": 6.25,
    "Nb": 7.57,
    "Mo": 6.82,
    "Ru": 6.74,
    "Rh": 5.75,
    "Pd": 3.89,
    "Ag": 2.95,
    "Cd": 1.16,
    "In": 2.52,
    "Sn": 3.14,
    "Hf": 6.44,
    "Ta": 8.10,
    "W": 8.90,
    "Re": 8.03,
    "Os": 8.17,
    "Ir": 6.94,
    "Pt": 5.84,
    "Au": 3.81,
    "Pb": 2.03,
}
"""Energy (eV/atom) that takes the element's crystal apart into free atoms; Kittel, Introduction to
Solid State Physics, 8th ed., ch. 3.
"""

SIMPLE_STRUCTURES = ("fcc", "bcc", "hcp", "diamond", "sc")


def has_reference(symbol: str) -> bool:
    """Whether the element's ground state is known here."""
    return symbol in ground_states()


def elemental(symbol: str, structure: str | None = None) -> Crystal:
    """The element's ground state, or its primitive cell in a simple structure at the volume of the
    ground state.

    Raises InputError for an element whose ground state is not known here, where no structure is
    named.
    """
    if structure is None:
        if not has_reference(symbol):
            raise InputError(
                f"there is no reference crystal of {symbol}",
                hint=f"give one under references: {{structures: {{{symbol}: FILE or fcc}}}}, "
                f"or its energy under references: {{chemical_potentials: {{{symbol}: ENERGY}}}}",
            )
        return ground_states()[symbol].crystal
    return _simple(symbol, structure)


def _simple(symbol: str, structure: str) -> Crystal:
    from ase.build import bulk

    atoms_per_cube = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8}
    volume = atomic_volume(symbol)
    if structure == "hcp":
        edge = (volume * 4 / np.sqrt(3) / np.sqrt(8 / 3)) ** (1 / 3)
        return Crystal.from_atoms(
            bulk(symbol, "hcp", a=float(edge), c=float(edge * np.sqrt(8 / 3)))
        )
    return Crystal.from_atoms(
        bulk(symbol, structure, a=float((volume * atoms_per_cube[structure]) ** (1 / 3)))
    )


def ordered_binary(one: str, other: str) -> Crystal:
    """B2 (CsCl) order of two elements, at the mean of their atomic volumes."""
    edge = float((atomic_volume(one) + atomic_volume(other)) ** (1 / 3))
    return Crystal(
        np.eye(3) * edge,
        np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        np.array([atomic_numbers[one], atomic_numbers[other]], np.uint8),
    )


@dataclass(frozen=True)
class ElementFigures:
    """Volumes (angstrom^3 per atom) and bulk moduli (GPa) of an element's crystal: measured, and by
    all-electron PBE.
    """

    volumes: tuple[float, float]
    bulk_moduli: tuple[float, float]


def known_figures(symbol: str) -> ElementFigures | None:
    """From the collection of Lejaeghere et al. (Science 351, aad3000 (2016)) that ASE carries; None
    where it has another structure.
    """
    from ase.collections import dcdft

    if symbol not in dcdft.names:
        return None
    row = dcdft.data[symbol]
    if abs(np.log(row["wien2k_volume"] / atomic_volume(symbol))) > 0.1:
        return None
    return ElementFigures(
        (row["exp_volume"], row["wien2k_volume"]), (row["exp_B"], row["wien2k_B"])
    )


def elementals(
    symbols: Sequence[str], structures: Mapping[str, str | Crystal]
) -> dict[str, Crystal]:
    """The crystal of each element: the one given, one in the simple structure that is named, or the
    ground state.

    Raises InputError for an element of which none is known.
    """
    return {
        symbol: given
        if isinstance(given := structures.get(symbol), Crystal)
        else elemental(symbol, given)
        for symbol in symbols
    }


def sentinels(
    symbols: Sequence[str], structures: Mapping[str, str | Crystal]
) -> dict[str, Crystal]:
    """The elements' crystals and B2 order of each pair, by name; few and cheap, and no two species
    can be swapped unseen in them.
    """
    pairs = {
        f"{one}{other} B2": ordered_binary(one, other)
        for one, other in itertools.combinations(symbols, 2)
    }
    return elementals(symbols, structures) | pairs
