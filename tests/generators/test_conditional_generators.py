"""Conditional generators as plug-ins: wishes, training, weights, the command, and a campaign."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from polymorph_cases import CONTEXT, METALS, SIZES, labelled_of
from pymatgen.io.cif import CifWriter
from support import SMALL, merged
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.cli import app
from campaign.config import loaded as configs
from campaign.errors import InputError
from generators.formulas import check_formula
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.model import Design, MatrixModel
from generators.matrix_unet.plugin import (
    Diffusion,
    DiffusionConfig,
    FlowMatching,
    FlowMatchingConfig,
    ModifierConfig,
    RegressionModifier,
)
from generators.matrix_unet.sample import Way, generate
from generators.matrix_unet.store import from_checkpoint, to_checkpoint
from generators.matrix_unet.symmetric_flow import (
    SymmetricFlow,
    draw_paths,
    losses,
)
from generators.matrix_unet.train import Trained
from generators.matrix_unet.wanted import Wanted, WantedConfig, draw
from generators.networks.periodic import PeriodicSizes
from generators.polymorphs import PolymorphDataset
from generators.symmetry import space_group_of, symmetric_cell


def test_wishes_come_from_the_config_or_the_data(data: PolymorphDataset) -> None:
    rng = np.random.default_rng(0)
    drawn = draw(WantedConfig(), 30, data, METALS, rng)
    assert {wish.space_group for wish in drawn} == {None}, "any that known crystals have"
    lowest = np.quantile([item.energy for item in data.items], 0.2)
    assert all(wish.energy <= lowest for wish in drawn)
    config = WantedConfig(
        formulas=("AlNi", "AlNi3"), space_groups=(221, 139), energies=(-0.1, -0.2), every=True
    )
    every = draw(config, 6, data, METALS, rng, done=2)
    assert [(str(wish.formula), wish.space_group, wish.energy) for wish in every[:3]] == [
        ("Al1Ni1", 139, -0.1),
        ("Al1Ni1", 139, -0.2),
        ("Al1Ni3", 221, -0.1),
    ]
    with pytest.raises(InputError, match="Fd-3m"):
        draw(WantedConfig(formulas=("AlNi3",), space_groups=(227,)), 1, data, METALS, rng)
    for changes, what in (
        ({"formulas": ("Ni61",)}, "at most 60"),
        ({"formulas": ("Qq",)}, "Qq"),
        ({"space_groups": (231,)}, "from 1 to 230"),
        ({"energy_between": (0.0, -1.0)}, "the least value and then the largest"),
        ({"every": True}, "give formulas"),
    ):
        with pytest.raises((InputError, ValueError), match=what):
            WantedConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["equivariant", "matrix", "diffusion", "modifier"])
def test_each_generator_trains_stores_and_proposes(
    kind: str, data: PolymorphDataset, caplog: pytest.LogCaptureFixture
) -> None:
    training = {"steps": 12, "again": 6} if kind == "equivariant" else {"steps": 3, "again": 2}
    common: dict[str, Any] = {
        "training": training,
        "steps": 4,
        "min_labels": 10,
        "min_distance": 0.3,
        "volume_per_atom": (1.0, 500.0),
    }
    generator: FlowMatching | Diffusion | RegressionModifier
    if kind == "modifier":
        generator = RegressionModifier(ModifierConfig(**common))
    elif kind == "diffusion":
        generator = Diffusion(DiffusionConfig(**common))
    else:
        generator = FlowMatching(FlowMatchingConfig(architecture=kind, **common))  # type: ignore[arg-type]
    labelled = labelled_of(data)
    context = replace(CONTEXT, labelled=labelled)
    assert generator.is_ready(labelled)
    assert not generator.is_ready(labelled[:5])
    assert list(generator.generate(3, rng=np.random.default_rng(0), context=context)) == []
    first = generator.train(labelled, rng=np.random.default_rng(0), context=context)
    same = generator.train(labelled, rng=np.random.default_rng(0), context=context)
    assert all(np.array_equal(first.tensors[name], same.tensors[name]) for name in first.tensors), (
        "training is a function of its seed"
    )
    kept = checkpoint_from_bytes(checkpoint_to_bytes(first))
    trained = replace(context, checkpoint=kept)
    better, figures = generator.is_improvement(kept, None, labelled, context=context)
    assert better
    assert np.isfinite(figures["validation_loss"])
    second = generator.train(labelled, rng=np.random.default_rng(1), context=trained)
    _, figures = generator.is_improvement(second, kept, labelled, context=context)
    assert figures["validation_loss_before"] == pytest.approx(
        first.metrics["validation_loss"], rel=1e-4
    )
    with caplog.at_level(logging.INFO):
        made = list(generator.generate(12, rng=np.random.default_rng(2), context=trained))
    assert made or "left out" in caplog.text
    for crystal, proposal in made:
        assert METALS.violation(crystal.symbols) == ""
        assert "space_group" in proposal.condition
        if kind == "equivariant":
            assert (
                space_group_of(crystal, 0.01) in (proposal.condition["space_group"], 0)
                or symmetric_cell(crystal, 1e-3) is not None
            )
        if kind == "modifier":
            assert proposal.parents
    if kind == "equivariant":
        assert len(made) >= 6


def test_wrong_weights_and_settings_are_told(data: PolymorphDataset, tmp_path: Path) -> None:
    trained = Trained(SymmetricFlow(PeriodicSizes()), SiteChoice(np.zeros(5), {}), {})
    good = to_checkpoint(trained, data.key)
    with pytest.raises(InputError, match="kind pcdvae"):
        from_checkpoint(replace(good, facts={**good.facts, "kind": "pcdvae"}))
    older = replace(
        good, facts={name: fact for name, fact in good.facts.items() if name != "known_energies"}
    )
    assert from_checkpoint(older)[1].energies.deviation is None
    design = Design("flow", variant="oreloop")
    matrix = to_checkpoint(Trained(MatrixModel(design), SiteChoice(np.zeros(5), {}), {}), data.key)
    shape = {**json.loads(matrix.facts["shape"]), "form": "better"}
    del shape["variant"]
    former = replace(matrix, facts={**matrix.facts, "shape": json.dumps(shape)})
    model, _ = from_checkpoint(former)
    assert isinstance(model, MatrixModel)
    assert model.design == design
    with pytest.raises(InputError, match="do not fit"):
        from_checkpoint(replace(good, tensors=dict(list(good.tensors.items())[1:])))
    context = replace(CONTEXT, labelled=labelled_of(data), checkpoint=good)
    with pytest.raises(InputError, match="the config asks for"):
        list(
            Diffusion(DiffusionConfig()).generate(1, rng=np.random.default_rng(0), context=context)
        )
    with pytest.raises(InputError, match="makes none from noise"):
        Design("regression")
    with pytest.raises(InputError, match="one of flow matching"):
        Design("diffusion", variant="oreloop")
    with pytest.raises(ValueError, match="the least value and then the largest"):
        ModifierConfig(lower_by=(0.3, 0.1))
    alone = [item for item in labelled_of(data) if item.candidate.crystal.formula == "Al1Ni1"]
    with pytest.raises(InputError, match="at least two formulas"):
        FlowMatching(FlowMatchingConfig()).train(
            alone, rng=np.random.default_rng(0), context=CONTEXT
        )


def test_batches_stream_and_count_their_calls(data: PolymorphDataset) -> None:
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    wanted = [Wanted(check_formula("AlNi3"), 221, -0.1)] * 130
    stream = generate(model, choice, wanted, Way(steps=5), np.random.default_rng(0))
    next(stream)
    assert len(calls) == 6, (
        "five steps and the expected energies; the first batch is out before the second is begun"
    )
    assert 1 + len(list(stream)) == 130
    assert len(calls) == 18
    paths = draw_paths([item.cell for item in data.items[:8]], model, np.random.default_rng(0))
    assert all(
        torch.isfinite(part)
        for part in losses(model, paths, torch.zeros(8), torch.full((8,), torch.nan))
    )


@pytest.mark.parametrize("model", ["equivariant", "flow"])
def test_the_command_trains_on_a_table_of_structures(
    model: str, data: PolymorphDataset, tmp_path: Path
) -> None:
    """A CSV with CIFs and an enthalpy of formation, as AFLOW's; the weights serve the generator."""
    table = pd.DataFrame(
        {
            "cif": [str(CifWriter(item.crystal.structure)) for item in data.items],
            "enthalpy": [item.energy for item in data.items],
        }
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    target = tmp_path / "flow.safetensors"
    arguments = [
        "train",
        "flow",
        str(tmp_path / "table.csv"),
        str(target),
        "--model",
        model,
        "--energy",
        "enthalpy",
        "--steps",
        "3",
    ]
    done = CliRunner().invoke(app, [*arguments, "--group", "2", "--share", "0"])
    assert done.exit_code == 0, done.output
    assert "held-out formulas" in " ".join(done.output.split())
    architecture = "equivariant" if model == "equivariant" else "matrix"
    config = FlowMatchingConfig(
        architecture=architecture,
        weights=target,
        steps=2,
        min_distance=0.2,
        volume_per_atom=(0.5, 900),
    )  # type: ignore[arg-type]
    context = replace(CONTEXT, labelled=labelled_of(data))
    assert len(
        list(FlowMatching(config).generate(8, rng=np.random.default_rng(0), context=context))
    ) >= (6 if model == "equivariant" else 0)
    done = CliRunner().invoke(app, [*arguments[:4], "--model", "unknown"])
    assert done.exit_code == 2


def test_a_campaign_learns_polymorphs_and_proposes(tmp_path: Path) -> None:
    """Random crystals first; then the flow is trained on their labels, proposes, and its proposals
    are labelled.
    """
    changes = {
        "space": {"elements": ["Fe", "Ni"], "max_fraction": 1.0},
        "budget": {"labels": 44},
        "generators": [
            {
                "use": "random_crystal",
                "count": 24,
                "params": {
                    "atoms": [2, 4],
                    "space_groups": [63, 65, 71, 99, 123, 139, 166, 194, 221],
                },
            },
            {
                "use": "flow_matching",
                "count": 10,
                "params": {
                    "min_labels": 20,
                    "training": {"steps": 20, "again": 5},
                    "steps": 5,
                    "min_distance": 1.5,
                },
            },
        ],
        "acquisition": {"use": "random", "initial_labels": 24, "batch_size": 12},
        "screens": {"min_distance": 1.4, "volume_per_atom": [4, 40]},
    }
    campaign = Campaign(
        tmp_path / "campaign",
        configs.validate(merged(SMALL, changes), folder=tmp_path, source=tmp_path / "flow.yaml"),
    )
    campaign.run()
    state = campaign.state()
    makers = {
        event.generator for record in state.candidates.values() for event, _ in record.proposals
    }
    assert makers == {"random_crystal", "flow_matching"}
    assert any(
        event.generator == "flow_matching"
        for candidate, _ in state.labels
        for event, _ in state.candidates[candidate].proposals
    ), "one of its proposals was labelled"
