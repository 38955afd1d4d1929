"""Candidate and level of theory together: what is learned about the best value at the highest
level, per unit of cost.

Multi-fidelity max-value entropy (S. Takeno et al., ICML 2020; H. B. Moss et al., J. Mach. Learn.
Res. 22 (2021) 235) on the finite pool, divided by the expected cost of a label at that level. What
is under way, or was chosen before, counts as observed at its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition.cost_aware import InverseCostWeightedUtility
from botorch.acquisition.max_value_entropy_search import qMultiFidelityLowerBoundMaxValueEntropy
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import Model
from numpy.typing import NDArray
from torch import Tensor

from campaign.acquisition.aims import Aims
from campaign.acquisition.rows import FinitePoolModel
from campaign.types import FloatArray

_MAX_VALUES = 32


_EXPLOIT = 1e-6
"""Weight of the chance to improve at the highest level: it decides where nothing more is to be
learned about the best value.
"""


@dataclass(frozen=True)
class LevelScores:
    """(levels, n) value per cost, posterior mean and standard deviation; the chosen (level, row) in
    order.
    """

    score: FloatArray
    mean: FloatArray
    deviation: FloatArray
    chosen: tuple[tuple[int, int], ...]


def select_levels(
    model: Model,
    at_level: Sequence[Tensor],
    pending: Tensor | None,
    aims: Aims,
    n_choices: int,
    costs: Sequence[float],
    allowed: NDArray[np.bool_],
    room: Sequence[int | None],
) -> LevelScores:
    """Select pairs of level and row. ``at_level`` are the rows' features (n, d + 1) at each level,
    the cheapest first; ``pending`` the features of what is under way; ``allowed`` (levels, n) pairs
    that may be chosen, of each level at most ``room`` of them.
    """
    n_levels, n = len(at_level), len(at_level[0])
    parts = [*at_level, *([pending] if pending is not None else [])]
    unit = aims.standards[0]
    whole = FinitePoolModel.of([model], [torch.cat(parts)], standards=[unit], has_noise=True)
    finite = whole.scaled(aims.factor)
    rows = torch.arange(len(finite.mean), dtype=torch.float64)[:, None]
    pairs = rows[: n_levels * n]
    top = (n_levels - 1) * n

    def project(X: Tensor) -> Tensor:
        """The same crystals at the highest level."""
        return top + X % n

    price = torch.tensor(list(costs), dtype=torch.float64).repeat_interleave(n)
    per_cost = InverseCostWeightedUtility(GenericDeterministicModel(lambda X: price[X.long()]))
    free = torch.from_numpy(allowed.reshape(-1).copy())
    left = [n_choices if most is None else most for most in room]
    for row in range(n_levels * n, len(rows)):
        finite = finite.observing(row)
    chosen: list[int] = []
    first: Tensor | None = None
    with torch.no_grad():
        while len(chosen) < n_choices:
            for level, count in enumerate(left):
                if count <= 0:
                    free[level * n : (level + 1) * n] = False
            if not bool(free.any()):
                break
            information = qMultiFidelityLowerBoundMaxValueEntropy(
                finite,
                candidate_set=pairs[top:],
                num_mv_samples=_MAX_VALUES,
                project=project,
                cost_aware_utility=per_cost,
            )
            value = (
                information(pairs[:, None]).clamp_min(0)
                + _EXPLOIT * _chance_to_improve(finite, top, n) / price
            )
            first = value if first is None else first
            row = int(torch.where(free, value, -torch.inf).argmax())
            chosen.append(row)
            free[row] = False
            left[row // n] -= 1
            finite = finite.observing(row)
    score = first if first is not None else torch.zeros(len(pairs), dtype=torch.float64)
    mean = unit.center + unit.spread * whole.mean[: n_levels * n, 0]
    deviation = unit.spread * whole.covariance[0].diagonal()[: n_levels * n].sqrt()
    shape = (n_levels, n)
    return LevelScores(
        score.reshape(shape).numpy(),
        mean.reshape(shape).numpy(),
        deviation.reshape(shape).numpy(),
        tuple(divmod(row, n) for row in chosen),
    )


def _chance_to_improve(finite: FinitePoolModel, top: int, n: int) -> Tensor:
    """(levels n,) the chance that a row is better at the highest level than the best mean there; 0
    at the others.
    """
    mean, deviation = finite.mean[:, 0], finite.covariance[0].diagonal().clamp_min(1e-18).sqrt()
    at_top = slice(top, top + n)
    found = torch.zeros(top + n, dtype=torch.float64)
    found[at_top] = torch.special.ndtr((mean[at_top] - mean[at_top].max()) / deviation[at_top])
    return found
