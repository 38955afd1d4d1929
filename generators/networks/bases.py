"""Radial and angular functions of atomistic networks. Distances in angstrom.

Gaussian: K. T. Schuett et al., NeurIPS 2017. Bessel and spherical Bessel: J. Gasteiger, J. Gross,
S. Guennemann, ICLR 2020, eqs. 6 and 7.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache, partial

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor

from campaign.types import FloatArray


def gaussians(distance: Tensor, cutoff: float, n: int) -> Tensor:
    """(..., n) of distances (...): equal Gaussians from 0 to the cutoff, each as wide as their
    spacing.
    """
    centre = torch.linspace(0, 1, n, device=distance.device, dtype=distance.dtype)
    return torch.exp(-0.5 * ((distance[..., None] / cutoff - centre) * (n - 1)) ** 2)


def bessel(distance: Tensor, cutoff: float, frequencies: Tensor) -> Tensor:
    """(..., n) of distances (...): sin(w d / c) / (d / c), for frequencies (n,) that start at pi, 2
    pi, ...
    """
    x = distance[..., None] / cutoff
    return (frequencies * x).sin() / x.clamp_min(1e-6)


def spherical_bessel(distance: Tensor, cutoff: float, n_spherical: int, n_radial: int) -> Tensor:
    """(..., l, n): j_l(z_ln d / c) with unit norm on the ball; z_ln is the n-th zero of j_l.

    By upward recursion in double precision, exact to 1e-7 for orders up to 7 and arguments above
    0.2, below which they are held.
    """
    zeros = torch.as_tensor(bessel_zeros(n_spherical, n_radial), device=distance.device)
    x = (distance.double()[..., None, None] / cutoff * zeros).clamp_min(0.2)
    found = []
    for order in range(n_spherical):
        y = x[..., order, :]
        last, this = y.cos() / y, y.sin() / y
        for lower in range(order):
            last, this = this, (2 * lower + 1) / y * this - last
        norm = torch.as_tensor(
            math.sqrt(2) / np.abs(spherical_jn(order + 1, zeros[order].cpu().numpy())),
            device=y.device,
        )
        found.append(norm * this)
    return torch.stack(found, dim=-2).to(distance.dtype)


@lru_cache
def bessel_zeros(n_spherical: int, n_radial: int) -> FloatArray:
    """(l, n) the first n zeros of the spherical Bessel functions of order 0 to l - 1: those of one
    order lie between the last one's.
    """
    zeros = np.zeros((n_spherical, n_radial))
    between = np.arange(1, n_radial + n_spherical) * math.pi
    zeros[0] = between[:n_radial]
    for order in range(1, n_spherical):
        between = np.array(
            [brentq(partial(spherical_jn, order), *edges) for edges in itertools.pairwise(between)]
        )
        zeros[order] = between[:n_radial]
    return zeros


def legendre(cosine: Tensor, n: int) -> Tensor:
    """(n, ...) of cosines (...): sqrt((2 l + 1) / 4 pi) P_l, the zonal spherical harmonics of
    orders 0 to n - 1.
    """
    orders = [torch.ones_like(cosine), cosine]
    for order in range(2, n):
        orders.append(((2 * order - 1) * cosine * orders[-1] - (order - 1) * orders[-2]) / order)
    return torch.stack(
        [
            math.sqrt((2 * order + 1) / (4 * math.pi)) * value
            for order, value in enumerate(orders[:n])
        ]
    )
