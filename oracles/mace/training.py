"""MACE networks trained on labelled crystals: energies, forces and stresses.

The loss is MACE's weighted mean square of energy per atom, forces and stress; weights are averaged
exponentially over the steps. Cost grows linearly with edges: about 3 ms per 13-atom cell and epoch
on one core with 16 channels, two layers and a cutoff of 4 angstrom.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from mace import modules
from pydantic import Field

from campaign.parameters import Parameters
from campaign.types import Crystal, FloatArray
from oracles.mace import network as networks

_LARGEST_GRADIENT = 10.0
"""Norm at which gradients are clipped, MACE's own (``--clip_grad``)."""


class TrainingConfig(Parameters):
    """How a network learns."""

    gone: ClassVar[Mapping[str, Any]] = {"clip": _LARGEST_GRADIENT}

    epochs: int = Field(60, ge=1, description="Passes over the labels.")
    batch_size: int = Field(5, ge=1, description="Crystals in one step.")
    learning_rate: float = Field(
        0.01,
        gt=0,
        description="Step size of Adam at the start; it falls to 1 % of it along a cosine.",
    )
    energy_weight: float = Field(
        100.0, ge=0, description="Weight of the squared error of energy per atom (eV/atom)."
    )
    forces_weight: float = Field(
        10.0, ge=0, description="Weight of the squared error of forces (eV/angstrom)."
    )
    stress_weight: float = Field(
        100.0, ge=0, description="Weight of the squared error of stress (eV/angstrom^3)."
    )
    averaging: float = Field(
        0.99, ge=0, lt=1, description="Share of the averaged weights that each step keeps."
    )


@dataclass(frozen=True)
class Frame:
    """A labelled crystal: energy in eV, forces (n, 3) in eV/angstrom, stress (3, 3) in
    eV/angstrom^3 where known.
    """

    crystal: Crystal
    energy: float
    forces: FloatArray
    stress: FloatArray | None = None


@dataclass(frozen=True)
class Errors:
    """Root mean square errors: energy (eV/atom), forces (eV/angstrom, over components), stress
    (eV/angstrom^3).
    """

    energy: float
    forces: float
    stress: float


def graphs_of(
    frames: Sequence[Frame], numbers: Sequence[int], cutoff: float, head: str = "Default"
) -> list[object]:
    """MACE's graphs of labelled crystals; where there is no stress its weight is zero."""
    found = []
    for frame in frames:
        stress = frame.stress if frame.stress is not None else np.zeros((3, 3))
        weight = 1.0 if frame.stress is not None else 0.0
        labels = {
            "energy": frame.energy,
            "forces": frame.forces,
            "stress": stress,
            "stress_weight": weight,
        }
        found.append(networks.graph(frame.crystal, numbers, cutoff, head=head, **labels))
    return found


def train(
    network: torch.nn.Module,
    frames: Sequence[Frame],
    config: TrainingConfig,
    *,
    rng: np.random.Generator,
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> torch.nn.Module:
    """The network with averaged weights after ``config.epochs`` passes; ``progress`` is called with
    epoch and mean loss after each.
    """
    network = network.to(device)
    dtype = next(network.parameters()).dtype
    with networks.default_dtype(dtype):
        graphs = graphs_of(
            frames,
            networks.numbers_of(network),
            networks.cutoff_of(network),
            getattr(network, "heads", ["Default"])[-1],
        )
    loss_of = modules.WeightedEnergyForcesStressLoss(
        config.energy_weight, config.forces_weight, config.stress_weight
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, amsgrad=True)
    steps = config.epochs * -(-len(graphs) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, steps, eta_min=0.01 * config.learning_rate
    )
    averaged = copy.deepcopy(network)
    taken = 0
    for epoch in range(config.epochs):
        total = 0.0
        for batch in networks.batches(
            graphs, config.batch_size, order=rng.permutation(len(graphs))
        ):
            batch = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            }
            output = network(batch, training=True, compute_force=True, compute_stress=True)
            loss = loss_of(pred=output, ref=_Reference(batch))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            taken += 1
            keep = min(config.averaging, taken / (taken + 10))
            with torch.no_grad():
                for average, new in zip(averaged.parameters(), network.parameters(), strict=True):
                    average.lerp_(new, 1 - keep)
            total += float(loss.detach())
        progress(epoch, total * config.batch_size / len(graphs))
    return averaged


class _Reference(dict[str, torch.Tensor]):
    """A batch as MACE's losses read it: by key and by attribute."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[name]


def errors(
    network: torch.nn.Module, frames: Sequence[Frame], *, batch_size: int = 32, device: str = "cpu"
) -> Errors:
    """Root mean square errors of a network on labelled crystals."""
    found = networks.predict(
        network, [frame.crystal for frame in frames], batch_size=batch_size, device=device
    )
    energy = [
        (p.energy - frame.energy) / len(frame.crystal)
        for p, frame in zip(found, frames, strict=True)
    ]
    forces = np.concatenate(
        [(p.forces - frame.forces).ravel() for p, frame in zip(found, frames, strict=True)]
    )
    stress = [
        (p.stress - frame.stress).ravel()
        for p, frame in zip(found, frames, strict=True)
        if frame.stress is not None
    ]
    return Errors(
        energy=_rms(np.array(energy)),
        forces=_rms(forces),
        stress=_rms(np.concatenate(stress)) if stress else float("nan"),
    )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
