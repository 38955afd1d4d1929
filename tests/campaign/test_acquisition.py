"""Acquisition on a finite pool: what is chosen, by which aims, and that it does not depend on
chunks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from botorch.acquisition.multi_objective import logei
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.models.transforms import Normalize, Standardize
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal

from campaign.acquisition import Aims, Bound, Output, Scores, functions, select
from campaign.acquisition.levels import select_levels
from campaign.acquisition.rows import FinitePoolModel, MarginalModel
from campaign.config.schema import AcquisitionConfig
from campaign.types import Objective

DIMENSIONS = 3


def hill(points: torch.Tensor) -> torch.Tensor:
    """A smooth function (n,) with its maximum 10 at 0.7 in every coordinate."""
    return 10 - 8 * (points - 0.7).square().sum(-1)


def slope(points: torch.Tensor) -> torch.Tensor:
    return points.sum(-1)


def drawn(n: int, seed: int) -> torch.Tensor:
    return torch.rand(
        n, DIMENSIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def model_of(points: torch.Tensor, values: torch.Tensor) -> SingleTaskGP:
    model = SingleTaskGP(
        points,
        values[:, None],
        outcome_transform=Standardize(1),
        input_transform=Normalize(DIMENSIONS),
    )
    model.likelihood.noise = 1e-4
    model.covar_module.lengthscale = 0.6
    return model.eval()


POINTS, POOL = drawn(25, 0), drawn(90, 1)
MODELS = [model_of(POINTS, hill(POINTS)), model_of(POINTS, slope(POINTS))]


def output(k: int = 0, pending: list[int] | None = None, scale: float = 1.0) -> Output:
    values = (hill, slope)[k](POINTS)
    return Output(MODELS[k], POOL, POINTS, values, POOL[pending] if pending else None, scale)


def choose(
    use: str,
    direction: str = "maximize",
    n: int = 5,
    *,
    pending: list[int] | None = None,
    weights: Any = None,
    **config: Any,
) -> Scores:
    wanted = Objective("x", direction, value=8.0 if direction == "match" else None)  # type: ignore[arg-type]
    outputs = [output(0, pending)]
    aims = Aims.of([wanted], [outputs[0].values], [], ())
    settings = AcquisitionConfig(use=use, **{"shortlist": 45, **config})  # type: ignore[arg-type]
    scores = select(outputs, aims, n, config=settings, seed=1, log_weights=weights)
    assert scores.score.shape == scores.mean.shape == scores.deviation.shape == (90,)
    assert len(set(scores.chosen)) == n
    return scores


BY_GAIN = [
    "log_expected_improvement",
    "log_noisy_expected_improvement",
    "upper_confidence_bound",
    "thompson",
    "greedy_mean",
    "max_value_entropy",
    "knowledge_gradient",
]


@pytest.mark.parametrize("use", [*BY_GAIN, "uncertainty"])
def test_batches_repeat_with_the_seed(use: str) -> None:
    torch.manual_seed(3)
    first = choose(use).chosen
    torch.manual_seed(3)
    assert choose(use).chosen == first


@pytest.mark.parametrize("use", BY_GAIN)
def test_choices_follow_the_direction(use: str) -> None:
    values = hill(POOL).numpy()
    assert (
        values[list(choose(use, "maximize", 1).chosen)].mean() > values.mean() + 0.3 * values.std()
    )
    assert (
        values[list(choose(use, "minimize", 1).chosen)].mean() < values.mean() - 0.3 * values.std()
    )


@pytest.mark.parametrize("use", ["log_expected_improvement", "log_noisy_expected_improvement"])
def test_a_value_to_match_is_approached(use: str) -> None:
    values = hill(POOL).numpy()
    chosen = values[list(choose(use, "match", 3, beta=0.5).chosen)]
    assert np.abs(chosen - 8.0).mean() < 0.6 * np.abs(values - 8.0).mean()


def test_straddle_takes_what_is_uncertain_near_the_level() -> None:
    scores = choose("straddle", "match", 1)
    closed = 1.96 * scores.deviation - np.abs(scores.mean - 8.0)
    assert scores.score == pytest.approx(closed)
    assert scores.chosen[0] == closed.argmax()


@pytest.mark.parametrize(
    "use",
    [
        "log_expected_improvement",
        "upper_confidence_bound",
        "uncertainty",
        "max_value_entropy",
        "knowledge_gradient",
    ],
)
def test_pending_work_is_not_chosen_again(use: str) -> None:
    first = list(choose(use, n=1).chosen)
    assert not set(choose(use, n=1, pending=first).chosen) & set(first)


def test_the_first_choice_of_the_joint_selection_is_the_analytic_best() -> None:
    """With one candidate and no pending work the Monte Carlo form agrees with the closed one."""
    scores = choose("log_expected_improvement", n=1, samples=2048)
    assert scores.score[scores.chosen[0]] >= np.sort(scores.score)[-2]


def test_row_models_look_up_the_posterior_of_the_model_behind_them() -> None:
    finite, marginal = (
        FinitePoolModel.of(MODELS, [POOL, POOL]),
        MarginalModel.of(MODELS, [POOL, POOL], [1.0, 2.0]),
    )
    rows = torch.tensor([[3.0], [7.0], [1.0]], dtype=torch.float64)
    for k, model in enumerate(MODELS):
        exact = model.posterior(POOL[[3, 7, 1]])
        assert torch.allclose(finite.posterior(rows).mean[:, k], exact.mean[:, 0])
        assert torch.allclose(
            finite.joint(rows[:, 0].long(), k).covariance_matrix,
            exact.distribution.covariance_matrix,
            atol=1e-5,
        )
        wanted = exact.variance.reshape(-1) * (1, 4)[k]
        assert torch.allclose(
            marginal.posterior(rows[:, None]).variance.reshape(3, 2)[:, k], wanted
        )


def test_observing_a_row_is_conditioning_on_it() -> None:
    """The same process with one more label, without noise, has the same variances."""

    def variance(points: torch.Tensor) -> FinitePoolModel:
        model = SingleTaskGP(
            points,
            hill(points)[:, None],
            torch.full_like(hill(points)[:, None], 1e-6),
            outcome_transform=None,
        )
        model.covar_module.lengthscale = 0.6
        return FinitePoolModel.of([model.eval()], [POOL])

    before, after = variance(POINTS), variance(torch.cat([POINTS, POOL[4:5]]))
    assert torch.allclose(before.observing(4).covariance, after.covariance, atol=1e-4)
    assert before.observing(4).covariance[0, 4, 4] < 0.1 * before.covariance[0, 4, 4]


def test_knowledge_gradient_has_its_closed_form_for_two_rows() -> None:
    """Observing the second of two independent rows: E max(0, m + s Z) = s phi(m/s) + m Phi(m/s)."""
    mean, deviation = torch.tensor([[0.0], [-0.4]], dtype=torch.float64), 0.8
    covariance = torch.diag(torch.tensor([1e-12, deviation**2], dtype=torch.float64))[None]
    rows = torch.arange(2, dtype=torch.float64)[:, None]
    gradient = functions.DiscreteKnowledgeGradient(
        FinitePoolModel(mean, covariance), rows, quantiles=4001
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    z = torch.tensor(-0.4 / deviation, dtype=torch.float64)
    closed = deviation * normal.log_prob(z).exp() + -0.4 * torch.special.ndtr(z)
    assert float(gradient(rows[1:, None]).exp()) == pytest.approx(float(closed), rel=2e-3)


def several(use: str, bounds: list[Bound], n: int = 6, **config: Any) -> list[int]:
    outputs = [output(0), output(1)]
    objectives = [Objective("hill", "maximize")] + (
        [Objective("slope", "minimize")] if not bounds else []
    )
    aims = Aims.of(objectives, [item.values for item in outputs], bounds, config.pop("weights", ()))
    settings = AcquisitionConfig(use=use, **{"shortlist": 60, **config})  # type: ignore[arg-type]
    return list(select(outputs, aims, n, config=settings, seed=1).chosen)


@pytest.mark.parametrize("use", [*BY_GAIN[:5]])
def test_choices_hold_the_bounds_on_other_quantities(use: str) -> None:
    """The hill's top lies at a slope of 2.1; at most 1.6 is allowed."""
    chosen = several(use, [Bound(1, -1, 1.6)], n=1)
    assert (slope(POOL)[chosen] <= 1.62).all()
    free = choose(use, n=1).chosen
    assert slope(POOL)[list(free)].mean() > slope(POOL)[chosen].mean()


