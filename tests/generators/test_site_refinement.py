"""Refinement towards a target's bonds: variants, space groups, and sites without the bonds."""

from __future__ import annotations

import numpy as np
import pytest
from carbon_cases import CARBON, GRAPHITE, LIMITS, random_batch

from campaign.errors import InputError
from generators.cvae.descent import descent
from generators.cvae.environment import Environment, prototype
from generators.cvae.feasible import SiteLimits, is_feasible
from generators.cvae.free_variables import batch_of
from generators.cvae.loss import loss_and_slope
from generators.cvae.nets import dimensions_of
from generators.cvae.orbits import allows
from generators.cvae.refine import Recipe, is_valid, refine
from generators.cvae.settings import RefineConfig
from generators.cvae.sites import (
    check_condition,
    condition_of,
    random_condition,
    random_table,
)
from generators.cvae.table import decode, encode, from_row


def test_a_point_off_its_site_is_taken_to_the_nearest_place_and_no_site_is_lost() -> None:
    cell = [194.0, 2.46, 2.46, 6.7, np.pi / 2, np.pi / 2, 2 * np.pi / 3]
    table = from_row([*cell, 9, 0.30, 0.69, 0.27, 10, 0.02, 0.97, 0.24] + [-1.0] * 24, CARBON)
    assert len(decode(table)) == 4
    assert loss_and_slope(batch_of([table], (CARBON,)), GRAPHITE.target)[0][0] < 1.0


def test_refinement_gives_the_targets_bonds_and_keeps_the_space_group() -> None:
    batch = random_batch(60, 6)
    found = refine(batch, GRAPHITE, Recipe(restarts=8), np.random.default_rng(0))
    assert found.is_valid.mean() > 0.3
    assert (loss_and_slope(found.batch, GRAPHITE.target)[0] == found.loss).all()
    for table, good, before in zip(
        found.batch.as_tables(), found.is_valid, batch.names, strict=True
    ):
        assert condition_of(table) == condition_of(before)
        if good:
            crystal = decode(table)
            distances = crystal.structure.get_all_neighbors(1.872)
            assert {len(near) for near in distances} == {3}
    again = refine(batch, GRAPHITE, Recipe(restarts=8), np.random.default_rng(0))
    assert (again.batch.variables == found.batch.variables).all(), (
        "the same seed gives the same crystals"
    )


def test_refinement_beats_the_papers_descent() -> None:
    batch = random_batch(40, 7)
    plain = descent(batch, GRAPHITE.target, steps=200)
    by_tensors = descent(batch.subset(range(4)), GRAPHITE.target, steps=20, device="cpu")
    by_loops = descent(batch.subset(range(4)), GRAPHITE.target, steps=20)
    assert np.allclose(by_tensors.variables, by_loops.variables, rtol=1e-6), (
        "the form for GPUs takes the same steps"
    )
    ours = refine(batch, GRAPHITE, Recipe(restarts=0), np.random.default_rng(0))
    assert (
        loss_and_slope(plain, GRAPHITE.target)[0]
        <= loss_and_slope(batch, GRAPHITE.target)[0] + 1e-9
    ).all()
    assert ours.is_valid.sum() > is_valid(plain, GRAPHITE).sum()


def test_the_papers_refinement_is_a_choice_of_the_config() -> None:
    batch = random_batch(12, 7)
    recipe = RefineConfig(variant="paper", steps=30, learning_rate=5e-3, dimension=0).recipe()
    found = refine(batch, GRAPHITE, recipe, np.random.default_rng(0))
    wanted = descent(batch, GRAPHITE.target, steps=30, rate=5e-3)
    assert (found.batch.variables == wanted.variables).all(), "Algorithm 1 and nothing else"
    assert not found.restarts.any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "paper", "restarts": 3}, "restarts: expected with variant: oreloop only"),
        ({"variant": "paper", "volumes": [9.0]}, "volumes: expected with variant: oreloop only"),
        ({"steps": 100}, "steps: expected with variant: paper only"),
    ],
)
def test_settings_of_the_other_variant_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefineConfig.model_validate(given)


