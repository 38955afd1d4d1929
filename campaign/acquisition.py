"""Acquisition on a finite pool with BoTorch's own classes.

Every candidate of the pool gets the value of the analytic, single-point form; the best of these (the shortlist) enter the joint,
sequentially greedy selection of the batch, where pending work and the batch's earlier members count through ``X_pending``.
The joint posterior of shortlist, pending work and labels is computed once, and BoTorch's acquisition functions look it up.
With n pool candidates, m labels, p pending, shortlist s and batch q: O(n m^2) time for the scores, O((s + p) m^2) for the joint
posterior and O(s q (p + q)^3) for the batch; memory O((s + p)^2 + m^2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition import (
    AcquisitionFunction,
    LogExpectedImprovement,
    PosteriorMean,
    PosteriorStandardDeviation,
    UpperConfidenceBound,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qUpperConfidenceBound,
)
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.generation.sampling import MaxPosteriorSampling
from botorch.models.model import Model
from botorch.optim import optimize_acqf_discrete
from botorch.posteriors import GPyTorchPosterior
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from campaign.schema import AcquisitionConfig
from campaign.types import FloatArray

_CHUNK = 1024
_JITTER = 1e-7
_LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class Scores:
    """Of each pool candidate: single-point acquisition value, posterior mean and standard deviation (n,); chosen rows in order."""

    score: FloatArray
    mean: FloatArray
    deviation: FloatArray
    chosen: tuple[int, ...]


class _RowModel(Model):
    """A posterior over finitely many points, as a BoTorch model whose inputs are row numbers: X (..., q, 1)."""

    num_outputs = 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def joint(self, rows: Tensor) -> MultivariateNormal:
        """The joint distribution of rows (..., q)."""
        raise TypeError("a model of rows says how they vary together")

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: ScalarizedPosteriorTransform | None = None,
    ) -> GPyTorchPosterior:
        posterior = GPyTorchPosterior(self.joint(X[..., 0].long()))
        return posterior if posterior_transform is None else posterior_transform(posterior)


class MarginalModel(_RowModel):
    """The points one by one: mean (n,) and variance (n,)."""

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.mean, self.variance = mean, variance

    @classmethod
    def of(cls, model: Model, points: Tensor) -> MarginalModel:
        """The marginal posteriors of points (n, d), in chunks that bound the memory."""
        posteriors = [model.posterior(chunk) for chunk in points.split(_CHUNK)]
        mean = torch.cat([posterior.mean.reshape(-1) for posterior in posteriors])
        variance = torch.cat([posterior.variance.reshape(-1) for posterior in posteriors])
        return cls(mean, variance.clamp_min(0))

    def joint(self, rows: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean[rows], to_linear_operator(self.variance[rows][..., None]))


class FinitePoolModel(_RowModel):
    """The points together: mean (n,) and covariance (n, n)."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self._mean, self._covariance = mean, covariance

    @classmethod
    def of(cls, model: Model, points: Tensor) -> FinitePoolModel:
        """The joint posterior of points (n, d)."""
        with torch.no_grad():
            joint = model.posterior(points).distribution
        covariance = joint.covariance_matrix
        covariance = (covariance + covariance.mT) / 2
        jitter = _JITTER * covariance.diagonal().max()
        return cls(joint.mean, covariance + jitter * torch.eye(len(points), dtype=covariance.dtype))

    def joint(self, rows: Tensor) -> MultivariateNormal:
        covariance = self._covariance[rows[..., :, None], rows[..., None, :]]
        return MultivariateNormal(self._mean[rows], to_linear_operator(covariance))