def test_several_objectives_spread_along_the_front() -> None:
    chosen = several("log_expected_hypervolume_improvement", [])
    sums = slope(POOL)[chosen]
    assert float(sums.max() - sums.min()) > 0.4
    weighted = several("log_expected_improvement", [], weights=(0.02, 1.0))
    assert slope(POOL)[weighted].mean() < slope(POOL).mean() - slope(POOL).std()


def test_chances_of_success_and_costs_weigh_in() -> None:
    best = choose("log_expected_improvement", n=1).chosen[0]
    weights = np.zeros(90)
    weights[best] = np.log(1e-6)
    assert choose("log_expected_improvement", n=1, weights=weights).chosen[0] != best
    assert best not in choose("thompson", weights=weights).chosen


def test_a_batch_keeps_its_distance() -> None:
    def closest(chosen: tuple[int, ...]) -> float:
        places = POOL[list(chosen)]
        distance = torch.cdist(places, places) / DIMENSIONS**0.5
        return float(distance[~torch.eye(len(places), dtype=torch.bool)].min())

    assert closest(choose("greedy_mean", n=6).chosen) < 0.15
    assert closest(choose("greedy_mean", n=6, min_distance=0.2).chosen) > 0.17


def test_recalibrated_deviations_scale() -> None:
    aims = Aims.of([Objective("x", "maximize")], [output().values], [], ())
    config = AcquisitionConfig(use="upper_confidence_bound")
    plain, wide = (
        select([output(scale=scale)], aims, 1, config=config, seed=1).deviation
        for scale in (1.0, 3.0)
    )
    assert wide == pytest.approx(3 * plain)


