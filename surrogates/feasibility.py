"""The classifier ``feasibility_gp``: the chance that an oracle succeeds on a crystal.

A variational Gaussian process with a Bernoulli likelihood on descriptor columns, by default those
of the surrogate ``gp``. Far from all attempts its answer is the overall rate of success.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from botorch.exceptions.warnings import UserInputWarning
from botorch.models import SingleTaskVariationalGP
from botorch.models.transforms import Normalize
from gpytorch.kernels import ScaleKernel
from gpytorch.likelihoods import BernoulliLikelihood
from gpytorch.mlls import VariationalELBO
from gpytorch.priors import GammaPrior
from pydantic import Field
from torch import Tensor

from campaign.types import Candidate, FloatArray
from surrogates.described import Described, DescribedConfig
from surrogates.descriptors.describer import Describer
from surrogates.gp import kernel
from surrogates.likelihood import maximise

_CHUNK = 1024


class FeasibilityConfig(DescribedConfig):
    inducing_points: int = Field(100, ge=2, description="Inducing points.")
    max_iterations: int = Field(
        80, ge=1, description="Maximum number of L-BFGS iterations of a fit."
    )


class FittedFeasibility:
    def __init__(
        self, model: SingleTaskVariationalGP, described: Described, facts: Mapping[str, Any]
    ) -> None:
        self._model, self._described, self._facts = model, described, facts

    def probability(self, candidates: Sequence[Candidate]) -> FloatArray:
        """(n,) between 0 and 1."""
        x = self._described.features(candidates)
        with torch.no_grad():
            parts = [self._of(chunk) for chunk in torch.split(x, _CHUNK)]
        found: FloatArray = torch.cat(parts).numpy()
        return found

    def _of(self, x: Tensor) -> Tensor:
        latent = self._model.posterior(x)
        mean, variance = latent.mean[:, 0], latent.variance[:, 0]
        found: Tensor = torch.special.ndtr(mean / (1 + variance).sqrt())
        return found

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return self._facts


class Feasibility:
    Config = FeasibilityConfig

    def __init__(self, config: FeasibilityConfig) -> None:
        self.config = config
        Describer(config.descriptors, ())

    def fit_outcomes(
        self, succeeded: Sequence[Candidate], failed: Sequence[Candidate]
    ) -> FittedFeasibility:
        """Raises InputError where there are neither."""
        candidates = [*succeeded, *failed]
        described = Described(self.config, candidates)
        x = described.features(candidates)
        y = torch.from_numpy(np.r_[np.ones(len(succeeded)), np.zeros(len(failed))])
        d = x.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserInputWarning)
            model = SingleTaskVariationalGP(
                x,
                y[:, None],
                likelihood=BernoulliLikelihood(),
                covar_module=ScaleKernel(kernel("rbf", d), outputscale_prior=GammaPrior(2.0, 0.5)),
                inducing_points=min(self.config.inducing_points, len(y)),
                input_transform=Normalize(d=d),
            )
        rate = float(torch.special.ndtri(y.mean().clamp(0.02, 0.98)))
        model.model.mean_module.constant.data.fill_(rate)
        bound = VariationalELBO(model.likelihood, model.model, num_data=len(y))
        notes = maximise(bound, iterations=self.config.max_iterations)
        model.eval()
        return FittedFeasibility(
            model, described, {"succeeded": len(succeeded), "failed": len(failed), "notes": notes}
        )
