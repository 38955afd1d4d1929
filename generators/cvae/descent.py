"""Gradient descent of many crystals at once, each with its own conditioning: the paper's Algorithm
1, and 2 in the latent space.

The gradient of each crystal is clipped to a norm of 10, and times a scale that is halved, down to
0.1, when the loss has not fallen by 1e-4 for ten steps; then AdamW takes a step (O. G. Ridwan et
al., section 3.4.1). The loss is S of ``generators.cvae.loss``, in compiled loops with its exact
gradient, and torch carries that on to whatever the free variables are a function of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from campaign.types import FloatArray
from generators.cvae.environment import Spectrum
from generators.cvae.free_variables import Batch
from generators.cvae.loss import loss_and_slope
from generators.cvae.tensors import TensorSpectrum

LARGEST_NORM, LEAST_SCALE, PATIENCE, LEAST_GAIN = 10.0, 0.1, 10, 1e-4
LENGTH, ANGLE = 35.0, float(np.pi)
"""What lengths (angstrom) and angles (radians) are divided by, so that all variables are about
one.
"""


class SpectralLoss(torch.autograd.Function):
    """S (B,) of free variables (B, f)."""

    @staticmethod
    def forward(
        ctx: Any, variables: Tensor, batch: Batch, spectrum: Spectrum, threads: int
    ) -> Tensor:
        loss, slope = loss_and_slope(
            batch.with_variables(variables.detach().double().cpu().numpy()), spectrum, threads
        )
        # a crystal without a cell or with too many neighbours has a loss, but no way down
        loss = np.where(np.isfinite(loss), loss, _NO_CRYSTAL)
        ctx.save_for_backward(torch.from_numpy(slope).to(variables))
        return torch.from_numpy(loss).to(variables)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0][:, None] * slope, None, None, None


_NO_CRYSTAL = 1e6


def spectral_loss(variables: Tensor, batch: Batch, spectrum: Spectrum, threads: int = 1) -> Tensor:
    found: Tensor = SpectralLoss.apply(variables, batch, spectrum, threads)  # type: ignore[no-untyped-call]
    return found


def descend(
    start: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int = 1000,
    rate: float = 2e-3,
    goal: float = 1e-6,
) -> Tensor:
    """AdamW on rows of ``start`` (B, k), each conditioned on its own; the best rows seen, (B, k).

    ``loss_of(rows (b, k), which (b,))`` gives (b,) in double precision. Rows whose loss is at most
    ``goal`` leave the batch.
    """
    rows = start.clone().requires_grad_(True)
    optimiser = torch.optim.AdamW([rows], lr=rate)
    n = len(start)
    best = torch.full((n,), torch.inf, dtype=torch.float64, device=start.device)
    found = start.clone()
    scale, still = (
        torch.ones(n, dtype=torch.float64, device=start.device),
        torch.zeros(n, device=start.device),
    )
    is_left = torch.ones(n, dtype=torch.bool, device=start.device)
    for _ in range(steps):
        which = torch.nonzero(is_left).ravel()
        if len(which) == 0:
            break
        optimiser.zero_grad()
        loss = loss_of(rows[which], which)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert rows.grad is not None
            gain = loss.detach() < best[which] - LEAST_GAIN
            still[which] = torch.where(gain, 0.0, still[which] + 1)
            is_worn = still > PATIENCE
            scale = torch.where(is_worn, (scale / 2).clamp(min=LEAST_SCALE), scale)
            still[is_worn] = 0
            is_best = loss.detach() < best[which]
            found[which[is_best]] = rows.detach()[which[is_best]]
            best[which] = torch.minimum(best[which], loss.detach())
            norm = rows.grad.norm(dim=1).clamp(min=1e-12)
            rows.grad *= (scale * (LARGEST_NORM / norm).clamp(max=1.0)).to(norm)[:, None]
            rows.grad[~is_left] = 0
            is_left[which] = best[which] > goal
        optimiser.step()
    return found


def units_of(batch: Batch) -> FloatArray:
    """(B, f) what the free variables are divided by: lengths, angles, and 1 for coordinates."""
    return np.where(batch.is_length, LENGTH, np.where(batch.is_cell, ANGLE, 1.0))


def descent(
    batch: Batch,
    spectrum: Spectrum,
    *,
    steps: int = 1000,
    rate: float = 2e-3,
    threads: int = 1,
    device: str | None = None,
) -> Batch:
    """Algorithm 1: AdamW on the free variables, in their units; on a ``device`` of torch as one
    program of tensors, where one is given.
    """
    units = torch.from_numpy(units_of(batch)).to(device or "cpu")
    whole = TensorSpectrum(batch, spectrum, device) if device is not None else None

    def loss_of(rows: Tensor, which: Tensor) -> Tensor:
        if whole is None:
            return spectral_loss(
                rows * units[which], batch.subset(which.numpy()), spectrum, threads
            )
        every = torch.from_numpy(batch.variables).to(units).index_put((which,), rows * units[which])
        return whole.loss(every)[which]

    found = descend(
        torch.from_numpy(batch.variables).to(units) / units, loss_of, steps=steps, rate=rate
    )
    return batch.with_variables((found * units).cpu().numpy())
