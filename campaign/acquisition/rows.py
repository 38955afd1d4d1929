"""Posteriors over finitely many points as BoTorch models whose inputs are row numbers: X (..., q,
1).

A model with several outputs treats them as independent of each other. ``standards`` by output: the
rows are in standard units, the models behind them in the quantities' own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior, Posterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from campaign.units import Standard

_CHUNK = 1024
_JITTER = 1e-7


class RowModel(GPyTorchModel):  # type: ignore[misc]
    """Base of models of rows."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self._num_outputs = num_outputs

    @property
    def num_outputs(self) -> int:
        return self._num_outputs

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def joint(self, rows: Tensor, output: int) -> MultivariateNormal:
        """The joint distribution of rows (..., q) in one output."""
        raise TypeError("a model of rows says how they vary together")

    def noisy(self, joint: MultivariateNormal, rows: Tensor) -> MultivariateNormal:
        """The distribution of labels of rows; as that of their values where labels have no
        noise.
        """
        return joint

    def forward(self, X: Tensor) -> MultivariateNormal:
        parts = [self.joint(X[..., 0].long(), output) for output in range(self.num_outputs)]
        return (
            parts[0]
            if len(parts) == 1
            else MultitaskMultivariateNormal.from_independent_mvns(parts)
        )

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        joint = self.forward(X)
        if observation_noise is True:
            joint = self.noisy(joint, X[..., 0].long())
        posterior = GPyTorchPosterior(joint)
        return posterior if posterior_transform is None else posterior_transform(posterior)


def marginal_of(model: Model, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (n,) and variance (n,) of points (n, d), in chunks that bound the memory."""
    means, variances = [], []
    with torch.no_grad():
        for chunk in torch.split(points, _CHUNK):
            posterior = model.posterior(chunk)
            means.append(posterior.mean.reshape(-1))
            variances.append(posterior.variance.reshape(-1))
    return torch.cat(means), torch.cat(variances).clamp_min(0)


def _by_model(
    n: int, scales: Sequence[float], standards: Sequence[Standard]
) -> tuple[Sequence[float], Sequence[Standard]]:
    return list(scales) or [1.0] * n, list(standards) or [Standard()] * n


class MarginalModel(RowModel):
    """The points one by one: means (n, m) and variances (n, m) of m outputs."""

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        super().__init__(mean.shape[1])
        self.mean, self.variance = mean, variance

    @classmethod
    def of(
        cls,
        models: Sequence[Model],
        points: Sequence[Tensor],
        scales: Sequence[float] = (),
        standards: Sequence[Standard] = (),
    ) -> MarginalModel:
        """The marginal posteriors of the same points, described (n, d) as each model wants;
        ``scales`` of the standard deviations.
        """
        means, variances = [], []
        for model, rows, scale, unit in zip(
            models, points, *_by_model(len(models), scales, standards), strict=True
        ):
            mean, variance = marginal_of(model, rows)
            means.append((mean - unit.center) / unit.spread)
            variances.append(variance / unit.spread**2 * scale**2)
        return cls(torch.stack(means, 1), torch.stack(variances, 1))

    def joint(self, rows: Tensor, output: int) -> MultivariateNormal:
        return MultivariateNormal(
            self.mean[rows, output], to_linear_operator(self.variance[rows, output][..., None])
        )


class FinitePoolModel(RowModel):
    """The points together: means (n, m) and covariances (m, n, n) of m outputs; ``noise`` (n,)
    variances of labels of the first.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, noise: Tensor | None = None) -> None:
        super().__init__(mean.shape[1])
        self.mean, self.covariance = mean, covariance
        self.noise = torch.zeros(len(mean), dtype=mean.dtype) if noise is None else noise

    @classmethod
    def of(
        cls,
        models: Sequence[Model],
        points: Sequence[Tensor],
        scales: Sequence[float] = (),
        standards: Sequence[Standard] = (),
        *,
        has_noise: bool = False,
    ) -> FinitePoolModel:
        """The joint posteriors of the same points, described (n, d) as each model wants; ``scales``
        of the standard deviations.

        ``has_noise``: labels have the noise that the first model inferred. Means are rounded to
        nine digits, so that what the model cannot tell apart stays equal when labels come in
        another unit.
        """
        means, covariances = [], []
        scales, standards = _by_model(len(models), scales, standards)
        for model, rows, scale, unit in zip(models, points, scales, standards, strict=True):
            with torch.no_grad():
                joint = model.posterior(rows).distribution
            covariance = joint.covariance_matrix / unit.spread**2 * scale**2
            covariance = (covariance + covariance.mT) / 2
            jitter = _JITTER * covariance.diagonal().max().clamp_min(1e-12)
            means.append(((joint.mean - unit.center) / unit.spread).round(decimals=9))
            covariances.append(covariance + jitter * torch.eye(len(rows), dtype=covariance.dtype))
        noise = None
        if has_noise:
            with torch.no_grad():
                with_noise = (
                    models[0].posterior(points[0], observation_noise=True).variance.reshape(-1)
                )
                without = models[0].posterior(points[0]).variance.reshape(-1)
            noise = (with_noise - without).clamp_min(0) / standards[0].spread ** 2
        return cls(torch.stack(means, 1), torch.stack(covariances), noise)

    def joint(self, rows: Tensor, output: int) -> MultivariateNormal:
        covariance = self.covariance[output][rows[..., :, None], rows[..., None, :]]
        return MultivariateNormal(self.mean[rows, output], to_linear_operator(covariance))

    def noisy(self, joint: MultivariateNormal, rows: Tensor) -> MultivariateNormal:
        return MultivariateNormal(
            joint.mean,
            to_linear_operator(joint.covariance_matrix + torch.diag_embed(self.noise[rows])),
        )

    def scaled(self, factor: Tensor) -> FinitePoolModel:
        """The first output times a factor."""
        return FinitePoolModel(
            self.mean[:, :1] * factor, self.covariance[:1] * factor**2, self.noise * factor**2
        )

    def observing(self, row: int) -> FinitePoolModel:
        """As if a row had been labelled with its own mean: means stay, covariances shrink."""
        column = self.covariance[:, :, row]
        variance = (column[:, row] + self.noise[row]).clamp_min(1e-18)
        covariance = (
            self.covariance - column[:, :, None] * column[:, None, :] / variance[:, None, None]
        )
        return FinitePoolModel(self.mean, covariance, self.noise)
