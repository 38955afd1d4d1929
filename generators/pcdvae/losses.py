"""What P-CDVAE learns from a batch: one step of denoising, and the heads on the latent vector (T.
Xie et al., ICLR 2022, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot, softmax

from generators.networks.graph import Batch
from generators.pcdvae.model import N_ELEMENTS, PCDVAE


@dataclass(frozen=True)
class Weights:
    n_atoms: float = 1.0
    lattice: float = 10.0
    position: float = 10.0
    element: float = 1.0
    composition: float = 1.0
    divergence: float = 0.01
    property: float = 1.0
    phase: float = 1.0


@dataclass(frozen=True)
class Targets:
    """Standardised cell parameters (b, 6) and properties (b, p), not a number where one is not
    known; phases (b,).
    """

    cell: Tensor
    properties: Tensor
    phase: Tensor


def losses(model: PCDVAE, batch: Batch, targets: Targets) -> dict[str, Tensor]:
    """Each part of the loss, unweighted, as a mean over crystals; draws from torch's global random
    state.
    """
    mean, log_variance = model.encode(batch)
    mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
    latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    composition = model.composition(latent).float()
    found = {
        "n_atoms": cross_entropy(model.n_atoms(latent).float(), batch.counts),
        "lattice": mse_loss(model.lattice(latent).float(), targets.cell),
        "composition": batch.mean(
            cross_entropy(composition[batch.crystal], batch.numbers - 1, reduction="none")
        ).mean(),
        "divergence": (-0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)).mean(),
    }
    is_known = targets.properties.isfinite()
    error = (model.property(latent).float() - targets.properties.nan_to_num()) * is_known
    found["property"] = (error**2).sum() / is_known.sum().clamp_min(1)
    if model.phase is not None:
        found["phase"] = cross_entropy(model.phase(latent).float(), targets.phase)

    noisy, position_level, element_level = _noisy(model, batch, composition)
    vectors, logits = model.decode(noisy, latent, model.predicted_phase(latent))
    moved = batch.fractional - noisy.fractional
    wanted = batch.cartesian(moved - moved.round()) / position_level[batch.crystal, None]
    found["position"] = 0.5 * batch.mean(((vectors.float() - wanted) ** 2).sum(1)).mean()
    wrong = cross_entropy(logits.float(), batch.numbers - 1, reduction="none")
    found["element"] = batch.mean(wrong / element_level[batch.crystal]).mean()
    return found


def _noisy(model: PCDVAE, batch: Batch, composition: Tensor) -> tuple[Batch, Tensor, Tensor]:
    """The batch with noise of one level for each crystal on its positions and one on its elements,
    and those levels (b,).
    """
    n = len(batch.counts)
    position_level = model.position_levels[
        torch.randint(model.noise.levels, (n,), device=batch.counts.device)
    ]
    element_level = model.element_levels[
        torch.randint(model.noise.levels, (n,), device=batch.counts.device)
    ]
    with torch.no_grad():
        shift = batch.to_fractional(
            position_level[batch.crystal, None] * torch.randn_like(batch.fractional)
        )
        chance = (
            one_hot(batch.numbers - 1, N_ELEMENTS)
            + element_level[batch.crystal, None] * softmax(composition, 1)[batch.crystal]
        )
        numbers = torch.multinomial(chance, 1)[:, 0] + 1
    return (
        replace(batch, fractional=(batch.fractional + shift) % 1.0, numbers=numbers),
        position_level,
        element_level,
    )


def total(parts: dict[str, Tensor], weights: Weights) -> Tensor:
    return sum((getattr(weights, name) * value for name, value in parts.items()), torch.zeros(()))
