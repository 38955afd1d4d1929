"""Choice by the hull: how far below it a crystal is expected to lie, and how likely it is to lie on
it once all are known.

Energies are formation energies, eV per atom. With H(x) the hull at a crystal's composition x, f its
energy by the model and t a tolerance, a crystal is worth

    E[(H(x) + t - f)+]  P(f <= H*(x) + t)

H is of the labels, and of what waits or was chosen before it with energies drawn from the joint
posterior; H* is the hull of one joint draw of the energies of all that may still be chosen, so that
a crystal which others are about to undercut counts for less (after A. Novick et al., Mater. Horiz.
11 (2024) 5381, who sample hulls for the compositions that tell most about them). As the hull comes
down around what is chosen, the batch spreads over compositions by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.models.model import Model
from linear_operator.utils.warnings import NumericalWarning
from numpy.typing import NDArray
from torch import Tensor

from campaign.acquisition.batch import Scores
from campaign.acquisition.levels import LevelScores
from campaign.acquisition.rows import FinitePoolModel, MarginalModel, marginal_of
from campaign.config.schema import AcquisitionConfig
from campaign.crystals.hull import LowerHull, lower_hull
from campaign.ledger.stability import Diagram
from campaign.types import FloatArray

_FANTASIES = 16
_ON_THE_HULL = 1e-9
_LEAST_VARIANCE = 1e-18


@dataclass(frozen=True)
class Points:
    """Crystals as a model describes them (n, d), and their atomic fractions (n, k) on the
    diagram.
    """

    features: Tensor
    fractions: FloatArray

    def __getitem__(self, rows: Sequence[int]) -> Points:
        return Points(self.features[list(rows)], self.fractions[list(rows)])

    def __add__(self, other: Points) -> Points:
        return Points(
            torch.cat([self.features, other.features]), np.vstack([self.fractions, other.fractions])
        )


@dataclass(frozen=True)
class HullScores(Scores):
    """``stable`` (n,): how likely each crystal of the pool is to lie on the hull, within the
    tolerance.
    """

    stable: FloatArray


def select(
    model: Model,
    diagram: Diagram,
    pool: Points,
    pending: Points | None,
    n_choices: int,
    *,
    config: AcquisitionConfig,
    seed: int,
    scale: float = 1.0,
    log_weights: FloatArray | None = None,
) -> HullScores:
    """Score a pool by a model of formation energies and select a batch. ``scale`` of the model's
    standard deviations.

    ``log_weights`` (n,) are added to the scores: chances of success.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        mean, variance = marginal_of(model, pool.features)
        variance = variance * scale**2
        weights = (
            np.zeros(len(mean)) if log_weights is None else np.asarray(log_weights, dtype=float)
        )
        improvement = _log_improvement(
            mean, variance, diagram.hull.formation_at(pool.fractions) + config.tolerance
        )
        n_choices = min(n_choices, len(mean))
        shortlist = np.argsort(-(improvement + weights), kind="stable")[
            : max(config.shortlist, n_choices)
        ].tolist()
        together = pool[shortlist] if pending is None else pool[shortlist] + pending
        joint = FinitePoolModel.of([model], [together.features], [scale])
        energies = draws(joint, config.samples, seed)
        hulls = _sampled(diagram, together.fractions, energies)
        stable = chances(
            hulls, pool.fractions, mean.numpy(), variance.sqrt().numpy(), config.tolerance
        )
        stable[shortlist] = chances_among(hulls, together.fractions, energies, config.tolerance)[
            : len(shortlist)
        ]
        likely = np.log(stable[shortlist]) + weights[shortlist]
        chosen = _greedy(
            joint,
            diagram,
            together,
            energies[:_FANTASIES],
            len(shortlist),
            n_choices,
            likely,
            config,
        )
        score = improvement + np.log(stable) + weights
        return HullScores(
            score,
            mean.numpy(),
            variance.sqrt().numpy(),
            tuple(shortlist[row] for row in chosen),
            stable,
        )