def test_chunks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = choose("log_noisy_expected_improvement")
    monkeypatch.setattr("campaign.acquisition.rows._CHUNK", 7)
    monkeypatch.setattr("campaign.acquisition.functions._CHUNK", 11)
    monkeypatch.setattr("campaign.acquisition.batch._CHUNK", 13)
    parts = choose("log_noisy_expected_improvement")
    assert parts.score == pytest.approx(whole.score)
    assert parts.chosen == whole.chosen


class TwoLevels(Model):  # type: ignore[misc]
    """A process over points and level: correlation 0.9, unit variance, length scale 0.3, no label
    yet; noise at the dear level.
    """

    num_outputs = 1

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise

    def posterior(self, X: torch.Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        same_level = X[:, None, -1] == X[None, :, -1]
        near = torch.exp(-torch.cdist(X[:, :-1], X[:, :-1]).square() / (2 * 0.3**2))
        covariance = near * torch.where(same_level, 1.0, 0.9)
        if kwargs.get("observation_noise"):
            covariance = covariance + torch.diag(X[:, -1] * self.noise)
        return GPyTorchPosterior(MultivariateNormal(torch.zeros(len(X), dtype=X.dtype), covariance))


def levels_chosen(
    price: float, allowed: np.ndarray | None = None, room: int | None = None, noise: float = 0.0
) -> list[tuple[int, int]]:
    at_level = [
        torch.cat([POOL[:30], torch.full((30, 1), float(level), dtype=torch.float64)], 1)
        for level in (0, 1)
    ]
    aims = Aims.of(
        [Objective("x", "maximize")], [torch.tensor([-1.0, 1.0], dtype=torch.float64)], [], ()
    )
    everything = np.ones((2, 30), dtype=bool) if allowed is None else allowed
    torch.manual_seed(0)
    return list(
        select_levels(
            TwoLevels(noise), at_level, None, aims, 5, [1.0, price], everything, [None, room]
        ).chosen
    )


def test_the_level_is_chosen_by_what_it_tells_for_its_price() -> None:
    assert [level for level, _ in levels_chosen(1.0)] == [1] * 5
    assert [level for level, _ in levels_chosen(20.0)] == [0] * 5
    assert len(set(levels_chosen(1.0))) == 5
    assert [level for level, _ in levels_chosen(1.0, noise=4.0)] == [0] * 5, (
        "a noisy level tells less"
    )
    only_cheap = np.array([[True] * 30, [False] * 30])
    assert {level for level, _ in levels_chosen(1.0, only_cheap)} == {0}
    assert sorted(level for level, _ in levels_chosen(1.0, room=2)) == [0, 0, 0, 1, 1]


def test_hypervolumes_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is killed leaves a lock in the user's home that every later campaign would
    wait for.
    """
    from torch.utils import cpp_extension

    asked: list[object] = []
    monkeypatch.setattr(cpp_extension, "load", lambda *_, **settings: asked.append(settings))
    assert len(several("log_expected_hypervolume_improvement", [])) > 0
    assert not asked
    assert logei._C is None
