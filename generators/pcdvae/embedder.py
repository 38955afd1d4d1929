"""The embedder ``pcdvae``: the mean latent vector of a trained network, for surrogates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from pydantic import Field

from campaign.checkpoints import checkpoint_from_bytes
from campaign.errors import InputError
from campaign.parameters import Parameters, WeightsPath
from campaign.types import Crystal, FloatArray
from generators.networks.checkpoints import check_weights
from generators.pcdvae.model import PCDVAE
from generators.pcdvae.optimise import encode
from generators.pcdvae.store import Tables, from_checkpoint


class PCDVAEEmbedderConfig(Parameters):
    weights: WeightsPath = Field(
        description="File that `oreloop train pcdvae` wrote, or models:/NAME@ALIAS."
    )


class PCDVAEEmbedder:
    Config = PCDVAEEmbedderConfig
    is_worth_keeping = True

    def __init__(self, config: PCDVAEEmbedderConfig) -> None:
        check_weights(config.weights)
        self.config = config

    @cached_property
    def _data(self) -> bytes:
        return self.config.weights.read_bytes()

    @cached_property
    def _loaded(self) -> tuple[PCDVAE, Tables]:
        return from_checkpoint(checkpoint_from_bytes(self._data))

    @property
    def version(self) -> str:
        return f"pcdvae-{hashlib.sha256(self._data).hexdigest()[:16]}"

    def columns(self, elements: Sequence[str]) -> list[str]:
        return [f"latent{i}" for i in range(self._loaded[0].sizes.latent)]

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, latent). Raises InputError on elements that the weights do not know."""
        model, tables = self._loaded
        check_elements(elements, tables)
        if not crystals:
            return np.zeros((0, model.sizes.latent))
        return encode(model, crystals)[0].double().numpy()


def check_elements(elements: Sequence[str], tables: Tables) -> None:
    """Raises InputError where the weights were not trained on one of the elements."""
    if unknown := sorted(set(elements) - set(tables.elements)):
        known = ", ".join(tables.elements)
        raise InputError(
            f"expected elements that the weights know ({known}), got {', '.join(unknown)}",
            hint="train on them",
        )
