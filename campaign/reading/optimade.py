"""Crystals from OPTIMADE providers (C. W. Andersen et al., Sci. Data 8 (2021) 217)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from campaign.errors import InputError
from campaign.types import Crystal

FIELDS = ("lattice_vectors", "cartesian_site_positions", "species_at_sites", "species")
"""The fields of a structure that a crystal is made of."""


def entries(
    url: str, query: str, fields: Sequence[str], most: int
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Structures of a provider that answer a filter, and what it says went wrong."""
    from optimade.client import OptimadeClient

    client = OptimadeClient(
        base_urls=url, max_results_per_provider=most, use_async=False, silent=True
    )
    answer = client.get(filter=query, endpoint="structures", response_fields=list(fields))
    found = answer.get("structures", {}).get(query, {})
    rows = [entry for result in found.values() for entry in result.get("data", [])]
    return rows, [str(error) for result in found.values() for error in result.get("errors", [])]


def crystals(url: str, query: str, most: int) -> Iterator[tuple[str, Crystal]]:
    """Id and crystal of the ordered structures that answer a filter. Raises InputError where there
    is none, or nobody answers.
    """
    rows, errors = entries(url, query, FIELDS, most)
    found = [
        (str(row.get("id", "")), crystal)
        for row in rows
        if (crystal := crystal_of(row.get("attributes", {}))) is not None
    ]
    if not found:
        reason = f": {errors[0]}" if errors else f" among {len(rows)} structures"
        raise InputError(
            f"{url} gave no ordered structure for {query!r}{reason}",
            hint="check the address, the filter and the network",
        )
    yield from found


def crystal_of(attributes: Mapping[str, Any]) -> Crystal | None:
    """None where the structure is disordered, or a site holds no element."""
    from ase.data import atomic_numbers

    elements = _elements(attributes.get("species") or [])
    sites: Sequence[str] = attributes.get("species_at_sites") or []
    if not sites or any(site not in elements for site in sites):
        return None
    lattice = np.array(attributes["lattice_vectors"], dtype=float)
    fractional = np.array(attributes["cartesian_site_positions"], dtype=float) @ np.linalg.inv(
        lattice
    )
    return Crystal(
        lattice, fractional % 1.0, np.array([atomic_numbers[elements[site]] for site in sites])
    )


def _elements(species: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names of species that are one whole element, and neither unknown (X) nor a vacancy, with
    nothing attached.
    """
    return {
        str(one["name"]): str(one["chemical_symbols"][0])
        for one in species
        if len(one.get("chemical_symbols", [])) == 1
        and one.get("concentration", [1.0]) == [1.0]
        and one["chemical_symbols"][0] not in ("X", "vacancy")
        and not one.get("attached")
    }
