"""Labelled crystals as examples to train on: their properties, and the phase that each is of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from campaign.crystals.phases import Phase, fractions
from campaign.errors import InputError
from campaign.types import Crystal, LabelledCandidate
from generators.pcdvae.train import Example

NEIGHBOURHOODS = tuple(phase.name.lower() for phase in Phase)
CRYSTAL_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)
_SYMMETRY_PRECISION = 0.1


def check_phases(phases: Sequence[str]) -> None:
    """Raises InputError where the phases are of no one kind that can be told from a crystal."""
    if not (set(phases) <= set(NEIGHBOURHOODS) or set(phases) <= set(CRYSTAL_SYSTEMS)):
        kinds = f"{', '.join(NEIGHBOURHOODS)}; or crystal systems: {', '.join(CRYSTAL_SYSTEMS)}"
        raise InputError(
            f"expected phases all of one kind, got {', '.join(phases)}",
            hint=f"by common neighbours: {kinds}",
        )


def phase_of(crystal: Crystal, phases: Sequence[str]) -> int:
    """The index of the phase that most atoms are of, or of the crystal system; 0 where it is none
    of them.
    """
    if len(phases) < 2:
        return 0
    if set(phases) <= set(NEIGHBOURHOODS):
        share = {phase.name.lower(): value for phase, value in fractions(crystal).items()}
        return int(np.argmax([share[phase] for phase in phases]))
    system = crystal_system(crystal)
    return list(phases).index(system) if system in phases else 0


def crystal_system(crystal: Crystal) -> str:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    return str(
        SpacegroupAnalyzer(crystal.structure, symprec=_SYMMETRY_PRECISION).get_crystal_system()
    )


def examples_of(
    labelled: Sequence[LabelledCandidate], quantities: Sequence[str], phases: Sequence[str]
) -> list[Example]:
    """One for each labelled candidate with any of the quantities: the relaxed crystal where there
    is one.
    """
    found = []
    for item in labelled:
        values = np.array([item.values.get(quantity, np.nan) for quantity in quantities])
        if np.isfinite(values).any():
            crystal = item.relaxed or item.candidate.crystal
            found.append(Example(crystal, values, phase_of(crystal, phases)))
    return found
