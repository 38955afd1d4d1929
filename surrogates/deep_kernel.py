"""The surrogate ``deep_kernel_gp``: a Gaussian process on what a small network makes of the
descriptors.

A. G. Wilson et al., AISTATS 2016. Network and kernel are fitted together by Adam on the marginal
likelihood; for many labels on many columns. It is fitted anew each time, from the same random
weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.models.transforms import Normalize
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from pydantic import Field
from torch import Tensor, nn

from surrogates.described import DescribedConfig, NoiseAwareSurrogate
from surrogates.standard import standard_units
from surrogates.stated_noise import likelihood_of


class DeepKernelConfig(DescribedConfig):
    hidden: tuple[int, ...] = Field((32,), description="Widths of the hidden layers.")
    latent: int = Field(4, ge=1, description="Columns that the network gives to the kernel.")
    steps: int = Field(300, ge=1, description="Steps of Adam.")
    learning_rate: float = Field(0.02, gt=0)


class DeepKernel(Kernel):  # type: ignore[misc]
    """k(f(x), f(x')) with a network f."""

    def __init__(self, network: nn.Module, base: Kernel) -> None:
        super().__init__()
        self.network, self.base = network, base

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Any:
        return self.base(self.network(x1), self.network(x2), diag=diag, **params)


def _keep_within_bounds(model: SingleTaskGP) -> None:
    """Bring length scales and noise that a step led across their bounds back to them."""
    for _, parameter, constraint in model.named_parameters_and_constraints():
        if constraint is not None and not constraint.enforced:
            parameter.data.clamp_(constraint.lower_bound, constraint.upper_bound)


class DeepKernelGaussianProcess(NoiseAwareSurrogate):
    Config = DeepKernelConfig
    config: DeepKernelConfig

    def train(
        self,
        x: Tensor,
        y: Tensor,
        previous: Mapping[str, Any] | None,
        noise: Tensor | None = None,
    ) -> tuple[Model, Mapping[str, Any]]:
        widths = [x.shape[1], *self.config.hidden]
        layers: list[nn.Module] = []
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.Linear(wide, narrow, dtype=torch.float64), nn.Tanh()]
        layers.append(nn.Linear(widths[-1], self.config.latent, dtype=torch.float64))
        base = get_covar_module_with_dim_scaled_prior(ard_num_dims=self.config.latent)
        units = standard_units([y[:, 0]], [noise])
        model = SingleTaskGP(
            x,
            y,
            likelihood=likelihood_of(noise, units),
            covar_module=DeepKernel(nn.Sequential(*layers), base),
            outcome_transform=units,
            input_transform=Normalize(d=x.shape[1]),
        )
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model).train()
        optimiser = torch.optim.Adam(likelihood.parameters(), lr=self.config.learning_rate)
        best, kept = float("inf"), likelihood.state_dict()
        for _ in range(self.config.steps):
            optimiser.zero_grad()
            loss = -likelihood(model(*model.train_inputs), model.train_targets, *model.train_inputs)
            if not torch.isfinite(loss):
                break
            if loss.item() < best:
                best, kept = (
                    loss.item(),
                    {name: value.clone() for name, value in likelihood.state_dict().items()},
                )
            loss.backward()
            optimiser.step()
            _keep_within_bounds(model)
        likelihood.load_state_dict(kept)
        return model, {"loss": best, "latent": self.config.latent}
