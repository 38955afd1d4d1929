"""Values in standard units for the models, and their posteriors in the quantity's own unit again.

BoTorch's own standardisation leaves values alone that spread by less than 1e-8, and GPyTorch rounds
variances up to 1e-10: both are numbers without a unit. Here everything that has a floor, such as
variances and Cholesky factors, is computed in standard units, and what comes out is scaled
afterwards, so values times 1e-12 give the same model as the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.posteriors import GPyTorchPosterior, Posterior
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from campaign.units import Standard

_DIGITS = 9
"""Digits of values in standard units. Finer ones are the rounding of the unit, which a fit would
let grow into another optimum.
"""


class UnitPosterior(GPyTorchPosterior):  # type: ignore[misc]
    """A normal posterior in standard units, told in the quantity's unit: ``center`` and ``spread``
    (..., q, 1), or (1,) for all points.
    """

    def __init__(self, standard: GPyTorchPosterior, center: Tensor, spread: Tensor) -> None:
        self._standard, self._center, self._spread = standard, center, spread
        normal = standard.distribution
        super().__init__(
            MultivariateNormal(
                center[..., 0] + spread[..., 0] * normal.mean, self._covariance(normal)
            )
        )

    def _covariance(self, normal: MultivariateNormal) -> LinearOperator:
        if self._spread.ndim == 1:
            return normal.lazy_covariance_matrix * self._spread[0].square()
        scale = DiagLinearOperator(self._spread[..., 0])
        return scale @ normal.lazy_covariance_matrix @ scale

    @property
    def variance(self) -> Tensor:
        found: Tensor = self._spread.square() * self._standard.variance
        return found

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        found: Tensor = self._center + self._spread * self._standard.rsample(sample_shape)
        return found

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        found: Tensor = self._center + self._spread * self._standard.rsample_from_base_samples(
            sample_shape, base_samples
        )
        return found


class StandardUnits(OutcomeTransform):  # type: ignore[misc]
    """Standard units of one quantity, or of each task where the last column of X is the task's
    number.
    """

    def __init__(self, *by_task: Standard) -> None:
        super().__init__()
        self.register_buffer(
            "centers", torch.tensor([task.center for task in by_task], dtype=torch.float64)
        )
        self.register_buffer(
            "spreads", torch.tensor([task.spread for task in by_task], dtype=torch.float64)
        )

    @property
    def _is_linear(self) -> bool:
        return True

    def subset_output(self, idcs: list[int]) -> StandardUnits:
        return self

    def _at(self, X: Tensor | None) -> tuple[Tensor, Tensor]:
        """Center and spread, (1,) for all points alike or (..., q, 1) by their tasks."""
        if len(self.centers) == 1 or X is None:
            return self.centers, self.spreads
        task = X[..., -1:].long()
        return self.centers[task], self.spreads[task]

    def forward(
        self, Y: Tensor, Yvar: Tensor | None = None, X: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        center, spread = self._at(X)
        return ((Y - center) / spread).round(
            decimals=_DIGITS
        ), None if Yvar is None else Yvar / spread.square()

    def untransform(
        self, Y: Tensor, Yvar: Tensor | None = None, X: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        center, spread = self._at(X)
        return center + spread * Y, None if Yvar is None else Yvar * spread.square()

    def untransform_posterior(self, posterior: Posterior, X: Tensor | None = None) -> Posterior:
        return UnitPosterior(posterior, *self._at(X))


def standard_units(
    values: Sequence[Tensor], noise: Sequence[Tensor | None] | None = None
) -> StandardUnits:
    """Of the values (n,) of each task, or of one quantity, and their stated noise (n,)."""
    return StandardUnits(
        *(
            Standard.of(known.detach().numpy(), None if stated is None else stated.numpy())
            for known, stated in zip(values, noise or [None] * len(values), strict=True)
        )
    )
