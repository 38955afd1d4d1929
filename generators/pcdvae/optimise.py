"""Property optimisation: Adam on latent vectors against what the heads predict, the network frozen.

Plain (A. D. Naghdi et al., 2024, section 4.3): the property head alone. It climbs along directions
of the latent space that decode to nothing, and far from the data. Held: the lower confidence bound
of an ensemble that sees only what decoding honours, the predicted composition and phase, less a
prior term once a vector is further from the encoded labelled crystals than these are from each
other. The prior is one Gaussian for each phase, and its distance the squared one in its own metric
per dimension: 1 on average for the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softmax

from campaign.types import Crystal
from generators.networks.graph import batch_of
from generators.pcdvae.model import PCDVAE

_CHUNK = 128


@torch.no_grad()
def encode(model: PCDVAE, crystals: Sequence[Crystal]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latent vectors, (n, latent) each."""
    device = model.lattice_mean.device
    parts = [
        model.encode(batch_of(crystals[start : start + _CHUNK], device))
        for start in range(0, len(crystals), _CHUNK)
    ]
    return torch.cat([mean for mean, _ in parts]), torch.cat(
        [(log_variance / 2).exp() for _, log_variance in parts]
    )


class Merit(Protocol):
    def __call__(self, latent: Tensor) -> Tensor:
        """(b,) what Adam raises, in standard deviations of the property."""
        ...


@dataclass(frozen=True)
class Plain:
    """The first property by its head; ``sign`` -1 to make it small."""

    model: PCDVAE
    sign: float = 1.0

    def __call__(self, latent: Tensor) -> Tensor:
        return self.sign * self.model.property(latent)[:, 0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Ensemble:
    """m heads with one hidden layer. centre, width: (d,) of the inputs; first: (m, d, h); second:
    (m, h); biases (m, h) and (m,).
    """

    centre: Tensor
    width: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """(m, b) of (b, d)."""
        hidden = relu(
            torch.einsum("bd,mdh->mbh", (inputs - self.centre) / self.width, self.first)
            + self.first_bias[:, None]
        )
        return torch.einsum("mbh,mh->mb", hidden, self.second) + self.second_bias[:, None]


def conditions(model: PCDVAE, latent: Tensor) -> Tensor:
    """(b, elements + phases): the predicted atomic fractions and chances of the phases."""
    parts = [softmax(model.composition(latent)[:, model.known], 1)]
    if model.phase is not None:
        parts.append(softmax(model.phase(latent), 1))
    return torch.cat(parts, 1)


def fit_ensemble(
    inputs: Tensor, values: Tensor, *, members: int = 8, hidden: int = 64, steps: int = 1500
) -> Ensemble:
    """Heads fitted to inputs (n, d) and standardised values (n,), each to a bootstrap of its own,
    in full-batch Adam steps.

    Draws from torch's global state. 1,500 steps on 1,000 rows of 5 columns take about 8 s on one
    core.
    """
    n, d = inputs.shape
    weight = torch.stack(
        [torch.bincount(torch.randint(n, (n,)), minlength=n) for _ in range(members)]
    ).to(inputs)
    first, second = (
        torch.randn(members, d, hidden) / d**0.5,
        torch.randn(members, hidden) / hidden**0.5,
    )
    raw = [first, torch.zeros(members, hidden), second, torch.zeros(members)]
    parameters = [tensor.to(inputs).requires_grad_() for tensor in raw]
    centre, width = inputs.mean(0), inputs.std(0).clamp_min(0.05)
    ensemble = Ensemble(centre, width, *parameters)
    optimiser = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=1e-2)
    with torch.enable_grad():
        for _ in range(steps):
            loss = (weight * (ensemble(inputs) - values) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return Ensemble(centre, width, *(tensor.detach() for tensor in parameters))


@dataclass(frozen=True)
class Prior:
    """One Gaussian per phase: means (c, d) and inverse square roots of the covariances (c, d,
    d).
    """

    means: Tensor
    whiten: Tensor

    @classmethod
    def of(cls, mean: Tensor, deviation: Tensor, phase: Tensor) -> Prior:
        """From two or more encoded crystals (n, d) and their phases (n,); a phase of one crystal
        has no component of its own.

        Where no phase has two crystals, one Gaussian stands for all.
        """
        if not (torch.bincount(phase) > 1).any():
            phase = torch.zeros_like(phase)
        means, whiten = [], []
        for value in torch.unique(phase):
            rows = phase == value
            if rows.sum() < 2:
                continue
            covariance = torch.cov(mean[rows].T) + torch.diag((deviation[rows] ** 2).mean(0))
            eigenvalue, eigenvector = torch.linalg.eigh(covariance.double())
            means.append(mean[rows].mean(0))
            whiten.append((eigenvector / eigenvalue.clamp_min(1e-8).sqrt()).to(mean))
        return cls(torch.stack(means), torch.stack(whiten))

    def draw(self, n: int) -> Tensor:
        """(n, d), each from a random component; draws from torch's global state."""
        which = torch.randint(len(self.means), (n,))
        noise = torch.randn(n, self.means.shape[1]).to(self.means)
        offset: Tensor = torch.linalg.solve(self.whiten[which].transpose(1, 2), noise[:, :, None])[
            ..., 0
        ]
        return self.means[which] + offset

    def distance(self, latent: Tensor) -> Tensor:
        """(b,) squared distance per dimension from the nearest component."""
        offset = torch.einsum("bcd,cde->bce", latent[:, None] - self.means, self.whiten)
        return (offset**2).mean(-1).amin(1)


@dataclass(frozen=True)
class Held:
    """mean - ``caution`` x standard deviation over the ensemble - ``weight`` x what the distance
    from the prior exceeds 1 by.
    """

    model: PCDVAE
    ensemble: Ensemble
    prior: Prior
    caution: float = 1.0
    weight: float = 1.0

    def __call__(self, latent: Tensor) -> Tensor:
        found = self.ensemble(conditions(self.model, latent))
        return (
            found.mean(0)
            - self.caution * found.std(0)
            - self.weight * relu(self.prior.distance(latent) - 1)
        )


def ascend(
    merit: Merit, latent: Tensor, stages: Sequence[int], rate: float = 1e-3
) -> Iterator[tuple[int, Tensor]]:
    """The latent vectors (b, d) after each number of Adam steps in ``stages``, which rise."""
    point = latent.clone().requires_grad_()
    optimiser = torch.optim.Adam([point], lr=rate)
    done = 0
    for stage in stages:
        with torch.enable_grad():
            for _ in range(stage - done):
                optimiser.zero_grad()
                (gradient,) = torch.autograd.grad(-merit(point).sum(), point)
                point.grad = gradient
                optimiser.step()
        done = stage
        yield stage, point.detach().clone()
