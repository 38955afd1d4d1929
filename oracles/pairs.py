"""Energies, forces and stresses of many crystals at once from networks of pairs within a cutoff,
for the steps of relaxations.

Neighbour lists reach beyond the cutoff by a skin and are kept while no pair can have come in from
outside: a pair that is left out was farther apart than cutoff + skin, so with displacements u
before a deformation F it stays at least sigma_min(F) (cutoff + skin - 2 max|u|) apart. Angstrom,
eV; stress in eV/angstrom^3. Memory grows with the edges of a pass; where it does not suffice passes
are halved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matscipy.neighbours import neighbour_list

from campaign.types import Crystal
from oracles.many import Predictions

_SKIN = 0.6


@dataclass(eq=False)
class Graph:
    """One crystal: its atomic numbers (n,), and the pairs of a skinned list of a cell (3, 3) and
    positions (n, 3).
    """

    numbers: torch.Tensor
    cell: torch.Tensor
    positions: torch.Tensor
    pairs: torch.Tensor
    shifts: torch.Tensor

    @property
    def n_edges(self) -> int:
        return self.pairs.shape[1]

    def __len__(self) -> int:
        return len(self.positions)


class Pass:
    """Crystals that a network is asked of at once, joined: the atoms and pairs of one after those
    of the other.
    """

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self.graphs = list(graphs)
        counts = [len(graph) for graph in graphs]
        device = graphs[0].positions.device
        self.ends = [0, *np.cumsum(counts).tolist()]
        self.counts = torch.tensor(counts, device=device)
        self.owner = torch.repeat_interleave(torch.arange(len(counts), device=device), self.counts)
        self.numbers = torch.cat([graph.numbers for graph in graphs])
        self.join()

    def join(self) -> None:
        self.pairs = torch.cat(
            [graph.pairs + self.ends[i] for i, graph in enumerate(self.graphs)], dim=1
        )
        self.shifts = torch.cat([graph.shifts for graph in self.graphs])
        self.cells = torch.stack([graph.cell for graph in self.graphs])
        self.positions = torch.cat([graph.positions for graph in self.graphs])

    def vectors(self, positions: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """(e, 3) from the first to the second atom of each pair."""
        first, second = self.pairs
        crossed = torch.einsum(
            "ei,eij->ej", self.shifts.to(positions.dtype), cells[self.owner[first]]
        )
        return positions[second] - positions[first] + crossed

    def stale(self, positions: torch.Tensor, cells: torch.Tensor, cutoff: float) -> list[int]:
        """The crystals of whose pairs some may be missing."""
        deformation = torch.linalg.solve(self.cells, cells)
        smallest = torch.linalg.svdvals(deformation)[:, -1]
        back = torch.linalg.inv(deformation)
        moved = torch.einsum("ni,nij->nj", positions, back[self.owner]) - self.positions
        farthest = torch.zeros_like(smallest).scatter_reduce(
            0, self.owner, moved.norm(dim=-1), "amax"
        )
        is_safe = smallest * (cutoff + _SKIN - 2 * farthest) >= cutoff
        return [int(i) for i in (~is_safe).nonzero().flatten().tolist()]


class PairModel(ABC):
    """A ``Model`` of relaxations that knows some elements and asks its network of passes of about
    ``edges`` pairs.
    """

    size: int
    precision: float

    def __init__(self, known: frozenset[int], cutoff: float, device: str, edges: int) -> None:
        self._known, self._cutoff, self._device, self._edges = known, cutoff, device, edges
        self._passes: list[Pass] = []

    @abstractmethod
    def _ask(self, some: Pass, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        """Of positions (n, 3) and cells (b, 3, 3) in double precision, by pairs of which some are
        beyond the cutoff.
        """

    def check(self, crystal: Crystal) -> None:
        """Raises ValueError for an element that the model does not know."""
        numbers = zip(crystal.symbols, crystal.numbers.tolist(), strict=True)
        unknown = sorted({symbol for symbol, number in numbers if number not in self._known})
        if unknown:
            raise ValueError(f"the model does not know {', '.join(unknown)}")

    def graph(self, crystal: Crystal) -> Graph:
        self.check(crystal)
        cell = torch.as_tensor(np.array(crystal.lattice), device=self._device)
        positions = torch.as_tensor(crystal.fractional % 1.0 @ crystal.lattice, device=self._device)
        numbers = torch.as_tensor(crystal.numbers.astype(np.int64), device=self._device)
        graph = Graph(numbers, cell, positions, torch.empty((2, 0)), torch.empty((0, 3)))
        self._list(graph, cell, positions)
        return graph

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
        graph.pairs = torch.as_tensor(
            np.stack([first, second]).astype(np.int64), device=self._device
        )
        graph.shifts = torch.as_tensor(np.asarray(shifts, dtype=float), device=self._device)

    def predict(
        self, graphs: Sequence[Graph], positions: torch.Tensor, cells: torch.Tensor
    ) -> Predictions:
        """Of positions (n, 3) of all atoms, crystal after crystal, and cells (b, 3, 3); both on the
        device, in double precision.
        """
        found, first, crystal = [], 0, 0
        for some in self._in_passes(graphs):
            n, b = sum(map(len, some.graphs)), len(some.graphs)
            found.append(self._of(some, positions[first : first + n], cells[crystal : crystal + b]))
            first, crystal = first + n, crystal + b
        return Predictions.joined(found)

    def _in_passes(self, graphs: Sequence[Graph]) -> list[Pass]:
        """Those of the last step where the crystals are the same."""
        if [graph for some in self._passes for graph in some.graphs] != list(graphs):
            self._passes = [Pass(part) for part in self._parts(graphs)]
        return self._passes

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

    def _of(self, some: Pass, positions: torch.Tensor, cells: torch.Tensor) -> Predictions:
        stale = some.stale(positions, cells, self._cutoff)
        for i in stale:
            n = slice(some.ends[i], some.ends[i + 1])
            self._list(some.graphs[i], cells[i], positions[n])
        if stale:
            some.join()
        try:
            return self._ask(some, positions, cells)
        except (torch.OutOfMemoryError, MemoryError):
            if len(some.graphs) == 1:
                raise MemoryError("the network ran out of memory on one crystal") from None
        self._edges = max(1, sum(graph.n_edges for graph in some.graphs) // 2)
        self._passes = []
        half = len(some.graphs) // 2
        n = some.ends[half]
        parts = (
            (Pass(some.graphs[:half]), positions[:n], cells[:half]),
            (Pass(some.graphs[half:]), positions[n:], cells[half:]),
        )
        return Predictions.joined([self._of(*part) for part in parts])
