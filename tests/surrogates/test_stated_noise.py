"""Noise that an oracle states of its labels: a worthless label moves nothing, repeats count like
their mean, and without stated noise nothing is other than it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign import plugins
from campaign.crystals.lattice import supercell
from campaign.protocols import KnowsNoise, PluginSpec
from campaign.types import Candidate, FloatArray
from campaign.units import Standard
from surrogates.descriptors import alloy
from surrogates.gp import GaussianProcess, GaussianProcessConfig
from surrogates.multi_task import MultiTaskConfig, MultiTaskGaussianProcess
from surrogates.stated_noise import StatedNoiseLikelihood

ELEMENTS = ("Cr", "Fe", "Ni")
NAMES = alloy.column_names(ELEMENTS)


def candidates(n: int, seed: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        Candidate(
            supercell(
                "bcc", (2, 2, 2), rng.choice(ELEMENTS, 16, p=rng.dirichlet(np.ones(3))).tolist()
            )
        )
        for _ in range(n)
    ]


def truth(points: list[Candidate]) -> FloatArray:
    rows = alloy.describe([point.crystal for point in points], ELEMENTS)
    chromium, unlike = rows[:, NAMES.index("fraction_Cr")], rows[:, NAMES.index("shell1_Fe-Ni")]
    return np.asarray(180 + 20 * chromium + 10 * unlike - 15 * chromium**2)


TRAINING, FRESH = candidates(90, 0), candidates(80, 1)
KNOWN = TRAINING[:40]
SPREAD = float(truth(TRAINING).std())
KINDS: list[tuple[str, dict[str, Any], float]] = [
    ("gp", {}, 0.05),
    ("gp", {"kernel": "matern"}, 0.1),
    ("gp", {"hyperparameter_labels": 25}, 0.1),
    ("gp", {"sparse_above": 30, "inducing_points": 30}, 0.3),
    ("deep_kernel_gp", {"steps": 100}, 0.4),
    ("multi_task_gp", {}, 0.05),
]


def moments(fitted: Any, points: list[Candidate]) -> tuple[FloatArray, FloatArray]:
    posterior = fitted.posterior(points)
    mean, variance = (
        part.detach().numpy().ravel() for part in (posterior.mean, posterior.variance)
    )
    return mean, np.sqrt(variance)


def built(use: str, params: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return plugins.build(PluginSpec(group="surrogates", use=use, params=params))


@pytest.mark.parametrize(("use", "params", "allowed"), KINDS)
def test_a_label_with_huge_noise_hardly_moves_the_posterior(
    use: str, params: dict[str, Any], allowed: float
) -> None:
    """Three labels are wrong by 100 spreads of the others, and say so."""
    values = truth(KNOWN)
    wrong, noise = values.copy(), np.zeros(len(values))
    wrong[[3, 17, 30]] += 100 * SPREAD
    noise[[3, 17, 30]] = 1000 * SPREAD
    surrogate = built(use, params)
    assert isinstance(surrogate, KnowsNoise)
    told = moments(surrogate.fit(KNOWN, wrong, noise=noise), FRESH)[0]
    kept = np.flatnonzero(noise == 0)
    without = moments(built(use, params).fit([KNOWN[row] for row in kept], values[kept]), FRESH)[0]
    ignored = moments(built(use, params).fit(KNOWN, wrong), FRESH)[0]
    assert np.abs(told - without).mean() < allowed * SPREAD
    assert np.abs(ignored - without).mean() > 1.0 * SPREAD, "the labels are no outliers at all"


@pytest.mark.parametrize("use", ["gp", "multi_task_gp"])
@settings(max_examples=8, deadline=None)
@given(n=st.integers(2, 6), share=st.floats(0.2, 2.0), unit=st.sampled_from([1e-9, 1.0, 1e6]))
def test_repeats_count_like_their_mean_with_less_noise(
    use: str, n: int, share: float, unit: float
) -> None:
    """n labels of one crystal with noise s, and one with s / sqrt(n), at the same hyperparameters,
    whose learned noise is the least.
    """
    candidates, values = KNOWN[:20], unit * truth(KNOWN[:20])
    rng = np.random.default_rng(n)
    scatter = share * SPREAD * unit
    repeats = values[7] + scatter * rng.standard_normal(n)
    others = [row for row in range(20) if row != 7]
    few = 0.01 * SPREAD * unit
    model = built(use, {"refit_growth": 9.0})
    previous = dict(
        model.fit(candidates, values, noise=np.full(20, few)).hyperparameters, optimised_at=20
    )
    parameters = dict(previous["parameters"])
    parameters["likelihood.noise_covar.raw_noise"] = [1e-4]
    previous["parameters"] = parameters

    def fit(at: FloatArray, noise: float) -> Any:
        rest = [candidates[row] for row in others]
        return model.fit(
            [*rest, *[candidates[7]] * len(at)],
            np.concatenate([values[others], at]),
            noise=np.concatenate([np.full(19, few), np.full(len(at), noise)]),
            previous=previous,
        )

    many, once = fit(repeats, scatter), fit(np.array([repeats.mean()]), scatter / np.sqrt(n))
    assert many.hyperparameters["notes"] == once.hyperparameters["notes"] == "hyperparameters kept"
    points = [candidates[7], *FRESH[:20]]
    (mean, deviation), (other, least) = moments(many, points), moments(once, points)
    assert mean == pytest.approx(other, abs=0.05 * SPREAD * unit)
    assert deviation == pytest.approx(least, rel=0.1)


@pytest.mark.parametrize(("use", "params", "allowed"), KINDS)
def test_where_no_noise_is_stated_nothing_changes(
    use: str, params: dict[str, Any], allowed: float
) -> None:
    plain = built(use, params).fit(KNOWN, truth(KNOWN))
    zeros = built(use, params).fit(KNOWN, truth(KNOWN), noise=np.zeros(len(KNOWN)))
    for one, other in zip(moments(plain, FRESH), moments(zeros, FRESH), strict=True):
        assert (one == other).all()
    assert not any(isinstance(part, StatedNoiseLikelihood) for part in plain.model.modules())


def test_levels_have_the_noise_of_their_own_labels() -> None:
    """The cheap level's labels are worthless and say so: what the costly level knows stands."""
    surrogate = MultiTaskGaussianProcess(MultiTaskConfig())
    cheap, few = TRAINING[:30], TRAINING[30:45]
    rng = np.random.default_rng(0)
    wrong = truth(cheap) + 30 * SPREAD * rng.standard_normal(30)
    labels = {"cheap": (cheap, wrong), "costly": (few, truth(few))}
    fitted = surrogate.fit_levels(labels, noise={"cheap": np.full(30, 30 * SPREAD)})
    mean, _ = moments(fitted, few)
    assert np.abs(mean - truth(few)).max() < 0.2 * SPREAD
    points = [fitted.features_at(FRESH[:7], level) for level in (0, 1)]
    added = [
        fitted.model.posterior(rows, observation_noise=True).variance
        - fitted.model.posterior(rows).variance
        for rows in points
    ]
    assert float(added[0].detach().min()) > (25 * SPREAD) ** 2
    assert float(added[1].detach().max()) < SPREAD**2