def test_frameworks_are_told_from_layers() -> None:
    tables = [encode(prototype("graphite")), encode(prototype("diamond"))]
    assert dimensions_of(
        batch_of(tables, (CARBON,)), Environment((prototype("diamond"),), {"C-C": 1.872})
    ).tolist() == [2, 3]
    only = Recipe(restarts=0, dimension=3, volume=(1.0, 100.0))
    found = refine(batch_of(tables[:1], (CARBON,)), GRAPHITE, only, np.random.default_rng(0))
    assert found.is_valid.tolist() == [True]
    assert found.is_accepted.tolist() == [False]


def test_sites_that_cannot_have_the_bonds_are_left_out() -> None:
    diamond_site = encode(prototype("diamond"))
    assert allows(227, diamond_site.sites[0], 4)
    assert not allows(227, diamond_site.sites[0], 3), (
        "a tetrahedral site has 4, 6 or 12 alike directions"
    )
    with pytest.raises(InputError, match="cannot have 3 bonds"):
        check_condition(condition_of(diamond_site), LIMITS)
    with pytest.raises(InputError, match="no Wyckoff position 40"):
        check_condition((194, ((40, CARBON),)), LIMITS)
    with pytest.raises(InputError, match="not \\[1, 1\\] of each"):
        check_condition((1, ((0, 5), (0, 5), (0, 7))), SiteLimits((5, 7), (3, 3), (1, 1)))
    with pytest.raises(InputError, match="were found"):
        random_condition(
            SiteLimits((CARBON,), (3,), (1,), space_groups=(230,), atoms=(2, 6)),
            np.random.default_rng(0),
            tries=20,
        )


@pytest.mark.parametrize(
    ("group", "sites", "is_possible"),
    [
        (1, (0, 0, 0), False),  # nine ends of bonds in the primitive cell
        (1, (0, 0), True),
        (4, (0,), False),  # a screw exchanges no two atoms, so bonds of one site come in pairs
        (4, (0, 0), True),
        (2, (0,), True),  # the inversion exchanges two
        (166, (6,), True),  # 6c of graphite's and diamond's layers
        (98, (0, 0, 1), False),
    ],
)
def test_conditions_whose_bonds_cannot_pair_off_are_refused(
    group: int, sites: tuple[int, ...], is_possible: bool
) -> None:
    condition = (group, tuple((index, CARBON) for index in sites))
    limits = SiteLimits((CARBON,), (3,), (1,))
    assert is_feasible(condition, limits) == is_possible
    if not is_possible:
        with pytest.raises(InputError, match="pair off"):
            check_condition(condition, limits)


def test_elements_without_bonds_of_their_own_pair_off_with_others() -> None:
    apart = frozenset({(5, 5), (7, 7)})
    assert is_feasible((1, ((0, 5), (0, 7))), SiteLimits((5, 7), (3, 3), (1, 1), apart=apart))
    assert not is_feasible((2, ((0, 5), (8, 7))), SiteLimits((5, 7), (3, 3), (2, 1), apart=apart))


def test_nothing_that_has_the_bonds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(200)
    with monkeypatch.context() as patch:
        patch.setattr("generators.cvae.sites.is_feasible", lambda condition, limits: True)
        conditions = [random_condition(LIMITS, rng) for _ in range(120)]
    tables = [random_table(condition, (7.0, 11.0), rng) for condition in conditions]
    valid = refine(batch_of(tables, (CARBON,)), GRAPHITE, Recipe(restarts=2), rng).is_valid
    possible = np.array([is_feasible(condition, LIMITS) for condition in conditions])
    assert valid.sum() > 30
    assert (~possible).sum() > 15
    assert not (valid & ~possible).any()


def test_a_start_is_taken_at_several_volumes() -> None:
    rng = np.random.default_rng(200)
    tables = [random_table(random_condition(LIMITS, rng), (7.0, 11.0), rng) for _ in range(60)]
    batch = batch_of(tables, (CARBON,))
    one, several = (
        refine(batch, GRAPHITE, Recipe(restarts=0, volumes=volumes), rng).is_valid
        for volumes in ((), (7.0, 11.0, 14.0, 6.0))
    )
    assert several[one].all()
    assert several.sum() > 1.1 * one.sum()
