"""The embedder ``soap``: the smooth overlap of atomic positions, averaged over all atoms or over
those of each element.

By DScribe (L. Himanen et al., Comput. Phys. Commun. 247 (2020) 106949); A. P. Bartok, R. Kondor, G.
Csanyi, Phys. Rev. B 87 (2013)
184115. The number of columns grows with the square of elements times radial functions; about 2 ms
        for 32 atoms of two elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from campaign.parameters import Parameters
from campaign.types import Crystal, Fidelity, FloatArray
from surrogates.descriptors.averages import Average, names_by, rows_by


class SoapConfig(Parameters):
    cutoff: float = Field(5.0, gt=1.0, description="Radius of the neighbourhoods (angstrom).")
    n_max: int = Field(4, ge=1, description="Radial functions.")
    l_max: int = Field(3, ge=0, description="Maximum angular order.")
    width: float = Field(0.5, gt=0, description="Width of the atoms' Gaussians (angstrom).")
    average: Average = Field("all", description="Over all atoms, or over those of each element.")


class SoapEmbedder:
    Config = SoapConfig
    is_worth_keeping = True

    def __init__(self, config: SoapConfig) -> None:
        self.config = config

    @property
    def version(self) -> str:
        return Fidelity("soap", self.config.model_dump()).key

    def columns(self, elements: Sequence[str]) -> list[str]:
        if not elements:
            return []
        size = self._maker(elements).get_number_of_features()
        return names_by(self.config.average, elements, [f"soap{i}" for i in range(size)])

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, d)."""
        maker = self._maker(elements)
        found = [
            rows_by(self.config.average, elements, crystal, np.asarray(maker.create(crystal.atoms)))
            for crystal in crystals
        ]
        return np.array(found).reshape(len(crystals), len(self.columns(elements)))

    def _maker(self, elements: Sequence[str]):  # type: ignore[no-untyped-def]
        from dscribe.descriptors import SOAP

        config = self.config
        return SOAP(
            species=list(elements),
            r_cut=config.cutoff,
            n_max=config.n_max,
            l_max=config.l_max,
            sigma=config.width,
            periodic=True,
        )
