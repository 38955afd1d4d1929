"""Batches of crystals as tensors, and their nearest neighbours with all periodic images.

Lattice rows in angstrom. Each atom has at most k neighbours, so messages are dense arrays (n, k):
no scatter and no loop over edges. The envelope of an atom's neighbours falls to zero at its (k +
1)-th nearest neighbour, or at the cutoff where that is nearer: nothing jumps when two neighbours
change rank, and a shell of equal distances that k cuts through fades as a whole.

Time and memory grow with (atoms per crystal)^2 x periodic images x crystals; about 20 ms for 16
crystals of 54 atoms on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from campaign.errors import InputError
from campaign.types import Crystal


@dataclass(frozen=True)
class Batch:
    """b crystals of n atoms together. lattice: (b, 3, 3); fractional: (n, 3); numbers: (n,) atomic
    numbers; counts: (b,) atoms of each.
    """

    lattice: Tensor
    fractional: Tensor
    numbers: Tensor
    counts: Tensor

    @cached_property
    def crystal(self) -> Tensor:
        """(n,) the crystal that each atom belongs to."""
        return torch.repeat_interleave(
            torch.arange(len(self.counts), device=self.counts.device), self.counts
        )

    @cached_property
    def slots(self) -> Tensor:
        """(n,) each atom's place in an array (b, most atoms), flattened."""
        first = self.counts.cumsum(0) - self.counts
        within = torch.arange(len(self.numbers), device=self.counts.device) - first[self.crystal]
        return self.crystal * int(self.counts.max()) + within

    def mean(self, atoms: Tensor) -> Tensor:
        """(b, ...) of (n, ...): the mean over the atoms of each crystal."""
        total = atoms.new_zeros(len(self.counts), *atoms.shape[1:]).index_add_(
            0, self.crystal, atoms
        )
        return total / self.counts.view(-1, *[1] * (atoms.dim() - 1))

    def cartesian(self, fractional: Tensor) -> Tensor:
        """(n, 3) in angstrom."""
        return torch.einsum("ni,nij->nj", fractional, self.lattice[self.crystal])

    def to_fractional(self, vectors: Tensor) -> Tensor:
        """(n, 3) of Cartesian vectors (n, 3) in angstrom."""
        return torch.einsum("ni,nij->nj", vectors, torch.linalg.inv(self.lattice)[self.crystal])

    def crystals(self) -> list[Crystal]:
        lattices = self.lattice.double().cpu().numpy()
        places = np.split(
            self.fractional.double().cpu().numpy() % 1.0, np.cumsum(self.counts.cpu().numpy())[:-1]
        )
        numbers = np.split(self.numbers.cpu().numpy(), np.cumsum(self.counts.cpu().numpy())[:-1])
        return [Crystal(*arrays) for arrays in zip(lattices, places, numbers, strict=True)]


def batch_of(crystals: Sequence[Crystal], device: torch.device | str = "cpu") -> Batch:
    """Raises InputError where there is no crystal."""
    if not crystals:
        raise InputError("expected at least one crystal, got none")
    return Batch(
        torch.tensor(
            np.stack([crystal.lattice for crystal in crystals]),
            dtype=torch.get_default_dtype(),
            device=device,
        ),
        torch.tensor(
            np.concatenate([crystal.fractional for crystal in crystals]),
            dtype=torch.get_default_dtype(),
            device=device,
        ),
        torch.tensor(
            np.concatenate([crystal.numbers for crystal in crystals]).astype(np.int64),
            device=device,
        ),
        torch.tensor([len(crystal) for crystal in crystals], device=device),
    )


@dataclass(frozen=True)
class Neighbours:
    """The at most k nearest neighbours of n atoms.

    source: (n, k) index of the neighbour; distance: (n, k) angstrom; direction: (n, k, 3) unit
    vectors from the atom to the neighbour; envelope: (n, k) between 0 and 1, 0 where there is no
    neighbour; reverse: (n, k) where the opposite edge lies in the flattened (n k,) edges;
    reverse_envelope: (n, k) the envelope of that edge, 0 where the neighbour does not count this
    atom among its own.
    """

    source: Tensor
    distance: Tensor
    direction: Tensor
    envelope: Tensor
    reverse: Tensor
    reverse_envelope: Tensor


