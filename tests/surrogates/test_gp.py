"""Descriptors from hand-made cells, and the Gaussian process on functions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from campaign.crystals.lattice import supercell
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, Objective, SearchSpace
from generators.random_alloy import RandomAlloy, RandomAlloyConfig
from surrogates.described import Fitted
from surrogates.descriptors import alloy
from surrogates.gp import GaussianProcess, GaussianProcessConfig

ELEMENTS = ("Cr", "Fe", "Ni")
NAMES = alloy.column_names(ELEMENTS)


def candidates(n: int, seed: int = 0) -> list[Candidate]:
    context = GenerationContext(space=SearchSpace(ELEMENTS), objective=Objective("x", "maximize"))
    generator = RandomAlloy(RandomAlloyConfig(repeats=(2, 2, 2)))
    return [
        Candidate(crystal)
        for crystal, _ in generator.generate(n, rng=np.random.default_rng(seed), context=context)
    ]


def b2(repeats: int) -> Crystal:
    """The ordered B2 cell: iron on the corners, nickel in the centres."""
    n = repeats**3
    return supercell("bcc", (repeats,) * 3, ["Fe"] * n + ["Ni"] * n)


def test_pair_probabilities_of_ordered_b2() -> None:
    """All first neighbours are unlike, all second and third ones alike; no variance anywhere."""
    row = dict(zip(NAMES, alloy.describe([b2(3)], ELEMENTS)[0], strict=True))
    assert row["fraction_Fe"] == row["fraction_Ni"] == 0.5
    assert row["phase_bcc"] == 1.0
    assert row["shell1_Fe-Ni"] == 1.0
    assert row["shell2_Fe-Fe"] == row["shell2_Ni-Ni"] == 0.5
    assert row["shell3_Fe-Ni"] == 0.0
    assert row["shell1_variance_Fe"] == pytest.approx(0.25)
    assert row["shell1_variance_Cr"] == 0.0


def test_pair_probabilities_add_up_and_follow_random_mixing() -> None:
    rows = alloy.describe([c.crystal for c in candidates(200)], ELEMENTS)
    for shell in (1, 2, 3):
        columns = [
            i
            for i, name in enumerate(NAMES)
            if name.startswith(f"shell{shell}_") and "variance" not in name
        ]
        assert rows[:, columns].sum(1) == pytest.approx(np.ones(200))
    like = rows[:, NAMES.index("shell1_Fe-Fe")]
    fraction = rows[:, NAMES.index("fraction_Fe")]
    assert np.mean(like - fraction**2) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("parent", ["bcc", "fcc"])
def test_descriptors_are_invariant(parent: str) -> None:
    rng = np.random.default_rng(1)
    crystal = supercell(
        parent, (3, 3, 3), rng.permutation(["Ni"] * 20 + ["Fe"] * 20 + ["Cr"] * 14).tolist()
    )  # type: ignore[arg-type]
    order = rng.permutation(54)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    others = [
        Crystal(1.05 * crystal.lattice, crystal.fractional, crystal.numbers),
        Crystal(
            crystal.lattice @ rotation,
            (crystal.fractional[order] + 0.21) % 1,
            crystal.numbers[order],
        ),
        Crystal.from_atoms(crystal.atoms.repeat((1, 2, 1))),
    ]
    noisy = crystal.atoms
    noisy.rattle(0.02, seed=3)
    others.append(Crystal.from_atoms(noisy))
    rows = alloy.describe([crystal, *others], ELEMENTS)
    assert np.abs(rows[1:] - rows[0]).max() < 1e-9


def known(crystals: list[Candidate]) -> np.ndarray:
    rows = alloy.describe([c.crystal for c in crystals], ELEMENTS)
    return (
        180 + 20 * rows[:, NAMES.index("fraction_Cr")] + 10 * rows[:, NAMES.index("shell1_Fe-Ni")]
    )  # type: ignore[no-any-return]


def fitted(
    n: int = 60, kernel: str = "linear_and_rbf"
) -> tuple[Fitted, list[Candidate], np.ndarray]:
    points = candidates(n)
    return (
        GaussianProcess(GaussianProcessConfig(kernel=kernel)).fit(points, known(points)),
        points,
        known(points),
    )  # type: ignore[arg-type]


def test_the_model_learns_a_smooth_function_in_its_own_unit() -> None:
    model, _, _ = fitted()
    fresh = candidates(100, seed=9)
    posterior = model.posterior(fresh)
    error = posterior.mean.reshape(-1).numpy() - known(fresh)
    assert np.sqrt(np.mean(error**2)) < 0.1 * known(fresh).std()
    inside = np.abs(error) < 2.6 * posterior.variance.sqrt().reshape(-1).numpy()
    assert inside.mean() > 0.9


def test_hyperparameters_are_kept_until_labels_have_grown() -> None:
    model, points, values = fitted(60)
    surrogate = GaussianProcess(GaussianProcessConfig(refit_growth=0.5))
    more = points + candidates(10, seed=3)
    same = surrogate.fit(more, known(more), previous=model.hyperparameters)
    assert same.hyperparameters["parameters"] == model.hyperparameters["parameters"]
    assert same.hyperparameters["optimised_at"] == 60
    assert same.model.train_targets.shape[-1] == 70
    many = points + candidates(40, seed=3)
    assert (
        surrogate.fit(many, known(many), previous=model.hyperparameters).hyperparameters[
            "optimised_at"
        ]
        == 100
    )
    assert len(values) == 60


def test_one_label_value_and_one_element_are_no_trouble() -> None:
    same = [Candidate(supercell("bcc", (2, 2, 2), ["Fe"] * 16)) for _ in range(4)]
    posterior = GaussianProcess(GaussianProcessConfig()).fit(same, np.full(4, 3.0)).posterior(same)
    assert posterior.mean.reshape(-1).numpy() == pytest.approx(np.full(4, 3.0), abs=0.1)
