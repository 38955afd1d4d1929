"""Energies, forces and stresses of many crystals at once from a SevenNet network. Angstrom, eV;
stress in eV/angstrom^3.

The network takes the vectors of its pairs and differentiates by them, so lists that reach beyond
its cutoff are cut here. Y. Park, J. Kim, S. Hwang, S. Han, J. Chem. Theory Comput. 20, 4857 (2024).
"""

from __future__ import annotations

from typing import Any

import torch

from oracles.many import Predictions
from oracles.pairs import PairModel, Pass

_EDGES = 10_000
_VOIGT = [[0, 3, 5], [3, 1, 4], [5, 4, 2]]
"""Where xx yy zz xy yz zx stand in a (3, 3) tensor."""


class SevenNetModel(PairModel):
    """The network of a ``sevenn`` calculator, which is not used for single crystals from then
    on.
    """

    size = 1

    def __init__(self, calculator: Any, device: str, *, edges: int = _EDGES) -> None:
        self._network = calculator.model
        self._modal = (
            None if calculator.modal is None else int(self._network.modal_map[calculator.modal])
        )
        self._network.set_is_batch_data(True)
        self._network.eval_modal_map = False
        for parameter in self._network.parameters():
            parameter.requires_grad_(False)
        self._dtype = next(self._network.parameters()).dtype
        self.precision = float(torch.finfo(self._dtype).eps)
        super().__init__(
            frozenset(map(int, calculator.type_map)), float(calculator.cutoff), device, edges
        )

    def _ask(self, some: Pass, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        vectors = some.vectors(positions, cells)
        near = (vectors.square().sum(-1) < self._cutoff**2).nonzero().squeeze(-1)
        data = {
            "atomic_numbers": some.numbers,
            "edge_index": some.pairs[:, near],
            "edge_vec": vectors[near].to(self._dtype),
            "cell_volume": torch.linalg.det(cells).to(self._dtype),
            "num_atoms": some.counts,
            "batch": some.owner,
        }
        if self._modal is not None:
            data["modal_type"] = torch.full((len(cells),), self._modal, device=positions.device)
        output = self._network(data)
        energies, forces, stresses = (
            output[name].detach().double()
            for name in ("inferred_total_energy", "inferred_force", "inferred_stress")
        )
        return Predictions(energies.reshape(-1, 1), forces, -stresses.reshape(-1, 6)[:, _VOIGT])
