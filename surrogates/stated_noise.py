"""The noise of labels as their oracle states it, beside the noise that a model learns.

A label y_i = f(x_i) + e_i with e_i normal of variance s_i^2 + t^2: s_i is the standard deviation
that came with the label, t is one parameter of the model, or of each task. So a label that its
oracle does not trust counts for little, and the mean of n repeats counts like one label with
s / sqrt(n). Variances are in standard units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gpytorch.constraints import GreaterThan
from gpytorch.likelihoods.gaussian_likelihood import _GaussianLikelihoodBase
from gpytorch.likelihoods.noise_models import MultitaskHomoskedasticNoise
from gpytorch.priors import LogNormalPrior
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from surrogates.standard import StandardUnits

_LEAST_LEARNED = 1e-4


class StatedNoiseLikelihood(_GaussianLikelihoodBase):  # type: ignore[misc]
    """Normal noise of training labels with known parts of variance ``stated`` (n,), and a learned
    part by task, with the prior that BoTorch's models have.

    ``tasks`` (n,) are whole numbers; where there are several, the last column of X tells the task.
    A label that is still to come has the mean of its task's stated variances.
    """

    def __init__(self, stated: Tensor, tasks: Tensor | None = None, n_tasks: int = 1) -> None:
        prior = LogNormalPrior(loc=-4.0, scale=1.0)
        bounds = GreaterThan(_LEAST_LEARNED, transform=None, initial_value=prior.mode)
        super().__init__(
            MultitaskHomoskedasticNoise(n_tasks, noise_prior=prior, noise_constraint=bounds)
        )
        of_task = torch.zeros(len(stated), dtype=torch.long) if tasks is None else tasks.long()
        counts = torch.bincount(of_task, minlength=n_tasks).clamp_min(1)
        sums = torch.zeros(n_tasks, dtype=stated.dtype).index_add(0, of_task, stated)
        self.register_buffer("stated", stated)
        self.register_buffer("usual", sums / counts)

    @property
    def noise(self) -> Tensor:
        """(tasks,) the learned variances."""
        learned: Tensor = self.noise_covar.noise
        return learned

    def _shaped_noise_covar(
        self, base_shape: torch.Size, *params: Any, **kwargs: Any
    ) -> LinearOperator:
        """Exact prediction gives the training inputs as a list, everything else a tensor."""
        is_given = bool(params) and not torch.is_tensor(params[0])
        learned, usual = self.noise, self.usual
        if len(learned) > 1:
            points = params[0][0] if is_given else params[0]
            of_task = points[..., -1].long()
            learned, usual = learned[of_task], usual[of_task]
        known = self.stated if self.training or is_given else usual
        return DiagLinearOperator((learned + known).expand(base_shape))


def likelihood_of(noise: Tensor | None, units: StandardUnits) -> StatedNoiseLikelihood | None:
    """Of one task with labels of these standard deviations (n,) in the quantity's unit; None, the
    model's own likelihood, where none is stated.
    """
    return None if noise is None else StatedNoiseLikelihood((noise / units.spreads[0]).square())


def likelihood_of_tasks(
    noise: Sequence[Tensor | None], values: Sequence[Tensor], units: StandardUnits
) -> StatedNoiseLikelihood | None:
    """Of several tasks, one after another: standard deviations (n,) of each one's values (n,); None
    where none is stated.
    """
    if all(stated is None for stated in noise):
        return None
    known = [
        (torch.zeros_like(of) if stated is None else stated) / spread
        for stated, of, spread in zip(noise, values, units.spreads, strict=True)
    ]
    tasks = torch.repeat_interleave(torch.tensor([len(of) for of in values]))
    return StatedNoiseLikelihood(torch.cat(known).square(), tasks, len(values))
