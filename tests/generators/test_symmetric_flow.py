"""The equivariant flow: geodesics, symmetry, what it learns, and the energies that it expects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from polymorph_cases import SIZES, ByFreedom, two_kinds

from campaign.errors import InputError
from generators.formulas import check_formula
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.sample import Way, generate
from generators.matrix_unet.store import from_checkpoint, to_checkpoint
from generators.matrix_unet.symmetric_flow import (
    SymmetricFlow,
    cells_of,
    draw_paths,
    exp_metric,
    expected_energies,
    log_metric,
    random_start,
    sample,
)
from generators.matrix_unet.train import Trained, train_symmetric
from generators.matrix_unet.wanted import Wanted
from generators.networks.training import Schedule
from generators.polymorphs import PolymorphDataset, polymorphs_of, tenth_of
from generators.symmetry import space_group_of, symmetric_cell
from generators.wyckoff import assignments, random_cell


def test_metrics_follow_geodesics() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(3) + 0.4 * rng.normal(size=(2, 5, 3, 3))
    one, other = np.einsum("sbij,sbkj->sbik", axes, axes)
    tangent = log_metric(one, other)
    assert np.allclose(exp_metric(one, tangent), other)
    half = exp_metric(one, 0.5 * tangent)
    assert np.allclose(np.linalg.det(half) ** 2, np.linalg.det(one) * np.linalg.det(other)), (
        "volumes change by equal factors"
    )
    basis = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    turned = [basis @ metric @ basis.T for metric in (one, other)]
    assert np.allclose(log_metric(*turned), basis @ tangent @ basis.T), "no choice of axes matters"


def test_the_equivariant_network_keeps_every_symmetry() -> None:
    """Its ways lie in what the group keeps, before any projection; other axes of the same lattice
    turn them along.
    """
    rng = np.random.default_rng(0)
    cells = [
        random_cell(group, option, (13, 28), 12.0, rng)
        for group in (99, 139, 156, 194, 225)
        for option in assignments(group, (2, 2))[:2]
    ]
    kept = [cell for cell in cells if cell is not None]
    torch.manual_seed(0)
    model = SymmetricFlow(SIZES).double()
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    start, _, metric = random_start(kept, np.full(119, 12.0), rng)
    batch = cells_of(kept)
    doubled = replace(
        batch,
        **{
            name: getattr(batch, name).double()
            for name in ("site", "group", "system", "keep_positions", "keep_metric")
        },
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
    """Trained on one rutile-like crystal it returns it from random starts; each sample has the
    space group asked for.
    """
    rng = np.random.default_rng(4)
    cells = [random_cell(136, option, (28, 13), 12.0, rng) for option in assignments(136, (2, 4))]
    cell = next(cell for cell in cells if cell is not None and len(cell.free_directions) == 1)
    one = polymorphs_of([(cell.crystal, -0.2, "")])
    trained = train_symmetric(
        one.subset([0] * 32), Schedule(steps=150, rate=6e-3, averaging=0.9, with_muon=True), seed=0
    )
    model = trained.model
    assert isinstance(model, SymmetricFlow)
    start = np.zeros(12)
    here = draw_paths([one.items[0].cell] * 12, model, np.random.default_rng(1), start).here
    made = sample(model, here, start, torch.full((12,), -0.2), steps=10)
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matched = [
        StructureMatcher().fit(crystal.structure, cell.crystal.structure) for crystal in made
    ]
    assert np.mean(matched) >= 0.75
    assert all(space_group_of(crystal, 0.01) == 136 for crystal in made)
    here = draw_paths([one.items[0].cell] * 12, model, np.random.default_rng(1), start).here
    again = sample(model, here, start, torch.full((12,), -0.2), steps=10)
    assert [crystal.id for crystal in again] == [crystal.id for crystal in made], (
        "a seed reproduces"
    )


def test_starts_are_taken_by_the_energy_that_they_are_expected_to_end_at(
    data: PolymorphDataset,
) -> None:
    """With the expectation above, wishes for no energy give sites without freedom where those for
    more do not; unless it is not trusted.
    """
    model = ByFreedom(SIZES)
    model.atomic_volumes.fill_(12.0)
    choice = SiteChoice(np.zeros(5), {})
    freedom: dict[tuple[float, float], float] = {}
    for error in (0.05, np.inf):
        model.energy_errors.fill_(error)
        for energy in (0.0, 0.5):
            wanted = [Wanted(check_formula("Al2Ni2"), 123, energy)] * 20
            made = list(
                generate(
                    model,
                    choice,
                    wanted,
                    Way(steps=1, starts=16),
                    np.random.default_rng(0),
                    data.subset([]),
                )
            )
            cells = [symmetric_cell(one.crystal, 1e-3) for one in made if one.crystal is not None]
            freedom[error, energy] = float(
                np.mean([len(cell.free_directions) / 4 for cell in cells if cell is not None])
            )
    assert freedom[0.05, 0.0] < 0.1
    assert freedom[0.05, 0.5] > 0.4
    assert freedom[np.inf, 0.0] == pytest.approx(freedom[np.inf, 0.5])


def test_the_flow_learns_what_energy_to_expect() -> None:
    """Of formulas whose energies it was never told; how far it misses is known."""
    data = PolymorphDataset(two_kinds())
    untold = [item for item in data.items if tenth_of(item.formula) == 1]
    assert untold
    trained = train_symmetric(
        data, Schedule(steps=150, rate=6e-3, averaging=0.9, with_muon=True), seed=0, sizes=SIZES
    )
    model = trained.model
    assert isinstance(model, SymmetricFlow)
    assert 0 < float(model.energy_errors[-1]) < 0.2
    time = np.full(len(untold), 0.95)
    expected = expected_energies(
        model,
        draw_paths([item.cell for item in untold], model, np.random.default_rng(1), time).here,
        time,
    )
    assert np.abs(expected - [item.energy for item in untold]).max() < 0.25
    few = train_symmetric(data.subset([0, 1]), Schedule(steps=1), seed=0, sizes=SIZES).model
    assert isinstance(few, SymmetricFlow)
    assert torch.isinf(few.energy_errors).all() or tenth_of(data.items[0].formula) == 1


def test_weights_from_before_the_expected_energies_open_and_trust_none() -> None:
    made = to_checkpoint(Trained(SymmetricFlow(SIZES), SiteChoice(np.zeros(5), {}), {}), "key")
    older = {
        name: value
        for name, value in made.tensors.items()
        if not name.startswith(("energy_errors", "network.value."))
    }
    facts = {name: value for name, value in made.facts.items() if name != "new_site_weights"}
    model, choice = from_checkpoint(replace(made, tensors=older, facts=facts))
    assert isinstance(model, SymmetricFlow)
    assert torch.isinf(model.energy_errors).all()
    assert np.array_equal(choice.new_weights, np.zeros(3))
    with pytest.raises(InputError, match="do not fit"):
        from_checkpoint(replace(made, tensors=dict(list(older.items())[1:])))
