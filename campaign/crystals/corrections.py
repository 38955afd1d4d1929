"""Anion corrections of formation energies, for energies by PBE: what a compound's anions add, in eV/atom.

A. Wang et al., Sci. Rep. 11 (2021) 15496, as pymatgen has them (MP2020), without their part for PBE + U. They are functions of the formula
alone: peroxides and superoxides are known by theirs. Elements have none.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Literal

Corrections = Literal["materials_project_2020"]


@lru_cache(maxsize=1)
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(compat_type="GGA", check_potcar=False)


@lru_cache(maxsize=65_536)
def anion_correction(formula: str) -> float:
    """Of a reduced formula (eV/atom)."""
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    entry = ComputedEntry(Composition(formula), 0.0, parameters={"run_type": "GGA", "software": "other"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adjustments = _scheme().get_adjustments(entry)
    return float(sum(adjustment.value for adjustment in adjustments) / entry.composition.num_atoms)
