"""The matrix form of crystals and its networks: sizes, devices, and memory of what was learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from polymorph_cases import CONTEXT, SIZES, labelled_of

from campaign.errors import InputError
from generators.matrix_unet import train
from generators.matrix_unet.features import element_properties
from generators.matrix_unet.matrix import conditions_of, crystals_of, matrices, operations
from generators.matrix_unet.model import Design, MatrixModel
from generators.matrix_unet.plugin import (
    FlowMatching,
    FlowMatchingConfig,
)
from generators.matrix_unet.symmetric_flow import (
    SymmetricFlow,
    draw_paths,
    losses,
)
from generators.matrix_unet.train import train_matrix
from generators.matrix_unet.unet import MatrixUNet
from generators.networks.training import Schedule
from generators.polymorphs import PolymorphDataset


def test_the_paper_networks_have_their_sizes() -> None:
    """304,781,763 parameters for generation and about 305.06 million with an initial crystal (the
    published code's counts).
    """
    with torch.device("meta"):
        assert sum(p.numel() for p in MatrixUNet("paper").parameters()) == 304_781_763
        assert (
            sum(p.numel() for p in MatrixUNet("paper", sees_initial=True).parameters())
            == 305_060_931
        )
        assert 2e6 < sum(p.numel() for p in MatrixUNet("small").parameters()) < 5e6


@pytest.mark.parametrize(
    "design",
    [
        Design("diffusion"),
        Design("flow"),
        Design("flow", variant="oreloop"),
        *(Design(m, modifies=True) for m in ("regression", "diffusion", "flow")),
    ],
    ids=lambda design: f"{design.method} {design.variant} {design.modifies}",
)
def test_matrix_models_run_where_their_weights_are(
    design: Design, data: PolymorphDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which refuses tensors that are elsewhere as a GPU does."""
    model = MatrixModel(design)
    model.fit_scales(data.items, [0.0, 1.0], torch.full((119,), 12.0))
    model.to("meta")
    arrays = train._Arrays.of(data.items).to(torch.device("meta"))
    rows = np.array([[1, 0], [3, 2]]) if design.modifies else np.array([1, 3])
    examples = arrays.examples(rows, design.modifies)
    assert model.loss(examples).device.type == "meta"
    monkeypatch.setattr(
        "generators.matrix_unet.model.crystals_of",
        lambda found, numbers: [found.device, numbers.device],
    )
    conditions = conditions_of([[13, 28]] * 2, [221] * 2, [-0.1] * 2)
    initial = torch.zeros(2, 64, 3) if design.modifies else None
    for guidance in (1.0, 2.0):
        made = model.sample(conditions, initial, steps=2, guidance=guidance)
        assert [str(device) for device in made] == ["meta", "meta"]


def test_the_equivariant_flow_runs_where_its_weights_are(
    data: PolymorphDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.fx.experimental._config.meta_nonzero_assume_all_nonzero", True)
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    paths = draw_paths([item.cell for item in data.items[:4]], model, np.random.default_rng(0))
    model.to("meta")
    meta = torch.device("meta")
    there = replace(
        paths,
        here=paths.here.to(meta),
        time=paths.time.to(meta),
        way=paths.way.to(meta),
        change=paths.change.to(meta),
    )
    parts = losses(model, there, torch.zeros(4, dtype=torch.float64), torch.full((4,), torch.nan))
    assert [part.device.type for part in parts] == ["meta"] * 3
    way, change = model.guided(there.here, there.time, torch.zeros(4, device=meta), 2.0)
    assert (way.device.type, change.device.type) == ("meta", "meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("architecture", ["equivariant", "matrix"])
def test_a_gpu_that_is_not_there_is_told(
    architecture: Literal["equivariant", "matrix"], data: PolymorphDataset
) -> None:
    generator = FlowMatching(FlowMatchingConfig(architecture=architecture, device="cuda"))
    with pytest.raises(InputError, match="device: cuda needs a GPU"):
        generator.train(labelled_of(data), rng=np.random.default_rng(0), context=CONTEXT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_paper_network_takes_a_step(data: PolymorphDataset) -> None:
    trained = train_matrix(
        data.subset(range(4)), Design(preset="paper"), Schedule(steps=1, rate=1e-4), seed=0
    )
    assert np.isfinite(trained.metrics["training_loss"])
    assert trained.metrics["steps_left_out"] == 0


def test_the_matrix_form_and_back(data: PolymorphDataset) -> None:
    crystals = [item.crystal for item in data.items[:5]]
    rows = matrices(crystals)
    assert rows.shape == (5, 64, 3)
    assert not rows[0, len(crystals[0]) : 61].any(), "rows without atoms are zero"
    conditions = conditions_of([c.numbers.tolist() for c in crystals], [225] * 5, [0.0] * 5)
    assert conditions.elements.shape == (5, 64, 125)
    assert conditions.elements[0, 0, int(crystals[0].numbers[0]) - 1] == 1
    for found, crystal in zip(crystals_of(rows, conditions.numbers), crystals, strict=True):
        assert found is not None
        assert np.allclose(found.lattice, crystal.lattice, atol=1e-5)
        assert np.array_equal(found.numbers, crystal.numbers)
    assert crystals_of(torch.zeros(1, 64, 3), conditions.numbers[:1]) == [None], (
        "no cell without a volume"
    )
    table = operations(225)
    assert table.shape == (192, 4, 4)
    assert np.array_equal(table[0, 3], [0, 0, 0, 1])
    assert not operations(1)[1:].any()
    with pytest.raises(InputError, match="at most 60 atoms"):
        conditions_of([[13] * 61], [1], [0.0])


def test_element_properties_are_standard_and_say_what_is_missing() -> None:
    table = element_properties()
    assert table.shape == (119, 22)
    assert np.allclose(table[1:104].mean(0), 0, atol=0.35)
    assert table[103, -1] > table[26, -1], "lawrencium misses more than iron"
    assert np.array_equal(table[0], np.zeros(22))


def test_a_matrix_model_gives_back_the_one_crystal_it_knows(data: PolymorphDataset) -> None:
    """Regression trained on one pair, and flow matching on one crystal, return what they were
    trained on.
    """
    by_cell = next(rows for rows in data._same_cell() if len(rows) > 1)
    pair = data.subset(by_cell[:2])
    trained = train_matrix(
        pair,
        Design("regression", modifies=True),
        Schedule(steps=400, rate=1e-3, averaging=0.9),
        seed=0,
    )
    model = trained.model
    assert isinstance(model, MatrixModel)
    low, high = sorted(pair.items, key=lambda item: item.energy)
    conditions = conditions_of(
        [high.crystal.numbers.tolist()], [low.cell.space_group], [low.energy - high.energy]
    )
    made = model.sample(conditions, matrices([high.crystal]))[0]
    assert made is not None
    assert np.abs(made.lattice - low.crystal.lattice).max() < 0.35
    offset = made.fractional - low.crystal.fractional
    assert np.abs(offset - np.round(offset)).max() < 0.06