def draws(joint: FinitePoolModel, n: int, seed: int) -> FloatArray:
    """(n, points) joint draws, quasi Monte Carlo."""
    from botorch.sampling import SobolQMCNormalSampler

    rows = torch.arange(len(joint.mean), dtype=torch.float64)[:, None]
    with torch.no_grad():
        return np.asarray(
            SobolQMCNormalSampler(torch.Size([n]), seed=seed)(joint.posterior(rows))
            .squeeze(-1)
            .numpy()
        )


def _hull_with(diagram: Diagram, fractions: FloatArray, energies: FloatArray) -> LowerHull:
    """Of the labels and others: of the labels those on the hull are enough."""
    return lower_hull(
        np.vstack([diagram.hull.fractions, fractions]), np.append(diagram.hull.formation, energies)
    )


def _sampled(diagram: Diagram, fractions: FloatArray, energies: FloatArray) -> list[LowerHull]:
    """A hull for each draw of the energies (draws, n)."""
    return [_hull_with(diagram, fractions, row) for row in energies]


def chances(
    hulls: Sequence[LowerHull],
    fractions: FloatArray,
    mean: FloatArray,
    deviation: FloatArray,
    tolerance: float,
) -> FloatArray:
    """(n,) of crystals that are no part of the drawn hulls: the chance to lie at most ``tolerance``
    above them.
    """
    from scipy.special import ndtr

    spread = np.maximum(deviation, math.sqrt(_LEAST_VARIANCE))
    distinct, place = np.unique(fractions, axis=0, return_inverse=True)
    levels = (hull.at(distinct)[place.reshape(-1)] + tolerance for hull in hulls)
    found = sum(ndtr((level - mean) / spread) for level in levels) / len(hulls)
    return np.asarray(np.clip(found, 0.5 / (len(hulls) + 1), None))


def chances_among(
    hulls: Sequence[LowerHull], fractions: FloatArray, energies: FloatArray, tolerance: float
) -> FloatArray:
    """(n,) of the crystals that the hulls are drawn with, energies (draws, n): in how many draws
    they lie on them, after Jeffreys.
    """
    above = np.array([row - hull.at(fractions) for hull, row in zip(hulls, energies, strict=True)])
    return np.asarray(((above <= tolerance + _ON_THE_HULL).sum(0) + 0.5) / (len(hulls) + 1))


def _log_improvement(mean: Tensor, variance: Tensor, level: FloatArray) -> FloatArray:
    """(n,) log E[(level - f)+] of f with mean (n,) and variance (n,)."""
    rows = torch.arange(len(mean), dtype=torch.float64)[:, None, None]
    below = MarginalModel(
        (mean - torch.from_numpy(level))[:, None], variance.clamp_min(_LEAST_VARIANCE)[:, None]
    )
    with torch.no_grad():
        return np.asarray(LogExpectedImprovement(below, best_f=0.0, maximize=False)(rows).numpy())


def _greedy(
    joint: FinitePoolModel,
    diagram: Diagram,
    together: Points,
    energies: FloatArray,
    n_candidates: int,
    n: int,
    log_weights: FloatArray,
    config: AcquisitionConfig,
) -> list[int]:
    """One after another; what waits (the rows after the candidates) and what was taken has the
    energies of a draw, draw by draw.
    """
    taken: list[int] = []
    waiting = list(range(n_candidates, len(together.fractions)))
    while len(taken) < n:
        known = [*waiting, *taken]
        value = log_weights + _given(
            joint, diagram, together, energies, known, n_candidates, config.tolerance
        )
        value[taken] = -np.inf
        taken.append(int(np.argmax(value)))
    return taken


