"""Choice by the hull, on a model whose means and covariances are given, against closed forms and by
hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from campaign.acquisition import hull
from campaign.acquisition.hull import HullScores, Points
from campaign.acquisition.rows import FinitePoolModel
from campaign.config.schema import AcquisitionConfig
from campaign.decide import calibration
from campaign.ledger.stability import Diagram

IRON, NICKEL = 26, 28
BINARY = Diagram.of_phases(
    np.array([IRON, NICKEL], np.uint8), np.array([[0.5, 0.5]]), np.array([-0.1])
)
"""Fe-Ni with one compound at -0.1 eV/atom."""


def given(
    means: Sequence[float],
    deviations: Sequence[float],
    correlated: Sequence[tuple[int, int, float]] = (),
) -> FinitePoolModel:
    spread = np.array(deviations)
    correlation = np.eye(len(spread))
    for one, other, value in correlated:
        correlation[one, other] = correlation[other, one] = value
    covariance = torch.from_numpy(correlation * np.outer(spread, spread))
    return FinitePoolModel(torch.tensor(means, dtype=torch.float64)[:, None], covariance[None])


def points(nickel: Sequence[float], start: int = 0) -> Points:
    """Rows of the given model from ``start``, at fractions of nickel."""
    share = np.array(nickel)
    return Points(
        torch.arange(start, start + len(share), dtype=torch.float64)[:, None],
        np.column_stack([1 - share, share]),
    )


def chosen_by(
    model: FinitePoolModel,
    nickel: Sequence[float],
    n: int,
    pending: Points | None = None,
    tolerance: float = 0.0,
) -> HullScores:
    config = AcquisitionConfig(use="hull", samples=512, tolerance=tolerance)
    return hull.select(model, BINARY, points(nickel), pending, n, config=config, seed=3)


@pytest.mark.parametrize(
    ("mean", "deviation", "tolerance"), [(-0.12, 0.02, 0.0), (-0.05, 0.05, 0.0), (-0.05, 0.05, 0.1)]
)
def test_one_candidate_has_the_closed_form(mean: float, deviation: float, tolerance: float) -> None:
    scores = chosen_by(given([mean], [deviation]), [0.5], 1, tolerance=tolerance)
    gap = -0.1 + tolerance - mean
    z = gap / deviation
    improvement = gap * ndtr(z) + deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    chance = ndtr(z)
    assert scores.stable[0] == pytest.approx(chance, abs=0.02)
    assert scores.score[0] == pytest.approx(np.log(improvement) + np.log(chance), abs=0.1)


def test_off_the_compounds_composition_the_hull_is_the_line_to_the_elements() -> None:
    scores = chosen_by(given([-0.06, -0.06], [0.01, 0.01]), [0.25, 0.5], 1)
    assert scores.chosen == (0,), "at a quarter the hull lies at -0.05, in the middle at -0.1"
    assert scores.stable[0] > 0.7
    assert scores.stable[1] < 0.01


def test_a_batch_turns_to_other_compositions_once_one_is_taken() -> None:
    means = [-0.20, -0.195, -0.19, -0.10]
    model = given(means, [0.01] * 4, [(0, 1, 0.9), (0, 2, 0.9), (1, 2, 0.9)])
    scores = chosen_by(model, [0.5, 0.5, 0.5, 0.25], 2)
    assert scores.chosen[0] == 0
    assert scores.chosen[1] == 3, "its polymorphs are about to be undercut"


def test_what_waits_counts_with_the_energy_that_it_is_likely_to_have() -> None:
    means, nickel = [-0.15, -0.08, -0.20], [0.5, 0.25, 0.5]
    model = given(means, [0.01, 0.01, 0.01])
    assert chosen_by(model, nickel[:2], 1).chosen == (0,)
    assert chosen_by(model, nickel[:2], 1, pending=points(nickel[2:], start=2)).chosen == (1,)


def test_chances_sum_to_one_where_exactly_one_of_two_can_be_stable() -> None:
    model = given([-0.2, -0.2], [0.01, 0.01])
    scores = chosen_by(model, [0.5, 0.5], 1)
    assert scores.stable.sum() == pytest.approx(1, abs=0.01)


def test_five_elements_and_a_pool_larger_than_the_shortlist() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array([13, 22, 26, 28, 74], np.uint8)
    fractions = rng.dirichlet(np.ones(5), size=60)
    formation = rng.normal(0, 0.1, 60)
    diagram = Diagram.of_phases(kinds, fractions[:20], formation[:20])
    pool = Points(torch.arange(40, dtype=torch.float64)[:, None], fractions[20:])
    config = AcquisitionConfig(use="hull", shortlist=15, samples=32)
    scores = hull.select(
        given(formation[20:].tolist(), [0.01] * 40), diagram, pool, None, 6, config=config, seed=0
    )
    above = diagram.hull.above(fractions[20:], formation[20:])
    assert len(set(scores.chosen)) == 6
    assert above[list(scores.chosen)[:3]].max() < 0.02
    assert np.isfinite(scores.score).all()
    assert ((scores.stable > 0) & (scores.stable < 1)).all()


@pytest.mark.parametrize(("price", "level"), [(1.0, 1), (30.0, 0)])
def test_the_level_is_chosen_by_what_it_moves_for_its_price(price: float, level: int) -> None:
    nickel = [0.25, 0.5, 0.75]
    deviations = [0.05] * 6
    model = given([-0.05, -0.1, -0.05] * 2, deviations, [(i, i + 3, 0.9) for i in range(3)])
    at_level = [points(nickel), points(nickel, start=3)]
    everything = np.ones((2, 3), dtype=bool)
    config = AcquisitionConfig(use="hull", samples=128)
    scores, stable = hull.select_levels(
        model,
        BINARY,
        at_level,
        None,
        2,
        [1.0, price],
        everything,
        [None, None],
        config=config,
        seed=1,
    )
    assert {chosen for chosen, _ in scores.chosen} == {level}
    assert stable.shape == (3,)
    nothing, _ = hull.select_levels(
        model,
        BINARY,
        at_level,
        None,
        2,
        [1.0, price],
        ~everything,
        [None, None],
        config=config,
        seed=1,
    )
    assert nothing.chosen == ()


def test_reliability_by_hand() -> None:
    found = calibration.reliability(
        [(0.05, False), (0.15, True), (0.9, True), (1.0, True), (0.95, False)], bins=5
    )
    assert [(round(item.chance, 3), round(item.share, 3), item.n) for item in found] == [
        (0.1, 0.5, 2),
        (0.95, 0.667, 3),
    ]
