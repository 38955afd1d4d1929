"""Training of the matrix models and of the symmetric flow on polymorphs: batches, scales, and what
is kept beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.energies import NORMAL
from generators.matrix_unet.matrix import Conditions, conditions_of, matrices, operations
from generators.matrix_unet.model import Design, Examples, MatrixModel, atomic_volumes_of
from generators.matrix_unet.symmetric_flow import (
    JUDGED,
    SymmetricFlow,
    draw_paths,
    expected_energies,
    losses,
)
from generators.networks.periodic import PeriodicSizes
from generators.networks.training import Progress, Schedule, on_device, optimise
from generators.polymorphs import Polymorph, PolymorphDataset, tenth_of

SYMMETRIC_RATE, MATRIX_RATE = 2e-3, 5e-4
"""Largest rates. The first is the one of the best trial of
configs/studies/flow_matching_training.yaml (benchmarks.studies).
"""
PAIRS_PER_BATCH = 2500
_BATCH = 64
_FREE = 0.5
"""Share (1) of the crystals whose energy the symmetric flow is not told and has to expect."""
Told = Callable[[Progress], None]


@dataclass(frozen=True)
class Trained:
    """A model, the sites' choice that goes with it, and figures of its training."""

    model: MatrixModel | SymmetricFlow
    choice: SiteChoice
    metrics: Mapping[str, float]


def train_symmetric(
    data: PolymorphDataset,
    schedule: Schedule,
    *,
    seed: int,
    start: SymmetricFlow | None = None,
    sizes: PeriodicSizes | None = None,
    pairs: int = PAIRS_PER_BATCH,
    progress: Told | None = None,
    device: str = "cpu",
) -> Trained:
    """Of the equivariant flow matching; the model stays on the device. ``start``: weights to go on
    from, in place of new ones of these sizes; ``pairs``: of atoms in a batch, about.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = SymmetricFlow(sizes or PeriodicSizes()) if start is None else start
    energies = np.array([item.energy for item in data.items])
    model.atomic_volumes.copy_(atomic_volumes_of(data.items))
    model.energy_scale.copy_(torch.tensor([energies.mean(), max(energies.std(), 1e-3)]))
    on_device(model, device)
    batches = _by_size(np.array([len(item.crystal) for item in data.items]), pairs, rng)
    unheard = np.array([tenth_of(item.formula) == 1 for item in data.items])

    def loss() -> Tensor:
        rows = next(batches)
        asked = np.where((rng.random(len(rows)) < _FREE) & ~unheard[rows], np.nan, energies[rows])
        paths = draw_paths([data.items[row].cell for row in rows], model, rng)
        of_atoms, of_cell, of_energy = losses(
            model, paths, torch.tensor(energies[rows]), torch.tensor(asked)
        )
        return of_atoms + of_cell + of_energy

    metrics = optimise(model, loss, schedule, progress)
    model.energy_errors.copy_(_energy_errors(model, data.subset(np.flatnonzero(unheard).tolist())))
    return Trained(model, SiteChoice.fit(data, rng), metrics)


def _energy_errors(model: SymmetricFlow, data: PolymorphDataset) -> Tensor:
    """By how much expected energies miss (eV/atom) at each of the times ``JUDGED``; infinite where
    there are no crystals.

    The deviation of a normal distribution with the median of the misses: few are large, and they
    count little.
    """
    if not len(data):
        return torch.full((len(JUDGED),), torch.inf)
    rng, energies = np.random.default_rng(0), np.array([item.energy for item in data.items])
    found = []
    for at in JUDGED:
        expected: list[float] = []
        for first in range(0, len(data), _BATCH):
            cells = [item.cell for item in data.items[first : first + _BATCH]]
            time = np.full(len(cells), at)
            expected += expected_energies(
                model, draw_paths(cells, model, rng, time).here, time
            ).tolist()
        found.append(NORMAL * float(np.median(np.abs(np.array(expected) - energies))))
    return torch.tensor(found)


def _by_size(
    sizes: NDArray[np.int64], pairs: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Rows of crystals of nearly the same size, as many as give about the same number of pairs of
    atoms; all before any comes again.
    """
    while True:
        order = np.argsort(sizes + 2 * rng.random(len(sizes)))
        parts, first = [], 0
        while first < len(order):
            width = int(np.clip(pairs / sizes[order[first]] ** 2, 16, 192))
            parts.append(order[first : first + width])
            first += width
        for part in rng.permutation(len(parts)).tolist():
            yield parts[part]


