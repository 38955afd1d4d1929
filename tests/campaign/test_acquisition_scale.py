"""What is chosen does not depend on the unit of a quantity or on where its zero lies, for no
acquisition function.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.models.model import Model
from botorch.posteriors import Posterior

from campaign.acquisition import Aims, Bound, Output, Scores, select
from campaign.acquisition.levels import LevelScores, select_levels
from campaign.config.schema import AcquisitionConfig
from campaign.types import Objective
from campaign.units import Standard
from surrogates.gp import GaussianProcess, GaussianProcessConfig
from surrogates.standard import StandardUnits

ONE_OBJECTIVE = (
    "log_expected_improvement",
    "log_noisy_expected_improvement",
    "upper_confidence_bound",
    "thompson",
    "greedy_mean",
    "max_value_entropy",
    "knowledge_gradient",
    "uncertainty",
    "straddle",
)
SEVERAL = (
    "log_expected_improvement",
    "log_noisy_expected_improvement",
    "upper_confidence_bound",
    "thompson",
)


def drawn(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def hill(points: torch.Tensor) -> torch.Tensor:
    return 10 - 8 * (points - 0.7).square().sum(-1)


def slope(points: torch.Tensor) -> torch.Tensor:
    return points.sum(-1)


POINTS, POOL = drawn(20, 0), drawn(50, 1)
SURROGATE = GaussianProcess(GaussianProcessConfig(kernel="rbf", max_iterations=30))
TRAINED = [SURROGATE.train(POINTS, f(POINTS)[:, None], None)[0].eval() for f in (hill, slope)]


class InAnotherUnit(Model):  # type: ignore[misc]
    """A model's answers times a factor, with a number added: what a surrogate gives for labels in
    another unit.
    """

    num_outputs = 1

    def __init__(self, model: Model, factor: float, shift: float) -> None:
        super().__init__()
        self._model, self._units = model, StandardUnits(Standard(shift, factor))

    def posterior(self, X: torch.Tensor, *args: object, **kwargs: object) -> Posterior:
        return self._units.untransform_posterior(self._model.posterior(X, *args, **kwargs))


def chosen(
    use: str, factor: float = 1.0, shift: float = 0.0, weights: np.ndarray | None = None
) -> Scores:
    output = Output(
        InAnotherUnit(TRAINED[0], factor, shift),
        POOL,
        POINTS,
        factor * hill(POINTS) + shift,
        POOL[:2],
    )
    match = use == "straddle"
    wanted = Objective(
        "x", "match" if match else "maximize", value=8.0 * factor + shift if match else None
    )
    aims = Aims.of([wanted], [output.values], [], ())
    torch.manual_seed(3)
    return select(
        [output],
        aims,
        3,
        config=AcquisitionConfig(use=use, samples=32),
        seed=1,
        log_weights=weights,
    )  # type: ignore[arg-type]


def chosen_of_several(
    use: str,
    factors: tuple[float, float],
    bound: bool,
    shift: float = 0.0,
    pool: torch.Tensor = POOL,
) -> tuple[int, ...]:
    outputs = [
        Output(
            InAnotherUnit(model, factor, shift * factor),
            pool,
            POINTS,
            factor * (f(POINTS) + shift),
            None,
        )
        for model, f, factor in zip(TRAINED, (hill, slope), factors, strict=True)
    ]
    objectives = [Objective("hill", "maximize")] + (
        [] if bound else [Objective("slope", "minimize")]
    )
    bounds = [Bound(1, -1, (1.6 + shift) * factors[1])] if bound else []
    aims = Aims.of(objectives, [output.values for output in outputs], bounds, ())
    torch.manual_seed(3)
    return select(outputs, aims, 3, config=AcquisitionConfig(use=use, samples=16), seed=1).chosen  # type: ignore[arg-type]


@pytest.mark.parametrize("use", ONE_OBJECTIVE)
def test_choices_do_not_depend_on_the_unit(use: str) -> None:
    weights = np.log(np.linspace(0.2, 1.0, len(POOL)))
    plain = chosen(use, weights=weights)
    for power in (-40, 40):
        scaled = chosen(use, 2.0**power, weights=weights)
        assert scaled.chosen == plain.chosen
        assert (scaled.mean == plain.mean * 2.0**power).all()
        assert (scaled.deviation == plain.deviation * 2.0**power).all()
    for exponent in (-12, -9, -6, 6, 12, 30):
        assert chosen(use, 10.0**exponent, weights=weights).chosen == plain.chosen, (
            f"labels times 1e{exponent}"
        )
    for shift in (-1e3, 1e5):
        assert chosen(use, shift=shift, weights=weights).chosen == plain.chosen, (
            f"labels plus {shift:g}"
        )


@pytest.mark.parametrize("use", SEVERAL)
def test_each_of_several_objectives_may_come_in_any_unit(use: str) -> None:
    plain = chosen_of_several(use, (1.0, 1.0), bound=False)
    for factors in ((2.0**-40, 1.0), (1.0, 2.0**40), (1e-9, 1e12)):
        assert chosen_of_several(use, factors, bound=False) == plain
    assert chosen_of_several(use, (1.0, 1.0), bound=False, shift=1e3) == plain


def test_fronts_grow_in_any_unit() -> None:
    use = "log_expected_hypervolume_improvement"
    plain = chosen_of_several(use, (1.0, 1.0), bound=False, pool=POOL[:12])
    assert chosen_of_several(use, (1e-9, 1e12), bound=False, pool=POOL[:12]) == plain


@pytest.mark.parametrize("use", SEVERAL)
def test_bounds_hold_in_any_unit(use: str) -> None:
    plain = chosen_of_several(use, (1.0, 1.0), bound=True)
    for factors in ((1.0, 2.0**-40), (1e-12, 1e-9), (1e12, 1e30)):
        assert chosen_of_several(use, factors, bound=True) == plain
    assert chosen_of_several(use, (1.0, 1.0), bound=True, shift=1e3) == plain


def levels_chosen(factor: float, shift: float = 0.0) -> LevelScores:
    model = InAnotherUnit(TRAINED[0], factor, shift)
    aims = Aims.of([Objective("x", "maximize")], [factor * hill(POINTS) + shift], [], ())
    torch.manual_seed(0)
    everything = np.ones((1, len(POOL)), dtype=bool)
    return select_levels(model, [POOL], None, aims, 4, [1.0], everything, [None])


def test_levels_are_chosen_in_any_unit() -> None:
    plain = levels_chosen(1.0)
    for factor in (1e-12, 2.0**-40, 1e9):
        scaled = levels_chosen(factor)
        assert scaled.chosen == plain.chosen
        assert scaled.mean / factor == pytest.approx(plain.mean)
        assert scaled.deviation / factor == pytest.approx(plain.deviation)
    assert levels_chosen(1.0, 1e4).chosen == plain.chosen
