"""Models on functions that are known: they learn, say how sure they are, and fall back where a fit
fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import ModelFittingError

from campaign import plugins
from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.protocols import Classifier, MultiFidelity, MultiQuantity, PluginSpec
from campaign.types import Candidate
from surrogates import likelihood
from surrogates.descriptors import alloy
from surrogates.feasibility import Feasibility, FeasibilityConfig
from surrogates.gp import GaussianProcess, GaussianProcessConfig
from surrogates.multi_task import MultiTaskConfig, MultiTaskGaussianProcess

ELEMENTS = ("Cr", "Fe", "Ni")
NAMES = alloy.column_names(ELEMENTS)


def candidates(n: int, seed: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        share = rng.dirichlet(np.ones(3))
        found.append(
            Candidate(supercell("bcc", (2, 2, 2), rng.choice(ELEMENTS, 16, p=share).tolist()))
        )
    return found


def truth(points: list[Candidate]) -> np.ndarray:
    rows = alloy.describe([point.crystal for point in points], ELEMENTS)
    chromium, unlike = rows[:, NAMES.index("fraction_Cr")], rows[:, NAMES.index("shell1_Fe-Ni")]
    return 180 + 20 * chromium + 10 * unlike - 15 * chromium**2  # type: ignore[no-any-return]


TRAINING, FRESH = candidates(90, 0), candidates(80, 1)


@pytest.mark.parametrize(
    ("use", "params", "allowed"),
    [
        ("gp", {}, 0.1),
        ("gp", {"kernel": "matern"}, 0.2),
        ("gp", {"sparse_above": 50, "inducing_points": 40}, 0.2),
        (
            "gp",
            {
                "descriptors": [{"use": "soap", "params": {"n_max": 3, "l_max": 2}}],
                "components": 12,
            },
            0.45,
        ),
        ("deep_kernel_gp", {"steps": 120}, 0.2),
        ("ensemble", {}, 0.3),
        ("multi_task_gp", {}, 0.1),
    ],
)
def test_models_learn_and_know_what_they_do_not(
    use: str, params: dict[str, Any], allowed: float
) -> None:
    torch.manual_seed(0)
    surrogate = plugins.build(PluginSpec(group="surrogates", use=use, params=params))
    values = truth(TRAINING)
    fitted = surrogate.fit(TRAINING, values)
    posterior = fitted.posterior(FRESH)
    error = posterior.mean.reshape(-1).detach().numpy() - truth(FRESH)
    assert np.sqrt(np.mean(error**2)) < allowed * values.std()
    deviation = posterior.variance.reshape(-1).detach().sqrt().numpy()
    assert (deviation > 0).all()
    assert deviation.mean() < values.std()
    assert (np.abs(error) < 4 * deviation).mean() > 0.8
    covariance = fitted.model.posterior(fitted.features(FRESH[:6])).distribution.covariance_matrix
    assert torch.linalg.eigvalsh(covariance).min() > -1e-6 * covariance.diagonal().max()
    assert fitted.hyperparameters["columns"]


SURROGATES = ("gp", "multi_task_gp", "deep_kernel_gp", "ensemble")


@pytest.mark.parametrize("use", SURROGATES)
def test_no_labels_are_refused_in_one_clear_message(use: str) -> None:
    surrogate = plugins.build(PluginSpec(group="surrogates", use=use, elements=ELEMENTS))
    with pytest.raises(InputError, match="expected at least one label to fit a model to, got none"):
        surrogate.fit([], np.zeros(0))


@pytest.mark.parametrize("method", ["fit_quantities", "fit_levels"])
def test_a_task_without_labels_is_named(method: str) -> None:
    surrogate = MultiTaskGaussianProcess(MultiTaskConfig())
    labels = {"cheap": (TRAINING[:4], truth(TRAINING[:4])), "costly": ([], np.zeros(0))}
    with pytest.raises(InputError, match="at least one label of costly"):
        getattr(surrogate, method)(labels)


def test_outcomes_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="got none"):
        Feasibility(FeasibilityConfig()).fit_outcomes([], [])


@pytest.mark.parametrize("use", SURROGATES)
def test_one_label_is_known_less_well_elsewhere(use: str) -> None:
    torch.manual_seed(0)
    surrogate = plugins.build(PluginSpec(group="surrogates", use=use, elements=ELEMENTS))
    posterior = surrogate.fit(TRAINING[:1], np.array([180.0])).posterior([TRAINING[0], *FRESH[:5]])
    deviation = posterior.variance[:, 0].sqrt()
    assert float(posterior.mean[0, 0]) == pytest.approx(180.0, rel=0.01)
    assert torch.isfinite(posterior.mean).all()
    assert float(deviation[1:].min()) > float(deviation[0])
    assert float(deviation[1:].min()) > 20.0, "one label says little of other crystals"


def test_a_failed_optimiser_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ModelFittingError("no")

    monkeypatch.setattr(likelihood, "fit_gpytorch_mll", fails)
    fitted = GaussianProcess(GaussianProcessConfig()).fit(TRAINING, truth(TRAINING))
    assert fitted.hyperparameters["notes"] == "L-BFGS failed (ModelFittingError), fitted by Adam"
    monkeypatch.setattr(likelihood, "fit_gpytorch_mll_torch", fails)
    fitted = GaussianProcess(GaussianProcessConfig()).fit(TRAINING, truth(TRAINING))
    assert "starting parameters kept" in fitted.hyperparameters["notes"]
    error = fitted.posterior(FRESH).mean.reshape(-1).numpy() - truth(FRESH)
    assert np.isfinite(error).all()


def test_hyperparameters_come_from_a_part_of_many_labels() -> None:
    fitted = GaussianProcess(GaussianProcessConfig(hyperparameter_labels=40)).fit(
        TRAINING, truth(TRAINING)
    )
    assert fitted.model.train_targets.shape[-1] == 90
    error = fitted.posterior(FRESH).mean.reshape(-1).numpy() - truth(FRESH)
    assert np.sqrt(np.mean(error**2)) < 0.15 * truth(FRESH).std()


def test_a_cheap_level_teaches_a_dear_one() -> None:
    """60 cheap labels with an offset, a slope and a bend of their own, and 8 dear ones."""
    surrogate = MultiTaskGaussianProcess(MultiTaskConfig())
    assert isinstance(surrogate, MultiFidelity)
    assert isinstance(surrogate, MultiQuantity)
    cheap = 0.5 * truth(TRAINING[:60]) + 7
    dear, few = truth(TRAINING[60:68]), TRAINING[60:68]
    together = surrogate.fit_levels({"cheap": (TRAINING[:60], cheap), "dear": (few, dear)})
    alone = surrogate.fit(few, dear)

    def error(fitted: Any) -> float:
        return float(
            np.sqrt(
                np.mean(
                    (fitted.posterior(FRESH).mean.reshape(-1).detach().numpy() - truth(FRESH)) ** 2
                )
            )
        )

    assert error(together) < 0.6 * error(alone)
    assert together.features_at(FRESH, 0)[:, -1].unique().tolist() == [0.0]
    kept = surrogate.fit_levels(
        {"cheap": (TRAINING[:60], cheap), "dear": (few, dear)}, previous=together.hyperparameters
    )
    assert kept.hyperparameters["notes"] == "hyperparameters kept"
    views = surrogate.fit_quantities(
        {"a": (TRAINING, truth(TRAINING)), "b": (TRAINING, -3 * truth(TRAINING))}
    )
    mean = views["b"].posterior(FRESH).mean.reshape(-1).detach().numpy()
    assert np.corrcoef(mean, -truth(FRESH))[0, 1] > 0.99


def test_chances_of_success_are_learned_from_failures() -> None:
    learner: Classifier = Feasibility(FeasibilityConfig())
    share = np.array([np.mean(point.crystal.numbers == 24) for point in TRAINING])
    works = [point for point, chromium in zip(TRAINING, share, strict=True) if chromium < 0.4]
    fails = [point for point, chromium in zip(TRAINING, share, strict=True) if chromium >= 0.4]
    fitted = learner.fit_outcomes(works, fails)
    chance = fitted.probability(FRESH)
    rich = np.array([np.mean(point.crystal.numbers == 24) for point in FRESH]) >= 0.4
    assert ((chance < 0.5) == rich).mean() > 0.9
    assert 0 < chance.min() < 0.2
    assert 0.8 < chance.max() < 1
    assert fitted.hyperparameters["failed"] == len(fails)
