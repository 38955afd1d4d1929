"""What the kits show to plug-ins: small alloys with labels that follow a closed form, and a build
of the plug-in for each look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from campaign import plugins
from campaign.crystals.lattice import supercell
from campaign.errors import OreloopError
from campaign.protocols import PluginSpec
from campaign.types import (
    BULK_MODULUS,
    ENERGY_PER_ATOM,
    FORMATION_ENERGY,
    Candidate,
    Crystal,
    FloatArray,
    LabelledCandidate,
)

ELEMENTS = ("Cr", "Fe", "Ni")
SEED = 11


def spec_of(
    group: str,
    use: str,
    params: Mapping[str, Any] | None,
    elements: Sequence[str],
    folder: Path | None,
) -> PluginSpec:
    home = str(folder) if folder is not None else None
    return PluginSpec(
        group=group,
        use=use,
        params=dict(params or {}),
        module_folder=home,
        elements=tuple(sorted(elements)),
    )


def built(spec: PluginSpec) -> Any:
    """A fresh instance. Raises AssertionError where it cannot be built."""
    try:
        return plugins.build(spec)
    except OreloopError as error:
        raise AssertionError(f"{spec.use} cannot be built: {error.message}") from error


def alloys(elements: Sequence[str], n: int, seed: int = 0) -> list[Crystal]:
    """Random orderings of eight atoms on bcc and fcc sites, of few compositions, no two alike."""
    rng = np.random.default_rng(seed)
    found: dict[str, Crystal] = {}
    tries = 0
    while len(found) < n and tries < 100 * n:
        tries += 1
        kinds = rng.choice(elements, size=min(2, len(elements)), replace=False)
        n_first = int(rng.choice([2, 4, 6]))
        symbols = rng.permutation([kinds[0]] * n_first + [kinds[-1]] * (8 - n_first))
        crystal = supercell("bcc" if rng.random() < 0.5 else "fcc", (2, 2, 1), symbols.tolist())
        found.setdefault(crystal.id, crystal)
    return list(found.values())


def energies(crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
    """(n,) eV/atom: a smooth function of composition and volume, that fits no element in truth."""
    numbers = [atomic_numbers[element] for element in elements]
    share = np.array(
        [[np.mean(crystal.numbers == number) for number in numbers] for crystal in crystals]
    ).reshape(-1, len(numbers))
    volume = np.array([crystal.volume / len(crystal) for crystal in crystals])
    found: FloatArray = (
        -4.0
        + share @ np.linspace(-0.5, 0.5, len(numbers))
        - 0.4 * (share**2).sum(1)
        + 0.02 * volume
    )
    return found


def labelled_of(crystals: Sequence[Crystal], elements: Sequence[str]) -> list[LabelledCandidate]:
    """Crystals with an energy, a formation energy and a bulk modulus, by id as a campaign gives
    them.
    """
    found = [
        LabelledCandidate(
            candidate=Candidate(crystal),
            values={
                ENERGY_PER_ATOM.name: energy,
                FORMATION_ENERGY.name: energy + 4.0,
                BULK_MODULUS.name: 180.0 - 20 * energy,
            },
        )
        for crystal, energy in zip(crystals, energies(crystals, elements).tolist(), strict=True)
    ]
    return sorted(found, key=lambda item: item.candidate.id)


def reordered(crystal: Crystal) -> Crystal:
    """The same crystal with its atoms the other way round."""
    return Crystal(crystal.lattice, crystal.fractional[::-1], crystal.numbers[::-1])


def shape_told(array: Any) -> str:
    return " x ".join(map(str, np.shape(array))) or "a number"
