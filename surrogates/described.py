"""What all surrogates share: descriptors in, a BoTorch model in the quantity's own unit out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from botorch.models.model import Model
from botorch.posteriors import Posterior
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from campaign.parameters import PluginParameter
from campaign.types import Candidate, FloatArray
from surrogates.descriptors.describer import Describer, elements_of

_VARIES = 1e-9


class DescribedConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    descriptors: tuple[PluginParameter, ...] = Field(
        (PluginParameter(use="alloy"),), min_length=1, description="Embedders whose columns the model sees, side by side."
    )
    components: int | None = Field(
        None, ge=1, description="Principal components of the standardised columns that the model sees instead of all of them."
    )


class Described:
    """From crystals to the columns that a model sees: those that vary in the training data, or their principal components."""

    def __init__(self, config: DescribedConfig, candidates: Sequence[Candidate]) -> None:
        crystals = [candidate.crystal for candidate in candidates]
        self._describer = Describer(config.descriptors, elements_of(crystals))
        rows = self._describer.describe(crystals)
        self._columns = np.flatnonzero(np.ptp(rows, axis=0) > _VARIES).tolist() or [0]
        self._projection: FloatArray | None = None
        kept = rows[:, self._columns]
        self._center, self._scale = kept.mean(0), np.maximum(kept.std(0), _VARIES)
        if config.components is not None and config.components < kept.shape[1]:
            _, _, axes = np.linalg.svd((kept - self._center) / self._scale, full_matrices=False)
            self._projection = axes[: config.components].T

    @property
    def names(self) -> list[str]:
        if self._projection is not None:
            return [f"component{i + 1}" for i in range(self._projection.shape[1])]
        return [self._describer.names[column] for column in self._columns]

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d), one row per candidate."""
        rows = self._describer.describe([candidate.crystal for candidate in candidates])[:, self._columns]
        if self._projection is not None:
            rows = (rows - self._center) / self._scale @ self._projection
        return torch.from_numpy(np.ascontiguousarray(rows))


class Fitted:
    """A fitted model with the descriptors it was fitted on."""

    def __init__(self, model: Model, described: Described, facts: Mapping[str, Any]) -> None:
        self.model = model
        self._described, self._facts = described, facts

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d) what the model sees, one row per candidate."""
        return self._described.features(candidates)

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        """Joint posterior of the candidates' values."""
        with torch.no_grad():
            return self.model.posterior(self.features(candidates))

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return {"columns": self._described.names, **self._facts}


class DescribedSurrogate(ABC):
    """Fits on descriptor columns. A subclass trains the model."""

    Config: ClassVar[type[DescribedConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config
        Describer(config.descriptors, ())

    @abstractmethod
    def train(self, x: Tensor, y: Tensor, previous: Mapping[str, Any] | None) -> tuple[Model, Mapping[str, Any]]:
        """The model for x (n, d) and y (n, 1), and what the ledger records of it; ``previous`` facts are of the same columns."""

    def fit(self, candidates: Sequence[Candidate], values: FloatArray, *, previous: Mapping[str, Any] | None = None) -> Fitted:
        """Fit to values (n,)."""
        described = Described(self.config, candidates)
        x = described.features(candidates)
        y = torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]
        is_known = previous is not None and previous.get("columns") == described.names
        model, facts = self.train(x, y, previous if is_known else None)
        model.eval()
        return Fitted(model, described, facts)