def polynomial_envelope(x: Tensor, exponent: int = 5) -> Tensor:
    """1 at x = 0, and 0 with zero first and second derivative at x >= 1 (J. Gasteiger et al., ICLR
    2020, eq. 8, without its 1/x).
    """
    p = exponent + 1
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    inside = 1 + a * x**p + b * x ** (p + 1) + c * x ** (p + 2)
    return torch.where(x < 1, inside, torch.zeros_like(x))


def nearest_neighbours(batch: Batch, cutoff: float, k: int) -> Neighbours:
    """The k nearest neighbours within the cutoff (angstrom) of each atom, images of itself
    included.
    """
    lattice, b, most = batch.lattice, len(batch.counts), int(batch.counts.max())
    fractional = (
        lattice.new_zeros(b * most, 3)
        .index_copy_(0, batch.slots, batch.fractional)
        .view(b, most, 3)
    )
    is_atom = (
        torch.zeros(b * most, dtype=torch.bool, device=lattice.device)
        .index_fill_(0, batch.slots, True)
        .view(b, most)
    )

    apart = fractional[:, None, :, :] - fractional[:, :, None, :]
    apart = apart - apart.round()
    images = _images(lattice, cutoff)
    n_images = len(images)
    vector = apart @ lattice[:, None]
    shift = images @ lattice
    squared = (
        (vector**2).sum(-1)[..., None]
        + 2 * vector @ shift.transpose(1, 2)[:, None]
        + (shift**2).sum(-1)[:, None, None, :]
    )
    squared.masked_fill_(~is_atom[:, None, :, None], torch.inf)
    squared.diagonal(dim1=1, dim2=2)[:, n_images // 2] = torch.inf
    flat = squared.view(b * most, most * n_images)[batch.slots]

    wanted = min(k + 1, flat.shape[1])
    value, index = flat.topk(wanted, dim=1, largest=False)
    distance = value.clamp_min(0).sqrt()
    limit = (
        distance[:, -1:].clamp_max(cutoff)
        if wanted == k + 1
        else distance.new_full((len(flat), 1), cutoff)
    )
    distance, index = distance[:, :k], index[:, :k]

    other, image = index // n_images, index % n_images
    where = torch.full((b * most,), 0, device=lattice.device).index_copy_(
        0, batch.slots, torch.arange(len(flat), device=lattice.device)
    )
    source = where[batch.crystal[:, None] * most + other]
    envelope = polynomial_envelope(distance / limit)
    is_edge = envelope > 0
    pair = apart.view(b * most, most, 3)[batch.slots[:, None], other]
    direction = torch.einsum("nki,nij->nkj", pair + images[image], lattice[batch.crystal])
    distance = distance.masked_fill(~is_edge, cutoff)
    direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    me = torch.arange(len(flat), device=lattice.device)[:, None]
    code = torch.where(is_edge, me * n_images + n_images - 1 - image, -1)
    is_same = (source * n_images + image)[source] == code[..., None]
    has_reverse = is_same.any(-1) & is_edge
    reverse = source * source.shape[1] + is_same.to(torch.uint8).argmax(-1)
    reverse = torch.where(has_reverse, reverse, 0)
    return Neighbours(
        source, distance, direction, envelope, reverse, envelope.flatten()[reverse] * has_reverse
    )


def _images(lattice: Tensor, cutoff: float) -> Tensor:
    """(s, 3) translations whose cells may hold a neighbour of an atom half a cell away; the
    opposite of the i-th is the i-th last.
    """
    heights = 1 / torch.linalg.inv(lattice).norm(dim=1)
    reach = [int(number) for number in (cutoff / heights.amin(0) + 0.5).floor().tolist()]
    return torch.cartesian_prod(
        *[torch.arange(-r, r + 1, dtype=lattice.dtype, device=lattice.device) for r in reach]
    ).view(-1, 3)
