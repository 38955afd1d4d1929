"""Acquisition on a finite pool with BoTorch's own classes.

Every candidate of the pool gets the value of the analytic, single-point form; the best of these (the shortlist) enter the joint,
sequentially greedy selection of the batch, where pending work and the batch's earlier members count through ``X_pending``.
With n pool candidates, m labels, shortlist s and batch q: O(n m^2) time for the scores and O(q s (m + q)^2) for the batch.
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
from botorch.sampling import SobolQMCNormalSampler
from torch import Tensor

from campaign.schema import AcquisitionConfig
from campaign.types import FloatArray

_CHUNK = 2048


@dataclass(frozen=True)
class Scores:
    """Of each pool candidate: single-point acquisition value, posterior mean and standard deviation (n,); chosen rows in order."""

    score: FloatArray
    mean: FloatArray
    deviation: FloatArray
    chosen: tuple[int, ...]


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
    """Score a pool (n, d) and select a batch. ``labelled`` (m, d) with ``values`` (m,); ``sign`` +1 maximizes, -1 minimizes."""
    n_choices = min(n_choices, len(pool))
    direction = ScalarizedPosteriorTransform(torch.tensor([float(sign)], dtype=pool.dtype))
    best = (sign * values).max()
    with torch.no_grad():
        mean, deviation = _moments(model, pool)
        single = _single_point(config, model, direction, best, labelled)
        score = torch.cat([single(chunk[:, None]) for chunk in pool.split(_CHUNK)]).numpy()
    if config.use == "greedy_mean":
        return Scores(score, mean, deviation, tuple(_best_rows(score, n_choices)))
    shortlist = _best_rows(score, max(config.shortlist, n_choices))
    choices = pool[shortlist]
    if config.use == "thompson":
        rows = _thompson(model, choices, n_choices, direction)
    elif config.use == "uncertainty":
        rows = _most_uncertain(model, choices, n_choices, pending)
    else:
        joint = _joint(config, model, direction, best, labelled, pending, seed)
        rows = _greedy(joint, choices, n_choices)
    return Scores(score, mean, deviation, tuple(shortlist[row] for row in rows))


def _best_rows(score: FloatArray, n: int) -> list[int]:
    return [int(row) for row in np.argsort(-score, kind="stable")[:n]]


def _moments(model: Model, pool: Tensor) -> tuple[FloatArray, FloatArray]:
    posteriors = [model.posterior(chunk[:, None]) for chunk in pool.split(_CHUNK)]
    mean = torch.cat([posterior.mean.reshape(-1) for posterior in posteriors])
    variance = torch.cat([posterior.variance.reshape(-1) for posterior in posteriors])
    return mean.numpy(), variance.clamp_min(0).sqrt().numpy()


def _single_point(
    config: AcquisitionConfig, model: Model, direction: ScalarizedPosteriorTransform, best: Tensor, labelled: Tensor
) -> AcquisitionFunction:
    match config.use:
        case "log_expected_improvement":
            return LogExpectedImprovement(model, best_f=best, posterior_transform=direction)
        case "log_noisy_expected_improvement":
            smooth_best = model.posterior(labelled, posterior_transform=direction).mean.max()
            return LogExpectedImprovement(model, best_f=smooth_best, posterior_transform=direction)
        case "uncertainty":
            return PosteriorStandardDeviation(model)
        case "greedy_mean":
            return PosteriorMean(model, posterior_transform=direction)
        case _:
            return UpperConfidenceBound(model, beta=config.beta**2, posterior_transform=direction)


def _joint(
    config: AcquisitionConfig,
    model: Model,
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
            return qUpperConfidenceBound(
                model, beta=config.beta**2, sampler=sampler, posterior_transform=direction, X_pending=pending
            )


def _greedy(acquisition: AcquisitionFunction, choices: Tensor, n: int) -> list[int]:
    """Rows of ``choices`` selected one after another; equal rows of features are told apart by taking each row once."""
    chosen, _ = optimize_acqf_discrete(acquisition, q=n, choices=choices, max_batch_size=_CHUNK, unique=True)
    rows: list[int] = []
    for point in chosen:
        same = [row for row in torch.nonzero((choices == point).all(-1)).reshape(-1).tolist() if row not in rows]
        if same:
            rows.append(same[0])
    rows += [row for row in range(len(choices)) if row not in rows][: n - len(rows)]
    return rows


def _thompson(model: Model, choices: Tensor, n: int, direction: ScalarizedPosteriorTransform) -> list[int]:
    with torch.no_grad():
        sampled = MaxPosteriorSampling(model, posterior_transform=direction, replacement=False)(choices, num_samples=n)
    rows: list[int] = []
    for point in sampled:
        rows.append(next(row for row in torch.nonzero((choices == point).all(-1)).reshape(-1).tolist() if row not in rows))
    return rows


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
