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


class Fitted:
    """A fitted model with the descriptors it was fitted on. ``columns`` are those that vary in the training data."""

    def __init__(self, model: Model, describer: Describer, columns: Sequence[int], facts: Mapping[str, Any]) -> None:
        self.model = model
        self._describer, self._columns, self._facts = describer, list(columns), facts

    @property
    def column_names(self) -> list[str]:
        return [self._describer.names[column] for column in self._columns]

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d) the varying descriptor columns, one row per candidate."""
        rows = self._describer.describe([candidate.crystal for candidate in candidates])
        return torch.from_numpy(rows[:, self._columns])

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        """Joint posterior of the candidates' values."""
        with torch.no_grad():
            return self.model.posterior(self.features(candidates))

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return {"columns": self.column_names, **self._facts}


class DescribedSurrogate(ABC):
    """Fits on the descriptor columns that vary. A subclass trains the model."""

    Config: ClassVar[type[DescribedConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config
        Describer(config.descriptors, ())

    @abstractmethod
    def train(self, x: Tensor, y: Tensor, previous: Mapping[str, Any] | None) -> tuple[Model, Mapping[str, Any]]:
        """The model for x (n, d) and y (n, 1), and what the ledger records of it; ``previous`` facts are of the same columns."""

    def fit(self, candidates: Sequence[Candidate], values: FloatArray, *, previous: Mapping[str, Any] | None = None) -> Fitted:
        """Fit to values (n,)."""
        describer, columns, x = described(self.config, candidates)
        y = torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]
        names = [describer.names[column] for column in columns]
        is_known = previous is not None and previous.get("columns") == names
        model, facts = self.train(x, y, previous if is_known else None)
        model.eval()
        return Fitted(model, describer, columns, facts)


def described(config: DescribedConfig, candidates: Sequence[Candidate]) -> tuple[Describer, list[int], Tensor]:
    """The describer of these candidates, the columns that vary among them, and x (n, d)."""
    crystals = [candidate.crystal for candidate in candidates]
    describer = Describer(config.descriptors, elements_of(crystals))
    rows = describer.describe(crystals)
    columns = np.flatnonzero(np.ptp(rows, axis=0) > _VARIES).tolist() or [0]
    return describer, columns, torch.from_numpy(rows[:, columns])
