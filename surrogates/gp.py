"""The surrogate ``gp``: a Gaussian process on descriptor columns.

Kernel by default: linear + RBF. Moduli and energies of alloys are nearly linear in pair
probabilities (a truncated cluster expansion), and the linear part carries that trend to orderings
far outside the data; the RBF part, with one length scale per column, holds what is left. Its
log-normal prior grows with the square root of the dimension (C. Hvarfner, E. O. Hellsten, L. Nardi,
ICML 2024). Columns are scaled to [0, 1], values standardised; the posterior is in the quantity's
own unit.

Exact up to ``sparse_above`` labels, with O(n^3) time and O(n^2) memory for n labels;
hyperparameters come from at most ``hyperparameter_labels`` of them. Above, a sparse variational
process (J. Hensman, A. Matthews, Z. Ghahramani, AISTATS 2015) with m inducing points, O(n m^2).

Noise that an oracle states of its labels is known to the model, and what it learns comes on top.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from botorch.exceptions.warnings import UserInputWarning
from botorch.models import SingleTaskGP, SingleTaskVariationalGP
from botorch.models.model import Model
from botorch.models.transforms import Normalize
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.kernels import Kernel, LinearKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood, VariationalELBO
from gpytorch.priors import GammaPrior
from pydantic import Field
from torch import Tensor

from surrogates.described import DescribedConfig, NoiseAwareSurrogate
from surrogates.likelihood import load_parameters, maximise, parameters_of
from surrogates.standard import standard_units
from surrogates.stated_noise import likelihood_of

KernelName = Literal["linear_and_rbf", "rbf", "matern"]


class GaussianProcessConfig(DescribedConfig):
    kernel: KernelName = Field("linear_and_rbf", description="Covariance function.")
    refit_growth: float = Field(
        0.1, ge=0, description="Hyperparameters are fitted anew once labels grew by this share (1)."
    )
    max_iterations: int = Field(
        100, ge=1, description="Maximum number of L-BFGS iterations of a fit."
    )
    hyperparameter_labels: int = Field(
        600,
        ge=10,
        description="Maximum number of labels that hyperparameters are fitted to; all condition.",
    )
    sparse_above: int = Field(
        2000, ge=1, description="Labels above which the process is sparse and variational."
    )
    inducing_points: int = Field(200, ge=2, description="Inducing points of the sparse process.")


def kernel(name: KernelName, n_columns: int) -> Kernel:
    """A covariance function on columns scaled to [0, 1], for standardised values."""
    local = get_covar_module_with_dim_scaled_prior(
        ard_num_dims=n_columns, use_rbf_kernel=name != "matern"
    )
    if name != "linear_and_rbf":
        return local
    linear = LinearKernel(variance_prior=GammaPrior(2.0, 1.0))
    return linear + ScaleKernel(local, outputscale_prior=GammaPrior(2.0, 4.0))


class GaussianProcess(NoiseAwareSurrogate):
    Config = GaussianProcessConfig
    config: GaussianProcessConfig

    def train(
        self,
        x: Tensor,
        y: Tensor,
        previous: Mapping[str, Any] | None,
        noise: Tensor | None = None,
    ) -> tuple[Model, Mapping[str, Any]]:
        if len(y) > self.config.sparse_above:
            return self._train_sparse(x, y, noise)
        return self._train_exact(x, y, previous, noise)

    def _train_exact(
        self, x: Tensor, y: Tensor, previous: Mapping[str, Any] | None, noise: Tensor | None
    ) -> tuple[Model, Mapping[str, Any]]:
        n = len(y)
        model = self._exact(x, y, noise)
        optimised_at, notes = n, ""
        is_known = (
            previous is not None
            and "parameters" in previous
            and load_parameters(model, previous["parameters"])
        )
        if (
            is_known
            and previous is not None
            and n < (1 + self.config.refit_growth) * previous["optimised_at"]
        ):
            optimised_at, notes = int(previous["optimised_at"]), "hyperparameters kept"
        else:
            rows = (
                torch.linspace(0, n - 1, min(n, self.config.hyperparameter_labels)).round().long()
            )
            part = (
                model
                if len(rows) == n
                else self._exact(x[rows], y[rows], None if noise is None else noise[rows])
            )
            load_parameters(part, parameters_of(model))
            notes = maximise(
                ExactMarginalLogLikelihood(part.likelihood, part),
                iterations=self.config.max_iterations,
            )
            load_parameters(model, parameters_of(part))
        facts = {
            "kernel": self.config.kernel,
            "parameters": parameters_of(model),
            "noise": float(model.likelihood.noise.detach().reshape(-1)[0]),
            "optimised_at": optimised_at,
            "notes": notes,
        }
        return model, facts

    def _exact(self, x: Tensor, y: Tensor, noise: Tensor | None) -> SingleTaskGP:
        d = x.shape[-1]
        units = standard_units([y[:, 0]], [noise])
        return SingleTaskGP(
            x,
            y,
            likelihood=likelihood_of(noise, units),
            covar_module=kernel(self.config.kernel, d),
            outcome_transform=units,
            input_transform=Normalize(d=d),
        )

    def _train_sparse(
        self, x: Tensor, y: Tensor, noise: Tensor | None
    ) -> tuple[Model, Mapping[str, Any]]:
        d = x.shape[-1]
        units = standard_units([y[:, 0]], [noise])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserInputWarning)
            model = SingleTaskVariationalGP(
                x,
                y,
                likelihood=likelihood_of(noise, units),
                covar_module=kernel(self.config.kernel, d),
                inducing_points=self.config.inducing_points,
                outcome_transform=units,
                input_transform=Normalize(d=d),
            )
        notes = maximise(
            VariationalELBO(model.likelihood, model.model, num_data=len(y)),
            iterations=self.config.max_iterations,
        )
        return model, {
            "kernel": self.config.kernel,
            "inducing_points": self.config.inducing_points,
            "notes": notes,
        }
