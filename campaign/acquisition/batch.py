"""A batch from a pool: scores, a shortlist, then one choice after another, as if the earlier ones
were under way.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor

from campaign.acquisition import functions
from campaign.acquisition.aims import Aims
from campaign.acquisition.rows import FinitePoolModel, MarginalModel
from campaign.config.schema import AcquisitionConfig
from campaign.types import FloatArray

_CHUNK = 1024
_LEAST = -1e300


@dataclass(frozen=True)
class Output:
    """One quantity: its model; pool (n, d), labelled (m, d) and pending (p, d) points as the model
    describes them; the labels (m,).

    A label is NaN where a candidate has none of this quantity. ``scale`` of the model's standard
    deviations, from its calibration. ``noise`` (m,): the labels' standard deviations, where stated.
    """

    model: Model
    pool: Tensor
    labelled: Tensor
    values: Tensor
    pending: Tensor | None = None
    scale: float = 1.0
    noise: Tensor | None = None

    @property
    def is_noisy(self) -> Tensor:
        """(m,) whether a label's noise is stated."""
        return (
            torch.zeros(len(self.values), dtype=torch.bool)
            if self.noise is None
            else self.noise > 0
        )


@dataclass(frozen=True)
class Scores:
    """Of each pool candidate: acquisition value, posterior mean and standard deviation of the first
    output (n,); chosen rows in order.
    """

    score: FloatArray
    mean: FloatArray
    deviation: FloatArray
    chosen: tuple[int, ...]