def train_matrix(
    data: PolymorphDataset,
    design: Design,
    schedule: Schedule,
    *,
    seed: int,
    start: MatrixModel | None = None,
    progress: Told | None = None,
    device: str = "cpu",
) -> Trained:
    """Of one of the seven models, or of oreloop's variant; the model stays on the device.

    Raises InputError where a modification has no pairs to learn from.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = MatrixModel(design) if start is None else start
    pairs = data.pairs(rng) if design.modifies else []
    energies = [data.items[low].energy - data.items[high].energy for high, low in pairs] or [
        item.energy for item in data.items
    ]
    model.cpu().fit_scales(data.items, energies, atomic_volumes_of(data.items))
    on_device(model, device)
    arrays = _Arrays.of(data.items).to(model.device)
    batches = _pair_batches(data, rng) if design.modifies else _batches(len(data), rng)

    def loss() -> Tensor:
        return model.loss(arrays.examples(next(batches), design.modifies))

    return Trained(model, SiteChoice.fit(data, rng), optimise(model, loss, schedule, progress))


def _batches(n: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        order = rng.permutation(n)
        yield from np.array_split(order, max(1, n // _BATCH))


def _pair_batches(data: PolymorphDataset, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        pairs = np.array(data.pairs(rng))
        yield from np.array_split(pairs, max(1, len(pairs) // _BATCH))


@dataclass(frozen=True)
class _Arrays:
    """All crystals as tensors: matrices, conditions without operations, and each crystal's row in a
    table of operations.
    """

    matrix: Tensor
    conditions: Conditions
    table: Tensor
    group: Tensor

    @classmethod
    def of(cls, items: Sequence[Polymorph]) -> _Arrays:
        groups = sorted({item.cell.space_group for item in items})
        numbers = [item.crystal.numbers.tolist() for item in items]
        conditions = conditions_of(numbers, [1] * len(items), [item.energy for item in items])
        table = torch.from_numpy(np.stack([operations(group) for group in groups]))
        index = torch.tensor([groups.index(item.cell.space_group) for item in items])
        return cls(
            matrices([item.crystal for item in items]),
            replace(conditions, operations=torch.empty(0)),
            table,
            index,
        )

    def to(self, device: torch.device) -> _Arrays:
        return _Arrays(*(getattr(self, field.name).to(device) for field in fields(self)))

    def examples(self, rows: NDArray[np.int64], modifies: bool) -> Examples:
        """Rows (b,) of crystals, or (b, 2) from and to."""
        target = torch.as_tensor(rows[:, 1] if modifies else rows)
        every = self.conditions
        energy = (
            every.energy[target] - every.energy[torch.as_tensor(rows[:, 0])]
            if modifies
            else every.energy[target]
        )
        conditions = Conditions(
            every.elements[target],
            self.table[self.group[target]],
            energy,
            every.counts[target],
            every.numbers[target],
        )
        return Examples(
            self.matrix[target],
            conditions,
            self.matrix[torch.as_tensor(rows[:, 0])] if modifies else None,
        )


def matrix_loss(model: MatrixModel, data: PolymorphDataset, rng: np.random.Generator) -> float:
    """The loss on all crystals, or on pairs of them; not a number where there are no pairs."""
    modifies = model.design.modifies
    if modifies and not data.has_pairs:
        return float("nan")
    rows = np.array(data.pairs(rng)) if modifies else np.arange(len(data))
    return float(model.loss(_Arrays.of(data.items).to(model.device).examples(rows, modifies)))
