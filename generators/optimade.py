"""Polymorphs from an OPTIMADE provider, such as AFLOW, OQMD, Alexandria or the Materials Project.

C. W. Andersen et al., Sci. Data 8 (2021) 217. Formation energies stand under a name of each
provider's own: ``FIELDS`` knows some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campaign.errors import InputError
from campaign.reading import optimade
from campaign.types import FORMATION_ENERGY, Candidate, LabelledCandidate

FIELDS = {
    "aflow": "_aflow_enthalpy_formation_atom",
    "oqmd": "_oqmd_delta_e",
    "alexandria": "_alexandria_formation_energy_per_atom",
}


def labelled_of_provider(
    url: str, query: str, energy: str, most: int = 1000
) -> list[LabelledCandidate]:
    """Crystals that answer an OPTIMADE filter, with their formation energies (eV/atom).

    ``energy``: a name in ``FIELDS``, or the provider's own field. Structures that are disordered,
    or have no energy, are left out. Raises InputError where the provider cannot be reached or gives
    nothing.
    """
    field = FIELDS.get(energy, energy)
    entries, errors = optimade.entries(url, query, (*optimade.FIELDS, field), most)
    labelled = [
        item
        for entry in entries
        if (item := _labelled(entry.get("attributes", {}), field)) is not None
    ]
    if not labelled:
        reason = f": {errors[0]}" if errors else f" among {len(entries)} structures"
        raise InputError(
            f"{url} gave no ordered structure with {field} for {query!r}{reason}",
            hint="check the address, filter and field",
        )
    return labelled


def _labelled(attributes: Mapping[str, Any], field: str) -> LabelledCandidate | None:
    energy, crystal = attributes.get(field), optimade.crystal_of(attributes)
    if energy is None or crystal is None:
        return None
    return LabelledCandidate(
        candidate=Candidate(crystal), values={FORMATION_ENERGY.name: float(energy)}
    )
