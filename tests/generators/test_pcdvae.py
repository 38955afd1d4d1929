"""P-CDVAE: its size, training that survives, sampling, property optimisation, files, and its place
in a campaign.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import load
from typer.testing import CliRunner

import generators.pcdvae.plugin as plugin
import generators.pcdvae.sample as sampling
import generators.pcdvae.train as training
from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.cli import app
from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Checkpoint, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.networks.graph import batch_of
from generators.pcdvae.data import check_phases, examples_of, phase_of
from generators.pcdvae.embedder import PCDVAEEmbedder, PCDVAEEmbedderConfig
from generators.pcdvae.losses import Targets, losses
from generators.pcdvae.model import PCDVAE, Noise, Shape, cell_matrix, cell_parameters
from generators.pcdvae.optimise import (
    Ensemble,
    Held,
    Plain,
    Prior,
    ascend,
    conditions,
    encode,
    fit_ensemble,
)
from generators.pcdvae.plugin import PCDVAEConfig, PCDVAEGenerator
from generators.pcdvae.sample import Focused, Langevin, in_reduced_precision, sample, start
from generators.pcdvae.store import from_checkpoint, hash_of, tables_of, to_checkpoint
from generators.pcdvae.train import Epoch, Example, TrainingSettings, split_by_composition, train

ELEMENTS = ("Ni", "Fe", "Cr")
SETTINGS = TrainingSettings(epochs=3, batch_size=8, validation=0.2)


def alloys(n: int = 16, repeats: tuple[int, int, int] = (2, 1, 1)) -> list[Example]:
    """Random alloys of both phases; the property is the share of nickel."""
    rng, found = np.random.default_rng(0), []
    for row in range(n):
        symbols = rng.choice(ELEMENTS, 2 * int(np.prod(repeats))).tolist()
        crystal = supercell(("fcc", "bcc")[row % 2], repeats, symbols)  # type: ignore[arg-type]
        moved = Crystal(
            crystal.lattice,
            crystal.fractional + rng.normal(0, 0.01, crystal.fractional.shape),
            crystal.numbers,
        )
        found.append(Example(moved, np.array([symbols.count("Ni") / len(symbols)]), row % 2))
    return found


@pytest.fixture(scope="module")
def trained() -> PCDVAE:
    return train(alloys(), SETTINGS, seed=0).model


def checkpoint_of(model: PCDVAE, examples: list[Example]) -> Checkpoint:
    return to_checkpoint(
        model,
        tables_of(examples, ("fcc", "bcc"), ["energy_per_atom"]),
        hash_of(examples),
        {"validation_loss": 1.0},
    )


def test_the_paper_preset_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        two_phases, plain = PCDVAE("paper", Shape(54, 2)), PCDVAE("paper", Shape(54, 1))
    assert sum(parameter.numel() for parameter in two_phases.parameters()) == 5_074_307
    assert plain.phase is None
    assert (
        sum(p.numel() for p in two_phases.parameters()) - sum(p.numel() for p in plain.parameters())
        == 100 * 128 + 256 * 257 + 2 * 257
    )


def test_cells_come_back_from_their_parameters() -> None:
    lattice = np.array([[4.0, 0.1, 0.2], [-1.0, 5.0, 0.3], [0.5, 0.7, 6.0]])
    parameters = torch.as_tensor(cell_parameters(lattice, 8))[None]
    found = cell_matrix(parameters[:, :3] * 2, parameters[:, 3:])[0].numpy()
    np.testing.assert_allclose(found @ found.T, lattice @ lattice.T, atol=1e-9)


def test_a_network_without_error_has_no_loss_of_position() -> None:
    """The wanted displacement is the shortest way back, in units of the noise's width."""
    model = PCDVAE(
        "small", Shape(4, 2), Noise(levels=2, position=(0.02, 0.01), element=(0.01, 0.005))
    )
    batch = batch_of([example.crystal for example in alloys(4)])
    targets = Targets(
        torch.zeros(4, 6), torch.full((4, 1), torch.nan), torch.zeros(4, dtype=torch.long)
    )
    asked: dict[str, torch.Tensor] = {}

    def perfect(
        noisy: Any, latent: torch.Tensor, phase: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moved = batch.fractional - noisy.fractional
        asked["distance"] = batch.cartesian(moved - moved.round())
        asked["level"] = (asked["distance"] ** 2).mean().sqrt()
        return asked["distance"] / 0.02, torch.nn.functional.one_hot(batch.numbers - 1, 100) * 100.0

    model.decode = perfect  # type: ignore[method-assign,assignment]
    model.position_levels.fill_(0.02)
    found = losses(model, batch, targets)
    assert found["position"] == pytest.approx(0.0, abs=1e-9)
    assert 0.005 < asked["level"] < 0.05
    assert found["element"] == pytest.approx(0.0, abs=1e-3)
    assert found["property"] == 0.0


def test_training_lowers_the_loss_and_an_interrupted_one_ends_the_same() -> None:
    examples, epochs = alloys(), []
    whole = train(examples, SETTINGS, seed=3, progress=epochs.append)
    assert [epoch.index for epoch in epochs] == [1, 2, 3]
    assert epochs[-1].training < 0.8 * epochs[0].training
    kept: list[Checkpoint] = []
    train(examples, replace(SETTINGS, epochs=2), seed=3, keep=kept.append)
    state = checkpoint_from_bytes(checkpoint_to_bytes(kept[-1]))
    again = train(examples, SETTINGS, seed=3, resume=state)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    with pytest.raises(InputError, match="interrupted training"):
        train(examples, SETTINGS, seed=3, resume=checkpoint_of(whole.model, examples))


def test_a_loss_that_is_not_finite_goes_back_to_good_weights(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = {"n": 0}
    real = training.losses

    def broken(*arguments: Any) -> dict[str, torch.Tensor]:
        calls["n"] += 1
        found = real(*arguments)
        return found if calls["n"] != 5 else {**found, "position": found["position"] * torch.nan}

    monkeypatch.setattr(training, "losses", broken)
    epochs: list[Epoch] = []
    result = train(alloys(), SETTINGS, seed=0, progress=epochs.append)
    assert result.metrics["returns"] == 1
    assert epochs[-1].rate == pytest.approx(SETTINGS.rate / 2)
    assert "last good weights" in caplog.text
    assert all(value.isfinite().all() for value in result.model.state_dict().values())


def test_compositions_are_on_one_side_of_the_split() -> None:
    crystals = [example.crystal for example in alloys(60)]
    learned, held = split_by_composition(crystals, 0.3)
    assert sorted([*learned, *held]) == list(range(60))
    assert 0.3 * 60 <= len(held) < 0.6 * 60
    assert not {crystals[row].formula for row in learned} & {crystals[row].formula for row in held}
    more, _ = split_by_composition(crystals + crystals[:1], 0.3)
    assert set(learned) <= set(more) | {60}
    assert split_by_composition(crystals[:1] * 3, 0.3) == ([0, 1, 2], [])


def test_of_one_composition_crystals_are_held_out() -> None:
    """So that training stops, and the best is kept, by crystals that it does not learn."""
    rng = np.random.default_rng(0)
    symbols = ["Fe"] * 4 + ["Ni"] * 4
    crystals = [supercell("bcc", (2, 2, 1), rng.permutation(symbols).tolist()) for _ in range(40)]
    learned, held = split_by_composition(crystals, 0.2)
    assert sorted([*learned, *held]) == list(range(40))
    assert len(held) >= 8
    assert not {crystals[row].id for row in learned} & {crystals[row].id for row in held}
    fewer, _ = split_by_composition(crystals[:-1], 0.2)
    assert len(set(fewer) - set(learned)) <= 2, "few change sides"


@pytest.mark.parametrize("sampler", [Focused(6, 3), Langevin(1)])
def test_samples_have_the_asked_atoms_and_known_elements(trained: PCDVAE, sampler: Any) -> None:
    torch.manual_seed(0)
    told: list[tuple[int, int]] = []
    counts = torch.tensor([2, 4, 3])
    progress = lambda *step: told.append(step)  # noqa: E731
    crystals = sample(
        in_reduced_precision(trained), torch.randn(3, 64), sampler, counts=counts, progress=progress
    )
    assert [len(crystal) for crystal in crystals] == counts.tolist()
    assert {symbol for crystal in crystals for symbol in crystal.symbols} <= set(ELEMENTS)
    assert told[-1] == (sampler.calls(50), sampler.calls(50))
    assert len(told) == sampler.calls(50)


def test_crystals_that_do_not_go_together_come_in_order(
    trained: PCDVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_CACHED_MESSAGES", 1)
    told: list[tuple[int, int]] = []
    progress = lambda *step: told.append(step)  # noqa: E731
    crystals = sample(
        trained,
        torch.randn(3, 64),
        Focused(2, 1),
        counts=torch.tensor([2, 4, 3]),
        progress=progress,
    )
    assert [len(crystal) for crystal in crystals] == [2, 4, 3]
    assert told == [(call, 9) for call in range(1, 10)]


def test_a_sampler_finds_what_a_perfect_decoder_knows() -> None:
    """With the exact displacement as the decoder's answer, disorder becomes the crystal."""
    ideal = supercell("bcc", (2, 2, 2), ["Fe"] * 16)
    model = PCDVAE("small", Shape(16))
    model.known.fill_(False)
    model.known[25] = True
    batch = batch_of([ideal])
    model.lattices = lambda latent, counts: batch.lattice  # type: ignore[method-assign,assignment]

    def perfect(
        noisy: Any, latent: torch.Tensor, phase: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moved = batch.fractional - noisy.fractional
        return batch.cartesian(moved - moved.round()) / 0.1, torch.zeros(16, 100)

    model.decode = perfect  # type: ignore[method-assign,assignment]
    torch.manual_seed(0)
    (crystal,) = sample(model, torch.zeros(1, 64), Focused(), counts=torch.tensor([16]))
    moved = crystal.fractional - ideal.fractional
    assert np.abs((moved - np.round(moved)) @ ideal.lattice).max() < 0.2
    assert set(crystal.symbols) == {"Fe"}


def test_a_start_has_the_predicted_composition(trained: PCDVAE) -> None:
    share = torch.full((100,), -20.0)
    share[[27, 25, 23]] = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    trained_composition, trained.composition = trained.composition, torch.nn.Sequential()  # type: ignore[assignment]
    trained.composition.forward = lambda latent: share.expand(len(latent), 100)  # type: ignore[method-assign]
    try:
        batch = start(trained, torch.randn(2, 64), torch.tensor([8, 4]))
    finally:
        trained.composition = trained_composition
    assert [crystal.formula for crystal in batch.crystals()] == ["Cr2Fe2Ni4", "Cr1Fe1Ni2"]


def test_both_forms_raise_what_they_climb_and_one_stays_near_the_data(trained: PCDVAE) -> None:
    torch.manual_seed(0)
    examples = alloys(40)
    mean, deviation = encode(trained, [example.crystal for example in examples])
    values = torch.tensor([float(example.properties[0]) for example in examples])
    phase = torch.tensor([example.phase for example in examples])
    prior = Prior.of(mean, deviation, phase)
    assert float(prior.distance(prior.draw(500)).mean()) == pytest.approx(1.0, abs=0.1)
    alone = Prior.of(mean[:2], deviation[:2], phase[:2])
    assert alone.means.shape == (1, 64), "one crystal of each phase"
    with torch.no_grad():
        inputs = conditions(trained, mean)
    held = Held(
        trained,
        fit_ensemble(inputs, (values - values.mean()) / values.std(), steps=50),
        prior,
        weight=20.0,
    )
    begin = prior.draw(6)
    for merit in (Plain(trained), held):
        points = dict(ascend(merit, begin, (20, 150), rate=3e-2))
        assert merit(points[150]).mean() > merit(points[20]).mean() > merit(begin).mean()
    far = dict(ascend(Plain(trained), begin, (150,), rate=3e-2))[150]
    near = dict(ascend(held, begin, (150,), rate=3e-2))[150]
    assert float(prior.distance(near).max()) < 1.5 < float(prior.distance(far).max())


def test_an_ensemble_learns_a_function_and_doubts_away_from_it() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 2)
    ensemble: Ensemble = fit_ensemble(x, x[:, 0] - 2 * x[:, 1], steps=300)
    assert float((ensemble(x).mean(0) - (x[:, 0] - 2 * x[:, 1])).abs().mean()) < 0.05
    assert ensemble(x + 4).std(0).mean() > 3 * ensemble(x).std(0).mean()


def test_files_keep_the_network_and_say_what_they_are_for(trained: PCDVAE, tmp_path: Path) -> None:
    examples = alloys()
    saved = checkpoint_from_bytes(checkpoint_to_bytes(checkpoint_of(trained, examples)))
    model, tables = from_checkpoint(saved)
    assert tables.elements == ("Cr", "Fe", "Ni")
    assert tables.phases == ("fcc", "bcc")
    crystals = [example.crystal for example in examples]
    torch.testing.assert_close(encode(model, crystals)[0], encode(trained, crystals)[0])
    path = tmp_path / "weights.safetensors"
    path.write_bytes(checkpoint_to_bytes(saved))
    embedder = PCDVAEEmbedder(PCDVAEEmbedderConfig(weights=path))
    assert embedder.embed(crystals, ELEMENTS).shape == (
        len(crystals),
        len(embedder.columns(ELEMENTS)),
    )
    with pytest.raises(InputError, match=r"elements that the weights know.*Al"):
        embedder.embed(crystals, ("Al", "Ni"))
    for facts, message in (
        ({"kind": "other"}, "kind pcdvae, got kind other"),
        ({**saved.facts, "preset": "huge"}, "preset paper or small"),
    ):
        with pytest.raises(InputError, match=message):
            from_checkpoint(replace(saved, facts=facts))
    with pytest.raises(InputError, match="do not fit preset"):
        from_checkpoint(
            replace(
                saved,
                facts={
                    **saved.facts,
                    "shape": json.dumps({"max_atoms": 9, "n_phases": 2, "n_properties": 1}),
                },
            )
        )


def test_phases_are_told_from_crystals() -> None:
    assert [
        phase_of(supercell(lattice, (2, 2, 2), ["Ni"] * 16), ("fcc", "bcc"))
        for lattice in ("fcc", "bcc")
    ] == [0, 1]
    assert phase_of(supercell("bcc", (2, 2, 2), ["Ni"] * 16), ("tetragonal", "cubic")) == 1
    assert phase_of(supercell("bcc", (2, 2, 2), ["Ni"] * 16), ()) == 0
    with pytest.raises(InputError, match="all of one kind"):
        check_phases(("fcc", "cubic"))


def context(
    labelled: list[LabelledCandidate],
    checkpoint: Checkpoint | None = None,
    elements: tuple[str, ...] = ELEMENTS,
) -> GenerationContext:
    space = SearchSpace(elements)
    return GenerationContext(
        space=space,
        objective=Objective("energy_per_atom", "maximize"),
        labelled=labelled,
        checkpoint=checkpoint,
    )


def labelled_alloys(n: int, repeats: tuple[int, int, int] = (2, 1, 1)) -> list[LabelledCandidate]:
    values = (
        (example.crystal, {"energy_per_atom": float(example.properties[0])})
        for example in alloys(n, repeats)
    )
    return [
        LabelledCandidate(candidate=Candidate(crystal), values=value) for crystal, value in values
    ]


SMALL = {
    "min_labels": 6,
    "training": {"epochs": 2, "batch_size": 8},
    "sampler": {"use": "focused", "steps": 4, "ancestral": 2},
    "optimisation": {"stages": [2, 5]},
}


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "fit_ensemble", partial(fit_ensemble, steps=20))


@pytest.mark.usefixtures("_quick")
def test_it_trains_judges_and_proposes_from_labels() -> None:
    generator, rng = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL)), np.random.default_rng(0)
    labelled = labelled_alloys(14)
    assert list(generator.generate(4, rng=rng, context=context(labelled))) == []
    first = generator.train(labelled, rng=rng, context=context(labelled))
    is_better, figures = generator.is_improvement(first, None, labelled, context=context(labelled))
    assert is_better
    assert 0 <= figures["valid"] <= 1
    assert set(figures) >= {"valid", "unique", "phase_fidelity", "property_error"}
    one_phase = [item for item in labelled if phase_of(item.candidate.crystal, ("fcc", "bcc")) == 0]
    assert (
        from_checkpoint(generator.train(one_phase, rng=rng, context=context(one_phase)))[
            0
        ].shape.n_phases
        == 2
    )
    _, compared = generator.is_improvement(first, first, labelled, context=context(labelled, first))
    assert "property_error_before" in compared
    proposals = list(generator.generate(8, rng=rng, context=context(labelled, first)))
    origins = [proposal.condition["from"] for _, proposal in proposals]
    assert sorted(origins) == ["optimisation"] * 4 + ["prior"] * 4
    assert all(
        proposal.parents
        for _, proposal in proposals
        if proposal.condition["from"] == "optimisation"
    )
    plain = PCDVAEGenerator(
        PCDVAEConfig.model_validate(
            SMALL | {"optimisation": {"stages": [3], "variant": "paper", "share": 1.0}}
        )
    )
    assert len(list(plain.generate(3, rng=rng, context=context(labelled, first)))) == 3


