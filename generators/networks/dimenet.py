"""DimeNet++ on periodic crystals: a vector for each crystal that no rotation, translation or order
of its atoms changes.

J. Gasteiger, S. Giri, J. T. Margraf, S. Guennemann, arXiv:2011.14115. Messages (n, k, c) lie on the
edges from k neighbours to each atom. What reaches an edge from the neighbours of its source is one
batched product for each atom; it is weighted with the envelope of the opposite edge, so that it
vanishes smoothly where the source does not count the atom among its neighbours. Time and memory
grow with n k^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from generators.networks.bases import bessel, legendre, spherical_bessel
from generators.networks.graph import Batch, Neighbours, nearest_neighbours
from generators.networks.layers import weighted_sum

N_ELEMENTS = 95


@dataclass(frozen=True)
class EncoderSizes:
    hidden: int = 128
    blocks: int = 4
    interaction: int = 64
    basis: int = 8
    output: int = 256
    output_layers: int = 3
    spherical: int = 7
    radial: int = 6
    cutoff: float = 7.0
    neighbours: int = 20


class DimeNetPlusPlus(nn.Module):
    def __init__(self, n_out: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.sizes, hidden = sizes, sizes.hidden
        self.frequencies = nn.Parameter(torch.arange(1, sizes.radial + 1) * math.pi)
        self.element = nn.Embedding(N_ELEMENTS, hidden)
        self.radial = nn.Linear(sizes.radial, hidden)
        self.pair = nn.Linear(3 * hidden, hidden)
        self.interactions = nn.ModuleList([_Interaction(sizes) for _ in range(sizes.blocks)])
        self.outputs = nn.ModuleList([_Output(n_out, sizes) for _ in range(sizes.blocks + 1)])
        nn.init.uniform_(self.element.weight, -math.sqrt(3), math.sqrt(3))

    def forward(self, batch: Batch) -> Tensor:
        """(b, n_out), the mean over atoms."""
        sizes = self.sizes
        near = nearest_neighbours(batch, sizes.cutoff, sizes.neighbours)
        radial = near.envelope[..., None] * bessel(near.distance, sizes.cutoff, self.frequencies)

        cosine = near.direction @ near.direction.transpose(1, 2)
        zonal = legendre(cosine, sizes.spherical)
        zonal.diagonal(dim1=2, dim2=3).zero_()
        zonal = zonal.permute(1, 2, 3, 0).flatten(2)
        spherical = near.envelope[..., None, None] * spherical_bessel(
            near.distance, sizes.cutoff, sizes.spherical, sizes.radial
        )

        atom, bias = self.element(batch.numbers), self.pair.bias
        first, second, third = torch.split(self.pair.weight, sizes.hidden, dim=1)
        edge = silu(self.radial(radial)) @ third.T
        message = silu(
            (atom @ first.T + bias.to(edge.dtype))[:, None] + (atom @ second.T)[near.source] + edge
        )
        radial, spherical, zonal = (basis.to(message.dtype) for basis in (radial, spherical, zonal))
        total = self.outputs[0](message, radial)
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            message = interaction(message, radial, spherical, zonal, near)
            total = total + output(message, radial)
        return batch.mean(total)


class _Skip(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x: Tensor) -> Tensor:
        return x + silu(self.second(silu(self.first(x))))


class _Interaction(nn.Module):
    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        hidden, n_spherical = sizes.hidden, sizes.spherical * sizes.radial
        self.radial = nn.Sequential(
            nn.Linear(sizes.radial, sizes.basis, bias=False),
            nn.Linear(sizes.basis, hidden, bias=False),
        )
        spherical = nn.Linear(n_spherical, sizes.basis, bias=False).weight.detach()
        self.spherical = nn.Parameter(spherical.view(sizes.basis, sizes.spherical, -1))
        self.expand = nn.Linear(sizes.basis, sizes.interaction, bias=False)
        self.source, self.edge = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.down = nn.Linear(hidden, sizes.interaction, bias=False)
        self.up = nn.Linear(sizes.interaction, hidden, bias=False)
        self.before, self.middle = _Skip(hidden), nn.Linear(hidden, hidden)
        self.after = nn.Sequential(_Skip(hidden), _Skip(hidden))

    def forward(
        self, message: Tensor, radial: Tensor, spherical: Tensor, zonal: Tensor, near: Neighbours
    ) -> Tensor:
        """(n, k, hidden) after the messages that reach each edge's source from its own
        neighbours.
        """
        incoming = silu(self.down(silu(self.source(message)) * self.radial(radial)))
        weights = self.expand(torch.einsum("nklr,blr->nklb", spherical, self.spherical))
        leaving = torch.bmm(zonal, (incoming[:, :, None] * weights).flatten(1, 2))
        gathered = leaving.flatten(0, 1)[near.reverse] * near.reverse_envelope[..., None].to(
            leaving.dtype
        )
        h = self.before(silu(self.edge(message)) + silu(self.up(gathered)))
        return self.after(silu(self.middle(h)) + message)  # type: ignore[no-any-return]


class _Output(nn.Module):
    def __init__(self, n_out: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.radial = nn.Linear(sizes.radial, sizes.hidden, bias=False)
        self.up = nn.Linear(sizes.hidden, sizes.output)
        self.layers = nn.ModuleList(
            [nn.Linear(sizes.output, sizes.output) for _ in range(sizes.output_layers)]
        )
        self.out = nn.Linear(sizes.output, n_out, bias=False)

    def forward(self, message: Tensor, radial: Tensor) -> Tensor:
        """(n, n_out), one vector for each atom."""
        x = self.up(weighted_sum(message, radial, self.radial.weight))
        for layer in self.layers:
            x = silu(layer(x))
        return self.out(x)  # type: ignore[no-any-return]
