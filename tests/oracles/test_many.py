"""Relaxations of many crystals at once, by ASE's effective-medium forces: known minima, one
criterion, none disturbs another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa

from campaign.types import Crystal
from oracles.many import Criterion, Predictions, Relaxations, Relaxed
from oracles.relaxation import AseMechanics
from oracles.together import Ask, AskingMechanics, Request, alone, side_by_side

CRITERION = Criterion(0.01, 0.01, 0.05)


class EffectiveMedium:
    """The model, which counts what it is asked; crystals with hydrogen have no energy."""

    size, precision = 1, 1e-12

    def __init__(self) -> None:
        self.asked = 0

    def graph(self, crystal: Crystal) -> Any:
        if 92 in crystal.numbers:
            raise ValueError("no uranium")
        atoms = crystal.atoms
        atoms.calc = EMT()
        return atoms

    def predict(
        self, graphs: Sequence[Any], positions: torch.Tensor, cells: torch.Tensor
    ) -> Predictions:
        energies, forces, stresses, first = [], [], [], 0
        for atoms, cell in zip(graphs, cells.numpy(), strict=True):
            self.asked += 1
            atoms.set_cell(cell)
            atoms.set_positions(positions[first : first + len(atoms)].numpy())
            first += len(atoms)
            energies.append([float("nan") if 1 in atoms.numbers else atoms.get_potential_energy()])
            forces.append(atoms.get_forces())
            stresses.append(atoms.get_stress(voigt=False))
        return Predictions(
            *(
                torch.as_tensor(np.array(array))
                for array in (energies, np.concatenate(forces), stresses)
            )
        )


def crystals() -> list[Crystal]:
    """Metals and alloys of several sizes, off their sites and strained."""
    rng, found = np.random.default_rng(0), []
    for symbol, repeat in (
        ("Cu", (2, 2, 1)),
        ("Ni", (1, 1, 1)),
        ("Al", (2, 1, 1)),
        ("Au", (2, 2, 2)),
        ("Pd", (2, 2, 1)),
    ):
        atoms = bulk(symbol, cubic=symbol != "Cu").repeat(repeat)
        if symbol == "Au":
            atoms.numbers[::3] = 29
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True
        )
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        found.append(Crystal.from_atoms(atoms))
    return found


def relax(
    some: Sequence[Crystal], *, steps: int = 300, **how: Any
) -> tuple[dict[int, Relaxed], EffectiveMedium]:
    model = EffectiveMedium()
    relaxations = Relaxations(model, CRITERION, steps)
    for i, crystal in enumerate(some):
        relaxations.add(i, crystal, **{"ions": True, "cell": True, **how})
    found: dict[int, Relaxed] = {}
    while len(relaxations):
        for name, relaxed in relaxations.step():
            assert isinstance(name, int)
            assert name not in found
            found[name] = relaxed
    return found, model


def test_the_minima_are_those_of_ase_and_take_fewer_forces() -> None:
    found, model = relax(crystals())
    asked = 0
    for i, crystal in enumerate(crystals()):
        mechanics = AseMechanics(
            EMT(), force_tolerance=0.01, max_steps=600, residual_force=0.01, residual_pressure=0.05
        )
        steps: list[Any] = []
        mechanics.on_step = steps.append
        mechanics.load(crystal)
        mechanics.relax(cell=True)
        state = mechanics.state()
        asked += len(steps)
        assert found[i].is_converged
        assert found[i].state.energy / len(crystal) == pytest.approx(
            state.energy / len(crystal), abs=5e-4
        )
        assert np.abs(found[i].state.stress).max() <= 0.05
        assert np.linalg.norm(found[i].state.forces, axis=1).max() <= 0.01
    assert model.asked < asked


def test_the_state_is_that_of_the_crystal() -> None:
    found, _ = relax(crystals())
    for relaxed in found.values():
        atoms = relaxed.state.crystal.atoms
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(relaxed.state.energy, abs=1e-9)
        assert np.allclose(atoms.get_forces(), relaxed.state.forces, atol=1e-9)
        assert np.allclose(atoms.get_stress(voigt=False) / GPa, relaxed.state.stress, atol=1e-7)


def test_each_goes_the_way_that_it_goes_alone() -> None:
    together, _ = relax(crystals())
    for i, crystal in enumerate(crystals()):
        single = relax([crystal])[0][0]
        assert single.steps == together[i].steps
        assert single.state.energy == pytest.approx(together[i].state.energy, abs=1e-9)
        assert np.allclose(
            single.state.crystal.lattice, together[i].state.crystal.lattice, atol=1e-7
        )


def test_ions_alone_leave_the_cell() -> None:
    found, _ = relax(crystals(), cell=False)
    for i, crystal in enumerate(crystals()):
        assert found[i].is_converged
        assert np.array_equal(found[i].state.crystal.lattice, crystal.lattice)
        assert np.linalg.norm(found[i].state.forces, axis=1).max() <= 0.01


def test_where_nothing_moves_it_is_asked_once() -> None:
    found, model = relax(crystals(), ions=False, cell=False)
    assert model.asked == len(found) == len(crystals())
    assert all(found[i].state.crystal.id == crystal.id for i, crystal in enumerate(crystals()))


def test_a_cell_takes_on_a_pressure() -> None:
    found, _ = relax(crystals(), pressure=10.0)
    free, _ = relax(crystals())
    for i in found:
        assert found[i].is_converged
        assert np.allclose(found[i].state.stress, -10 * np.eye(3), atol=0.05)
        assert found[i].state.crystal.volume < free[i].state.crystal.volume
        assert found[i].state.energy > free[i].state.energy


def test_one_without_an_energy_ends_and_disturbs_none() -> None:
    hydrogen = Crystal(np.eye(3) * 3.0, [[0, 0, 0], [0.4, 0.5, 0.5]], [1, 1])
    found, _ = relax([crystals()[0], hydrogen, crystals()[1]])
    assert not found[1].is_converged
    assert found[1].steps == 0
    alone_, _ = relax(crystals()[:2])
    assert [found[0].state.energy, found[2].state.energy] == pytest.approx(
        [alone_[0].state.energy, alone_[1].state.energy], abs=1e-9
    )


def test_one_that_falls_in_ends_before_its_neighbours_are_without_number() -> None:
    """An energy that grows with the volume, without end."""

    class Collapsing(EffectiveMedium):
        def predict(
            self, graphs: Sequence[Any], positions: torch.Tensor, cells: torch.Tensor
        ) -> Predictions:
            volumes = torch.linalg.det(cells)
            assert bool((volumes > 0.5).all())
            return Predictions(
                1000 * volumes[:, None],
                torch.zeros_like(positions),
                1000 * torch.eye(3).double().repeat(len(cells), 1, 1),
            )

    relaxed = alone(
        Relaxations(Collapsing(), CRITERION, 1000),
        Request(Crystal(np.eye(3) * 4.0, [[0, 0, 0]], [29]), ions=True, cell=True),
    )
    assert not relaxed.is_converged
    assert relaxed.steps < 1000


def test_steps_have_a_limit() -> None:
    found, model = relax(crystals(), steps=2)
    assert model.asked == 3 * len(crystals())
    assert not any(relaxed.is_converged for relaxed in found.values())
    assert all(relaxed.steps == 2 for relaxed in found.values())


# --- protocols side by side
# ------------------------------------------------------------


def protocol(crystal: Crystal, ask: Ask) -> float:
    """Energy of the relaxed crystal, then of its strained cell with relaxed ions."""
    mechanics = AskingMechanics(ask)
    mechanics.load(crystal)
    mechanics.relax(cell=True)
    ground = mechanics.state().energy
    mechanics.deform(np.eye(3) * 1.01)
    mechanics.relax(cell=False)
    return mechanics.state().energy - ground


def test_protocols_side_by_side_give_what_they_give_alone() -> None:
    model = EffectiveMedium()
    works = [lambda ask, crystal=crystal: protocol(crystal, ask) for crystal in crystals()]
    together = dict(side_by_side(Relaxations(model, CRITERION, 300), works))
    for i, crystal in enumerate(crystals()):
        single = protocol(
            crystal, lambda request: alone(Relaxations(model, CRITERION, 300), request)
        )
        assert together[i] == pytest.approx(single, abs=1e-9)
        assert single > 0


def test_a_protocol_that_raises_stops_no_other() -> None:
    uranium = Crystal(np.eye(3) * 3.0, [[0, 0, 0]], [92])
    some = [crystals()[0], uranium, crystals()[1]]
    works = [lambda ask, crystal=crystal: protocol(crystal, ask) for crystal in some]
    answers = side_by_side(Relaxations(EffectiveMedium(), CRITERION, 300), works)
    found = {next(answers)[0] for _ in range(2)}
    with pytest.raises(ValueError, match="no uranium"):
        next(answers)
    assert found == {0, 2}


def test_a_protocol_may_answer_for_a_crystal_that_cannot_be() -> None:
    def work(ask: Ask) -> str:
        try:
            ask(Request(Crystal(np.eye(3) * 3.0, [[0, 0, 0]], [92])))
        except ValueError as error:
            return str(error)
        return ""

    assert dict(side_by_side(Relaxations(EffectiveMedium(), CRITERION, 300), [work])) == {
        0: "no uranium"
    }


def test_no_thread_is_left_where_nobody_waits_for_the_rest() -> None:
    before = threading.active_count()
    works = [lambda ask, crystal=crystal: protocol(crystal, ask) for crystal in crystals()]
    answers = side_by_side(Relaxations(EffectiveMedium(), CRITERION, 300), works)
    next(answers)
    assert threading.active_count() > before
    answers.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("cell", [True, False])
def test_ase_stops_where_a_label_is_not_refused(cell: bool) -> None:
    """A filter alone stops at twenty times this stress."""
    for crystal in crystals():
        mechanics = AseMechanics(
            EMT(), force_tolerance=0.05, max_steps=600, residual_force=0.01, residual_pressure=0.02
        )
        mechanics.load(crystal)
        assert mechanics.relax(cell=cell) <= 0.02
        assert mechanics.state().largest_force <= 0.01
