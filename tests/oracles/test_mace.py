"""MACE for real with tiny networks: physics of its oracle, learning, checkpoints, committees and
the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import GPa
from support import load
from typer.testing import CliRunner

from campaign import plugins
from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.cli import app
from campaign.config.schema import AcquisitionConfig
from campaign.decide import query
from campaign.decide.question import Question
from campaign.decide.replay import replay
from campaign.decide.select import Material
from campaign.errors import InputError
from campaign.protocols import GenerationContext, PluginSpec
from campaign.testing import examine
from campaign.types import (
    Candidate,
    Crystal,
    FailureKind,
    LabelledCandidate,
    Objective,
    SearchSpace,
)
from generators.perturbed_alloy import PerturbedAlloy, PerturbedAlloyConfig
from oracles.lammps.static import Lammps, LammpsConfig
from oracles.mace import network as networks
from oracles.mace import store
from oracles.mace.committee import (
    CommitteeConfig,
    MaceCommittee,
    force_disagreement,
    frames_of,
    is_held_out,
)
from oracles.mace.oracle import Mace, MaceConfig, foundation_path
from oracles.mace.training import Frame, TrainingConfig, errors, train

SPACE = SearchSpace(("Ni", "Fe", "Cr"))
CONTEXT = GenerationContext(space=SPACE, objective=Objective("energy_per_atom", "minimize"))
ARCHITECTURE = networks.ArchitectureConfig(
    channels=8, layers=1, cutoff=4.0, max_ell=2, radial_functions=4, radial_widths=(16,)
)


def labelled(n: int, seed: int = 0) -> list[LabelledCandidate]:
    """Crystals off their sites with LAMMPS' energies, forces and stresses."""
    generator = PerturbedAlloy(
        PerturbedAlloyConfig(repeats=((2, 1, 1), (2, 2, 1)), displacement=(0.02, 0.1))
    )
    oracle = Lammps(LammpsConfig(relax="none", measure=("forces",)))
    found = []
    for crystal, _ in generator.generate(n, rng=np.random.default_rng(seed), context=CONTEXT):
        by_name = {o.quantity: o.value for o in oracle.evaluate(crystal).observations}
        values = {name: float(value) for name, value in by_name.items() if np.ndim(value) == 0}
        arrays = {name: np.asarray(value) for name, value in by_name.items() if np.ndim(value)}
        found.append(LabelledCandidate(candidate=Candidate(crystal), values=values, arrays=arrays))
    return found


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return frames_of(labelled(60))


