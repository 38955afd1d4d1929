"""The embedder ``composition``: statistics of element properties over the atoms of a crystal, and
its density.

Of each property (pymatgen's tables) the mean, standard deviation, least and largest value over the
atoms, beside the atomic fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from campaign.types import Crystal, FloatArray

_PROPERTIES = ("X", "atomic_radius", "mendeleev_no", "group", "row", "atomic_mass", "Z")
_STATISTICS = ("mean", "deviation", "least", "largest")


@cache
def properties_of(symbol: str) -> FloatArray:
    """Electronegativity (Pauling), atomic radius (angstrom), Mendeleev number, group, row, mass
    (u), atomic number; 0 where unknown.
    """
    from pymatgen.core import Element

    element = Element(symbol)
    values = [getattr(element, name) for name in _PROPERTIES]
    found: FloatArray = np.nan_to_num(
        np.array([float(value) if value is not None else 0.0 for value in values])
    )
    return found


class CompositionEmbedder:
    is_worth_keeping = False
    version = "composition"

    @classmethod
    def columns(cls, elements: Sequence[str]) -> list[str]:
        statistics = [f"{name}_{statistic}" for name in _PROPERTIES for statistic in _STATISTICS]
        return [*(f"fraction_{element}" for element in elements), *statistics, "volume_per_atom"]

    @classmethod
    def embed(cls, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, d)."""
        numbers = np.array([atomic_numbers[element] for element in elements], dtype=int)
        rows = []
        for crystal in crystals:
            kinds, counts = np.unique(crystal.numbers, return_counts=True)
            share = counts / counts.sum()
            table = np.array([properties_of(chemical_symbols[kind]) for kind in kinds])
            mean = share @ table
            deviation = np.sqrt(share @ (table - mean) ** 2)
            statistics = np.stack([mean, deviation, table.min(0), table.max(0)], axis=1).ravel()
            fractions = (crystal.numbers[:, None] == numbers).mean(0)
            rows.append(np.concatenate([fractions, statistics, [crystal.volume / len(crystal)]]))
        return np.array(rows).reshape(len(crystals), len(cls.columns(elements)))
