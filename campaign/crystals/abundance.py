"""What a composition costs and how few countries it depends on: functions of the formula, known
without a label.

Prices of the elements (USD/kg) are those that pymatgen ships, gathered in 2013 and later, of pure
elements. Supply risk is the Herfindahl-Hirschman index of the elements' production and reserves by
country, 0 to 10,000; from 2,500 on it counts as high (M. W. Gaultois et al., Chem. Mater. 25 (2013)
2911). All are means by mass.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from campaign.types import FloatArray, Quantity

PRICE = Quantity("price_per_kg", "USD/kg")
PRODUCTION_RISK = Quantity("hhi_production", "1")
RESERVE_RISK = Quantity("hhi_reserve", "1")
KNOWN = {quantity.name: quantity for quantity in (PRICE, PRODUCTION_RISK, RESERVE_RISK)}


@cache
def of_elements(quantity: str) -> Mapping[str, float]:
    """By symbol, the elements of which it is known."""
    folder = files("pymatgen.analysis")
    if quantity == PRICE.name:
        text = folder.joinpath("costdb_elements.csv").read_text(encoding="utf-8")
        return {
            row[0]: float(row[1]) for row in csv.reader(text.splitlines(), quotechar="|") if row
        }
    column = 1 if quantity == PRODUCTION_RISK.name else 2
    rows = csv.reader(folder.joinpath("hhi_data.csv").read_text(encoding="utf-8").splitlines())
    return {row[0]: float(row[column]) for row in rows if row and not row[0].startswith("#")}


def of_composition(quantity: str, elements: Sequence[str], counts: NDArray[np.int64]) -> FloatArray:
    """(m,) of compositions (m, elements); NaN where one of its elements has no value."""
    from ase.data import atomic_masses, atomic_numbers

    values = np.array([of_elements(quantity).get(symbol, np.nan) for symbol in elements])
    masses = counts * np.array([atomic_masses[atomic_numbers[symbol]] for symbol in elements])
    parts = np.where(counts > 0, masses * values, 0.0)
    return np.asarray(parts.sum(1) / masses.sum(1), dtype=float)


def value(quantity: str, counts: Mapping[str, int]) -> float:
    """Of one composition."""
    return float(of_composition(quantity, list(counts), np.array([list(counts.values())]))[0])
