"""Generators as users write them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from campaign.crystals.lattice import supercell
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Proposal


class Finite:
    """Knows five crystals."""

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        for count in range(1, 6):
            yield supercell("bcc", (2, 2, 1), ["Ni"] * count + ["Fe"] * (8 - count)), Proposal()