@pytest.mark.usefixtures("_quick")
def test_it_begins_near_labelled_crystals_where_the_config_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All labelled ones when it proposes; those that were not held out when it is judged."""
    given: list[list[int]] = []

    def watched(*arguments: Any, templates: Any = None, **more: Any) -> list[Crystal]:
        given.append([] if templates is None else [len(one) for one in templates.positions])
        return sample(*arguments, templates=templates, **more)

    monkeypatch.setattr(plugin, "sample", watched)
    labelled, rng = labelled_alloys(14), np.random.default_rng(0)
    near = {"use": "near_labelled", "steps": 3, "ancestral": 2}
    generator = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL | {"sampler": near}))
    first = generator.train(labelled, rng=rng, context=context(labelled))
    generator.is_improvement(first, None, labelled, context=context(labelled))
    learned, held = split_by_composition([item.candidate.crystal for item in labelled], 0.15)
    assert held
    assert given == [[4] * len(learned)]
    given.clear()
    assert list(generator.generate(4, rng=rng, context=context(labelled, first)))
    assert given == [[4] * 14] * len(given)
    given.clear()
    uniform = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL))
    assert list(uniform.generate(4, rng=rng, context=context(labelled, first)))
    assert given == [[]] * len(given)


def test_training_through_the_port_goes_on_where_it_was() -> None:
    generator, labelled = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL)), labelled_alloys(14)
    kept: list[Checkpoint] = []
    told: list[tuple[int, int]] = []

    def learned(begun: Checkpoint | None = None) -> Checkpoint:
        return generator.train(
            labelled,
            rng=np.random.default_rng(3),
            context=context(labelled),
            progress=lambda step, steps, _: told.append((step, steps)),
            keep=kept.append,
            begun=begun,
        )

    whole = learned()
    assert told == [(1, 2), (2, 2)]
    resumed = learned(checkpoint_from_bytes(checkpoint_to_bytes(kept[0])))
    assert told[2:] == [(2, 2)]
    assert whole.tensors.keys() == resumed.tensors.keys()
    for name, array in whole.tensors.items():
        np.testing.assert_array_equal(array, resumed.tensors[name])


@pytest.mark.usefixtures("_quick")
def test_what_lies_outside_the_search_space_is_not_proposed() -> None:
    generator, rng = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL)), np.random.default_rng(0)
    labelled = labelled_alloys(14)
    weights = generator.train(labelled, rng=rng, context=context(labelled))
    narrow = SearchSpace(ELEMENTS, minimum={"Ni": 0.5}, maximum={"Cr": 0.25})
    made = list(
        generator.generate(24, rng=rng, context=replace(context(labelled, weights), space=narrow))
    )
    assert 0 < len(made) < 24
    assert not [reason for crystal, _ in made if (reason := narrow.violation(crystal.symbols))]


def test_bad_input_is_told(tmp_path: Path) -> None:
    generator, rng = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL)), np.random.default_rng(0)
    labelled = labelled_alloys(14)
    weights = generator.train(labelled, rng=rng, context=context(labelled))
    with pytest.raises(InputError, match=r"elements that the weights know \(Cr, Fe, Ni\), got Al"):
        list(generator.generate(2, rng=rng, context=context(labelled, weights, ("Al", "Ni"))))
    larger = labelled_alloys(8, (2, 2, 1))
    grown = generator.train(larger, rng=rng, context=context(larger, weights))
    assert (
        from_checkpoint(grown)[0].shape.max_atoms
        == max(len(item.candidate.crystal) for item in larger)
        > 4
    )
    assert generator.is_improvement(grown, weights, larger, context=context(larger, grown))[0], (
        "the old ones cannot be asked"
    )
    narrow_weights = tmp_path / "narrow.safetensors"
    narrow_weights.write_bytes(checkpoint_to_bytes(weights))
    from_file = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL | {"weights": narrow_weights}))
    with pytest.raises(InputError, match="at most 4 atoms"):
        from_file.train(larger, rng=rng, context=context(larger))
    with pytest.raises(InputError, match="at least two labelled crystals to train on, got 0"):
        train([], SETTINGS, seed=0)
    with pytest.raises(InputError, match="at least two labelled crystals to train on, got 1"):
        train(alloys(1), SETTINGS, seed=0)
    with pytest.raises(InputError, match="at least two labelled crystals to train on, got 1"):
        generator.train(labelled[:1], rng=rng, context=context(labelled))
    narrow = PCDVAEGenerator(PCDVAEConfig.model_validate(SMALL | {"max_atoms": 3}))
    with pytest.raises(InputError, match="at most 3 atoms, got one of 4"):
        narrow.train(labelled, rng=rng, context=context(labelled))
    assert generator.is_ready(labelled)
    assert not generator.is_ready(labelled[:5])
    with pytest.raises(
        InputError, match=r"expected weights at nowhere\.safetensors, found no file"
    ):
        PCDVAEGenerator(PCDVAEConfig(weights=Path("nowhere.safetensors")))
    with pytest.raises(InputError, match="kind pcdvae, got kind none"):
        list(generator.generate(2, rng=rng, context=context(labelled, Checkpoint(tensors={}))))


@pytest.mark.usefixtures("_quick")
def test_a_campaign_trains_and_asks_it(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        generators=[
            {"use": "random_alloy", "count": 12, "params": {"repeats": [2, 1, 1]}},
            {"use": "pcdvae", "count": 4, "params": SMALL},
        ],
        screens={"min_distance": 0.3},
        budget={"labels": 30},
        train_every=1,
    )
    campaign = Campaign(tmp_path / "campaign", loaded)
    campaign.run()
    state = campaign.state()
    (published,) = [trained for name, trained in state.checkpoints.items() if name == "pcdvae"]
    assert published[0].is_published
    proposers = {
        proposed.generator
        for record in state.candidates.values()
        for proposed, _ in record.proposals
    }
    assert proposers == {"random_alloy", "pcdvae"}


def test_the_command_trains_from_a_campaign_and_from_a_file(tmp_path: Path) -> None:
    from ase.io import write

    frames = []
    for example in alloys(10):
        atoms = example.crystal.atoms
        atoms.info["bulk_modulus"] = float(example.properties[0])
        frames.append(atoms)
    write(tmp_path / "data.extxyz", frames)
    runner = CliRunner()
    target = tmp_path / "weights.safetensors"
    words = [
        "train",
        "pcdvae",
        str(tmp_path / "data.extxyz"),
        str(target),
        "--quantity",
        "bulk_modulus",
    ]
    done = runner.invoke(
        app, [*words, "--set", "training.epochs=2", "--set", "training.batch_size=8"]
    )
    assert done.exit_code == 0, done.output
    assert "trained on 10 crystals" in done.output.replace("\n", "")
    assert from_checkpoint(checkpoint_from_bytes(target.read_bytes()))[0].shape.max_atoms == 4
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    for arguments, message in (
        (["--quantity", "hardness"], "structure 1 (line 1): there is no 'hardness'"),
        (["--set", "preset=large"], "'paper' or 'small'"),
        (["--subset", "some"], "all or random or improved"),
    ):
        failed = runner.invoke(app, [*words, *arguments])
        assert failed.exit_code != 0
        assert message in " ".join((failed.output + str(failed.exception)).split())


def test_examples_prefer_the_relaxed_crystal() -> None:
    one, two = (example.crystal for example in alloys(2))
    labelled = [
        LabelledCandidate(candidate=Candidate(one), values={"x": 1.0}, relaxed=two),
        LabelledCandidate(candidate=Candidate(one), values={}),
    ]
    (example,) = examples_of(labelled, ["x", "y"], ("fcc", "bcc"))
    assert example.crystal == two
    assert np.isnan(example.properties[1])


@pytest.mark.slow
def test_the_paper_preset_trains_a_step_and_decodes_54_atoms() -> None:
    examples = alloys(4, (3, 3, 3))
    result = train(
        examples,
        TrainingSettings(
            preset="paper", epochs=1, batch_size=4, validation=0.0, reduced_precision=True
        ),
        seed=0,
    )
    assert np.isfinite(result.metrics["validation_loss"])
    (crystal,) = sample(
        in_reduced_precision(result.model),
        torch.randn(1, 256),
        Focused(1, 1),
        counts=torch.tensor([54]),
    )
    assert len(crystal) == 54
