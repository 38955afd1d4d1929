"""Losses of coordinates, exact samplers and coupled paths of the matrix form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from campaign.types import Crystal
from generators.matrix_unet.coupling import nearest_equivalent
from generators.matrix_unet.losses import (
    COORDINATE_LOSSES,
    CoordinateLoss,
    absolute,
    minimum_image,
    nearest_image,
    periodic,
    smooth_minimum,
)
from generators.matrix_unet.matrix import conditions_of
from generators.matrix_unet.model import Design, MatrixModel, Method, schedule
from generators.matrix_unet.symmetric_flow import (
    random_start,
)
from generators.matrix_unet.train import train_matrix
from generators.networks.training import Schedule
from generators.polymorphs import PolymorphDataset


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
def test_the_periodic_loss_of_the_paper(
    target: list[float], predicted: list[float], distance: float
) -> None:
    """Appendix A.4: 8, 4, 2 or 1 points are the same; inner points know no images."""
    x = torch.tensor(predicted, dtype=torch.double, requires_grad=True)
    value = periodic(x, torch.tensor(target, dtype=torch.double))
    assert float(value.detach()) == pytest.approx(distance, rel=0.02)
    assert torch.autograd.gradcheck(periodic, (x, torch.tensor(target, dtype=torch.double)))


def test_the_other_losses_of_coordinates() -> None:
    one, other = torch.tensor([[0.9, 0.5, 0.3]]).double(), torch.tensor([[0.2, 0.5, 0.3]]).double()
    assert float(absolute(one, other)) == pytest.approx(0.7)
    assert float(minimum_image(one, other)) == pytest.approx(0.3)
    assert float(nearest_image(one, other)) == pytest.approx(0.3, rel=0.02), (
        "the nearest of 27 images"
    )
    values = torch.tensor([0.5, 0.2, 0.9], dtype=torch.double, requires_grad=True)
    assert float(smooth_minimum(values, -200.0).detach()) == pytest.approx(0.2, rel=1e-3)
    assert torch.autograd.gradcheck(
        lambda x: smooth_minimum(x),
        (torch.full((3,), 0.4, dtype=torch.double, requires_grad=True),),
    )


class _Exact(torch.nn.Module):
    """In the network's place: the exact velocity, or noise, for data that are normal with a mean
    and a deviation in every entry.
    """

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
    """Each trains; a shift of the target by a lattice vector changes only the losses without
    images.
    """
    trained = train_matrix(
        data, Design("regression", modifies=True, coordinate_loss=kind), Schedule(2, 1e-3), seed=0
    )
    assert np.isfinite(trained.metrics["training_loss"])
    one, other = torch.tensor([[0.9, 0.2, 0.4]]), torch.tensor([[0.1, 0.2, 0.4]])
    same = COORDINATE_LOSSES[kind](one, other + torch.tensor([1.0, 0.0, 0.0]))
    is_periodic = torch.allclose(COORDINATE_LOSSES[kind](one, other), same, atol=0.02)
    assert is_periodic == (kind in ("nearest_image", "minimum_image")), (
        "the paper's form has images at the cell's borders only"
    )


@pytest.mark.parametrize(
    ("method", "sampler", "steps"),
    [("flow", "euler", 100), ("diffusion", "ddpm", 250), ("diffusion", "ddim", 100)],
)
def test_samplers_are_exact_on_a_known_distribution(
    method: Method, sampler: Any, steps: int
) -> None:
    """Mean 2 and deviation 0.5 come back when the network is the exact one (lattice rows are normal
    too, so all entries count).
    """
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


def test_coupled_paths_end_at_the_same_crystal(data: PolymorphDataset) -> None:
    """The nearest equivalent is nearer than the description that a path started from, and is the
    same crystal.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    cells = [item.cell for item in data.items]
    start, end, _ = random_start(cells, np.full(119, 12.0), rng)
    matcher = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.5, scale=False)
    for row, cell in list(enumerate(cells))[::7]:
        n = len(cell.crystal)
        assert matcher.fit(
            Crystal(cell.crystal.lattice, end[row, :n], cell.crystal.numbers).structure,
            cell.crystal.structure,
        )
    for cell in cells[::5]:
        free = rng.uniform(-0.5, 0.5, len(cell.free_directions))
        way = nearest_equivalent(cell, free)
        length = [
            np.linalg.norm(np.einsum("f,fni->ni", c, cell.free_directions) @ cell.crystal.lattice)
            for c in (way, free)
        ]
        assert length[0] <= length[1] + 1e-9
    assert start.shape == end.shape
