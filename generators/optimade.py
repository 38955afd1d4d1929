"""Polymorphs from an OPTIMADE provider, such as AFLOW, OQMD, Alexandria or the Materials Project.

C. W. Andersen et al., Sci. Data 8 (2021) 217. Formation energies stand under a name of each provider's own: ``FIELDS`` knows some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from campaign.errors import InputError
from campaign.types import FORMATION_ENERGY, Candidate, Crystal, LabelledCandidate

FIELDS = {
    "aflow": "_aflow_enthalpy_formation_atom",
    "oqmd": "_oqmd_delta_e",
    "alexandria": "_alexandria_formation_energy_per_atom",
}
_STRUCTURE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites", "species")


def labelled_of_provider(url: str, query: str, energy: str, most: int = 1000) -> list[LabelledCandidate]:
    """Crystals that answer an OPTIMADE filter, with their formation energies (eV/atom).

    ``energy``: a name in ``FIELDS``, or the provider's own field. Structures that are disordered, or have no energy, are left out.
    Raises InputError where the provider cannot be reached or gives nothing.
    """
    from optimade.client import OptimadeClient

    field = FIELDS.get(energy, energy)
    client = OptimadeClient(base_urls=url, max_results_per_provider=most, use_async=False, silent=True)
    answer = client.get(filter=query, endpoint="structures", response_fields=[*_STRUCTURE, field])
    found = answer.get("structures", {}).get(query, {})
    entries = [entry for result in found.values() for entry in result.get("data", [])]
    errors = [str(error) for result in found.values() for error in result.get("errors", [])]
    labelled = [item for entry in entries if (item := _labelled(entry.get("attributes", {}), field)) is not None]
    if not labelled:
        reason = f": {errors[0]}" if errors else f" among {len(entries)} structures"
        raise InputError(f"{url} gave no ordered structure with {field} for {query!r}{reason}", hint="check the address, filter and field")
    return labelled


def _labelled(attributes: Mapping[str, Any], field: str) -> LabelledCandidate | None:
    energy = attributes.get(field)
    elements = _elements(attributes.get("species") or [])
    sites: Sequence[str] = attributes.get("species_at_sites") or []
    if energy is None or not sites or any(site not in elements for site in sites):
        return None
    from ase.data import atomic_numbers

    lattice = np.array(attributes["lattice_vectors"], dtype=float)
    fractional = np.array(attributes["cartesian_site_positions"], dtype=float) @ np.linalg.inv(lattice)
    crystal = Crystal(lattice, fractional % 1.0, np.array([atomic_numbers[elements[site]] for site in sites]))
    return LabelledCandidate(candidate=Candidate(crystal), values={FORMATION_ENERGY.name: float(energy)})


def _elements(species: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names of species that are one whole element, and neither unknown (X) nor a vacancy, with nothing attached."""
    return {
        str(one["name"]): str(one["chemical_symbols"][0])
        for one in species
        if len(one.get("chemical_symbols", [])) == 1
        and one.get("concentration", [1.0]) == [1.0]
        and one["chemical_symbols"][0] not in ("X", "vacancy")
        and not one.get("attached")
    }
