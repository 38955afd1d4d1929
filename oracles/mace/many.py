"""Energies, forces and stresses of many crystals at once from MACE networks, for the steps of relaxations.

Neighbour lists reach beyond the cutoff by a skin and are kept while no pair can have come in from outside: a pair that is left out was
farther apart than cutoff + skin, so with displacements u before a deformation F it stays at least sigma_min(F) (cutoff + skin - 2 max|u|)
apart. Angstrom, eV; stress in eV/angstrom^3. Memory grows with the edges of a pass; where it does not suffice passes are halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matscipy.neighbours import neighbour_list

from campaign.types import Crystal
from oracles.mace.network import cutoff_of, default_dtype, numbers_of
from oracles.many import Predictions

_SKIN = 0.6
_EDGES = 40_000


@dataclass(eq=False)
class Graph:
    """One crystal: its kinds of atoms (n, k) by network, and the pairs of a skinned list of a cell (3, 3) and positions (n, 3)."""

    kinds: tuple[torch.Tensor, ...]
    cell: torch.Tensor
    positions: torch.Tensor
    pairs: torch.Tensor
    shifts: torch.Tensor

    @property
    def n_edges(self) -> int:
        return self.pairs.shape[1]

    def __len__(self) -> int:
        return len(self.positions)


class Networks:
    """One or several networks as one model: their mean, and each one's energy."""

    def __init__(self, members: Sequence[Any], device: str, *, edges: int = _EDGES) -> None:
        self._members, self._device, self._edges = list(members), device, edges
        for member in self._members:
            for parameter in member.parameters():
                parameter.requires_grad_(False)
        self._dtype = next(self._members[0].parameters()).dtype
        self._numbers = [np.array(numbers_of(member)) for member in self._members]
        self.size, self.precision = len(self._members), float(torch.finfo(self._dtype).eps)
        self._cutoffs = [cutoff_of(member) for member in self._members]
        self._cutoff = max(self._cutoffs)
        self._chunks: list[_Chunk] = []

    def check(self, crystal: Crystal) -> None:
        """Raises ValueError for an element that one of the networks does not know."""
        known = frozenset.intersection(*(frozenset(numbers.tolist()) for numbers in self._numbers))
        unknown = sorted({symbol for symbol, number in zip(crystal.symbols, crystal.numbers.tolist(), strict=True) if number not in known})
        if unknown:
            raise ValueError(f"the model does not know {', '.join(unknown)}")

    def graph(self, crystal: Crystal) -> Graph:
        self.check(crystal)
        cell, positions = np.array(crystal.lattice), crystal.fractional % 1.0 @ crystal.lattice
        kinds = tuple(torch.as_tensor(crystal.numbers[:, None] == known).to(self._device, self._dtype) for known in self._numbers)
        graph = Graph(kinds, self._tensor(cell), self._tensor(positions), torch.empty((2, 0)), torch.empty((0, 3)))
        self._list(graph, graph.cell, graph.positions)
        return graph

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, dtype=float), device=self._device)

    def _list(self, graph: Graph, cell: torch.Tensor, positions: torch.Tensor) -> None:
        """A fresh list of pairs."""
        first, second, shifts = neighbour_list(
            "ijS",
            positions=positions.cpu().numpy(),
            cell=cell.cpu().numpy(),
            pbc=np.ones(3, dtype=bool),
            cutoff=self._cutoff + _SKIN,
        )
        graph.cell, graph.positions = cell.clone(), positions.clone()
        graph.pairs = torch.as_tensor(np.stack([first, second]).astype(np.int64), device=self._device)
        graph.shifts = self._tensor(shifts)

    def predict(self, graphs: Sequence[Graph], positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        """Of positions (n, 3) of all atoms, crystal after crystal, and cells (b, 3, 3); both on the device, in double precision."""
        found, first, crystal = [], 0, 0
        for chunk in self._chunked(graphs):
            n, b = sum(map(len, chunk.graphs)), len(chunk.graphs)
            found.append(self._of(chunk, positions[first : first + n], cells[crystal : crystal + b]))
            first, crystal = first + n, crystal + b
        return Predictions.joined(found)

    def _chunked(self, graphs: Sequence[Graph]) -> list[_Chunk]:
        """Those of the last step where the crystals are the same."""
        if [graph for chunk in self._chunks for graph in chunk.graphs] != list(graphs):
            self._chunks = [_Chunk(part) for part in self._parts(graphs)]
        return self._chunks

    def _parts(self, graphs: Sequence[Graph]) -> Iterator[list[Graph]]:
        """Runs of about as many edges each, as many as a pass may have."""
        passes = max(1, -(-sum(graph.n_edges for graph in graphs) // self._edges))
        most = sum(graph.n_edges for graph in graphs) / passes
        part: list[Graph] = []
        edges = 0
        for graph in graphs:
            if part and edges + graph.n_edges / 2 > most:
                yield part
                part, edges = [], 0
            part.append(graph)
            edges += graph.n_edges
        if part:
            yield part

    def _of(self, chunk: _Chunk, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        stale = chunk.stale(positions, cells, self._cutoff)
        for i in stale:
            n = slice(chunk.ends[i], chunk.ends[i + 1])
            self._list(chunk.graphs[i], cells[i], positions[n])
        if stale:
            chunk.join()
        try:
            return self._ask(chunk, positions, cells)
        except (torch.OutOfMemoryError, MemoryError):
            if len(chunk.graphs) == 1:
                raise MemoryError("the networks ran out of memory on one crystal") from None
        self._edges = max(1, sum(graph.n_edges for graph in chunk.graphs) // 2)
        self._chunks = []
        half = len(chunk.graphs) // 2
        n = chunk.ends[half]
        parts = (_Chunk(chunk.graphs[:half]), positions[:n], cells[:half]), (_Chunk(chunk.graphs[half:]), positions[n:], cells[half:])
        return Predictions.joined([self._of(*part) for part in parts])

    def _ask(self, chunk: _Chunk, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        positions, cells = positions.to(self._dtype), cells.to(self._dtype)
        first, second = chunk.pairs
        vectors = positions[second] - positions[first] + torch.einsum("ei,eij->ej", chunk.shifts.to(self._dtype), cells[chunk.owner[first]])
        squared = vectors.square().sum(-1)
        found = []
        for member, cutoff, kinds in zip(self._members, self._cutoffs, chunk.kinds, strict=True):
            near = (squared < cutoff**2).nonzero().squeeze(-1)
            shifts = chunk.shifts[near].to(self._dtype)
            data = {
                "positions": positions.detach().clone(),
                "cell": cells.reshape(-1, 3),
                "node_attrs": kinds,
                "edge_index": chunk.pairs[:, near],
                "unit_shifts": shifts,
                "shifts": shifts,
                "batch": chunk.owner,
                "ptr": chunk.ends_tensor,
                "head": torch.full((len(cells),), len(getattr(member, "heads", ["Default"])) - 1, device=positions.device),
                "pbc": torch.ones((len(cells) * 3,), dtype=torch.bool, device=positions.device),
            }
            with default_dtype(self._dtype):
                output = member(data, training=False, compute_force=True, compute_stress=True)
            found.append([output[name].detach().double() for name in ("energy", "forces", "stress")])
        energies, forces, stresses = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Predictions(energies.T, forces.mean(0), stresses.mean(0))


class _Chunk:
    """Crystals of one pass, joined."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self.graphs = list(graphs)
        counts = [len(graph) for graph in graphs]
        device = graphs[0].positions.device
        self.ends = [0, *np.cumsum(counts).tolist()]
        self.ends_tensor = torch.tensor(self.ends, device=device)
        self.owner = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
        self.kinds = [torch.cat(kinds) for kinds in zip(*(graph.kinds for graph in graphs), strict=True)]
        self.join()

    def join(self) -> None:
        self.pairs = torch.cat([graph.pairs + self.ends[i] for i, graph in enumerate(self.graphs)], dim=1)
        self.shifts = torch.cat([graph.shifts for graph in self.graphs])
        self.cells = torch.stack([graph.cell for graph in self.graphs])
        self.positions = torch.cat([graph.positions for graph in self.graphs])

    def stale(self, positions: torch.Tensor, cells: torch.Tensor, cutoff: float) -> list[int]:
        """The crystals of whose pairs some may be missing."""
        deformation = torch.linalg.solve(self.cells, cells)
        smallest = torch.linalg.svdvals(deformation)[:, -1]
        back = torch.linalg.inv(deformation)
        moved = torch.einsum("ni,nij->nj", positions, back[self.owner]) - self.positions
        farthest = torch.zeros_like(smallest).scatter_reduce(0, self.owner, moved.norm(dim=-1), "amax")
        is_safe = smallest * (cutoff + _SKIN - 2 * farthest) >= cutoff
        return [int(i) for i in (~is_safe).nonzero().flatten().tolist()]
