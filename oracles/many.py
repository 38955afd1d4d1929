"""Relaxation of many crystals at once: L-BFGS over all of them, each with a step length of its own,
each leaving when it has converged.

Ions and cell move together: with rows r of positions and h of the cell, a step takes r to (r + d)
exp(U) and h to h exp(U), with U symmetric. In these coordinates, begun anew at each step, the
gradient is (-F, V sigma). U is scaled by the root of the number of atoms, so that atoms and cell
are about equally stiff. J. Nocedal, S. J. Wright, Numerical Optimization (2006), algorithm 7.4; a
step that raises the energy is taken back and made shorter. Angstrom, eV; stress in eV/angstrom^3,
in GPa where it leaves.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ase.units import GPa

from campaign.types import Crystal, FloatArray
from oracles.mechanics import State

_MEMORY = 25
_STIFFNESS = 70.0
_LARGEST_STEP, _FIRST_STEP, _SMALLEST_STEP = 0.2, 0.1, 1e-7
_NOISE = 100.0
_CURVATURE = 1e-10
_LEAST_VOLUME = 1.0
"""angstrom^3 an atom."""


@dataclass(frozen=True)
class Predictions:
    """Energies (b, k) of b crystals by each of k models; their mean forces (n, 3) of all atoms and
    stresses (b, 3, 3).
    """

    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        if len(parts) == 1:
            return parts[0]
        return cls(
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("energies", "forces", "stresses")
            )
        )


class Model(Protocol):
    """What gives energies and forces of many crystals, in double precision. What it keeps of each
    of them is its graph.
    """

    size: int
    """How many models it is the mean of."""
    precision: float
    """Relative precision (1) of its energies."""

    def graph(self, crystal: Crystal) -> Any: ...

    def predict(
        self, graphs: Sequence[Any], positions: torch.Tensor, cells: torch.Tensor
    ) -> Predictions: ...


@dataclass(frozen=True)
class Criterion:
    """When a relaxation has converged: largest force on an atom, and that component by component,
    in eV/angstrom; stress in GPa.
    """

    force: float
    force_component: float
    stress: float


@dataclass(frozen=True)
class Relaxed:
    """A crystal as it was left, with the energies (k,) of the models in eV."""

    state: State
    energies: FloatArray
    is_converged: bool
    steps: int


@dataclass
class _Member:
    """A crystal under way, and how often the model was asked of it."""

    name: Hashable
    crystal: Crystal
    graph: Any
    asked: int = 0


class Relaxations:
    """Those under way. Arrays have a row for each crystal: three lines of its cell, then a line for
    each atom, then zeros: (b, r, 3).
    """

    def __init__(
        self, model: Model, criterion: Criterion, max_steps: int, device: str = "cpu"
    ) -> None:
        self._model, self._criterion, self._max_steps, self._device = (
            model,
            criterion,
            max_steps,
            device,
        )
        self._members: list[_Member] = []
        self._table: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(
        self, name: Hashable, crystal: Crystal, *, ions: bool, cell: bool, pressure: float = 0.0
    ) -> None:
        """Begin with a crystal, its cell at ``pressure`` (GPa) where it moves; where nothing moves
        the model is asked for its forces alone.

        Raises ValueError as the model does.
        """
        member = _Member(name, crystal, self._model.graph(crystal))
        lines = np.concatenate([crystal.lattice, crystal.fractional % 1.0 @ crystal.lattice])
        place = torch.as_tensor(lines, device=self._device)[None]
        one = torch.ones(1, dtype=place.dtype, device=self._device)
        memory = place.new_zeros((1, _MEMORY, *place.shape[1:]))
        row = {
            "place": place,
            "trial": place,
            "step": torch.zeros_like(place),
            "gradient": torch.zeros_like(place),
            "forces": torch.zeros_like(place),
            "stress": place.new_zeros((1, 3, 3)),
            "energies": place.new_zeros((1, self._model.size)),
            "enthalpy": one * torch.inf,
            "free": torch.cat([one.expand(3) * cell, one.expand(len(crystal)) * ions])[
                None, :, None
            ],
            "steps": memory,
            "changes": memory,
            "weights": memory[:, :, 0, 0],
            "softness": one / _STIFFNESS,
            "trust": one * _FIRST_STEP,
            "atoms": one * len(crystal),
            "pressure": one * (pressure * GPa),
        }
        self._table = (
            {key: _joined(self._table[key], value) for key, value in row.items()}
            if self._members
            else row
        )
        self._members.append(member)

    def step(self) -> list[tuple[Hashable, Relaxed]]:
        """Ask the model once of all of them; those that are done, which are under way no more."""
        counts = torch.tensor(
            [len(member.crystal) for member in self._members], device=self._device
        )
        owner = torch.repeat_interleave(torch.arange(len(counts), device=self._device), counts)
        lines = (
            torch.arange(len(owner), device=self._device) - (counts.cumsum(0) - counts)[owner] + 3
        )
        trial = self._table["trial"]
        found = self._model.predict(
            [member.graph for member in self._members], trial[owner, lines], trial[:, :3]
        )
        forces = torch.zeros_like(trial)
        forces[owner, lines] = found.forces
        self._take(found, forces)
        converged = self._converged()
        given_up = self._given_up()
        is_done = []
        for member, has_converged, is_stuck in zip(
            self._members, converged.tolist(), given_up.tolist(), strict=True
        ):
            member.asked += 1
            is_done.append(has_converged or is_stuck or member.asked > self._max_steps)
        finished = [
            (self._members[i].name, self._relaxed(i, bool(converged[i])))
            for i, done in enumerate(is_done)
            if done
        ]
        self._keep([i for i, done in enumerate(is_done) if not done])
        if self._members:
            self._choose_steps()
        return finished

    def _take(self, found: Predictions, forces: torch.Tensor) -> None:
        """Learn the curvature along each step, and go where the energy fell."""
        table = self._table
        volumes = torch.linalg.det(table["trial"][:, :3])
        gradient = -forces
        gradient[:, :3] = _lines(volumes / table["atoms"].sqrt()) * self._unbalanced(found.stresses)
        gradient = gradient * table["free"]

        before, after = table["enthalpy"], found.energies.mean(1) + table["pressure"] * volumes
        is_first = torch.isinf(before)
        is_sound = torch.isfinite(after) & torch.isfinite(gradient).all(dim=2).all(dim=1)
        change = torch.where(_lines(is_sound), gradient - table["gradient"], 0.0)
        curvature, stiffness = _dot(table["step"], change), _dot(change, change)
        is_curved = (
            ~is_first
            & is_sound
            & (curvature > _CURVATURE * (stiffness * _dot(table["step"], table["step"])).sqrt())
        )
        weights = torch.where(is_curved, 1 / torch.where(is_curved, curvature, 1.0), 0.0)
        table["steps"] = torch.cat([table["steps"][:, 1:], table["step"][:, None]], dim=1)
        table["changes"] = torch.cat([table["changes"][:, 1:], change[:, None]], dim=1)
        table["weights"] = torch.cat([table["weights"][:, 1:], weights[:, None]], dim=1)
        table["softness"] = torch.where(
            is_curved, curvature / stiffness.clamp(min=1e-30), table["softness"]
        )

        noise = _NOISE * self._model.precision * after.abs()
        is_taken = is_first | (is_sound & (after <= before + noise))
        longest = table["step"].norm(dim=2).amax(1)
        trust = torch.where(is_taken, (2 * table["trust"]).clamp(max=_LARGEST_STEP), longest / 4)
        table["trust"] = torch.where(is_first, table["trust"], trust)
        new = {
            "place": table["trial"],
            "gradient": gradient,
            "forces": forces,
            "stress": found.stresses,
            "energies": found.energies,
            "enthalpy": after,
        }
        for name, value in new.items():
            table[name] = torch.where(
                is_taken.view(-1, *[1] * (value.dim() - 1)), value, table[name]
            )

    def _unbalanced(self, stresses: torch.Tensor) -> torch.Tensor:
        """(b, 3, 3) what of the stresses the pressure does not balance."""
        return stresses + _lines(self._table["pressure"]) * torch.eye(
            3, dtype=stresses.dtype, device=stresses.device
        )

    def _converged(self) -> torch.Tensor:
        """(b,) what moves has little force on it. That on the cell is V sigma / n, of n atoms,
        beside the stress itself.
        """
        table, criterion = self._table, self._criterion
        free = table["free"]
        on_atoms = (table["forces"] * free)[:, 3:]
        stress = self._unbalanced(table["stress"]) * free[:, :3]
        volumes = torch.linalg.det(table["place"][:, :3])
        on_cell = stress.norm(dim=2).amax(1) * volumes / table["atoms"]
        found: torch.Tensor = (
            (on_atoms.norm(dim=2).amax(1) <= criterion.force)
            & (on_atoms.abs().amax((1, 2)) <= criterion.force_component)
            & (on_cell <= criterion.force)
            & (stress.abs().amax((1, 2)) / GPa <= criterion.stress)
        )
        return found

    def _given_up(self) -> torch.Tensor:
        """(b,) nowhere to go: no step lowers the energy, or there is none, or the cell has fallen
        in.
        """
        table = self._table
        has_no_energy = ~torch.isfinite(table["enthalpy"]) | ~torch.isfinite(table["gradient"]).all(
            dim=2
        ).all(dim=1)
        has_fallen_in = torch.linalg.det(table["place"][:, :3]) / table["atoms"] < _LEAST_VOLUME
        found: torch.Tensor = (table["trust"] < _SMALLEST_STEP) | has_no_energy | has_fallen_in
        return found

    def _choose_steps(self) -> None:
        """The direction of L-BFGS, as long as is trusted."""
        table = self._table
        steps, changes, weights = table["steps"], table["changes"], table["weights"]
        used = [k for k in range(_MEMORY) if bool((weights[:, k] != 0).any())]
        direction, parts = table["gradient"], {}
        for k in reversed(used):
            parts[k] = weights[:, k] * _dot(steps[:, k], direction)
            direction = direction - _lines(parts[k]) * changes[:, k]
        direction = _lines(table["softness"]) * direction
        for k in used:
            direction = (
                direction
                + _lines(parts[k] - weights[:, k] * _dot(changes[:, k], direction)) * steps[:, k]
            )
        is_downhill = _dot(direction, table["gradient"]) > 0
        direction = torch.where(_lines(is_downhill), direction, table["gradient"] / _STIFFNESS)
        longest = direction.norm(dim=2).amax(1)
        step = -_lines((table["trust"] / longest.clamp(min=1e-300)).clamp(max=1.0)) * direction
        strain = step[:, :3] / _lines(table["atoms"].sqrt())
        deformation = torch.linalg.matrix_exp((strain + strain.mT) / 2)
        moved = table["place"] + step
        moved[:, :3] = table["place"][:, :3]
        table["step"], table["trial"] = step, moved @ deformation

    def _relaxed(self, i: int, is_converged: bool) -> Relaxed:
        table, member = self._table, self._members[i]
        cell, positions = (
            table["place"][i, :3].cpu().numpy(),
            table["place"][i, 3 : 3 + len(member.crystal)].cpu().numpy(),
        )
        crystal = member.crystal
        if member.asked > 1:
            crystal = Crystal(cell, np.linalg.solve(cell.T, positions.T).T % 1.0, crystal.numbers)
        energies = table["energies"][i].cpu().numpy()
        forces, stress = (
            table["forces"][i, 3 : 3 + len(crystal)].cpu().numpy(),
            table["stress"][i].cpu().numpy(),
        )
        return Relaxed(
            State(crystal, float(energies.mean()), forces, stress / GPa),
            energies,
            is_converged,
            member.asked - 1,
        )

    def _keep(self, rows: list[int]) -> None:
        if len(rows) < len(self._members):
            self._members = [self._members[i] for i in rows]
            self._table = {name: value[rows] for name, value in self._table.items()}


def _lines(values: torch.Tensor) -> torch.Tensor:
    """(b,) as (b, 1, 1)."""
    return values[:, None, None]


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(b,) of two (b, r, 3)."""
    return (one * other).sum((1, 2))


def _joined(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Both, one below the other; lines that one has more than the other are zero there."""
    if one.dim() > 2:
        lines = max(one.shape[-2], other.shape[-2])
        one, other = (
            torch.nn.functional.pad(part, (0, 0, 0, lines - part.shape[-2]))
            for part in (one, other)
        )
    return torch.cat([one, other])
