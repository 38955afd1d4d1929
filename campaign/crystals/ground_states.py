"""Ground states of 88 elements with their energies by Materials Project: the crystals that
formation energies refer to.

Energies in eV/atom by PBE, as Materials Project computed them and without its corrections; lattices
in angstrom. The file beside this module says where the figures come from and which of an element's
crystals was taken; it is believed only if its hash is right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from ase.data import atomic_numbers

from campaign.errors import SurroundingsError
from campaign.types import Crystal

_FILE = "ground_states.json"
_SHA256 = "b416ff9b85e0cf4a62186ee7563be1372f51f009ee9901a575f0cfe23fefae34"


@dataclass(frozen=True)
class GroundState:
    """An element's crystal, its energy, and the lowest of any crystal of the element in Materials
    Project (eV/atom).
    """

    crystal: Crystal
    space_group: str
    energy_per_atom: float
    lowest_energy_per_atom: float


@cache
def ground_states() -> Mapping[str, GroundState]:
    """By symbol. Raises SurroundingsError where the file is not the one that this version came
    with.
    """
    text = files("campaign.crystals").joinpath("data", _FILE).read_bytes()
    if hashlib.sha256(text).hexdigest() != _SHA256:
        raise SurroundingsError(
            f"the elements' crystals in campaign/crystals/data/{_FILE} were changed",
            hint="install oreloop again",
        )
    rows = json.loads(text)["elements"]
    return {symbol: _read(symbol, row) for symbol, row in rows.items()}


def _read(symbol: str, row: Mapping[str, object]) -> GroundState:
    fractional = np.array(row["fractional"], dtype=float)
    numbers = np.full(len(fractional), atomic_numbers[symbol], dtype=np.uint8)
    crystal = Crystal(np.array(row["lattice"], dtype=float), fractional, numbers)
    return GroundState(
        crystal,
        str(row["space_group"]),
        float(str(row["energy_per_atom"])),
        float(str(row["lowest_energy_per_atom"])),
    )
