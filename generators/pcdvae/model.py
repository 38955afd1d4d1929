"""The network of P-CDVAE: an encoder, heads on the latent vector, and a decoder that denoises
positions and elements.

T. Xie et al., ICLR 2022 (arXiv:2110.06197); the phase head by A. D. Naghdi et al., NeurIPS 2024
workshop: the predicted phase picks each element's row in the decoder's embedding, one for each pair
of phase and element. With one phase this is CDVAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from campaign.types import FloatArray
from generators.networks.dimenet import DimeNetPlusPlus, EncoderSizes
from generators.networks.gemnet import DecoderSizes, GemNet
from generators.networks.graph import Batch
from generators.networks.layers import perceptron

N_ELEMENTS = 100
Preset = Literal["paper", "small"]


@dataclass(frozen=True)
class Sizes:
    latent: int
    head: int
    encoder: EncoderSizes
    decoder: DecoderSizes


PRESETS: dict[Preset, Sizes] = {
    "paper": Sizes(256, 256, EncoderSizes(), DecoderSizes()),
    "small": Sizes(
        64,
        128,
        EncoderSizes(
            hidden=64,
            blocks=2,
            interaction=32,
            output=64,
            output_layers=2,
            spherical=5,
            neighbours=14,
        ),
        DecoderSizes(
            hidden=64,
            blocks=2,
            triplet=32,
            angular_embedding=8,
            bilinear=32,
            spherical=5,
            radial=64,
            neighbours=14,
            atom_layers=1,
        ),
    ),
}


@dataclass(frozen=True)
class Noise:
    """Geometric levels of the noise on positions (angstrom) and on element probabilities."""

    levels: int = 50
    position: tuple[float, float] = (10.0, 0.01)
    element: tuple[float, float] = (5.0, 0.01)


@dataclass(frozen=True)
class Shape:
    """What the weights depend on beside the sizes: the most atoms, phases and properties."""

    max_atoms: int
    n_phases: int = 1
    n_properties: int = 1


class PCDVAE(nn.Module):
    """Latent vectors (b, latent); lattices as three lengths over N^(1/3) (angstrom) and three
    angles (degrees), standardised.
    """

    def __init__(self, preset: Preset, shape: Shape, noise: Noise | None = None) -> None:
        super().__init__()
        noise = noise or Noise()
        sizes = PRESETS[preset]
        self.preset, self.sizes, self.shape, self.noise = preset, sizes, shape, noise
        self.encoder = DimeNetPlusPlus(sizes.latent, sizes.encoder)
        self.mean = nn.Linear(sizes.latent, sizes.latent)
        self.log_variance = nn.Linear(sizes.latent, sizes.latent)
        self.n_atoms = self._head(shape.max_atoms + 1)
        self.lattice = self._head(6)
        self.composition = self._head(N_ELEMENTS)
        self.property = self._head(shape.n_properties)
        self.phase = self._head(shape.n_phases) if shape.n_phases > 1 else None
        self.decoder = GemNet(N_ELEMENTS * shape.n_phases, sizes.latent, sizes.decoder)
        self.element = nn.Linear(sizes.decoder.hidden, N_ELEMENTS)
        self.position_levels = _levels(noise.position, noise.levels)
        self.element_levels = _levels(noise.element, noise.levels)
        self.lattice_mean: Tensor
        self.lattice_deviation: Tensor
        self.property_mean: Tensor
        self.property_deviation: Tensor
        self.known: Tensor
        self.register_buffer("lattice_mean", torch.zeros(6))
        self.register_buffer("lattice_deviation", torch.ones(6))
        self.register_buffer("property_mean", torch.zeros(shape.n_properties))
        self.register_buffer("property_deviation", torch.ones(shape.n_properties))
        self.register_buffer("known", torch.ones(N_ELEMENTS, dtype=torch.bool))

    def _head(self, n_out: int) -> nn.Sequential:
        return perceptron([self.sizes.latent, self.sizes.head, n_out])

    def compile_layers(self) -> None:
        """Fuse the layers on edges with the machine's C++ compiler: about a tenth faster, after a
        minute for each new size of batch.
        """
        self.decoder.messages = torch.compile(self.decoder.messages)  # type: ignore[method-assign]
        for interaction in self.encoder.interactions:
            interaction.forward = torch.compile(interaction.forward)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent vectors, (b, latent) each."""
        hidden = self.encoder(batch)
        return self.mean(hidden), self.log_variance(hidden)

    def predicted_phase(self, latent: Tensor) -> Tensor:
        """(b,) the likeliest phase; 0 where there is one."""
        if self.phase is None:
            return torch.zeros(len(latent), dtype=torch.long, device=latent.device)
        return self.phase(latent).argmax(1)  # type: ignore[no-any-return]

    def decode(self, batch: Batch, latent: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements (n, 3) in units of the noise's width, and logits of the elements (n, 100;
        column Z - 1).
        """
        kinds = batch.numbers - 1 + N_ELEMENTS * phase[batch.crystal]
        vectors, features, _ = self.decoder(batch, kinds, latent)
        return vectors, self.element(features)

    def lattices(self, latent: Tensor, counts: Tensor) -> Tensor:
        """(b, 3, 3) rows in angstrom, by the lattice head, for these numbers of atoms (b,)."""
        parameters = self.lattice(latent) * self.lattice_deviation + self.lattice_mean
        return cell_matrix(parameters[:, :3] * counts[:, None] ** (1 / 3), parameters[:, 3:])

    def properties(self, latent: Tensor) -> Tensor:
        """(b, p) by the property head, in the properties' own units."""
        return self.property(latent) * self.property_deviation + self.property_mean  # type: ignore[no-any-return]


def _levels(bounds: tuple[float, float], n: int) -> nn.Parameter:
    return nn.Parameter(
        torch.tensor(np.geomspace(*bounds, n), dtype=torch.float32), requires_grad=False
    )


def cell_parameters(lattice: FloatArray, n_atoms: int) -> FloatArray:
    """(6,) lengths over N^(1/3) in angstrom and angles in degrees, of rows (3, 3)."""
    lengths = np.linalg.norm(lattice, axis=1)
    unit = lattice / lengths[:, None]
    angles = np.degrees(
        np.arccos(np.clip([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]], -1, 1))
    )
    return np.concatenate([lengths / n_atoms ** (1 / 3), angles])


def cell_matrix(lengths: Tensor, angles: Tensor) -> Tensor:
    """(b, 3, 3) rows: a along x, b in the xy plane. Lengths at least 1 angstrom, angles held to 30
    to 150 degrees and to a real cell.
    """
    lengths = lengths.clamp_min(1.0)
    cosine = torch.deg2rad(angles.clamp(30.0, 150.0)).cos()
    (alpha, beta, gamma), (a, b, c) = cosine.unbind(1), lengths.unbind(1)
    sine = (1 - gamma**2).sqrt()
    y = (alpha - beta * gamma) / sine
    height = (1 - beta**2 - y**2).clamp_min(0.05).sqrt()
    zero = torch.zeros_like(a)
    rows = [a, zero, zero, b * gamma, b * sine, zero, c * beta, c * y, c * height]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def composition_of(batch: Batch) -> Tensor:
    """(b, 100) atomic fractions, column Z - 1."""
    return batch.mean(nn.functional.one_hot(batch.numbers - 1, N_ELEMENTS).to(batch.lattice.dtype))


def elements_known(numbers: Sequence[int]) -> Tensor:
    """(100,) which columns Z - 1 are among the atomic numbers."""
    return torch.tensor([z in set(numbers) for z in range(1, N_ELEMENTS + 1)])
