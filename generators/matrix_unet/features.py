"""Properties of the elements as standardised columns, from pymatgen's tables."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

from campaign.types import FloatArray

_NUMERIC = (
    "Z",
    "row",
    "group",
    "mendeleev_no",
    "X",
    "atomic_mass",
    "atomic_radius",
    "van_der_waals_radius",
    "molar_volume",
    "melting_point",
    "boiling_point",
    "density_of_solid",
    "electron_affinity",
    "ionization_energy",
    "thermal_conductivity",
    "bulk_modulus",
    "max_oxidation_state",
    "min_oxidation_state",
)
_FLAGS = ("is_metal", "is_transition_metal", "is_halogen")
N_PROPERTIES = len(_NUMERIC) + len(_FLAGS) + 1
"""22; the last is the share of the others that the tables do not have, which stand at the mean of
the elements.
"""
N_ELEMENTS = 103


@lru_cache(maxsize=1)
def element_properties() -> FloatArray:
    """(119, 22) by atomic number, each column of mean 0 and deviation 1 over H to Lr; zeros for
    other numbers.
    """
    from pymatgen.core import Element

    found = np.full((N_ELEMENTS, N_PROPERTIES - 1), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, N_ELEMENTS + 1):
            element = Element.from_Z(number)
            for column, name in enumerate((*_NUMERIC, *_FLAGS)):
                value = getattr(element, name, None)
                found[number - 1, column] = np.nan if value is None else float(value)
    missing = np.isnan(found)
    standard = (found - np.nanmean(found, 0)) / np.nanstd(found, 0).clip(1e-9)
    share = missing.mean(1, keepdims=True)
    columns = np.concatenate(
        [np.where(missing, 0.0, standard), (share - share.mean()) / share.std()], 1
    )
    table = np.zeros((119, N_PROPERTIES))
    table[1 : N_ELEMENTS + 1] = columns
    table.flags.writeable = False
    return table