def select(
    outputs: Sequence[Output],
    aims: Aims,
    n_choices: int,
    *,
    config: AcquisitionConfig,
    seed: int,
    log_weights: FloatArray | None = None,
) -> Scores:
    """Score a pool and select a batch. ``log_weights`` (n,) are added to scores and joint values:
    chances of success, costs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        return _select(outputs, aims, n_choices, config, seed, log_weights)


def _select(
    outputs: Sequence[Output],
    aims: Aims,
    n_choices: int,
    config: AcquisitionConfig,
    seed: int,
    log_weights: FloatArray | None,
) -> Scores:
    pool = outputs[0].pool
    n_choices = min(n_choices, len(pool))
    models, scales = [output.model for output in outputs], [output.scale for output in outputs]
    weights = (
        torch.zeros(len(pool), dtype=torch.float64)
        if log_weights is None
        else torch.from_numpy(np.asarray(log_weights, dtype=float))
    )
    with torch.no_grad():
        marginal = MarginalModel.of(
            models, [output.pool for output in outputs], scales, aims.standards
        )
        units = list(zip(outputs, aims.standards, strict=True))
        known = functions.Known(
            torch.stack([(output.values - unit.center) / unit.spread for output, unit in units], 1),
            MarginalModel.of(
                models, [output.labelled for output in outputs], standards=aims.standards
            ).mean,
            torch.stack([output.is_noisy for output in outputs], 1),
        )
        score = (functions.single(config, aims, marginal, known, seed) + weights).numpy()
    unit = aims.standards[0]
    mean, deviation = (
        unit.center + unit.spread * marginal.mean[:, 0].numpy(),
        unit.spread * marginal.variance[:, 0].sqrt().numpy(),
    )
    shown = unit.spread * score if config.use in functions.IN_THE_QUANTITYS_UNIT else score
    if n_choices == 0:
        return Scores(shown, mean, deviation, ())
    shortlist = _best_rows(score, max(config.shortlist, n_choices))
    places = [_places(output, shortlist) for output in outputs]
    if config.use == "greedy_mean":
        chosen = _apart(score[shortlist], n_choices, places[0], config.min_distance)
        return Scores(shown, mean, deviation, tuple(shortlist[row] for row in chosen))
    pending = outputs[0].pending
    n_pending = len(pending) if pending is not None else 0
    model = FinitePoolModel.of(
        models, [_together(output, shortlist) for output in outputs], scales, aims.standards
    )
    rows = torch.arange(len(model.mean), dtype=pool.dtype)[:, None]
    choices, waiting, labelled = torch.split(
        rows, [len(shortlist), n_pending, len(outputs[0].labelled)]
    )
    if config.use == "thompson":
        chosen = _thompson(
            model,
            aims,
            len(choices),
            n_choices,
            weights[shortlist],
            places[0],
            config.min_distance,
        )
    else:
        acquisition = functions.joint(config, aims, model, known, choices, labelled, seed)
        added = weights[shortlist]
        if config.use == "upper_confidence_bound":
            added = added + aims.log_probability(
                marginal.mean[shortlist], marginal.variance[shortlist]
            )
        chosen = _greedy(
            acquisition, choices, waiting, n_choices, added, places[0], config.min_distance
        )
    return Scores(shown, mean, deviation, tuple(shortlist[row] for row in chosen))


def _together(output: Output, shortlist: list[int]) -> Tensor:
    return torch.cat(
        [
            output.pool[shortlist],
            *([output.pending] if output.pending is not None else []),
            output.labelled,
        ]
    )


def _best_rows(score: FloatArray, n: int) -> list[int]:
    return [int(row) for row in np.argsort(-score, kind="stable")[:n]]


def _places(output: Output, shortlist: list[int]) -> Tensor:
    """(s, d) the shortlist in columns scaled to a range of one over pool and labels."""
    points = torch.cat([output.pool, output.labelled])
    low, high = points.min(0).values, points.max(0).values
    return (output.pool[shortlist] - low) / (high - low).clamp_min(1e-12)


def _near(places: Tensor, row: int, min_distance: float) -> Tensor:
    """(s,) which places lie nearer to one than the least distance, root mean square over the
    columns; itself always.
    """
    near = (places - places[row]).square().mean(-1).sqrt() < min_distance
    near[row] = True
    return near


def _apart(score: FloatArray, n: int, places: Tensor, min_distance: float) -> list[int]:
    """The best n rows, none near another while there are others."""
    value = torch.from_numpy(score.copy())
    rows: list[int] = []
    while len(rows) < n:
        rows.append(_take(value, rows, places, min_distance))
    return rows


def _take(value: Tensor, taken: list[int], places: Tensor, min_distance: float) -> int:
    """The row of the largest value that is not taken and not near a taken one; where all are near,
    the largest that is not taken.
    """
    near = torch.zeros(len(value), dtype=torch.bool)
    for row in taken:
        near |= _near(places, row, min_distance)
    free = torch.ones(len(value), dtype=torch.bool)
    free[taken] = False
    allowed = free & ~near if bool((free & ~near).any()) else free
    return int(
        torch.where(allowed, value.nan_to_num(nan=_LEAST).clamp_min(_LEAST), -torch.inf).argmax()
    )


def _greedy(
    acquisition: AcquisitionFunction,
    choices: Tensor,
    waiting: Tensor,
    n: int,
    log_weights: Tensor,
    places: Tensor,
    min_distance: float,
) -> list[int]:
    """One row after another by the joint value, with what waits and what was taken before as
    pending.
    """
    rows: list[int] = []
    with torch.no_grad():
        while len(rows) < n:
            pending = torch.cat([waiting, choices[rows]])
            acquisition.set_X_pending(pending if len(pending) else None)
            value = torch.cat(
                [acquisition(chunk[:, None]) for chunk in torch.split(choices, _CHUNK)]
            ).to(log_weights.dtype)
            rows.append(_take(value + log_weights, rows, places, min_distance))
    return rows


def _thompson(
    model: FinitePoolModel,
    aims: Aims,
    n_candidates: int,
    n: int,
    log_weights: Tensor,
    places: Tensor,
    min_distance: float,
) -> list[int]:
    """The best row of one joint sample after another; a chance of success is drawn too."""
    with torch.no_grad():
        rows = torch.arange(n_candidates, dtype=model.mean.dtype)[:, None]
        samples = model.posterior(rows).rsample(torch.Size([n]))
        gains = aims.gain(samples).masked_fill(~aims.is_feasible(samples), -1e6)
        gains = gains + 1e6 * (torch.rand_like(gains).log() < log_weights).to(gains.dtype)
    taken: list[int] = []
    for gain in gains:
        taken.append(_take(gain, taken, places, min_distance))
    return taken
