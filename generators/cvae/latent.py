"""Refinement in the latent space (Algorithm 2), and the dual-level rounds of it and the refinement
of free variables.

What is not accepted under its condition gets a new latent vector, which descends through the frozen
decoder on the same loss; then its crystal is refined as such. Only the condition is carried from
round to round (O. G. Ridwan et al., sections 3.4.2 and 3.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from generators.cvae.descent import descend, spectral_loss
from generators.cvae.environment import Environment
from generators.cvae.feasible import Condition
from generators.cvae.free_variables import batch_of
from generators.cvae.model import TabularVAE
from generators.cvae.refine import Recipe, Refined, refine
from generators.cvae.table import TabularCrystal
from generators.cvae.train import Decoder, normal, sample


@dataclass(frozen=True)
class DualLevel:
    """rounds: of latent and free variables after the first pass. steps, rate: of AdamW in the
    latent space.

    cutoff: radius (angstrom) and width (1/angstrom^2) of the latent descent's spectrum, the
    target's own where None, as in the paper; at a longer one more atoms have neighbours.
    """

    rounds: int = 3
    steps: int = 100
    rate: float = 2e-3
    cutoff: tuple[float, float] | None = (3.0, 1.0)


def refine_latent(
    model: TabularVAE,
    conditions: Sequence[Condition],
    environment: Environment,
    settings: DualLevel,
    rng: np.random.Generator,
) -> list[TabularCrystal]:
    """New latent vectors, one for each condition, after their descent, as crystals."""
    latent = normal(len(conditions), model, rng)
    decoder = Decoder(model, conditions, latent)
    lattice_of = decoder.batch
    spectrum = environment.stage(*settings.cutoff) if settings.cutoff else environment.target

    def loss_of(rows: Tensor, which: Tensor) -> Tensor:
        return spectral_loss(decoder(rows, which), lattice_of.subset(which.numpy()), spectrum)

    best = descend(latent, loss_of, steps=settings.steps, rate=settings.rate)
    return lattice_of.with_variables(decoder(best).detach().numpy()).as_tables()


def dual_level(
    model: TabularVAE,
    conditions: Sequence[Condition],
    environment: Environment,
    recipe: Recipe,
    settings: DualLevel,
    rng: np.random.Generator,
) -> list[Refined]:
    """The first pass and each round after it: the crystals of all conditions that were not accepted
    before.
    """
    passes = [
        refine(
            batch_of(sample(model, conditions, rng), environment.species), environment, recipe, rng
        )
    ]
    left = [
        condition
        for condition, done in zip(conditions, passes[0].is_accepted, strict=True)
        if not done
    ]
    for _ in range(settings.rounds):
        if not left:
            break
        tables = refine_latent(model, left, environment, settings, rng)
        passes.append(refine(batch_of(tables, environment.species), environment, recipe, rng))
        left = [
            condition
            for condition, done in zip(left, passes[-1].is_accepted, strict=True)
            if not done
        ]
    return passes
