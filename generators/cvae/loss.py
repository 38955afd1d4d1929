"""The distance S of many crystals from one local environment, and its slope."""

from __future__ import annotations

from campaign.types import FloatArray
from generators.cvae import kernel
from generators.cvae.environment import Spectrum, limits_of
from generators.cvae.free_variables import Batch


def loss_and_slope(
    batch: Batch, spectrum: Spectrum, threads: int = 1
) -> tuple[FloatArray, FloatArray]:
    """S (B,), infinite where there is no such crystal, and its gradient (B, f) to the free
    variables, exact.
    """
    loss, slope, _ = kernel.refine_all(
        *batch.arguments, spectrum.objective, limits_of(batch), threads, False
    )
    return loss, slope
