"""The embedder ``mace``: node features of a MACE network, averaged over the atoms. Its version is
the hash of the weights.

Only committees that `oreloop train mace` wrote (safetensors) are read: MACE's own files are
pickles, which load in an oracle's worker alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath, Parameters
from campaign.types import Crystal, FloatArray
from oracles.mace.files import sha256_of
from oracles.mace.store import SUFFIX


class MaceEmbedderConfig(Parameters):
    model: ConfigPath = Field(
        description="A committee written by `oreloop train mace` (.safetensors); its first "
        "member is asked."
    )
    batch_size: int = Field(32, ge=1, description="Crystals at once.")


class MaceEmbedder:
    Config = MaceEmbedderConfig
    is_worth_keeping = True

    def __init__(self, config: MaceEmbedderConfig) -> None:
        if config.model.suffix != SUFFIX or not config.model.exists():
            raise InputError(
                f"expected a {SUFFIX} file of `oreloop train mace`, found {config.model}"
            )
        self.config = config
        self._sha256 = sha256_of(config.model)

    @property
    def version(self) -> str:
        return f"mace-{self._sha256[:16]}"

    @cached_property
    def _network(self) -> Any:
        from oracles.mace.store import read_models

        members, now = read_models(self.config.model, "cpu")
        if now != self._sha256:
            raise InputError(
                f"{self.config.model} changed while the campaign ran", hint="restore the file"
            )
        return members[0]

    def columns(self, elements: Sequence[str]) -> list[str]:
        from oracles.mace.network import invariant_size

        return [f"feature{i}" for i in range(invariant_size(self._network))] if elements else []

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, d)."""
        from oracles.mace.network import node_features

        found = (
            node_features(self._network, crystals, batch_size=self.config.batch_size)
            if crystals
            else []
        )
        return np.array([features.mean(0) for features in found]).reshape(
            len(crystals), len(self.columns(elements))
        )