@pytest.mark.parametrize("n", [40, 15])
def test_a_label_to_come_has_the_usual_noise(n: int) -> None:
    """Also where as many points are asked for as there are labels."""
    noise = np.linspace(0.0, 2 * SPREAD, 40)
    fitted = GaussianProcess(GaussianProcessConfig()).fit(KNOWN, truth(KNOWN), noise=noise)
    rows = fitted.features(FRESH[:n])
    added = (
        fitted.model.posterior(rows, observation_noise=True).variance
        - fitted.model.posterior(rows).variance
    )
    learned = float(fitted.model.likelihood.noise.detach()) * float(
        fitted.model.outcome_transform.spreads[0] ** 2
    )
    expected = np.full(n, np.mean(noise**2) + learned)
    assert added.detach().numpy().ravel() == pytest.approx(expected, rel=1e-6)


def test_the_marginal_likelihood_is_the_normal_one() -> None:
    """Against the closed form, with a covariance matrix that is written out."""
    rng = np.random.default_rng(1)
    noise = rng.uniform(0.1, 1.0, 40) * SPREAD
    fitted = GaussianProcess(GaussianProcessConfig(kernel="rbf")).fit(
        KNOWN, truth(KNOWN), noise=noise
    )
    model = fitted.model.train()
    (x,) = model.train_inputs
    prior = model(x)
    found = ExactMarginalLogLikelihood(model.likelihood, model)(prior, model.train_targets, x)
    learned = float(model.likelihood.noise.detach())
    variances = learned + (noise / float(model.outcome_transform.spreads[0])) ** 2
    covariance = prior.covariance_matrix.detach().numpy() + np.diag(variances)
    error = model.train_targets.numpy() - prior.mean.detach().numpy()
    _, logarithm = np.linalg.slogdet(covariance)
    expected = -0.5 * (
        error @ np.linalg.solve(covariance, error) + logarithm + len(error) * np.log(2 * np.pi)
    )
    priors = sum(
        prior.log_prob(closure(module)).sum().item()
        for _, module, prior, closure, _ in model.named_priors()
    )
    assert float(found.detach()) * len(error) == pytest.approx(expected + priors, rel=1e-6)


def test_stated_and_learned_noise_share_their_parameters() -> None:
    """So that the first noisy label of a campaign begins from what was learned before."""
    surrogate = GaussianProcess(GaussianProcessConfig())
    plain = surrogate.fit(KNOWN, truth(KNOWN))
    assert isinstance(plain.model.likelihood, GaussianLikelihood)
    noisy = surrogate.fit(
        KNOWN, truth(KNOWN), noise=np.full(40, SPREAD), previous=plain.hyperparameters
    )
    assert noisy.hyperparameters["notes"] == "hyperparameters kept"


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30),
    unit=st.sampled_from([1e-12, 1.0, 1e9]),
)
def test_standard_units_see_through_the_noise(values: list[float], unit: float) -> None:
    """Labels with no noise alone decide where all others are worthless."""
    known = np.array(values)
    plain = Standard.of(known * unit)
    worthless = np.concatenate([known, [1e6, -3e6]]) * unit
    noise = np.concatenate([np.zeros(len(known)), [1e9, 1e9]]) * unit
    found = Standard.of(worthless, noise)
    assert Standard.of(known * unit, np.zeros(len(known))) == plain
    if np.ptp(known) > 1e-3:
        assert found.center == pytest.approx(plain.center, abs=0.05 * plain.spread)
        assert 0.5 * plain.spread < found.spread < 1.2 * plain.spread
