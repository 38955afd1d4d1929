"""MACE networks asked of many crystals at once: lists that are kept, passes that are halved, labels
as they are alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.morse import MorsePotential

from campaign.types import Crystal, FailureKind
from oracles.mace import network as networks
from oracles.mace.many import Networks
from oracles.mace.oracle import Mace, MaceConfig
from oracles.mace.training import Frame, TrainingConfig, train

NUMBERS = (24, 26, 28)


def network(
    seed: int = 0, cutoff: float = 4.0, numbers: tuple[int, ...] = NUMBERS
) -> torch.nn.Module:
    """Random weights: forces of any kind, the same each time."""
    architecture = networks.ArchitectureConfig(
        channels=8, layers=1, cutoff=cutoff, max_ell=2, radial_functions=4, radial_widths=(16,)
    )
    with networks.default_dtype(torch.float64):
        return networks.build(
            architecture,
            networks.Scales(numbers, tuple(-1.0 * z for z in numbers), 0.0, 0.5, 20.0),
            seed,
        )


def crystals(n: int = 6, width: float = 0.1) -> list[Crystal]:
    rng, found = np.random.default_rng(3), []
    for i in range(n):
        cell = bulk("Ni", ("fcc", "bcc")[i % 2], a=(3.5, 2.8)[i % 2], cubic=True)
        ideal = Crystal.from_atoms(cell.repeat(((1, 1, 1), (2, 1, 1), (2, 2, 1))[i % 3]))
        lattice = ideal.lattice @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
        moved = ideal.fractional + rng.normal(0, width, (len(ideal), 3)) @ np.linalg.inv(lattice)
        found.append(Crystal(lattice, moved, rng.choice(NUMBERS, len(ideal))))
    return found


def places(some: list[Crystal]) -> tuple[torch.Tensor, torch.Tensor]:
    positions = np.concatenate([crystal.fractional % 1.0 @ crystal.lattice for crystal in some])
    return torch.as_tensor(positions), torch.as_tensor(
        np.stack([crystal.lattice for crystal in some])
    )


def test_predictions_are_those_of_one_network_after_the_other() -> None:
    """Also of networks that know other elements and see other distances."""
    members = [network(), network(1, cutoff=3.2, numbers=(22, 24, 26, 28))]
    model, some = Networks(members, "cpu"), crystals()
    found = model.predict([model.graph(crystal) for crystal in some], *places(some))
    expected = [networks.predict(member, some) for member in members]
    for i in range(len(some)):
        assert found.energies[i].tolist() == pytest.approx(
            [of[i].energy for of in expected], abs=1e-8
        )
        assert np.allclose(
            found.stresses[i], np.mean([of[i].stress for of in expected], axis=0), atol=1e-8
        )
    forces = np.concatenate(
        [np.mean([of[i].forces for of in expected], axis=0) for i in range(len(some))]
    )
    assert np.allclose(found.forces, forces, atol=1e-8)
    with pytest.raises(ValueError, match="the model does not know Ti"):
        model.check(some[0].with_numbers([22] * len(some[0])))


@pytest.mark.parametrize("seed", range(3))
def test_lists_that_are_kept_miss_no_pair(seed: int) -> None:
    """Through shears, compressions and atoms on their way, as far as relaxations go and farther."""
    rng, member, some = np.random.default_rng(seed), network(), crystals()
    model = Networks([member], "cpu")
    graphs = [model.graph(crystal) for crystal in some]
    made = []
    listed = model._list
    model._list = lambda *what: made.append(listed(*what))  # type: ignore[method-assign]
    for step in range(8):
        some = [
            Crystal(
                crystal.lattice @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))),
                crystal.fractional
                + rng.normal(0, 0.06, (len(crystal), 3)) @ np.linalg.inv(crystal.lattice),
                crystal.numbers,
            )
            for crystal in some
        ]
        positions = torch.as_tensor(
            np.concatenate([crystal.fractional @ crystal.lattice for crystal in some])
        )
        found = model.predict(graphs, positions, places(some)[1])
        expected = [prediction.energy for prediction in networks.predict(member, some)]
        assert found.energies[:, 0].tolist() == pytest.approx(expected, abs=1e-8), step
    assert 0 < len(made) < 8 * len(some), "lists are kept for a while, and made anew in time"


class Small(torch.nn.Module):
    """A network on a machine with memory for so many edges."""

    def __init__(self, inner: Any, edges: int) -> None:
        super().__init__()
        self.inner, self.edges, self.passes = inner, edges, 0
        self.atomic_numbers, self.r_max, self.heads = inner.atomic_numbers, inner.r_max, inner.heads

    def forward(self, data: Any, **how: Any) -> Any:
        self.passes += 1
        if data["edge_index"].shape[1] > self.edges:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(data, **how)


def test_where_memory_runs_out_passes_are_halved() -> None:
    inner, some = network(), crystals(12)
    model = Networks([inner], "cpu")
    graphs = [model.graph(crystal) for crystal in some]
    expected = model.predict(graphs, *places(some))
    largest = max(graph.n_edges for graph in graphs)
    small = Small(inner, largest)
    tight = Networks([small], "cpu")
    graphs = [tight.graph(crystal) for crystal in some]
    found = tight.predict(graphs, *places(some))
    assert torch.allclose(found.energies, expected.energies, atol=1e-9)
    assert torch.allclose(found.forces, expected.forces, atol=1e-9)
    first, small.passes = small.passes, 0
    tight.predict(graphs, *places(some))
    assert small.passes < first, "what did not fit is not tried again"
    with pytest.raises(MemoryError, match="on one crystal"):
        Networks([Small(inner, 5)], "cpu").predict([graphs[0]], *places(some[:1]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Springs between neighbours, so that crystals have minima: a network whose weights are learned
    from Lennard-Jones energies.
    """
    rng = np.random.default_rng(0)
    frames = []
    for crystal in crystals(18, 0.12):
        atoms = crystal.atoms
        atoms.calc = MorsePotential(epsilon=0.5, r0=2.5, rho0=5.0, rcut1=3.4, rcut2=3.9)
        frames.append(
            Frame(
                crystal,
                atoms.get_potential_energy(),
                atoms.get_forces(),
                atoms.get_stress(voigt=False),
            )
        )
    architecture = networks.ArchitectureConfig(
        channels=8, layers=1, cutoff=4.0, max_ell=2, radial_functions=4, radial_widths=(16,)
    )
    energies = np.array([frame.energy for frame in frames])
    scales = networks.scales_of(
        [f.crystal for f in frames], energies, [f.forces for f in frames], NUMBERS, 4.0
    )
    trained = train(
        networks.build(architecture, scales, 0), frames, TrainingConfig(epochs=25), rng=rng
    )
    path = tmp_path_factory.mktemp("many") / "springs.model"
    torch.save(trained, path)
    return path


