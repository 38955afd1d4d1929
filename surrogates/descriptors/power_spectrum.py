"""The embedder ``power_spectrum``: the SO(3) power spectrum of the neighbourhoods, averaged over
the atoms.

Neighbours weigh by their atomic number relative to the heaviest element. ``by_element`` averages
over the atoms of each element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers
from pydantic import Field

from campaign.crystals.so3 import PowerSpectrum
from campaign.parameters import Parameters
from campaign.types import Crystal, Fidelity, FloatArray
from surrogates.descriptors.averages import Average, names_by, rows_by


class PowerSpectrumConfig(Parameters):
    cutoff: float = Field(4.0, gt=0, description="Radius of the neighbourhoods (angstrom).")
    n_max: int = Field(3, ge=1, description="Radial functions.")
    l_max: int = Field(4, ge=0, description="Maximum angular order.")
    alpha: float = Field(1.5, gt=0, description="Width of the neighbour density (1/angstrom^2).")
    average: Average = Field("all", description="Over all atoms, or over those of each element.")


class PowerSpectrumEmbedder:
    Config = PowerSpectrumConfig
    is_worth_keeping = True

    def __init__(self, config: PowerSpectrumConfig) -> None:
        self.config = config
        self._spectrum = PowerSpectrum(config.cutoff, config.n_max, config.l_max, config.alpha)

    @property
    def version(self) -> str:
        return Fidelity("power_spectrum", self.config.model_dump()).key

    def columns(self, elements: Sequence[str]) -> list[str]:
        return names_by(self.config.average, elements, self._spectrum.names)

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, d)."""
        heaviest = max((atomic_numbers[element] for element in elements), default=1)
        rows = [
            rows_by(
                self.config.average,
                elements,
                crystal,
                self._spectrum.of_atoms(crystal, crystal.numbers / heaviest),
            )
            for crystal in crystals
        ]
        return np.array(rows).reshape(len(crystals), len(self.columns(elements)))
