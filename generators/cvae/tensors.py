"""The same S as the compiled loops give, as one program of torch tensors: for GPUs, and to check
the loops against.

Crystals are rebuilt from their free variables by index maps that are made once for a batch;
neighbours are all atoms of all images within the cutoff. Memory: about 500 bytes for each pair
within the cutoff, and 30 for each pair looked at, in parts of the batch.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from generators.cvae.environment import Spectrum
from generators.cvae.free_variables import Batch


class TensorSpectrum:
    """S (B,) of free variables (B, f) of a batch, differentiable."""

    def __init__(self, batch: Batch, spectrum: Spectrum, device: str = "cpu") -> None:
        cells, start, _, free_of, rotations, shifts = batch.tables
        self.n = len(batch)
        self.settings = spectrum.settings
        n_free = free_of[batch.positions]
        before = np.cumsum(n_free) - n_free
        first = before - before[batch.site_start[:-1]].repeat(np.diff(batch.site_start))
        crystal = np.repeat(np.arange(self.n), np.diff(batch.site_start))
        offset = first + batch.n_cell[crystal]
        site = np.repeat(np.arange(len(batch.positions)), batch.multiplicities)
        within = (
            np.arange(len(site)) - (np.cumsum(batch.multiplicities) - batch.multiplicities)[site]
        )
        operation = start[batch.positions][site] + within
        column = np.minimum(offset[site][:, None] + np.arange(3), batch.variables.shape[1] - 1)
        atom_start = np.concatenate([[0], np.cumsum(batch.atoms)])
        centre = np.cumsum(batch.multiplicities) - batch.multiplicities
        n_around = batch.atoms[crystal]
        pair_site = np.repeat(np.arange(len(centre)), n_around)
        pair_atom = (
            np.arange(len(pair_site))
            - (np.cumsum(n_around) - n_around)[pair_site]
            + atom_start[crystal][pair_site]
        )
        numbers = np.array(spectrum.species, dtype=np.float64)
        weights = np.where(numbers[:, None] == numbers, 1.0, -1.0) * numbers

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=device)

        self.cells = tensor(cells[batch.families])
        self.rotations, self.shifts, self.column = (
            tensor(rotations[operation]),
            tensor(shifts[operation]),
            tensor(column),
        )
        self.atom_crystal, self.site_crystal = tensor(crystal[site]), tensor(crystal)
        self.centre, self.pair_site, self.pair_atom = (
            tensor(centre),
            tensor(pair_site),
            tensor(pair_atom),
        )
        self.pair_weight = tensor(
            weights[batch.elements[pair_site], batch.elements[site[pair_atom]]]
        )
        self.site_weight = tensor(batch.multiplicities / batch.atoms[crystal])
        self.targets = tensor(spectrum.targets[batch.elements])
        self.pieces, self.norms = tensor(spectrum.objective[4]), spectrum.objective[5]

    def crystals(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Lattices (B, 3, 3) and fractional coordinates (N, 3)."""
        columns = min(6, variables.shape[1])
        six = (
            torch.einsum("bkq,bq->bk", self.cells[:, :, :columns], variables[:, :columns])
            + self.cells[:, :, 6]
        )
        (a, b, c), (ca, cb, cg) = six[:, :3].T, torch.cos(six[:, 3:]).T
        sg = torch.sin(six[:, 5])
        y = (ca - cb * cg) / sg
        height = torch.sqrt((1 - cb**2 - y**2).clamp(min=1e-4))
        zero = torch.zeros_like(a)
        lattice = torch.stack(
            [a, zero, zero, b * cg, b * sg, zero, c * cb, c * y, c * height], 1
        ).reshape(-1, 3, 3)
        free = variables[self.atom_crystal[:, None], self.column]
        return lattice, self.shifts + torch.einsum("nad,nd->na", self.rotations, free)

    def loss(self, variables: Tensor) -> Tensor:
        """S (B,) in double precision."""
        lattice, fractional = self.crystals(variables)
        with torch.no_grad():
            pair, image = self._neighbours(lattice, fractional)
        site, atom = self.pair_site[pair], self.pair_atom[pair]
        apart = fractional[atom] - fractional[self.centre[site]] + image
        vector = torch.einsum("pa,pab->pb", apart, lattice[self.site_crystal[site]])
        l_max, n_max = self.settings.l_max, self.settings.n_max
        square = (vector**2).sum(1)
        radial = self._radial(square) * self.pair_weight[pair][:, None, None]
        harmonics = self._harmonics(vector)
        order = torch.repeat_interleave(
            torch.arange(l_max + 1, device=vector.device),
            2 * torch.arange(l_max + 1, device=vector.device) + 1,
        )
        terms = radial[:, :, order] * harmonics[:, None]
        c = torch.zeros(
            (len(self.centre), n_max, len(order)), dtype=vector.dtype, device=vector.device
        ).index_add(0, site, terms)
        rows = []
        for n in range(n_max):
            for other in range(n + 1):
                product = c[:, n] * c[:, other]
                total = torch.zeros((len(c), l_max + 1), dtype=c.dtype, device=c.device)
                rows.append(total.index_add(1, order, product))
        apart_from_target = ((torch.cat(rows, 1) - self.targets) ** 2).sum(1) * self.site_weight
        return torch.zeros(self.n, dtype=c.dtype, device=c.device).index_add(
            0, self.site_crystal, apart_from_target
        )

    def _neighbours(
        self, lattice: Tensor, fractional: Tensor, part: int = 2_000_000
    ) -> tuple[Tensor, Tensor]:
        """Rows of the pairs of a site and an atom, and whole cells between them, within the
        cutoff.
        """
        cutoff = self.settings.cutoff
        heights = 1 / torch.linalg.inv(lattice).norm(dim=1)
        most = torch.ceil(cutoff / heights + 0.5).amax(0).long().tolist()
        images = torch.tensor(
            list(itertools.product(*(range(-k, k + 1) for k in most))),
            dtype=lattice.dtype,
            device=lattice.device,
        )
        apart = fractional[self.pair_atom] - fractional[self.centre[self.pair_site]]
        whole = torch.round(apart)
        apart = apart - whole
        is_self = self.pair_atom == self.centre[self.pair_site]
        pairs, cells = [], []
        step = max(1, part // len(images))
        for low in range(0, len(apart), step):
            rows = slice(low, low + step)
            vector = torch.einsum(
                "pia,pab->pib",
                apart[rows, None] + images,
                lattice[self.site_crystal[self.pair_site[rows]]],
            )
            near = (vector**2).sum(2) < cutoff**2
            near &= ~(is_self[rows, None] & (images == 0).all(1))
            pair, image = torch.nonzero(near, as_tuple=True)
            pairs.append(pair + low)
            cells.append(images[image] - whole[pair + low])
        return torch.cat(pairs), torch.cat(cells)

    def _radial(self, square: Tensor) -> Tensor:
        """(pairs, n_max, l_max + 1) by the same cubic pieces as the compiled loops."""
        scaled = square * (len(self.pieces) / self.settings.cutoff**2)
        piece = scaled.detach().long().clamp(max=len(self.pieces) - 1)
        t = (scaled - piece)[:, None, None]
        p = self.pieces[piece]
        return p[..., 0] + t * (p[..., 1] + t * (p[..., 2] + t * p[..., 3]))

    def _harmonics(self, vector: Tensor) -> Tensor:
        """(pairs, (l_max + 1)^2) real solid harmonics, in the order of the compiled loops."""
        x, y, z = vector.T
        rr = (vector**2).sum(1)
        l_max = self.settings.l_max
        cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
        legendre: dict[tuple[int, int], Tensor] = {}
        for m in range(l_max + 1):
            if m:
                cosine.append(x * cosine[-1] - y * sine[-1])
                sine.append(x * sine[-1] + y * cosine[-2])
            legendre[m, m] = torch.full_like(x, float(math.prod(range(1, 2 * m, 2))))
            if m < l_max:
                legendre[m + 1, m] = (2 * m + 1) * z * legendre[m, m]
            for order in range(m + 2, l_max + 1):
                above = (2 * order - 1) * z * legendre[order - 1, m] - (
                    order + m - 1
                ) * rr * legendre[order - 2, m]
                legendre[order, m] = above / (order - m)
        found = []
        for order in range(l_max + 1):
            for m in range(order + 1):
                scaled = float(self.norms[order, m]) * legendre[order, m]
                found += [scaled * cosine[m]] if m == 0 else [scaled * cosine[m], scaled * sine[m]]
        return torch.stack(found, 1)
