"""Losses of fractional coordinates: absolute differences, the periodic losses of the paper, and the
minimum image.

Predictions and targets are (..., 3); every loss is (...). L. Novitskiy et al. (2024), section 3.3
and appendix A.4.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

_CORNERS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
_IMAGES = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
_LEAST = 1e-6


def absolute(predicted: Tensor, target: Tensor) -> Tensor:
    """sum_j |p_j - t_j|"""
    return (predicted - target).abs().sum(-1)


def smooth_minimum(values: Tensor, order: float = -64.0) -> Tensor:
    """(...) of positive values (..., n): (sum_i x_i^k)^(1/k), whose limit for k to minus infinity
    is the least.
    """
    return torch.exp(torch.logsumexp(order * values.clamp_min(_LEAST).log(), -1) / order)


def periodic(predicted: Tensor, target: Tensor) -> Tensor:
    """The distance to the nearest of the points that a target at a vertex, an edge or a side of the
    cell is the same as (A.4).

    A coordinate that is exactly 0 or 1 may be either: 8 points for a vertex, 4 for an edge, 2 for a
    side, 1 inside.
    """
    corners = _CORNERS.to(target)
    is_border = (target == 0) | (target == 1)
    points = torch.where(is_border[..., None, :], corners, target[..., None, :])
    is_new = (is_border[..., None, :] | (corners == 0)).all(-1)
    distance = (predicted[..., None, :] - points).norm(dim=-1)
    return smooth_minimum(torch.where(is_new, distance, torch.inf))


def nearest_image(predicted: Tensor, target: Tensor) -> Tensor:
    """The least distance to the target and its 26 periodic images (section 3.3)."""
    images = target[..., None, :] + _IMAGES.to(target)
    return smooth_minimum((predicted[..., None, :] - images).norm(dim=-1))


def minimum_image(predicted: Tensor, target: Tensor) -> Tensor:
    """sum_j |d_j - round(d_j)| of the differences d."""
    difference = predicted - target
    return (difference - difference.round()).abs().sum(-1)


CoordinateLoss = Literal["periodic", "nearest_image", "minimum_image", "absolute"]
COORDINATE_LOSSES: dict[CoordinateLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "periodic": periodic,
    "nearest_image": nearest_image,
    "minimum_image": minimum_image,
    "absolute": absolute,
}
