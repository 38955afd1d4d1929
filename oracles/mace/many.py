"""Energies, forces and stresses of many crystals at once from MACE networks. Angstrom, eV; stress
in eV/angstrom^3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oracles.mace.network import cutoff_of, default_dtype, numbers_of
from oracles.many import Predictions
from oracles.pairs import PairModel, Pass

_EDGES = 40_000


class Networks(PairModel):
    """One or several networks as one model: their mean, and each one's energy."""

    def __init__(self, members: Sequence[Any], device: str, *, edges: int = _EDGES) -> None:
        self._members = list(members)
        for member in self._members:
            for parameter in member.parameters():
                parameter.requires_grad_(False)
        self._dtype = next(self._members[0].parameters()).dtype
        self.size, self.precision = len(self._members), float(torch.finfo(self._dtype).eps)
        self._cutoffs = [cutoff_of(member) for member in self._members]
        numbers = [numbers_of(member) for member in self._members]
        self._kinds = [torch.tensor(known, device=device) for known in numbers]
        super().__init__(
            frozenset.intersection(*map(frozenset, numbers)), max(self._cutoffs), device, edges
        )

    def _ask(self, some: Pass, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        positions, cells = positions.to(self._dtype), cells.to(self._dtype)
        squared = some.vectors(positions, cells).square().sum(-1)
        ends = torch.tensor(some.ends, device=positions.device)
        found = []
        for member, cutoff, known in zip(self._members, self._cutoffs, self._kinds, strict=True):
            near = (squared < cutoff**2).nonzero().squeeze(-1)
            shifts = some.shifts[near].to(self._dtype)
            data = {
                "positions": positions.detach().clone(),
                "cell": cells.reshape(-1, 3),
                "node_attrs": (some.numbers[:, None] == known).to(self._dtype),
                "edge_index": some.pairs[:, near],
                "unit_shifts": shifts,
                "shifts": shifts,
                "batch": some.owner,
                "ptr": ends,
                "head": torch.full(
                    (len(cells),),
                    len(getattr(member, "heads", ["Default"])) - 1,
                    device=positions.device,
                ),
                "pbc": torch.ones((len(cells) * 3,), dtype=torch.bool, device=positions.device),
            }
            with default_dtype(self._dtype):
                output = member(data, training=False, compute_force=True, compute_stress=True)
            found.append(
                [output[name].detach().double() for name in ("energy", "forces", "stress")]
            )
        energies, forces, stresses = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Predictions(energies.T, forces.mean(0), stresses.mean(0))
