"""GemNet-dT on periodic crystals: for each atom a vector that turns with the crystal, a scalar, and
features.

J. Gasteiger, F. Becker, S. Guennemann, NeurIPS 2021 (arXiv:2106.08903), with direct forces and a
latent vector joined to the atoms' embedding. Messages (n, k, c) lie on the edges from k neighbours
to each atom. The angular basis of all triplets and the radial one are contracted once for all
blocks; a triplet interaction is then one batched product and one matrix product. Products of
features with the weights of edge embeddings are made per atom, not per edge. Time grows with n k
(edge layers), memory with n k^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generators.networks.bases import gaussians, legendre
from generators.networks.graph import Batch, nearest_neighbours
from generators.networks.layers import (
    Dense,
    Residual,
    Scale,
    he_orthogonal,
    mean,
    scaled_silu,
    weighted_sum,
)


@dataclass(frozen=True)
class DecoderSizes:
    hidden: int = 128
    blocks: int = 3
    triplet: int = 64
    radial_embedding: int = 16
    angular_embedding: int = 16
    bilinear: int = 64
    spherical: int = 7
    radial: int = 128
    cutoff: float = 7.0
    neighbours: int = 20
    atom_layers: int = 3


class GemNet(nn.Module):
    def __init__(self, n_embeddings: int, n_latent: int, sizes: DecoderSizes) -> None:
        super().__init__()
        self.sizes, hidden, small = sizes, sizes.hidden, sizes.radial_embedding
        self.kind = nn.Embedding(n_embeddings, hidden)
        nn.init.uniform_(self.kind.weight, -math.sqrt(3), math.sqrt(3))
        self.with_latent = nn.Linear(hidden + n_latent, hidden)
        self.edge = _EdgeEmbedding(hidden, sizes.radial)
        self.radial_triplet = Dense(sizes.radial, small)
        self.radial_atom = Dense(sizes.radial, small)
        self.radial_out = Dense(sizes.radial, small)
        self.angular = nn.Parameter(
            torch.stack(
                [
                    he_orthogonal(sizes.angular_embedding, sizes.radial).T
                    for _ in range(sizes.spherical)
                ]
            )
        )
        self.interactions = nn.ModuleList([_Interaction(sizes) for _ in range(sizes.blocks)])
        self.outputs = nn.ModuleList([_Output(sizes) for _ in range(sizes.blocks + 1)])

    def forward(
        self, batch: Batch, kinds: Tensor, latent: Tensor, *, with_scalar: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors (n, 3), features (n, hidden), and scalars (n,) where asked for; kinds: (n,) rows
        of the embedding; latent: (b, d).
        """
        sizes = self.sizes
        with torch.no_grad(), torch.autocast(batch.fractional.device.type, enabled=False):
            near = nearest_neighbours(batch, sizes.cutoff, sizes.neighbours)
            basis = near.envelope[..., None] * gaussians(near.distance, sizes.cutoff, sizes.radial)
            cosine = near.direction @ near.direction.transpose(1, 2)
            cosine.diagonal(dim1=1, dim2=2).zero_()
            zonal = legendre(cosine, sizes.spherical)
            zonal.diagonal(dim1=2, dim2=3).zero_()
        h = self.with_latent(torch.cat([self.kind(kinds), latent[batch.crystal]], dim=1))
        bases = basis.to(h.dtype), zonal.to(h.dtype), near.reverse_envelope.to(h.dtype)
        edge_force, features, scalar = self.messages(
            h, *bases, near.source, near.reverse, with_scalar
        )
        return (
            torch.einsum("nk,nkx->nx", edge_force.to(near.direction.dtype), near.direction),
            features,
            scalar,
        )

    def messages(
        self,
        h: Tensor,
        radial: Tensor,
        zonal: Tensor,
        reverse_envelope: Tensor,
        source: Tensor,
        reverse: Tensor,
        with_scalar: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Forces along edges (n, k), features (n, hidden), and scalars (n,) where asked for."""
        n, k, _ = radial.shape
        by_order = torch.einsum("nkr,sri->nkis", radial, self.angular).flatten(0, 1)
        angular = torch.bmm(by_order, zonal.permute(1, 2, 0, 3).flatten(0, 1)).view(n, -1, k)
        triplet, atom, out = (
            self.radial_triplet(radial),
            self.radial_atom(radial),
            self.radial_out(radial),
        )

        m = self.edge(h, radial, source)
        force, scalar = self.outputs[0](m, out, with_scalar)
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            h, m = interaction(h, m, triplet, atom, angular, source, reverse, reverse_envelope)
            more_force, more_scalar = output(m, out, with_scalar)
            force = force + more_force
            scalar = scalar + more_scalar if with_scalar else None
        return force, h, scalar


class _EdgeEmbedding(nn.Module):
    """f(W [h_source, h_atom, m]), the products with h made once for each atom."""

    def __init__(self, hidden: int, n_edge: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight = nn.Parameter(he_orthogonal(hidden, 2 * hidden + n_edge))

    def forward(self, h: Tensor, m: Tensor, source: Tensor) -> Tensor:
        of_source, of_atom, of_edge = torch.split(
            self.weight, [self.hidden, self.hidden, m.shape[-1]], dim=1
        )
        y = (h @ of_source.T)[source] + (h @ of_atom.T)[:, None] + m @ of_edge.T
        return scaled_silu(y)


def _atom_layers(hidden: int, n: int) -> nn.Sequential:
    return nn.Sequential(Dense(hidden, hidden, True), *[Residual(hidden) for _ in range(n)])


class _AtomUpdate(nn.Module):
    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.radial = Dense(sizes.radial_embedding, sizes.hidden)
        self.scale = Scale()
        self.layers = _atom_layers(sizes.hidden, sizes.atom_layers)

    def forward(self, m: Tensor, radial: Tensor) -> Tensor:
        return self.layers(self.scale(m, weighted_sum(m, radial, self.radial.weight)))  # type: ignore[no-any-return]


class _Triplets(nn.Module):
    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.dense, self.radial = Dense(hidden, hidden, True), Dense(sizes.radial_embedding, hidden)
        self.scale_radial, self.scale_sum = Scale(), Scale()
        self.down = Dense(hidden, sizes.triplet, True)
        self.bilinear = Dense(sizes.angular_embedding * sizes.triplet, sizes.bilinear)
        self.up, self.up_reverse = (
            Dense(sizes.bilinear, hidden, True),
            Dense(sizes.bilinear, hidden, True),
        )

    def forward(
        self, m: Tensor, radial: Tensor, angular: Tensor, reverse: Tensor, reverse_envelope: Tensor
    ) -> Tensor:
        n, k, _ = m.shape
        x = self.dense(m)
        x = self.down(self.scale_radial(x, x * self.radial(radial)))
        x = self.scale_sum(x, self.bilinear(torch.bmm(angular.to(x.dtype), x).view(n, k, -1)))
        back = self.up_reverse(x).flatten(0, 1)[reverse] * reverse_envelope[..., None]
        return mean(self.up(x), back)


class _Interaction(nn.Module):
    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.dense, self.triplets, self.atom = (
            Dense(hidden, hidden, True),
            _Triplets(sizes),
            _AtomUpdate(sizes),
        )
        self.before = Residual(hidden)
        self.after = nn.Sequential(Residual(hidden), Residual(hidden))
        self.edge, self.last = _EdgeEmbedding(hidden, hidden), Residual(hidden)

    def forward(
        self,
        h: Tensor,
        m: Tensor,
        triplet: Tensor,
        atom: Tensor,
        angular: Tensor,
        source: Tensor,
        reverse: Tensor,
        reverse_envelope: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x = mean(self.dense(m), self.triplets(m, triplet, angular, reverse, reverse_envelope))
        m = self.after(mean(m, self.before(x)))
        h = mean(h, self.atom(m, atom))
        return h, mean(m, self.last(self.edge(h, m, source)))


class _Output(nn.Module):
    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.atom, self.scalar = _AtomUpdate(sizes), Dense(sizes.hidden, 1)
        self.layers = _atom_layers(sizes.hidden, sizes.atom_layers)
        self.radial, self.scale, self.force = (
            Dense(sizes.radial_embedding, sizes.hidden),
            Scale(),
            Dense(sizes.hidden, 1),
        )

    def forward(self, m: Tensor, radial: Tensor, with_scalar: bool) -> tuple[Tensor, Tensor | None]:
        x = self.layers(m)
        if self.scale.is_observing:
            self.scale(x, x * self.radial(radial))
        to_force = self.radial.weight * self.force.weight.T * self.scale.factor
        force = ((x @ to_force.to(x.dtype)) * radial).sum(-1)
        return force, self.scalar(self.atom(m, radial))[:, 0] if with_scalar else None
