"""The forests that choose sites: features, what they prefer, and how a generator keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import (
    Candidate,
    Checkpoint,
    LabelledCandidate,
    Objective,
    SearchSpace,
)
from generators.cvae.described import Described, rows_of
from generators.cvae.feasible import Condition, SiteLimits
from generators.cvae.forest import (
    NAMES,
    Outcomes,
    SiteForest,
    features,
    from_checkpoint,
    to_checkpoint,
)
from generators.cvae.model import Sizes
from generators.cvae.plugin import CVAE, CVAEConfig, RandomEnvironment, RandomEnvironmentConfig
from generators.cvae.sites import random_condition, random_table
from generators.cvae.store import from_checkpoint as from_cvae
from generators.cvae.store import to_checkpoint as to_cvae
from generators.cvae.train import TrainingSettings, sample, train
from generators.wyckoff import group_of

LIMITS = SiteLimits((6,), (3,), (1,), (166, 194, 225, 229), atoms=(4, 100), sites=(1, 4))


def drawn(n: int, seed: int = 0) -> list[Condition]:
    rng = np.random.default_rng(seed)
    return [random_condition(LIMITS, rng) for _ in range(n)]


def column(rows: Any, name: str) -> Any:
    return rows[:, NAMES.index(name)]


def test_features_of_a_known_crystal() -> None:
    """C6: R-3m, 6c: three-fold axis, one free coordinate, two atoms in the primitive cell."""
    letters = [position.letter for position in group_of(166).positions]
    (row,) = features([(166, ((letters.index("c"), 6),))], LIMITS)
    told = dict(zip(NAMES, row, strict=True))
    assert told["space group"] == 166
    assert (told["system"], told["free variables of the cell"]) == (4, 2)
    assert (told["operations of the point group"], told["inversion"]) == (12, 1)
    assert (told["atoms of the cell"], told["atoms of the primitive cell"]) == (6, 2)
    assert (told["free coordinates"], told["most operations of a site"]) == (1, 6)


def test_features_do_not_depend_on_the_order_of_sites() -> None:
    conditions = drawn(50)
    turned = [(group, tuple(reversed(sites))) for group, sites in conditions]
    rows = features(conditions, LIMITS)
    assert rows.shape == (50, len(NAMES))
    assert np.allclose(rows, features(turned, LIMITS), rtol=1e-12)
    assert features([], LIMITS).shape == (0, len(NAMES))


def test_the_forests_prefer_what_succeeded_and_reach_what_was_not_tried() -> None:
    conditions = drawn(300)
    is_good = column(features(conditions, LIMITS), "atoms of the primitive cell") <= 12
    forest = SiteForest(
        Outcomes(tuple(conditions), is_good), Outcomes(), LIMITS, 3, trees=30, pool=500
    )
    found = forest.draw(200, np.random.default_rng(1))
    small = column(features(found, LIMITS), "atoms of the primitive cell") <= 12
    assert small.mean() > is_good.mean() + 0.1
    assert set(found) - set(conditions)
    assert found == forest.draw(200, np.random.default_rng(1)), "the same stream, the same sites"
    even = forest.draw(200, np.random.default_rng(1), explored=1.0)
    assert (
        small.mean() > (column(features(even, LIMITS), "atoms of the primitive cell") <= 12).mean()
    ), "what is explored is random"


def test_the_chance_is_the_product_of_both() -> None:
    conditions = tuple(drawn(120))
    rng = np.random.default_rng(0)
    accepted, low = (Outcomes(conditions, rng.random(120) < 0.5) for _ in range(2))
    both = SiteForest(accepted, low, LIMITS, 1, trees=20)
    one = SiteForest(accepted, Outcomes(), LIMITS, 1, trees=20)
    other = SiteForest(Outcomes(), low, LIMITS, 1, trees=20)
    assert np.allclose(
        both.chances(conditions), one.chances(conditions) * other.chances(conditions)
    )


def test_outcomes_that_are_all_alike_teach_nothing() -> None:
    conditions = drawn(20)
    alike = Outcomes(tuple(conditions), np.ones(20, dtype=bool))
    forest = SiteForest(alike, Outcomes(), LIMITS, 0)
    assert (forest.chances(conditions) == 1).all()
    with pytest.raises(InputError, match="an outcome for each of 20 conditions, got 3"):
        Outcomes(tuple(conditions), np.ones(3, dtype=bool))


def test_a_checkpoint_gives_the_same_forests() -> None:
    conditions = drawn(80)
    accepted = Outcomes(tuple(conditions), np.arange(80) % 3 == 0)
    low = Outcomes(tuple(conditions[:30]), np.arange(30) % 2 == 0)
    stored = checkpoint_from_bytes(checkpoint_to_bytes(to_checkpoint(accepted, low, 7)))
    again = from_checkpoint(stored)
    for one, other in zip((accepted, low), again[:2], strict=True):
        assert one.conditions == other.conditions
        assert (one.is_good == other.is_good).all()
    first = SiteForest(accepted, low, LIMITS, 7, trees=20)
    second = SiteForest(*again[:2], LIMITS, again[2], trees=20)
    assert (first.chances(conditions) == second.chances(conditions)).all()
    with pytest.raises(InputError, match="expected weights of kind site_forest, got kind other"):
        from_checkpoint(Checkpoint(tensors={}, facts={"kind": "other"}))


def generator(**more: object) -> RandomEnvironment:
    return RandomEnvironment(
        RandomEnvironmentConfig.model_validate(
            {
                "target": {"prototypes": ["graphite"], "bonds": {"C-C": 1.872}},
                "sites": {"atoms": [4, 60], "sites": [1, 4], "space_groups": [166, 194, 229]},
                "refine": {"restarts": 1},
                "forest": {"tries": 40},
                "min_labels": 10,
                **more,
            }
        )
    )


def context(labelled: list[LabelledCandidate], **more: Any) -> GenerationContext:
    return GenerationContext(
        space=SearchSpace(("C",)),
        objective=Objective("energy_per_atom", "minimize"),
        labelled=tuple(labelled),
        **more,
    )


def labels(n: int) -> list[LabelledCandidate]:
    made = generator().generate(n, rng=np.random.default_rng(2), context=context([]))
    return [
        LabelledCandidate(candidate=Candidate(crystal), values={"energy_per_atom": -7.0 + 0.01 * k})
        for k, (crystal, _) in enumerate(made)
    ]


def test_a_generator_learns_from_failures_and_labels_and_repeats_itself() -> None:
    labelled = labels(12)
    assert len(labelled) == 12
    one = generator()
    assert one.is_ready(labelled)
    assert not one.is_ready(labelled[:9])
    assert not generator(conditions="random").is_ready(labelled)
    assert not generator(sites={"given": [[229, [0]]]}).is_ready(labelled)
    before = context(labelled)
    first = one.train(labelled, rng=np.random.default_rng(4), context=before)
    assert first.metrics["tried"] == 40
    assert 0 < first.metrics["accepted"] < 40, "what failed is learned too"
    assert first.metrics["low"] == 3, "a quarter of the labels"
    second = one.train(
        labelled, rng=np.random.default_rng(5), context=context(labelled, checkpoint=first)
    )
    assert second.metrics["tried"] == 80, "what was tried before is kept"
    stored = checkpoint_from_bytes(checkpoint_to_bytes(second))
    found = [
        [
            (crystal.id, proposal.condition)
            for crystal, proposal in each.generate(
                4, rng=np.random.default_rng(6), context=context(labelled, checkpoint=checkpoint)
            )
        ]
        for each, checkpoint in ((one, second), (generator(), stored))
    ]
    assert found[0] == found[1], "a new process with the stored state goes on the same"
    assert found[0]


def cvae(**more: object) -> CVAE:
    return CVAE(
        CVAEConfig.model_validate(
            {
                "target": {"prototypes": ["graphite"], "bonds": {"C-C": 1.872}},
                "sites": {"atoms": [4, 60], "sites": [1, 4], "space_groups": [166, 194, 229]},
                "refine": {"restarts": 1},
                "conditions": "forest",
                "forest": {"tries": 30},
                "training": {"epochs": 3, "hidden": 32, "latent": 8, "descriptions": 3},
                "latent": {"rounds": 0},
                "min_labels": 10,
                **more,
            }
        )
    )


def test_conditions_are_told_by_numbers_that_all_sites_have() -> None:
    """What one site has is in its own place; an empty place is zero; unseen sites are known."""
    group, sites = 194, ((9, 6), (10, 6))
    one, both = rows_of([(group, sites[:1]), (group, sites)], (6,))
    width = (len(one) - 13) // 8
    assert len(one) == 13 + 8 * 17
    assert np.array_equal(one[: 13 + width], both[: 13 + width])
    assert not one[13 + width :].any()
    assert both[13 + width : 13 + 2 * width].any()
    assert not both[13 + 2 * width :].any()
    scales = Described.of([(group, sites[:1]), (group, sites)], (6,))
    assert scales.knows((225, ((9, 6),)), (6,))
    assert not scales.knows((225, ((9, 7),)), (6,))
    told = scales.encode(drawn(30), (6,)).numpy()
    assert told.shape == (30, scales.n_inputs)
    assert np.abs(told).max() <= 5.0
    kept = (scales.spread > 1e-6).nonzero()[0]
    assert not np.delete(told, kept, axis=1).any(), "what never differed says nothing"


def test_every_site_of_a_group_is_told_apart() -> None:
    for group in LIMITS.space_groups:
        conditions: list[Condition] = [
            (group, ((index, 6),)) for index in range(len(group_of(group).positions))
        ]
        rows = rows_of(conditions, (6,))
        assert len({row.tobytes() for row in rows}) == len(conditions)


def test_a_network_told_by_features_is_asked_for_sites_that_it_never_learned() -> None:
    """It learned that cells of six-fold groups are large and those of cubic ones small."""
    rng = np.random.default_rng(0)
    tables = [
        random_table((group, ((0, 6),)), volume, rng)
        for group, volume in ((194, (30.0, 30.1)), (225, (6.0, 6.1)))
        for _ in range(60)
    ]
    settings = TrainingSettings(150, 60, 3e-3)
    sizes = Sizes(latent=4, hidden=48, embedding=16, components=4)
    trained = train(tables, (6,), settings, sizes=sizes, by_features=True)
    model, _ = from_cvae(to_cvae(trained.model, tables, trained.metrics))
    unseen: list[Condition] = [(191, ((0, 6),)), (229, ((0, 6),))]
    found = [
        sample(one, [condition] * 40, np.random.default_rng(1))
        for one in (trained.model, model)
        for condition in unseen
    ]
    assert found[:2] == found[2:], "the checkpoint is the same model"
    a = [float(np.median([table.cell[0] for table in some])) for some in found[:2]]
    learned = [float(np.median([table.cell[0] for table in some])) for some in (tables[:60], tables[60:])]  # noqa: E501  # fmt: skip
    assert np.argsort(a).tolist() == np.argsort(learned).tolist()
    one_hot = train(tables, (6,), TrainingSettings(1, 60), sizes=sizes).model
    with pytest.raises(InputError, match="space group 191 was not in the data"):
        sample(one_hot, unseen, rng)


def test_a_cvae_takes_its_conditions_from_the_forests() -> None:
    """Outcomes lie beside the weights and are kept by the next training; sites come that no learned
    crystal has.
    """
    labelled = labels(12)
    one = cvae()
    first = one.train(labelled, rng=np.random.default_rng(4), context=context(labelled))
    assert first.metrics["tried"] == 30
    assert "loss" in first.metrics
    second = one.train(
        labelled, rng=np.random.default_rng(5), context=context(labelled, checkpoint=first)
    )
    assert second.metrics["tried"] == 60, "what was tried before is kept"
    stored = checkpoint_from_bytes(checkpoint_to_bytes(second))
    found = [
        [
            (crystal.id, proposal.condition)
            for crystal, proposal in each.generate(
                4, rng=np.random.default_rng(6), context=context(labelled, checkpoint=checkpoint)
            )
        ]
        for each, checkpoint in ((one, second), (cvae(), stored))
    ]
    assert found[0] == found[1], "a new process with the stored state goes on the same"
    assert found[0]
    learned = {
        (table.space_group, " ".join(map(str, table.sites))) for table in from_cvae(second)[1]
    }
    asked = {(told["space_group"], told["sites"]) for _, told in found[0]}
    assert asked - learned
    with pytest.raises(InputError, match="told conditions by features"):
        list(
            cvae(conditions="model").generate(
                1, rng=np.random.default_rng(0), context=context(labelled, checkpoint=second)
            )
        )
