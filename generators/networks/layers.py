"""Layers of GemNet and DimeNet++ networks (J. Gasteiger, F. Becker, S. Guennemann, NeurIPS 2021;
NeurIPS ML4Molecules workshop 2020).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SILU_SCALE = 0.6


def scaled_silu(x: Tensor) -> Tensor:
    """SiLU over 0.6, which keeps the variance of normal inputs; scaled in place, as memory traffic
    is half of what edge layers cost.
    """
    return functional.silu(x).mul_(1 / SILU_SCALE)


def mean(one: Tensor, other: Tensor) -> Tensor:
    """(a + b) / sqrt(2), which keeps the variance of independent inputs."""
    return (one + other).mul_(math.sqrt(0.5))


class Dense(nn.Module):
    """A linear layer without bias and the activation SiLU, scaled to keep the variance; weights
    start orthogonal with variance 1/fan-in.
    """

    def __init__(self, n_in: int, n_out: int, is_activated: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(he_orthogonal(n_out, n_in))
        self.is_activated = is_activated

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight)
        return scaled_silu(y) if self.is_activated else y


class Residual(nn.Module):
    """mean(x, f(x)), f two activated dense layers; the scale of the inner activation goes into the
    weights that follow it.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = Dense(n, n, True), Dense(n, n, True)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.silu(functional.linear(x, self.first.weight))
        return mean(x, scaled_silu(functional.linear(inner, self.second.weight * (1 / SILU_SCALE))))


class Scale(nn.Module):
    """A constant that gives the output of a sum over neighbours the variance of its input; set
    inside ``observing``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.is_observing = False

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        if self.is_observing:
            self.factor.fill_(
                float((inputs.float().var() / output.float().var().clamp_min(1e-12)).sqrt())
            )
        scaled: Tensor = output * self.factor.to(output.dtype)
        return scaled


class observing:  # noqa: N801
    """A block in which each Scale of a network sets itself by what passes through it, in the order
    of the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.scales = [module for module in network.modules() if isinstance(module, Scale)]

    def __enter__(self) -> None:
        for scale in self.scales:
            scale.is_observing = True

    def __exit__(self, *_error: object) -> None:
        for scale in self.scales:
            scale.is_observing = False


def weighted_sum(m: Tensor, radial: Tensor, weight: Tensor) -> Tensor:
    """(n, c) of messages (n, k, c), radial functions (n, k, r) and weights (c, r): sum over k of m
    (weight radial).

    One batched product in place of weights for each edge, their product with the messages and its
    sum.
    """
    return (torch.bmm(radial.transpose(1, 2), m) * weight.T).sum(1)


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def he_orthogonal(n_out: int, n_in: int) -> Tensor:
    """(n_out, n_in) orthogonal rows or columns, standardised, with variance 1/n_in."""
    weight = torch.empty(n_out, n_in)
    nn.init.orthogonal_(weight)
    if weight.numel() > 1 and not weight.is_meta:
        weight = (weight - weight.mean()) / weight.std().clamp_min(1e-6)
    return weight / math.sqrt(n_in)
