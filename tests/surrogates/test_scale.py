"""The unit of a quantity is nothing to a model: labels times a number, or with one added, give the
same model in the other unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from campaign import plugins
from campaign.crystals.lattice import supercell
from campaign.protocols import PluginSpec
from campaign.types import Candidate, FloatArray
from campaign.units import Standard
from surrogates.multi_task import FittedLevels, MultiTaskConfig, MultiTaskGaussianProcess

ELEMENTS = ("Cr", "Fe", "Ni")
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("gp", {"max_iterations": 20}),
    ("gp", {"kernel": "matern", "max_iterations": 20}),
    ("gp", {"sparse_above": 10, "inducing_points": 8, "max_iterations": 20}),
    ("multi_task_gp", {"max_iterations": 20}),
    ("deep_kernel_gp", {"steps": 30}),
    ("ensemble", {"steps": 100}),
]
POWERS_OF_TEN = [10.0**k for k in (-12, -9, -6, 6, 12, 30)]


def drawn(n: int, seed: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        Candidate(
            supercell(
                "bcc", (2, 2, 1), rng.choice(ELEMENTS, 8, p=rng.dirichlet(np.ones(3))).tolist()
            )
        )
        for _ in range(n)
    ]


def truth(points: list[Candidate]) -> FloatArray:
    share = np.array(
        [
            [np.mean(np.array(point.crystal.symbols) == element) for element in ELEMENTS]
            for point in points
        ]
    )
    return share @ [1.0, 0.4, 0.7] + 0.3 * share[:, 0] * share[:, 1]  # type: ignore[no-any-return]


TRAINING, FRESH = drawn(24, 0), drawn(20, 1)


def predicted(
    use: str, params: dict[str, Any], values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Means and standard deviations (n,) at fresh points."""
    torch.manual_seed(0)
    fitted = plugins.build(PluginSpec(group="surrogates", use=use, params=params)).fit(
        TRAINING, values
    )
    posterior = fitted.posterior(FRESH)
    found: FloatArray = posterior.mean.detach().reshape(-1).numpy()
    return found, posterior.variance.detach().sqrt().reshape(-1).numpy()


@pytest.mark.parametrize(
    ("use", "params"), MODELS, ids=[f"{use} {params}" for use, params in MODELS]
)
def test_models_follow_the_unit(use: str, params: dict[str, Any]) -> None:
    values = truth(TRAINING)
    mean, deviation = predicted(use, params, values)
    for power in (-40, 40):
        scaled_mean, scaled_deviation = predicted(use, params, values * 2.0**power)
        assert (scaled_mean == mean * 2.0**power).all(), "a power of two changes no digit"
        assert (scaled_deviation == deviation * 2.0**power).all()
    for factor in POWERS_OF_TEN:
        scaled_mean, scaled_deviation = predicted(use, params, values * factor)
        assert scaled_mean / factor == pytest.approx(mean, abs=0.02 * values.std())
        assert scaled_deviation / factor == pytest.approx(deviation, rel=0.1)
    moved_mean, moved_deviation = predicted(use, params, values + 1e4)
    assert moved_mean - 1e4 == pytest.approx(mean, abs=0.02 * values.std())
    assert moved_deviation == pytest.approx(deviation, rel=0.1)


def test_each_level_and_quantity_has_a_unit_of_its_own() -> None:
    surrogate = MultiTaskGaussianProcess(MultiTaskConfig(max_iterations=20))
    values = truth(TRAINING)

    def fitted(factor: float) -> FittedLevels:
        torch.manual_seed(0)
        return surrogate.fit_levels(
            {"cheap": (TRAINING, 2 * values + 1), "dear": (TRAINING[:8], values[:8] * factor)}
        )

    plain, scaled = fitted(1.0), fitted(2.0**-40)
    one, other = plain.posterior(FRESH), scaled.posterior(FRESH)
    assert (other.mean == one.mean * 2.0**-40).all()
    assert (other.variance == one.variance * 2.0**-80).all()
    at_both = torch.cat([scaled.features_at(FRESH[:3], level) for level in (0, 1)])
    covariance = scaled.model.posterior(at_both).distribution.covariance_matrix
    assert covariance[:3, :3].diagonal().max() > 1e9 * covariance[3:, 3:].diagonal().max() > 0
    views = surrogate.fit_quantities({"a": (TRAINING, values), "b": (TRAINING, values * 1e-9)})
    error = views["b"].posterior(FRESH).mean.detach().reshape(-1).numpy() / 1e-9 - truth(FRESH)
    assert np.sqrt(np.mean(error**2)) < 0.3 * truth(FRESH).std()


@pytest.mark.parametrize(
    ("use", "params"), MODELS, ids=[f"{use} {params}" for use, params in MODELS]
)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-9, -1e30])
def test_labels_that_are_all_the_same_are_no_trouble(
    use: str, params: dict[str, Any], value: float
) -> None:
    mean, deviation = predicted(use, params, np.full(len(TRAINING), value))
    assert mean == pytest.approx(np.full(len(FRESH), value), abs=0.5 * abs(value) or 0.5)
    assert np.isfinite(deviation).all()
    assert (deviation > 0).all()


@pytest.mark.parametrize(
    ("use", "params"), MODELS, ids=[f"{use} {params}" for use, params in MODELS]
)
def test_one_enormous_label_overflows_nothing(use: str, params: dict[str, Any]) -> None:
    values = truth(TRAINING)
    values[3] = 1e30
    mean, deviation = predicted(use, params, values)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()


def test_standard_units_hold_at_any_magnitude() -> None:
    values = np.array([1.0, 2.0, 4.0])
    for factor in (2.0**-900, 1.0, 2.0**900):
        unit = Standard.of(values * factor)
        assert unit.center == values.mean() * factor
        assert unit.spread == values.std(ddof=1) * factor
    assert Standard.of(np.full(3, 0.1) + 0.2) == Standard(0.1 + 0.2, 0.1 + 0.2)
    assert Standard.of([]) == Standard.of([0.0, 0.0]) == Standard(0.0, 1.0)
