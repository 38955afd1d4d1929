"""A committee as small as one can be: its members disagree the less on a composition the more
labels there are near it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from campaign.protocols import GenerationContext
from campaign.types import Checkpoint, Crystal, FloatArray, LabelledCandidate


def share(crystal: Crystal) -> float:
    return float(np.mean(crystal.numbers == 28))


class Tiny:
    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        return len(labelled) >= 5

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Checkpoint:
        return Checkpoint(
            tensors={"shares": np.array([share(item.candidate.crystal) for item in labelled])}
        )

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        return True, {}

    def disagreement(
        self, crystals: Sequence[Crystal], checkpoint: Checkpoint
    ) -> tuple[FloatArray, FloatArray]:
        distances = np.array(
            [np.abs(checkpoint.tensors["shares"] - share(crystal)).min() for crystal in crystals]
        )
        return 0.1 + distances, distances
