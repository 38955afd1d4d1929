"""What several files of tests of generators learn from."""

from __future__ import annotations

import numpy as np
import pytest
from polymorph_cases import CONTEXT

from generators.polymorphs import PolymorphDataset, polymorphs_of
from generators.prototypes import Prototypes, PrototypesConfig


@pytest.fixture(scope="session")
def data() -> PolymorphDataset:
    config = PrototypesConfig(
        source="library", atoms=(2, 6), shapes=((1, 1), (1, 2), (2, 2), (1, 3))
    )
    made = [
        crystal
        for crystal, _ in Prototypes(config).generate(
            110, rng=np.random.default_rng(0), context=CONTEXT
        )
    ]
    return polymorphs_of(
        [
            (crystal, 0.1 * (crystal.volume / len(crystal) % 3) - 0.3, str(row))
            for row, crystal in enumerate(made)
        ]
    )
