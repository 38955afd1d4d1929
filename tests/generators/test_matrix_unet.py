"""The conditional generators: sizes, losses, exact samplers, memory of what was learned, symmetry, and use in a campaign."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from ase.data import atomic_numbers
from pymatgen.io.cif import CifWriter
from support import SMALL, merged
from torch import Tensor
from typer.testing import CliRunner

from campaign import config as configs
from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.cli import app
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.formulas import check_formula, formula_of
from generators.matrix_unet import energies, train
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.coupling import nearest_equivalent
from generators.matrix_unet.energies import SiteEnergies
from generators.matrix_unet.features import element_properties
from generators.matrix_unet.losses import (
    COORDINATE_LOSSES,
    CoordinateLoss,
    absolute,
    minimum_image,
    nearest_image,
    periodic,
    smooth_minimum,
)
from generators.matrix_unet.matrix import conditions_of, crystals_of, matrices, operations
from generators.matrix_unet.model import Design, MatrixModel, Method, schedule
from generators.matrix_unet.plugin import (
    Diffusion,
    DiffusionConfig,
    FlowMatching,
    FlowMatchingConfig,
    ModifierConfig,
    RegressionModifier,
)
from generators.matrix_unet.sample import Recall, Starts, Way, generate
from generators.matrix_unet.store import from_checkpoint, to_checkpoint
from generators.matrix_unet.symmetric_flow import (
    Cells,
    Outlook,
    SymmetricFlow,
    cells_of,
    draw_paths,
    exp_metric,
    expected_energies,
    log_metric,
    losses,
    random_start,
    sample,
)
from generators.matrix_unet.train import Trained, train_matrix, train_symmetric
from generators.matrix_unet.unet import MatrixUNet
from generators.matrix_unet.wanted import Wanted, WantedConfig, draw
from generators.networks.periodic import PeriodicSizes
from generators.networks.training import Schedule
from generators.polymorphs import Polymorph, PolymorphDataset, polymorphs_of, tenth_of
from generators.prototypes import Prototypes, PrototypesConfig, pettifor_number
from generators.symmetry import space_group_of, symmetric_cell
from generators.wyckoff import assignments, random_cell

METALS = SearchSpace(("Al", "Fe", "Ni"))
CONTEXT = GenerationContext(space=METALS, objective=Objective("formation_energy_per_atom", "minimize"))
SIZES = PeriodicSizes(width=24, layers=2, n_radial=8, n_vectors=4)


@pytest.fixture(scope="module")
def data() -> PolymorphDataset:
    config = PrototypesConfig(source="library", atoms=(2, 6), shapes=((1, 1), (1, 2), (2, 2), (1, 3)))
    made = [crystal for crystal, _ in Prototypes(config).generate(110, rng=np.random.default_rng(0), context=CONTEXT)]
    return polymorphs_of([(crystal, 0.1 * (crystal.volume / len(crystal) % 3) - 0.3, str(row)) for row, crystal in enumerate(made)])


def two_kinds() -> list[Polymorph]:
    """Fifteen formulas, each as B2 at -0.4 eV/atom and drawn out along one axis at 0.2."""
    items = []
    for symbols in itertools.combinations(("Al", "Co", "Cr", "Fe", "Ni", "V"), 2):
        for group, (lattice, energy) in {221: (2.9 * np.eye(3), -0.4), 123: (np.diag([2.5, 2.5, 3.6]), 0.2)}.items():
            numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
            cell = symmetric_cell(Crystal(lattice, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), numbers))
            assert cell is not None
            assert cell.space_group == group
            items.append(Polymorph(cell, energy))
    return items


def labelled_of(data: PolymorphDataset) -> tuple[LabelledCandidate, ...]:
    return tuple(
        LabelledCandidate(candidate=Candidate(item.crystal), values={"formation_energy_per_atom": item.energy}) for item in data.items
    )


def test_the_paper_networks_have_their_sizes() -> None:
    """304,781,763 parameters for generation and about 305.06 million with an initial crystal (the published code's counts)."""
    with torch.device("meta"):
        assert sum(p.numel() for p in MatrixUNet("paper").parameters()) == 304_781_763
        assert sum(p.numel() for p in MatrixUNet("paper", sees_initial=True).parameters()) == 305_060_931
        assert 2e6 < sum(p.numel() for p in MatrixUNet("small").parameters()) < 5e6


@pytest.mark.parametrize(
    "design",
    [
        Design("diffusion"),
        Design("flow"),
        Design("flow", form="better"),
        *(Design(m, modifies=True) for m in ("regression", "diffusion", "flow")),
    ],
    ids=lambda design: f"{design.method} {design.form} {design.modifies}",
)
def test_matrix_models_run_where_their_weights_are(design: Design, data: PolymorphDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which refuses tensors that are elsewhere as a GPU does."""
    model = MatrixModel(design)
    model.fit_scales(data.items, [0.0, 1.0], torch.full((119,), 12.0))
    model.to("meta")
    arrays = train._Arrays.of(data.items).to(torch.device("meta"))
    rows = np.array([[1, 0], [3, 2]]) if design.modifies else np.array([1, 3])
    examples = arrays.examples(rows, design.modifies)
    assert model.loss(examples).device.type == "meta"
    monkeypatch.setattr("generators.matrix_unet.model.crystals_of", lambda found, numbers: [found.device, numbers.device])
    conditions = conditions_of([[13, 28]] * 2, [221] * 2, [-0.1] * 2)
    initial = torch.zeros(2, 64, 3) if design.modifies else None
    for guidance in (1.0, 2.0):
        made = model.sample(conditions, initial, steps=2, guidance=guidance)
        assert [str(device) for device in made] == ["meta", "meta"]


def test_the_equivariant_flow_runs_where_its_weights_are(data: PolymorphDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.fx.experimental._config.meta_nonzero_assume_all_nonzero", True)
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    paths = draw_paths([item.cell for item in data.items[:4]], model, np.random.default_rng(0))
    model.to("meta")
    meta = torch.device("meta")
    there = replace(paths, here=paths.here.to(meta), time=paths.time.to(meta), way=paths.way.to(meta), change=paths.change.to(meta))
    parts = losses(model, there, torch.zeros(4, dtype=torch.float64), torch.full((4,), torch.nan))
    assert [part.device.type for part in parts] == ["meta"] * 3
    way, change = model.guided(there.here, there.time, torch.zeros(4, device=meta), 2.0)
    assert (way.device.type, change.device.type) == ("meta", "meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("architecture", ["equivariant", "matrix"])
def test_a_gpu_that_is_not_there_is_told(architecture: Literal["equivariant", "matrix"], data: PolymorphDataset) -> None:
    generator = FlowMatching(FlowMatchingConfig(architecture=architecture, device="cuda"))
    with pytest.raises(InputError, match="device: cuda needs a GPU"):
        generator.train(labelled_of(data), rng=np.random.default_rng(0), context=CONTEXT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_paper_network_takes_a_step(data: PolymorphDataset) -> None:
    trained = train_matrix(data.subset(range(4)), Design(preset="paper"), Schedule(steps=1, rate=1e-4), seed=0)
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
    assert crystals_of(torch.zeros(1, 64, 3), conditions.numbers[:1]) == [None], "no cell without a volume"
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


@pytest.mark.parametrize(
    ("target", "predicted", "distance"),
    [
        ([0.0, 1.0, 0.0], [0.9, 0.1, 0.05], np.sqrt(0.01 + 0.01 + 0.0025)),
        ([0.0, 1.0, 0.3], [0.9, 0.9, 0.4], np.sqrt(0.01 + 0.01 + 0.01)),
        ([0.0, 0.5, 0.3], [0.95, 0.4, 0.3], np.sqrt(0.0025 + 0.01)),
        ([0.2, 0.5, 0.3], [0.9, 0.5, 0.3], 0.7),
    ],
    ids=["vertex", "edge", "side", "inner"],
)
def test_the_periodic_loss_of_the_paper(target: list[float], predicted: list[float], distance: float) -> None:
    """Appendix A.4: 8, 4, 2 or 1 points are the same; inner points know no images."""
    x = torch.tensor(predicted, dtype=torch.double, requires_grad=True)
    value = periodic(x, torch.tensor(target, dtype=torch.double))
    assert float(value.detach()) == pytest.approx(distance, rel=0.02)
    assert torch.autograd.gradcheck(periodic, (x, torch.tensor(target, dtype=torch.double)))


def test_the_other_losses_of_coordinates() -> None:
    one, other = torch.tensor([[0.9, 0.5, 0.3]]).double(), torch.tensor([[0.2, 0.5, 0.3]]).double()
    assert float(absolute(one, other)) == pytest.approx(0.7)
    assert float(minimum_image(one, other)) == pytest.approx(0.3)
    assert float(nearest_image(one, other)) == pytest.approx(0.3, rel=0.02), "the nearest of 27 images"
    values = torch.tensor([0.5, 0.2, 0.9], dtype=torch.double, requires_grad=True)
    assert float(smooth_minimum(values, -200.0).detach()) == pytest.approx(0.2, rel=1e-3)
    assert torch.autograd.gradcheck(lambda x: smooth_minimum(x), (torch.full((3,), 0.4, dtype=torch.double, requires_grad=True),))


class _Exact(torch.nn.Module):
    """In the network's place: the exact velocity, or noise, for data that are normal with a mean and a deviation in every entry."""

    def __init__(self, method: Method, mean: float, deviation: float) -> None:
        super().__init__()
        self.method, self.mean, self.deviation = method, mean, deviation

    def forward(self, x: Tensor, time: Tensor, *_: Any) -> Tensor:
        if self.method == "flow":
            t = time[:, None, None]
            variance = t**2 * self.deviation**2 + (1 - t) ** 2
            return self.mean + (t * self.deviation**2 - (1 - t)) / variance * (x - t * self.mean)
        alpha = schedule("ddpm").alphas_cumprod[time.long()][:, None, None]
        variance = alpha * self.deviation**2 + 1 - alpha
        return torch.as_tensor((1 - alpha).sqrt() / variance * (x - alpha.sqrt() * self.mean))


@pytest.mark.parametrize("kind", ["periodic", "nearest_image", "minimum_image", "absolute"])
def test_regression_learns_by_each_loss(kind: CoordinateLoss, data: PolymorphDataset) -> None:
    """Each trains; a shift of the target by a lattice vector changes only the losses without images."""
    trained = train_matrix(data, Design("regression", modifies=True, coordinate_loss=kind), Schedule(2, 1e-3), seed=0)
    assert np.isfinite(trained.metrics["training_loss"])
    one, other = torch.tensor([[0.9, 0.2, 0.4]]), torch.tensor([[0.1, 0.2, 0.4]])
    same = COORDINATE_LOSSES[kind](one, other + torch.tensor([1.0, 0.0, 0.0]))
    is_periodic = torch.allclose(COORDINATE_LOSSES[kind](one, other), same, atol=0.02)
    assert is_periodic == (kind in ("nearest_image", "minimum_image")), "the paper's form has images at the cell's borders only"


@pytest.mark.parametrize(("method", "sampler", "steps"), [("flow", "euler", 100), ("diffusion", "ddpm", 250), ("diffusion", "ddim", 100)])
def test_samplers_are_exact_on_a_known_distribution(method: Method, sampler: Any, steps: int) -> None:
    """Mean 2 and deviation 0.5 come back when the network is the exact one (lattice rows are normal too, so all entries count)."""
    torch.manual_seed(0)
    model = MatrixModel(Design(method, noise="normal"))
    model.network = _Exact(method, 2.0, 0.5)  # type: ignore[assignment]
    found: list[Tensor] = []
    model.decode = lambda x, numbers: (found.append(x), x)[1]  # type: ignore[method-assign,func-returns-value]
    conditions = conditions_of([[13, 28]] * 400, [225] * 400, [0.0] * 400)
    model.sample(conditions, steps=steps, sampler=sampler)
    values = found[0]
    error = 4 * 0.5 / np.sqrt(values.numel())
    assert float(values.mean()) == pytest.approx(2.0, abs=error + 0.01)
    assert float(values.std()) == pytest.approx(0.5, rel=0.06)


def test_a_matrix_model_gives_back_the_one_crystal_it_knows(data: PolymorphDataset) -> None:
    """Regression trained on one pair, and flow matching on one crystal, return what they were trained on."""
    by_cell = next(rows for rows in data._same_cell() if len(rows) > 1)
    pair = data.subset(by_cell[:2])
    trained = train_matrix(pair, Design("regression", modifies=True), Schedule(steps=400, rate=1e-3, averaging=0.9), seed=0)
    model = trained.model
    assert isinstance(model, MatrixModel)
    low, high = sorted(pair.items, key=lambda item: item.energy)
    conditions = conditions_of([high.crystal.numbers.tolist()], [low.cell.space_group], [low.energy - high.energy])
    made = model.sample(conditions, matrices([high.crystal]))[0]
    assert made is not None
    assert np.abs(made.lattice - low.crystal.lattice).max() < 0.35
    offset = made.fractional - low.crystal.fractional
    assert np.abs(offset - np.round(offset)).max() < 0.06


def test_coupled_paths_end_at_the_same_crystal(data: PolymorphDataset) -> None:
    """The nearest equivalent is nearer than the description that a path started from, and is the same crystal."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    cells = [item.cell for item in data.items]
    start, end, _ = random_start(cells, np.full(119, 12.0), rng)
    matcher = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.5, scale=False)
    for row, cell in list(enumerate(cells))[::7]:
        n = len(cell.crystal)
        assert matcher.fit(Crystal(cell.crystal.lattice, end[row, :n], cell.crystal.numbers).structure, cell.crystal.structure)
    for cell in cells[::5]:
        free = rng.uniform(-0.5, 0.5, len(cell.free_directions))
        way = nearest_equivalent(cell, free)
        length = [np.linalg.norm(np.einsum("f,fni->ni", c, cell.free_directions) @ cell.crystal.lattice) for c in (way, free)]
        assert length[0] <= length[1] + 1e-9
    assert start.shape == end.shape


def test_metrics_follow_geodesics() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(3) + 0.4 * rng.normal(size=(2, 5, 3, 3))
    one, other = np.einsum("sbij,sbkj->sbik", axes, axes)
    tangent = log_metric(one, other)
    assert np.allclose(exp_metric(one, tangent), other)
    half = exp_metric(one, 0.5 * tangent)
    assert np.allclose(np.linalg.det(half) ** 2, np.linalg.det(one) * np.linalg.det(other)), "volumes change by equal factors"
    basis = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    turned = [basis @ metric @ basis.T for metric in (one, other)]
    assert np.allclose(log_metric(*turned), basis @ tangent @ basis.T), "no choice of axes matters"


def test_the_equivariant_network_keeps_every_symmetry() -> None:
    """Its ways lie in what the group keeps, before any projection; other axes of the same lattice turn them along."""
    rng = np.random.default_rng(0)
    cells = [
        random_cell(group, option, (13, 28), 12.0, rng) for group in (99, 139, 156, 194, 225) for option in assignments(group, (2, 2))[:2]
    ]
    kept = [cell for cell in cells if cell is not None]
    torch.manual_seed(0)
    model = SymmetricFlow(SIZES).double()
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    start, _, metric = random_start(kept, np.full(119, 12.0), rng)
    batch = cells_of(kept)
    doubled = replace(
        batch, **{name: getattr(batch, name).double() for name in ("site", "group", "system", "keep_positions", "keep_metric")}
    )
    here = doubled.moved(torch.as_tensor(start), torch.as_tensor(metric))
    time, energy = torch.full((len(kept),), 0.3).double(), torch.zeros(len(kept)).double()
    way, change, value = model(here, time, energy)
    projected, kept_change = model.guided(here, time, energy)
    assert way.abs().max() > 1e-3
    assert torch.allclose(way, projected, atol=1e-5)
    assert torch.allclose(change, kept_change, atol=1e-5)
    swap = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]).double()
    turned = here.moved(here.fractional @ swap, swap.T @ here.metric @ swap)
    other_way, other_change, other_value = model(turned, time, energy)
    assert torch.allclose(other_value, value, atol=1e-8)
    assert torch.allclose(other_way, way @ swap, atol=1e-8)
    assert torch.allclose(other_change, swap.T @ change @ swap, atol=1e-8)


def test_the_equivariant_flow_learns_a_crystal_and_its_samples_have_the_group() -> None:
    """Trained on one rutile-like crystal it returns it from random starts; each sample has the space group asked for."""
    rng = np.random.default_rng(4)
    cells = [random_cell(136, option, (28, 13), 12.0, rng) for option in assignments(136, (2, 4))]
    cell = next(cell for cell in cells if cell is not None and len(cell.free_directions) == 1)
    one = polymorphs_of([(cell.crystal, -0.2, "")])
    trained = train_symmetric(one.subset([0] * 32), Schedule(steps=150, rate=6e-3, averaging=0.9, with_muon=True), seed=0)
    model = trained.model
    assert isinstance(model, SymmetricFlow)
    start = np.zeros(12)
    here = draw_paths([one.items[0].cell] * 12, model, np.random.default_rng(1), start).here
    made = sample(model, here, start, torch.full((12,), -0.2), steps=10)
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matched = [StructureMatcher().fit(crystal.structure, cell.crystal.structure) for crystal in made]
    assert np.mean(matched) >= 0.75
    assert all(space_group_of(crystal, 0.01) == 136 for crystal in made)
    here = draw_paths([one.items[0].cell] * 12, model, np.random.default_rng(1), start).here
    again = sample(model, here, start, torch.full((12,), -0.2), steps=10)
    assert [crystal.id for crystal in again] == [crystal.id for crystal in made], "a seed reproduces"


def test_sites_are_chosen_as_known_crystals_have_them(data: PolymorphDataset) -> None:
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    for item in data.items[::9]:
        options = choice.options(item.formula, item.cell.space_group)
        chances = options.chances()
        assert chances.sum() == pytest.approx(1.0)
        assert len(options.sites) == len(chances)
        assert {sites.space_group for sites in options.sites} == {item.cell.space_group}
        assert item.cell.prototype in [sites.prototype for sites in options.sites]
    assert choice.weights[0] + choice.weights[1] > 0, "what other formulas took counts"
    rng = np.random.default_rng(0)
    starts = Starts(choice, Way(candidates=4, recall=0.0), Recall({}))
    drawn = starts.draw(Wanted(check_formula("AlNi3"), 221, -0.1), rng)
    assert [(start.cell.space_group, start.cell.crystal.formula, start.time) for start in drawn] == [(221, "Al1Ni3", 0.0)] * 4
    assert starts.draw(Wanted(check_formula("AlNi2"), 221, -0.1), rng) == [], "no sites of one and two atoms"


def test_without_a_space_group_sites_are_those_of_any_known_one(data: PolymorphDataset) -> None:
    """Groups as often as crystals of the formula's shape have them; of any shape where there are none; an error where none fits."""
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    formula = check_formula("AlNi3")
    times = Counter(item.cell.space_group for item in data.items if item.formula.shape == (1, 3))
    assert choice.groups(formula) == times
    options = choice.options(formula)
    chances = options.chances()
    assert chances.sum() == pytest.approx(1.0)
    for group, count in times.items():
        here = [sites.space_group == group for sites in options.sites]
        assert chances[here].sum() == pytest.approx(count / times.total())
        within = choice.options(formula, group)
        assert [one for one, is_here in zip(options.sites, here, strict=True) if is_here] == within.sites
        np.testing.assert_allclose(chances[here] / chances[here].sum(), within.chances())
    other = check_formula("Al5Ni7")
    assert not any(item.formula.shape == other.shape for item in data.items)
    assert set(choice.groups(other)) <= {item.cell.space_group for item in data.items}
    cubic = SiteChoice(np.zeros(5), {"221:a_b": 3})
    with pytest.raises(InputError, match="no labelled crystal has a space group that Al1Ni2 fits"):
        cubic.options(check_formula("AlNi2"))


def test_exploring_takes_sites_that_no_known_crystal_has(data: PolymorphDataset) -> None:
    """Where there are such; none of the weights counts known crystals. As large a share of the samples as is asked for."""
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    assert choice.new_weights.any()
    formula = check_formula("AlNi3")
    options = choice.options(formula, 123)
    is_new = np.array([sites.prototype not in choice.counts for sites in options.sites])
    assert 0 < is_new.sum() < len(is_new)
    assert options.chances(new=True)[is_new].sum() == pytest.approx(1.0)
    known = choice.options(formula, 221)
    assert all(sites.prototype in choice.counts for sites in known.sites)
    np.testing.assert_allclose(known.chances(new=True), known.chances())
    starts = Starts(choice, Way(exploration=0.5, repetition=1.0, candidates=4), Recall({}))
    rng = np.random.default_rng(0)
    drawn = [starts.draw(Wanted(formula, 123, -0.1), rng) for _ in range(40)]
    all_new = [all(start.cell.prototype not in choice.counts for start in few) for few in drawn]
    assert 10 <= sum(all_new) <= 30


def test_sites_that_were_drawn_come_seldom_again(data: PolymorphDataset) -> None:
    """Fifteen draws meet more prototypes than with equal chances each time; where there is one kind of sites it is drawn again."""
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    wish = Wanted(check_formula("Al2Ni2"), 123, -0.1)
    met = {}
    for repetition in (1.0, 0.2):
        starts = Starts(choice, Way(candidates=1, exploration=0.0, repetition=repetition), Recall({}))
        rng = np.random.default_rng(0)
        for _ in range(15):
            assert len(starts.draw(wish, rng)) == 1
        drawn = starts.drawn[wish.formula]
        assert sum(drawn.values()) == 15
        met[repetition] = sum(times > 0 for times in drawn.values())
    assert met[0.2] > met[1.0]
    starts = Starts(choice, Way(), Recall({}))
    for seed in range(20):
        assert len(starts.draw(Wanted(check_formula("AlNi3"), 221, -0.1), np.random.default_rng(seed))) == Way().candidates
    assert sum(times > 0 for times in starts.drawn[check_formula("AlNi3")].values()) <= 2
    assert sum(starts.drawn[check_formula("AlNi3")].values()) == pytest.approx(20)


class _ByFreedom(SymmetricFlow):
    """Expects the free coordinates over the atoms as energy."""

    def forward(self, cells: Cells, time: Tensor, energy: Tensor) -> Outlook:
        outlook = super().forward(cells, time, energy)
        return outlook._replace(energy=cells.group[:, 1])


def test_starts_are_taken_by_the_energy_that_they_are_expected_to_end_at(data: PolymorphDataset) -> None:
    """With the expectation above, wishes for no energy give sites without freedom where those for more do not; unless it is not trusted."""
    model = _ByFreedom(SIZES)
    model.atomic_volumes.fill_(12.0)
    choice = SiteChoice(np.zeros(5), {})
    freedom: dict[tuple[float, float], float] = {}
    for error in (0.05, np.inf):
        model.energy_errors.fill_(error)
        for energy in (0.0, 0.5):
            wanted = [Wanted(check_formula("Al2Ni2"), 123, energy)] * 20
            made = list(generate(model, choice, wanted, Way(steps=1), np.random.default_rng(0), data.subset([])))
            cells = [symmetric_cell(one.crystal, 1e-3) for one in made if one.crystal is not None]
            freedom[error, energy] = float(np.mean([len(cell.free_directions) / 4 for cell in cells if cell is not None]))
    assert freedom[0.05, 0.0] < 0.1
    assert freedom[0.05, 0.5] > 0.4
    assert freedom[np.inf, 0.0] == pytest.approx(freedom[np.inf, 0.5])


def test_samples_of_one_formula_take_other_sites_in_turn(data: PolymorphDataset) -> None:
    """Though one kind of sites is nearest to the energy of every wish."""
    model = _ByFreedom(SIZES)
    model.atomic_volumes.fill_(12.0)
    model.energy_errors.fill_(0.05)
    wanted = [Wanted(check_formula("Al2Ni2"), 123, 0.25)] * 20
    most = {}
    for repetition in (1.0, 0.1):
        way = Way(steps=1, repetition=repetition)
        made = generate(model, SiteChoice(np.zeros(5), {}), wanted, way, np.random.default_rng(0), data.subset([]))
        [(_, most[repetition])] = Counter(one.prototype for one in made).most_common(1)
    assert most[0.1] < most[1.0]


def test_the_flow_learns_what_energy_to_expect() -> None:
    """Of formulas whose energies it was never told; how far it misses is known."""
    data = PolymorphDataset(two_kinds())
    untold = [item for item in data.items if tenth_of(item.formula) == 1]
    assert untold
    trained = train_symmetric(data, Schedule(steps=150, rate=6e-3, averaging=0.9, with_muon=True), seed=0, sizes=SIZES)
    model = trained.model
    assert isinstance(model, SymmetricFlow)
    assert 0 < float(model.energy_errors[-1]) < 0.2
    time = np.full(len(untold), 0.95)
    expected = expected_energies(model, draw_paths([item.cell for item in untold], model, np.random.default_rng(1), time).here, time)
    assert np.abs(expected - [item.energy for item in untold]).max() < 0.25
    few = train_symmetric(data.subset([0, 1]), Schedule(steps=1), seed=0, sizes=SIZES).model
    assert isinstance(few, SymmetricFlow)
    assert torch.isinf(few.energy_errors).all() or tenth_of(data.items[0].formula) == 1


def test_groups_and_sites_follow_the_energy_that_is_asked_for() -> None:
    """Where one prototype is low and another high in every formula, low wishes take the one and high wishes the other."""
    items = two_kinds()
    data = PolymorphDataset(items)
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    assert choice.energies.deviation is not None
    assert choice.energies.deviation < 0.15, "a formula that was held out is predicted"
    rng, formula = np.random.default_rng(1), check_formula("MoTi")
    drawn = {energy: [choice.options(formula).draw_group(energy, rng) for _ in range(50)] for energy in (-0.4, 0.2)}
    assert drawn[-0.4].count(221) > 45
    assert drawn[0.2].count(123) > 45
    few = SiteChoice.fit(PolymorphDataset(items[:4]), np.random.default_rng(0))
    assert few.energies.deviation is None
    even = [few.options(formula).draw_group(-0.4, rng) for _ in range(100)]
    assert 25 < even.count(221) < 75, "nothing is known of energies"


def test_energies_on_sites_are_those_of_a_gaussian_process() -> None:
    """What each formula gets from the others is what a process without it gives, under the same settings; the distance is that of the best
    exchange of elements; weights give the same energies from a file.
    """
    data = PolymorphDataset(two_kinds())
    fitted = SiteEnergies.fit(data)
    known, settings = list(fitted.known), torch.as_tensor(fitted.settings)
    away = torch.tensor([item.energy for item in data.items], dtype=torch.float64) - fitted.middle
    inverse = torch.linalg.inv(energies.with_noise(energies.likeness(known, known), settings))
    blocks = energies.blocks_of(known)
    errors = energies.errors_without(inverse, away, blocks)
    block = blocks[4]
    rest = [row for row in range(len(known)) if row not in block]
    kernel = energies.with_noise(energies.likeness([known[row] for row in rest], [known[row] for row in rest]), settings)
    between = energies.kernel(energies.likeness([known[row] for row in block], [known[row] for row in rest]), settings)
    expected = between @ torch.linalg.solve(kernel, away[rest])
    at = sum(len(other) for other in blocks[:4])
    torch.testing.assert_close(errors[at : at + len(block)], away[block] - expected)

    apart = energies.distances([check_formula("AlNi3")], [check_formula("FeCr3"), check_formula("Cr2Fe2")])
    steps = [abs(pettifor_number(one) - pettifor_number(other)) for one, other in (("Al", "Fe"), ("Ni", "Cr"))]
    assert apart[0, 0] == pytest.approx(0.25 * steps[0] + 0.75 * steps[1])
    assert apart[0, 1] >= 100, "one and three atoms do not exchange with two and two"

    choice = SiteChoice.fit(data, np.random.default_rng(0))
    _, again = from_checkpoint(to_checkpoint(Trained(SymmetricFlow(SIZES), choice, {}), "key"))
    names = [item.cell.prototype for item in data.items[:2]]
    found = again.energies.predict(check_formula("MoTi"), names)
    np.testing.assert_allclose(found, choice.energies.predict(check_formula("MoTi"), names))
    np.testing.assert_allclose(found, [-0.4, 0.2], atol=0.1)
    assert again.energies.width == choice.energies.width


def test_samples_begin_near_a_known_crystal_with_the_same_sites(data: PolymorphDataset) -> None:
    """A path entered late is near its end; the known crystal has its elements exchanged for those wanted."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    recall = Recall.of(data)
    item = next(item for item in data.items if item.formula.symbols == ("Fe", "Ni") and len(item.cell.free_directions))
    wanted = Wanted(check_formula(f"Al{item.formula.counts[0]}Fe{item.formula.counts[1]}"), item.cell.space_group, -0.2)
    cell = recall.nearest(wanted.formula, item.cell.prototype, rng)
    assert cell is not None
    assert (str(formula_of(cell.crystal)), cell.space_group, cell.prototype) == (
        str(wanted.formula),
        wanted.space_group,
        item.cell.prototype,
    )
    assert recall.nearest(wanted.formula, "1:a_b", rng) is None
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    time = np.full(3, 0.999)
    late = sample(model, draw_paths([cell] * 3, model, rng, time).here, time, torch.full((3,), -0.2), steps=2)
    assert all(StructureMatcher().fit(crystal.structure, cell.crystal.structure) for crystal in late)
    choice = SiteChoice.fit(data, rng)
    made = [one.crystal for one in generate(model, choice, [wanted] * 8, Way(recall=1.0, recall_time=0.999, exploration=0.0), rng, data)]
    known = [known.crystal.structure for known in data.items if known.formula.shape == wanted.formula.shape]
    found = [any(StructureMatcher().fit_anonymous(crystal.structure, other) for other in known) for crystal in made if crystal is not None]
    assert np.mean(found) > 0.5, "most are known prototypes"


def test_wishes_come_from_the_config_or_the_data(data: PolymorphDataset) -> None:
    rng = np.random.default_rng(0)
    drawn = draw(WantedConfig(), 30, data, METALS, rng)
    assert {wish.space_group for wish in drawn} == {None}, "any that known crystals have"
    lowest = np.quantile([item.energy for item in data.items], 0.2)
    assert all(wish.energy <= lowest for wish in drawn)
    config = WantedConfig(formulas=("AlNi", "AlNi3"), space_groups=(221, 139), energies=(-0.1, -0.2), every=True)
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
def test_each_generator_trains_stores_and_proposes(kind: str, data: PolymorphDataset, caplog: pytest.LogCaptureFixture) -> None:
    training = {"steps": 12, "again": 6} if kind == "equivariant" else {"steps": 3, "again": 2}
    common: dict[str, Any] = {"training": training, "steps": 4, "least_labels": 10, "least_distance": 0.3, "volume_per_atom": (1.0, 500.0)}
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
    assert all(np.array_equal(first.tensors[name], same.tensors[name]) for name in first.tensors), "training is a function of its seed"
    kept = checkpoint_from_bytes(checkpoint_to_bytes(first))
    trained = replace(context, checkpoint=kept)
    better, figures = generator.is_improvement(kept, None, labelled, context=context)
    assert better
    assert np.isfinite(figures["validation_loss"])
    second = generator.train(labelled, rng=np.random.default_rng(1), context=trained)
    _, figures = generator.is_improvement(second, kept, labelled, context=context)
    assert figures["validation_loss_before"] == pytest.approx(first.metrics["validation_loss"], rel=1e-4)
    with caplog.at_level(logging.INFO):
        made = list(generator.generate(12, rng=np.random.default_rng(2), context=trained))
    assert made or "left out" in caplog.text
    for crystal, proposal in made:
        assert METALS.violation(crystal.symbols) == ""
        assert "space_group" in proposal.condition
        if kind == "equivariant":
            assert space_group_of(crystal, 0.01) in (proposal.condition["space_group"], 0) or symmetric_cell(crystal, 1e-3) is not None
        if kind == "modifier":
            assert proposal.parents
    if kind == "equivariant":
        assert len(made) >= 6


def test_wrong_weights_and_settings_are_told(data: PolymorphDataset, tmp_path: Path) -> None:
    trained = Trained(SymmetricFlow(PeriodicSizes()), SiteChoice(np.zeros(5), {}), {})
    good = to_checkpoint(trained, data.key)
    with pytest.raises(InputError, match="kind pcdvae"):
        from_checkpoint(replace(good, facts={**good.facts, "kind": "pcdvae"}))
    older = replace(good, facts={name: fact for name, fact in good.facts.items() if name != "known_energies"})
    assert from_checkpoint(older)[1].energies.deviation is None
    with pytest.raises(InputError, match="do not fit"):
        from_checkpoint(replace(good, tensors=dict(list(good.tensors.items())[1:])))
    context = replace(CONTEXT, labelled=labelled_of(data), checkpoint=good)
    with pytest.raises(InputError, match="the config asks for"):
        list(Diffusion(DiffusionConfig()).generate(1, rng=np.random.default_rng(0), context=context))
    with pytest.raises(InputError, match="makes none from noise"):
        Design("regression")
    with pytest.raises(InputError, match="one of flow matching"):
        Design("diffusion", form="better")
    with pytest.raises(ValueError, match="the least value and then the largest"):
        ModifierConfig(lower_by=(0.3, 0.1))
    alone = [item for item in labelled_of(data) if item.candidate.crystal.formula == "Al1Ni1"]
    with pytest.raises(InputError, match="at least two formulas"):
        FlowMatching(FlowMatchingConfig()).train(alone, rng=np.random.default_rng(0), context=CONTEXT)


def test_weights_from_before_the_expected_energies_open_and_trust_none() -> None:
    made = to_checkpoint(Trained(SymmetricFlow(SIZES), SiteChoice(np.zeros(5), {}), {}), "key")
    older = {name: value for name, value in made.tensors.items() if not name.startswith(("energy_errors", "network.value."))}
    facts = {name: value for name, value in made.facts.items() if name != "new_site_weights"}
    model, choice = from_checkpoint(replace(made, tensors=older, facts=facts))
    assert isinstance(model, SymmetricFlow)
    assert torch.isinf(model.energy_errors).all()
    assert np.array_equal(choice.new_weights, np.zeros(3))
    with pytest.raises(InputError, match="do not fit"):
        from_checkpoint(replace(made, tensors=dict(list(older.items())[1:])))


def test_batches_stream_and_count_their_calls(data: PolymorphDataset) -> None:
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    wanted = [Wanted(check_formula("AlNi3"), 221, -0.1)] * 130
    stream = generate(model, choice, wanted, Way(steps=5), np.random.default_rng(0))
    next(stream)
    assert len(calls) == 6, "five steps and the expected energies; the first batch is out before the second is begun"
    assert 1 + len(list(stream)) == 130
    assert len(calls) == 18
    paths = draw_paths([item.cell for item in data.items[:8]], model, np.random.default_rng(0))
    assert all(torch.isfinite(part) for part in losses(model, paths, torch.zeros(8), torch.full((8,), torch.nan)))


@pytest.mark.parametrize("model", ["equivariant", "flow"])
def test_the_command_trains_on_a_table_of_structures(model: str, data: PolymorphDataset, tmp_path: Path) -> None:
    """A CSV with CIFs and an enthalpy of formation, as AFLOW's; the weights serve the generator."""
    table = pd.DataFrame(
        {"cif": [str(CifWriter(item.crystal.structure)) for item in data.items], "enthalpy": [item.energy for item in data.items]}
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    target = tmp_path / "flow.safetensors"
    arguments = ["train", "flow", str(tmp_path / "table.csv"), str(target), "--model", model, "--energy", "enthalpy", "--steps", "3"]
    done = CliRunner().invoke(app, [*arguments, "--group", "2", "--share", "0"])
    assert done.exit_code == 0, done.output
    assert "held-out formulas" in " ".join(done.output.split())
    architecture = "equivariant" if model == "equivariant" else "matrix"
    config = FlowMatchingConfig(architecture=architecture, weights=target, steps=2, least_distance=0.2, volume_per_atom=(0.5, 900))  # type: ignore[arg-type]
    context = replace(CONTEXT, labelled=labelled_of(data))
    assert len(list(FlowMatching(config).generate(8, rng=np.random.default_rng(0), context=context))) >= (
        6 if model == "equivariant" else 0
    )
    done = CliRunner().invoke(app, [*arguments[:4], "--model", "unknown"])
    assert done.exit_code == 2


def test_a_campaign_learns_polymorphs_and_proposes(tmp_path: Path) -> None:
    """Random crystals first; then the flow is trained on their labels, proposes, and its proposals are labelled."""
    changes = {
        "space": {"elements": ["Fe", "Ni"], "max_fraction": 1.0},
        "budget": {"labels": 44},
        "generators": [
            {"use": "random_crystal", "count": 24, "params": {"atoms": [2, 4], "space_groups": [63, 65, 71, 99, 123, 139, 166, 194, 221]}},
            {
                "use": "flow_matching",
                "count": 10,
                "params": {"least_labels": 20, "training": {"steps": 20, "again": 5}, "steps": 5, "least_distance": 1.5},
            },
        ],
        "acquisition": {"use": "random", "initial_labels": 24, "batch_size": 12},
        "screens": {"min_distance": 1.4, "volume_per_atom": [4, 40]},
    }
    campaign = Campaign(tmp_path / "campaign", configs.validate(merged(SMALL, changes), folder=tmp_path, source=tmp_path / "flow.yaml"))
    campaign.run()
    state = campaign.state()
    makers = {event.generator for record in state.candidates.values() for event, _ in record.proposals}
    assert makers == {"random_crystal", "flow_matching"}
    assert any(event.generator == "flow_matching" for candidate, _ in state.labels for event, _ in state.candidates[candidate].proposals), (
        "one of its proposals was labelled"
    )