def select(
    model: Model,
    pool: Tensor,
    n_choices: int,
    *,
    config: AcquisitionConfig,
    sign: int,
    labelled: Tensor,
    values: Tensor,
    pending: Tensor | None,
    seed: int,
) -> Scores:
    """Score a pool (n, d) and select a batch. ``labelled`` (m, d) with ``values`` (m,); ``sign`` +1 maximizes, -1 minimizes.

    Acquisition values are in units of the labels' standard deviation, which BoTorch's smoothed maxima assume.
    """
    n_choices = min(n_choices, len(pool))
    scale = sign / values.std().clamp_min(_LEAST_SPREAD)
    direction = ScalarizedPosteriorTransform(scale.reshape(1))
    best = (scale * values).max()
    with torch.no_grad():
        marginal = MarginalModel.of(model, pool)
        single = _single_point(config, marginal, direction, best, model, labelled)
        score = single(torch.arange(len(pool), dtype=pool.dtype)[:, None, None]).numpy()
        mean, deviation = marginal.mean.numpy(), marginal.variance.sqrt().numpy()
    if config.use == "greedy_mean":
        return Scores(score, mean, deviation, tuple(_best_rows(score, n_choices)))
    shortlist = _best_rows(score, max(config.shortlist, n_choices))
    if config.use == "uncertainty":
        chosen = _most_uncertain(model, pool[shortlist], n_choices, pending)
        return Scores(score, mean, deviation, tuple(shortlist[row] for row in chosen))
    parts = [pool[shortlist], *([pending] if pending is not None else []), labelled]
    finite = FinitePoolModel.of(model, torch.cat(parts[:-1] if config.use != "log_noisy_expected_improvement" else parts))
    rows = torch.arange(sum(len(part) for part in parts), dtype=pool.dtype)[:, None]
    choices, waiting, observed = torch.split(rows, [len(shortlist), len(pending) if pending is not None else 0, len(labelled)])
    if config.use == "thompson":
        sampled = MaxPosteriorSampling(finite, posterior_transform=direction, replacement=False)(choices, num_samples=n_choices)
    else:
        acquisition = _joint(config, finite, direction, best, observed, waiting if len(waiting) else None, seed)
        sampled, _ = optimize_acqf_discrete(acquisition, q=n_choices, choices=choices, max_batch_size=_CHUNK, unique=True)
    return Scores(score, mean, deviation, tuple(shortlist[int(row)] for row in sampled.reshape(-1)))


def _best_rows(score: FloatArray, n: int) -> list[int]:
    return [int(row) for row in np.argsort(-score, kind="stable")[:n]]


def _single_point(
    config: AcquisitionConfig,
    marginal: MarginalModel,
    direction: ScalarizedPosteriorTransform,
    best: Tensor,
    model: Model,
    labelled: Tensor,
) -> AcquisitionFunction:
    match config.use:
        case "log_expected_improvement":
            return LogExpectedImprovement(marginal, best_f=best, posterior_transform=direction)
        case "log_noisy_expected_improvement":
            smooth_best = model.posterior(labelled, posterior_transform=direction).mean.max()
            return LogExpectedImprovement(marginal, best_f=smooth_best, posterior_transform=direction)
        case "uncertainty":
            return PosteriorStandardDeviation(marginal)
        case "greedy_mean":
            return PosteriorMean(marginal, posterior_transform=direction)
        case _:
            return UpperConfidenceBound(marginal, beta=config.beta**2, posterior_transform=direction)


def _joint(
    config: AcquisitionConfig,
    model: FinitePoolModel,
    direction: ScalarizedPosteriorTransform,
    best: Tensor,
    labelled: Tensor,
    pending: Tensor | None,
    seed: int,
) -> AcquisitionFunction:
    sampler = SobolQMCNormalSampler(torch.Size([config.samples]), seed=seed)
    match config.use:
        case "log_expected_improvement":
            return qLogExpectedImprovement(model, best_f=best, sampler=sampler, posterior_transform=direction, X_pending=pending)
        case "log_noisy_expected_improvement":
            return qLogNoisyExpectedImprovement(
                model, X_baseline=labelled, sampler=sampler, posterior_transform=direction, X_pending=pending, prune_baseline=True
            )
        case _:
            return qUpperConfidenceBound(model, beta=config.beta**2, sampler=sampler, posterior_transform=direction, X_pending=pending)


def _most_uncertain(model: Model, choices: Tensor, n: int, pending: Tensor | None) -> list[int]:
    """The largest posterior standard deviation, again and again, as if each choice (and the pending work) had been observed."""
    rows: list[int] = []
    with torch.no_grad():
        model.posterior(choices[:1])
        if pending is not None:
            model = model.condition_on_observations(pending, model.posterior(pending).mean)
        while len(rows) < n:
            deviation = PosteriorStandardDeviation(model)(choices[:, None])
            deviation[rows] = -torch.inf
            rows.append(int(deviation.argmax()))
            point = choices[rows[-1:]]
            model = model.condition_on_observations(point, model.posterior(point).mean)
    return rows
