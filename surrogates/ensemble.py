"""The surrogate ``ensemble``: networks that start from different weights and see different shares
of the labels.

B. Lakshminarayanan, A. Pritzel, C. Blundell, NeurIPS 2017. All members train at once as batched
matrices; a tenth of the labels, others for each member, decides when it stops. The posterior is
normal with the members' mean and covariance, and the held-out error as noise. A single label leaves
nothing to hold out: the members stay as drawn, and the noise is as large as the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior, Posterior
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from pydantic import Field
from torch import Tensor, nn

from surrogates.described import DescribedConfig, DescribedSurrogate
from surrogates.standard import standard_units

_CHECK_EVERY = 10
_WEIGHT_DECAY = 1e-4
"""Decay of the weights in a step of Adam (1). Ours, as the share below; no study moved them."""
_HELD_OUT = 0.1
"""Share (1) of the labels that each member does not see, so that its training ends in time."""


class EnsembleConfig(DescribedConfig):
    gone: ClassVar[Mapping[str, Any]] = {"weight_decay": _WEIGHT_DECAY, "held_out": _HELD_OUT}

    members: int = Field(8, ge=2, description="Networks.")
    hidden: int = Field(64, ge=1, description="Width of the two hidden layers.")
    steps: int = Field(600, ge=1, description="Maximum number of steps of Adam.")
    learning_rate: float = Field(0.01, gt=0)


class Members(nn.Module):
    """M networks side by side: x (n, d) gives (M, n)."""

    def __init__(self, members: int, columns: int, hidden: int) -> None:
        super().__init__()
        sizes = [(columns, hidden), (hidden, hidden), (hidden, 1)]
        self.weights = nn.ParameterList(
            [torch.randn(members, a, b, dtype=torch.float64) * (2 / a) ** 0.5 for a, b in sizes]
        )
        self.biases = nn.ParameterList(
            [torch.zeros(members, 1, b, dtype=torch.float64) for _, b in sizes]
        )

    def forward(self, x: Tensor) -> Tensor:
        out = x.expand(self.weights[0].shape[0], *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = out @ weight + bias
            if i < len(self.weights) - 1:
                out = torch.nn.functional.silu(out)
        return out[..., 0]


class EnsembleModel(Model):  # type: ignore[misc]
    """Members on standardised columns and values, with the noise (variance) that held-out labels
    show.
    """

    def __init__(self, members: Members, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.members = members
        spread = x.std(0, correction=min(1, len(x) - 1))
        self.center, self.spread = x.mean(0), torch.where(spread > 0, spread, 1.0)
        self.units = standard_units([y])
        self.noise = torch.tensor(0.0, dtype=torch.float64)

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> Posterior:
        flat = ((X - self.center) / self.spread).reshape(-1, X.shape[-1])
        values = self.members(flat).reshape(-1, *X.shape[:-1])
        mean = values.mean(0)
        offset = values - mean
        covariance = torch.einsum("m...i,m...j->...ij", offset, offset) / (len(values) - 1)
        covariance = covariance + self.noise * torch.eye(X.shape[-2], dtype=X.dtype)
        standard = GPyTorchPosterior(MultivariateNormal(mean, to_linear_operator(covariance)))
        return self.units.untransform_posterior(standard)


class Ensemble(DescribedSurrogate):
    Config = EnsembleConfig
    config: EnsembleConfig

    def train(
        self, x: Tensor, y: Tensor, previous: Mapping[str, Any] | None
    ) -> tuple[Model, Mapping[str, Any]]:
        config = self.config
        model = EnsembleModel(Members(config.members, x.shape[1], config.hidden), x, y[:, 0])
        if len(y) == 1:
            model.noise = torch.tensor(1.0, dtype=torch.float64)
            return model, {
                "members": config.members,
                "held_out_error": float(model.units.spreads[0]),
            }
        inputs, targets = (x - model.center) / model.spread, model.units(y[:, 0])[0]
        n_held_out = max(1, round(_HELD_OUT * len(y)))
        is_seen = torch.ones(config.members, len(y), dtype=torch.float64)
        for member in range(config.members):
            is_seen[member, torch.randperm(len(y))[:n_held_out]] = 0
        optimiser = torch.optim.AdamW(
            model.members.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        best = torch.full((config.members,), torch.inf, dtype=torch.float64)
        kept = {name: value.clone() for name, value in model.members.state_dict().items()}
        for step in range(config.steps):
            optimiser.zero_grad()
            error = (model.members(inputs) - targets).square()
            (error * is_seen).sum(1).div(is_seen.sum(1)).sum().backward()
            if step % _CHECK_EVERY == 0:
                unseen = (error.detach() * (1 - is_seen)).sum(1) / n_held_out
                better = unseen < best
                best = torch.where(better, unseen, best)
                for name, value in model.members.state_dict().items():
                    kept[name][better] = value[better]
            optimiser.step()
        model.members.load_state_dict(kept)
        model.noise = best.mean()
        return model, {
            "members": config.members,
            "held_out_error": float(best.mean().sqrt() * model.units.spreads[0]),
        }