def _given(
    joint: FinitePoolModel,
    diagram: Diagram,
    together: Points,
    energies: FloatArray,
    known: list[int],
    n: int,
    tolerance: float,
) -> FloatArray:
    """(n,) log E[(H + t - f)+] of the first n rows where the energies of some rows are known, in
    the mean over draws (s, rows) of these.
    """
    mean, covariance = joint.mean[:, 0], joint.covariance[0]
    if not known:
        level = diagram.hull.formation_at(together.fractions[:n]) + tolerance
        return _log_improvement(mean[:n], covariance.diagonal()[:n], level)
    column = covariance[:, known]
    gain = torch.linalg.solve(column[known], column.mT).mT
    variance = (covariance.diagonal() - (gain * column).sum(1)).clamp_min(_LEAST_VARIANCE)
    parts = []
    for row in energies:
        given = mean + gain @ (torch.from_numpy(row[known]) - mean[known])
        hull = _hull_with(diagram, together.fractions[known], row[known])
        parts.append(
            _log_improvement(given[:n], variance[:n], hull.at(together.fractions[:n]) + tolerance)
        )
    return np.asarray(torch.from_numpy(np.array(parts)).logsumexp(0).numpy() - math.log(len(parts)))


def select_levels(
    model: Model,
    diagram: Diagram,
    at_level: Sequence[Points],
    pending: Points | None,
    n_choices: int,
    costs: Sequence[float],
    allowed: NDArray[np.bool_],
    room: Sequence[int | None],
    *,
    config: AcquisitionConfig,
    seed: int,
) -> tuple[LevelScores, FloatArray]:
    """Select pairs of level and row, and tell (n,) how likely each row is stable at the highest
    level.

    A label at a level below moves the energy expected at the highest by s = cov / sqrt(var) times a
    standard normal number: it is worth E[(H + t - m - s Z)+], per cost. What waits, or was chosen
    before, counts as observed at its mean.
    """
    n_levels, n = len(at_level), len(at_level[0].fractions)
    parts = [
        *(points.features for points in at_level),
        *([pending.features] if pending is not None else []),
    ]
    whole = finite = FinitePoolModel.of([model], [torch.cat(parts)], has_noise=True)
    top = slice((n_levels - 1) * n, n_levels * n)
    at_top = at_level[-1].fractions
    mean = whole.mean[:, 0]
    drawn = draws(
        FinitePoolModel(whole.mean[top], whole.covariance[:, top, top]), config.samples, seed
    )
    stable = chances_among(_sampled(diagram, at_top, drawn), at_top, drawn, config.tolerance)
    price = np.log(np.asarray(list(costs), dtype=float))[:, None]
    for row in range(n_levels * n, len(mean)):
        finite = finite.observing(row)
    free = allowed.copy()
    left = [n_choices if most is None else most for most in room]
    believed: list[int] = []
    chosen: list[tuple[int, int]] = []
    first: FloatArray | None = None
    while len(chosen) < n_choices:
        free[[count <= 0 for count in left]] = False
        if not free.any():
            break
        hull = _hull_with(diagram, at_top[believed], mean[top].numpy()[believed])
        level = hull.at(at_top) + config.tolerance
        value = np.array(
            [
                _log_improvement(mean[top], _learned(finite, i, n_levels, n), level)
                for i in range(n_levels)
            ]
        )
        value = value + np.log(stable) - price
        first = value if first is None else first
        place, row = divmod(int(np.argmax(np.where(free, value, -np.inf))), n)
        chosen.append((place, row))
        free[place, row] = False
        left[place] -= 1
        finite = finite.observing(place * n + row)
        if place == n_levels - 1:
            believed.append(row)
    shape = (n_levels, n)
    score = first if first is not None else np.zeros(shape)
    deviation = whole.covariance[0].diagonal()[: n_levels * n].sqrt()
    return LevelScores(
        score,
        mean[: n_levels * n].reshape(shape).numpy(),
        deviation.reshape(shape).numpy(),
        tuple(chosen),
    ), stable


def _learned(finite: FinitePoolModel, level: int, n_levels: int, n: int) -> Tensor:
    """(n,) the variance of the mean at the highest level that a label at a level brings about."""
    rows = torch.arange(n)
    below, top = rows + level * n, rows + (n_levels - 1) * n
    covariance = finite.covariance[0]
    return covariance[top, below].square() / (
        covariance[below, below] + finite.noise[below]
    ).clamp_min(_LEAST_VARIANCE)
