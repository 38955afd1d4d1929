"""Corrections of formation energies for energies by PBE: what a compound's anions and transition
metals add, in eV/atom.

A. Wang et al., Sci. Rep. 11 (2021) 15496, as pymatgen has them (MP2020). They are functions of the
formula alone: peroxides and superoxides are known by theirs. Elements have none. Two schemes: the
anions' part, for PBE; and that with the part of oxides and fluorides of V, Cr, Mn, Fe, Co, Ni, Mo
and W, which Materials Project computes by PBE + U, for its energies and for potentials that learned
them uncorrected.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from typing import Any, Literal

Corrections = Literal["materials_project_2020", "materials_project_2020_with_u"]


@cache
def _scheme(scheme: Corrections) -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    is_plain = scheme == "materials_project_2020"
    return MaterialsProject2020Compatibility(
        compat_type="GGA" if is_plain else "Advanced", check_potcar=False
    )


@lru_cache(maxsize=65_536)
def correction(scheme: Corrections, formula: str) -> float:
    """Of a reduced formula (eV/atom)."""
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    composition, rules = Composition(formula), _scheme(scheme)
    anion = max(composition.elements, key=lambda element: element.X)
    settings = rules.u_settings.get(anion.symbol, {}) if scheme != "materials_project_2020" else {}
    repulsions = {
        element.symbol: settings[element.symbol]
        for element in composition.elements
        if element.symbol in settings
    }
    parameters = {
        "run_type": "GGA+U" if repulsions else "GGA",
        "hubbards": repulsions,
        "software": "other",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adjustments = rules.get_adjustments(ComputedEntry(composition, 0.0, parameters=parameters))
    return float(sum(adjustment.value for adjustment in adjustments) / composition.num_atoms)
