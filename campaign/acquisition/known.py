"""A quantity that the composition alone decides, in the place of a fitted surrogate: nothing is
learned, and next to nothing uncertain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior, Posterior
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from campaign.crystals import abundance
from campaign.types import Candidate, FloatArray, counts_of

_RELATIVE_DEVIATION = 1e-4


class _Exact(Model):  # type: ignore[misc]
    """The value is the only column of a point; its standard deviation is small beside the labels'
    spread.
    """

    num_outputs = 1
    batch_shape = torch.Size()

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def posterior(self, X: Tensor, **_: Any) -> Posterior:
        mean = X[..., 0]
        return GPyTorchPosterior(
            MultivariateNormal(mean, DiagLinearOperator(torch.full_like(mean, self.deviation**2)))
        )


class KnownQuantity:
    """A FittedSurrogate of price or supply risk."""

    hyperparameters: Mapping[str, Any] = {}

    def __init__(self, quantity: str, values: FloatArray) -> None:
        self.quantity = quantity
        spread = float(values.std()) if len(values) else 0.0
        self.model: Model = _Exact(_RELATIVE_DEVIATION * (spread or 1.0))

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, 1) the values themselves."""
        values = [
            [abundance.value(self.quantity, counts_of(candidate.crystal.formula))]
            for candidate in candidates
        ]
        return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        return self.model.posterior(self.features(candidates))