@pytest.fixture(scope="module")
def trained(frames: list[Frame]) -> tuple[store.Origin, torch.nn.Module]:
    energies = np.array([frame.energy for frame in frames])
    scales = networks.scales_of(
        [f.crystal for f in frames],
        energies,
        [f.forces for f in frames],
        (24, 26, 28),
        ARCHITECTURE.cutoff,
    )
    origin = store.Origin(architecture=ARCHITECTURE, scales=scales)
    config = TrainingConfig(epochs=60, averaging=0.9)
    return origin, train(origin.blank(0), frames[:50], config, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def model(
    trained: tuple[store.Origin, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One network as a file of ours."""
    path = tmp_path_factory.mktemp("mace") / "one.safetensors"
    origin, network = trained
    path.write_bytes(checkpoint_to_bytes(store.to_checkpoint([network], origin, {})))
    return path


def test_training_learns_energies_forces_and_stresses(
    frames: list[Frame], trained: tuple[store.Origin, torch.nn.Module]
) -> None:
    origin, network = trained
    before, after = errors(origin.blank(0), frames[50:]), errors(network, frames[50:])
    assert after.forces < 0.5 * before.forces
    assert after.energy < before.energy
    assert after.stress < before.stress
    again = train(
        origin.blank(0), frames[:50], TrainingConfig(epochs=1), rng=np.random.default_rng(3)
    )
    same = train(
        origin.blank(0), frames[:50], TrainingConfig(epochs=1), rng=np.random.default_rng(3)
    )
    for one, other in zip(again.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other), "the same seed gives the same weights"


def test_frames_without_stress_are_not_taught_a_stress_of_zero(frames: list[Frame]) -> None:
    graph = networks.graph(
        frames[0].crystal,
        (24, 26, 28),
        4.0,
        energy=0.0,
        forces=frames[0].forces,
        stress=np.zeros((3, 3)),
        stress_weight=0.0,
    )
    assert float(graph.stress_weight) == 0.0
    assert float(graph.energy_weight) == 1.0


def test_many_at_once_are_the_same_as_one_by_one(
    frames: list[Frame], trained: tuple[store.Origin, torch.nn.Module]
) -> None:
    _, network = trained
    crystals = [frame.crystal for frame in frames[:7]]
    together = networks.predict(network, crystals, batch_size=4)
    for crystal, one in zip(crystals, together, strict=True):
        (alone,) = networks.predict(network, [crystal])
        assert one.energy == pytest.approx(alone.energy, abs=1e-3)
        assert np.allclose(one.forces, alone.forces, atol=1e-4)


def test_checkpoints_round_trip_without_pickles(
    trained: tuple[store.Origin, torch.nn.Module], frames: list[Frame]
) -> None:
    origin, network = trained
    data = checkpoint_to_bytes(
        store.to_checkpoint([network, origin.blank(5)], origin, {"error": 0.1})
    )
    checkpoint = checkpoint_from_bytes(data)
    members = store.members_of(checkpoint)
    assert checkpoint.metrics == {"error": 0.1}
    assert store.origin_of(checkpoint) == origin
    crystal = frames[0].crystal
    assert (
        networks.predict(members[0], [crystal])[0].energy
        == networks.predict(network, [crystal])[0].energy
    )
    assert (
        networks.predict(members[1], [crystal])[0].energy
        != networks.predict(members[0], [crystal])[0].energy
    )


def test_the_oracle_passes_the_kit(model: Path) -> None:
    params = {"model": str(model), "relax": "none", "measure": ["forces"]}
    from campaign.protocols import OracleSpec

    spec = OracleSpec(
        name="mace", plugin=PluginSpec(group="oracles", use="mace", params=params), wall_limit=60
    )
    found = {finding.check: finding for finding in examine(spec, ("Ni", "Fe"))}
    for check in (
        "quantities and units",
        "same again",
        "several at once",
        "permutation",
        "rotation",
        "translation",
        "supercell",
        "empty cell",
        "unknown element",
    ):
        assert found[check].status == "passed", found[check]


def test_the_oracle_relaxes_and_its_modulus_has_two_routes(
    model: Path, frames: list[Frame]
) -> None:
    crystal = frames[0].crystal
    start = Mace(MaceConfig(model=model, relax="none")).evaluate(crystal)
    found = []
    for route in ("pressure", "equation_of_state"):
        config = MaceConfig(
            model=model,
            measure=("bulk_modulus",),
            bulk_modulus_by=route,
            window=0.01,
            residual_pressure=0.5,
        )  # type: ignore[arg-type]
        evaluation = Mace(config).evaluate(crystal)
        assert evaluation.failure is None, evaluation.failure
        assert evaluation.value("energy_per_atom") < start.value("energy_per_atom")
        found.append(evaluation.value("bulk_modulus"))
    assert found[0] == pytest.approx(found[1], rel=0.05)
    failure = (
        Mace(MaceConfig(model=model, relax="none"))
        .evaluate(crystal.with_numbers([79] * len(crystal)))
        .failure
    )
    assert failure is not None
    assert failure.kind is FailureKind.UNPHYSICAL
    assert "does not know Au" in failure.message


def test_a_committee_states_its_spread_as_noise(
    trained: tuple[store.Origin, torch.nn.Module], frames: list[Frame], tmp_path: Path
) -> None:
    origin, network = trained
    path = tmp_path / "two.safetensors"
    path.write_bytes(
        checkpoint_to_bytes(store.to_checkpoint([network, origin.blank(7)], origin, {}))
    )
    evaluation = Mace(MaceConfig(model=path, relax="none")).evaluate(frames[0].crystal)
    noise = evaluation.observations[0].noise
    energies = [
        networks.predict(m, [frames[0].crystal])[0].energy
        for m in store.members_of(checkpoint_from_bytes(path.read_bytes()))
    ]
    assert noise == pytest.approx(
        abs(energies[0] - energies[1]) / np.sqrt(2) / len(frames[0].crystal), rel=1e-3
    )


def test_maces_own_files_are_read_and_fine_tuned(
    trained: tuple[store.Origin, torch.nn.Module], frames: list[Frame], tmp_path: Path
) -> None:
    _, network = trained
    path = tmp_path / "foundation.model"
    torch.save(network, path)
    oracle = Mace(MaceConfig(model=path, relax="none"))
    assert oracle.elements == {"Ni", "Fe", "Cr"}
    energy = oracle.evaluate(frames[0].crystal).value("energy_per_atom") * len(frames[0].crystal)
    assert energy == pytest.approx(
        networks.predict(network, [frames[0].crystal])[0].energy, abs=1e-3
    )
    target = tmp_path / "tuned.safetensors"
    data = write_frames(tmp_path / "data.extxyz", frames[:12])
    result = CliRunner().invoke(
        app, ["train", "mace", str(data), str(target), "--foundation", str(path), "--epochs", "2"]
    )
    assert result.exit_code == 0, result.output
    members, _ = store.read_models(target, "cpu")
    assert networks.numbers_of(members[0]) == (24, 26, 28)
    torch.save(store.members_of(checkpoint_from_bytes(target.read_bytes()))[0], path)
    with pytest.raises(InputError, match="not the one that this model was trained from"):
        store.read_models(target, "cpu")


def write_frames(path: Path, frames: list[Frame]) -> Path:
    images = []
    for frame in frames:
        atoms = frame.crystal.atoms
        assert frame.stress is not None
        voigt = frame.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        atoms.calc = SinglePointCalculator(
            atoms, energy=frame.energy, forces=frame.forces, stress=voigt
        )
        images.append(atoms)
    write(path, images)
    return path


def test_the_commands_train_and_evaluate(frames: list[Frame], tmp_path: Path) -> None:
    data, target, answers = (
        write_frames(tmp_path / "data.extxyz", frames[:20]),
        tmp_path / "small.safetensors",
        tmp_path / "answers.extxyz",
    )
    small = [
        "--channels",
        "8",
        "--layers",
        "1",
        "--cutoff",
        "4.0",
        "--epochs",
        "2",
        "--members",
        "2",
    ]
    result = CliRunner().invoke(app, ["train", "mace", str(data), str(target), *small])
    assert result.exit_code == 0, result.output
    assert "meV/atom" in result.output
    result = CliRunner().invoke(
        app, ["evaluate", "mace", str(target), str(data), "--target", str(answers)]
    )
    assert result.exit_code == 0, result.output
    images = read(answers, ":")
    members, _ = store.read_models(target, "cpu")
    expected = np.mean(
        [networks.predict(member, [frames[3].crystal])[0].energy for member in members]
    )
    assert images[3].get_potential_energy() == pytest.approx(expected, abs=1e-3)
    wrong = CliRunner().invoke(
        app, ["train", "mace", str(data), str(tmp_path / "model.txt"), *small]
    )
    assert wrong.exit_code == 2
    images[0].calc = None
    write(data, images)
    assert CliRunner().invoke(app, ["train", "mace", str(data), str(target), *small]).exit_code == 2


def test_a_model_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the MACE model"):
        Mace(MaceConfig(model=tmp_path / "nothing.model"))
    with pytest.raises(InputError, match="no foundation model 'smal'"):
        foundation_path("smal")
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"no pickle")
    with pytest.raises(InputError, match="cannot be read as a MACE model"):
        assert Mace(MaceConfig(model=broken)).elements
    with pytest.raises(ValueError, match="give one of model"):
        MaceConfig()


def test_disagreement_by_hand() -> None:
    """Two members, two atoms: forces +-(3, 4, 0) on the second give a deviation of 5, +-12 on the
    first besides 13 in all.
    """
    first = np.array([[12.0, 0, 0], [3.0, 4.0, 0.0]])
    assert force_disagreement([first, first * [[1.0], [-1.0]]]) == pytest.approx((5.0, 5.0))
    assert force_disagreement([first, -first]) == pytest.approx((12.0, 13.0))
    assert force_disagreement([first, first]) == (0.0, 0.0)


def test_a_committee_learns_and_its_gate_keeps_what_is_better() -> None:
    known = labelled(60, seed=4)
    committee = MaceCommittee(
        CommitteeConfig(
            members=2, architecture=ARCHITECTURE, training=TrainingConfig(epochs=6), held_out=0.2
        )
    )
    assert not committee.is_ready(known[:5])
    first = committee.train(known[:30], rng=np.random.default_rng(0), context=CONTEXT)
    held = [item for item in known if is_held_out(item, 0.2)]
    assert 0 < len(held) < 30
    assert first.metrics["trained_on"] == 30 - sum(is_held_out(item, 0.2) for item in known[:30])
    later = GenerationContext(space=SPACE, objective=CONTEXT.objective, checkpoint=first)
    second = committee.train(known, rng=np.random.default_rng(1), context=later)
    is_better, figures = committee.is_improvement(second, first, known, context=later)
    assert is_better == (second.metrics["held_out_forces"] <= figures["held_out_forces_before"])
    assert is_better, "it went on from the first one with twice the labels"
    worse, _ = committee.is_improvement(first, second, known[:30], context=later)
    assert not worse
    crystals = [item.candidate.crystal for item in known[:6]]
    largest, total = committee.disagreement(crystals, second)
    members = store.members_of(second)
    expected = force_disagreement(
        [networks.predict(member, [crystals[2]])[0].forces for member in members]
    )
    assert (largest[2], total[2]) == pytest.approx(expected, rel=1e-2)
    with pytest.raises(InputError, match="measure: \\[forces\\]"):
        frames_of(
            [LabelledCandidate(candidate=known[0].candidate, values={"energy_per_atom": -4.0})]
        )
    assert frames_of(known)[0].stress == pytest.approx(known[0].arrays["stress"] * GPa)


class _Fixed:
    def disagreement(
        self, crystals: list[Crystal], checkpoint: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        return np.array([0.01, 0.5, 9.0, 0.2, np.nan, 0.04]), np.array(
            [0.02, 0.6, 20.0, 0.8, np.nan, 0.1]
        )


def test_three_outcomes_and_the_most_disputed_first(
    monkeypatch: pytest.MonkeyPatch, trained: tuple[store.Origin, torch.nn.Module], tmp_path: Path
) -> None:
    monkeypatch.setattr(plugins, "build", lambda spec: _Fixed())
    weights = checkpoint_to_bytes(store.to_checkpoint([trained[1]], trained[0], {}))
    pool = [item.candidate for item in labelled(6, seed=9)]
    config = AcquisitionConfig(use="query_by_committee", trust_min=0.05, trust_max=5.0)
    asked = Question(
        round=0,
        as_of=1,
        way="committee",
        stream="s",
        oracles=("dft",),
        n=5,
        limit=None,
        pool=tuple(one.id for one in pool),
        committee="c",
    )
    campaign_config = load(
        tmp_path, acquisition=config.model_dump(), committee={"use": "mace_committee"}
    ).config
    material = Material(
        campaign_config, pool, (), {}, None, (PluginSpec(group="committees", use="x"), weights)
    )
    selection = query.by_committee(asked, material)
    assert [choice.candidate for choice in selection.choices] == [pool[3].id, pool[1].id], (
        "by the whole crystal's disagreement"
    )
    assert selection.outcomes == {"accurate": 2, "worth labelling": 2, "too strange": 2}


def test_a_campaign_trains_its_committee_and_replays(small: Callable[..., Campaign]) -> None:
    campaign = small(
        screens={"match_site": 0.001},
        generators=[
            {
                "use": "perturbed_alloy",
                "count": 60,
                "params": {"repeats": [[2, 1, 1], [2, 2, 1]], "displacement": [0.02, 0.1]},
            }
        ],
        surrogate=None,
        space={"elements": ["Ni", "Fe", "Cr"], "max_fraction": 1.0},
        committee={
            "use": "mace_committee",
            "params": {
                "members": 2,
                "architecture": ARCHITECTURE.model_dump(mode="json"),
                "training": {"epochs": 2},
                "min_labels": 10,
            },
        },
        acquisition={
            "use": "query_by_committee",
            "initial_labels": 12,
            "batch_size": 6,
            "trust_min": 0.0,
            "trust_max": 100.0,
        },
        oracles=[{"use": "lammps", "params": {"relax": "none", "measure": ["forces"]}}],
        budget={"labels": 36},
    )
    assert campaign.run() == "budget spent: 36 labels"
    state = campaign.state()
    assert [record.decided.acquisition for record in state.rounds if record.decided] == [
        "random",
        *["query_by_committee"] * 4,
    ]
    assert all(
        event.generator == "committee" for record in state.rounds[1:] for event in record.trained
    )
    decided = state.rounds[2].decided
    assert decided is not None
    published = state.published("committee")
    assert published is not None
    assert decided.model in {event.checkpoint for event in state.checkpoints["committee"]}
    assert sum(decided.outcomes.values()) == decided.pool_size
    for record in state.rounds:
        assert record.decided is not None
        again = replay(campaign, record.index)
        assert [choice.candidate for choice in again] == [
            choice.candidate for choice in record.decided.choices
        ]
    result = CliRunner().invoke(
        app,
        [
            "train",
            "mace",
            str(campaign.folder),
            str(campaign.folder / "m.safetensors"),
            "--epochs",
            "1",
            "--channels",
            "4",
        ],
    )
    assert result.exit_code == 0, result.output
    exported = CliRunner().invoke(app, ["export", str(campaign.folder)])
    assert exported.exit_code == 0, exported.output
    image = read(campaign.folder / "export" / "labels.extxyz", "0")
    assert image.get_forces().shape == (len(image), 3)
    assert image.get_potential_energy() == pytest.approx(image.info["energy_per_atom"] * len(image))
