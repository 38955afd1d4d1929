"""The hull of the labels that a round sees, for models and choices. Formation energies, eV per
atom; runs on the compute worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from campaign.ledger.dataset import Dataset
from campaign.types import ENERGY_ABOVE_HULL, FORMATION_ENERGY, Candidate, FloatArray

if TYPE_CHECKING:
    from campaign.crystals.hull import LowerHull


def modelled_quantity(quantity: str) -> str:
    """What a model is fitted to for a quantity: the energy above the hull moves with the hull, the
    formation energy does not.
    """
    return FORMATION_ENERGY.name if quantity == ENERGY_ABOVE_HULL.name else quantity


@dataclass(frozen=True)
class Diagram:
    """The hull of labelled phases of some elements. ``kinds`` (k,): their atomic numbers."""

    kinds: NDArray[np.uint8]
    hull: LowerHull

    @classmethod
    def of(cls, dataset: Dataset) -> Diagram:
        """Of all labels with formation energies; elements alone lie at zero, as formation energies
        count from them.
        """
        candidates, formation = dataset.of(FORMATION_ENERGY.name)
        kinds = np.unique(np.concatenate([candidate.crystal.numbers for candidate in candidates]))
        return cls.of_phases(kinds, fractions_of(candidates, kinds), formation)

    @classmethod
    def of_phases(
        cls, kinds: NDArray[np.uint8], fractions: FloatArray, formation: FloatArray
    ) -> Diagram:
        """Of phases (n, k) with formation energies (n,) beside the elements."""
        from campaign.crystals.hull import lower_hull

        ends = np.eye(len(kinds))
        fractions, formation = (
            np.vstack([fractions, ends]),
            np.append(formation, np.zeros(len(kinds))),
        )
        return cls(kinds, lower_hull(fractions, formation))

    def fractions_of(self, candidates: Sequence[Candidate]) -> FloatArray:
        return fractions_of(candidates, self.kinds)

    def formation_at(self, candidates: Sequence[Candidate]) -> FloatArray:
        """(n,) the hull's formation energy at the compositions of candidates."""
        return self.hull.formation_at(self.fractions_of(candidates))


def fractions_of(candidates: Sequence[Candidate], kinds: NDArray[np.uint8]) -> FloatArray:
    """(n, k) atomic fractions of the elements with atomic numbers ``kinds`` (k,)."""
    return np.array(
        [(candidate.crystal.numbers[:, None] == kinds).mean(0) for candidate in candidates]
    ).reshape(-1, len(kinds))