def test_labels_at_once_are_labels_one_by_one_and_none_is_refused_for_what_its_relaxation_left(
    model: Path,
) -> None:
    """Where the largest force decided alone when to stop, the stress that it left was refused
    afterwards.
    """
    config = MaceConfig(
        model=model,
        force_tolerance=0.01,
        residual_pressure=0.02,
        measure=("bulk_modulus", "forces"),
    )
    oracle = Mace(config)
    some = crystals(6)
    unknown, empty = (
        some[0].with_numbers([79] * len(some[0])),
        Crystal(np.eye(3) * 4.0, np.zeros((0, 3)), []),
    )
    answers = dict(oracle.evaluate_many([*some, unknown, empty]))
    assert sorted(answers) == list(range(8))
    for i, crystal in enumerate(some):
        single = oracle.evaluate(crystal)
        assert answers[i].failure is None, answers[i].failure
        assert single.failure is None
        assert (
            np.abs(next(o.value for o in answers[i].observations if o.quantity == "stress")).max()
            <= 0.02
        )
        for name in ("energy_per_atom", "volume_per_atom", "bulk_modulus"):
            assert answers[i].value(name) == pytest.approx(single.value(name), rel=1e-6)
    for i, message in ((6, "does not know Au"), (7, "no atoms")):
        failure = answers[i].failure
        assert failure is not None
        assert failure.kind is FailureKind.UNPHYSICAL
        assert message in failure.message
        assert not failure.retryable
