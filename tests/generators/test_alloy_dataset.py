"""The data-set generator: a fixed table, a lattice by rule, and local searches that go on where
they were.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from support import load

from campaign.api import Campaign
from campaign.cli.pretraining import labelled_of_campaign
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.alloy_dataset import AlloyDataset, AlloyDatasetConfig

SPACE = SearchSpace(("Ni", "Fe", "Cr"), {}, {"Ni": 0.8, "Fe": 0.8, "Cr": 0.8})
RULE = [{"lattice": "fcc", "when": {"Ni": 1.0}, "above": 0.4}, {"lattice": "bcc"}]


def made(**changes: object) -> AlloyDataset:
    settings = {
        "compositions": 6,
        "orderings": 4,
        "lattices": RULE,
        "improve": {"share": 0.5, "iterations": 3, "swaps": 5},
    }
    return AlloyDataset(AlloyDatasetConfig.model_validate(settings | changes))


def context(
    values: dict[str, float], crystals: dict[str, Crystal], pending: tuple[Candidate, ...] = ()
) -> GenerationContext:
    labelled = [
        LabelledCandidate(candidate=Candidate(crystals[identity]), values={"x": value})
        for identity, value in values.items()
    ]
    return GenerationContext(
        space=SPACE, objective=Objective("x", "maximize"), labelled=labelled, pending=pending
    )


def merit(crystal: Crystal) -> float:
    """Rewards nickel on the sites of low index."""
    return float((np.flatnonzero(crystal.numbers == 28) < 8).sum())


def test_the_table_is_fixed_and_follows_the_rule() -> None:
    empty = context({}, {})
    table = made().table(empty)
    assert [row.crystal.id for row in made().table(empty)] == [row.crystal.id for row in table]
    assert len({row.composition for row in table}) == 6
    assert len(table) <= 24
    for row in table:
        is_rich = row.crystal.symbols.count("Ni") / 16 > 0.4
        assert row.lattice == ("fcc" if is_rich else "bcc")
        assert (row.crystal.lattice[2, 2] / row.crystal.lattice[0, 0] > 1.2) == is_rich
    assert 0 < sum(row.is_improved for row in table) < len(table)
    assert [row.crystal.id for row in made(seed=1).table(empty)] != [
        row.crystal.id for row in table
    ]


def test_each_search_climbs_and_ends() -> None:
    generator, rng = made(), np.random.default_rng(0)
    crystals: dict[str, Crystal] = {}
    values: dict[str, float] = {}
    by_round = []
    for _ in range(10):
        new = list(generator.generate(500, rng=rng, context=context(values, crystals)))
        if not new:
            break
        by_round.append(new)
        for crystal, _ in new:
            crystals[crystal.id], values[crystal.id] = crystal, merit(crystal)
    assert 1 + 2 <= len(by_round) <= 1 + 3
    assert {proposal.condition["set"] for _, proposal in by_round[0]} == {"random"}
    assert {proposal.condition["iteration"] for new in by_round[1:] for _, proposal in new} == {
        1,
        2,
        3,
    }
    for new in by_round[1:]:
        assert all(
            values[crystal.id] >= values[proposal.parents[0]] - 2 for crystal, proposal in new
        )
    last = by_round[-1]
    assert np.mean([values[p.parents[0]] for _, p in last]) > np.mean(
        [values[str(p.condition["base"])] for _, p in last]
    )


def test_a_step_waits_for_what_is_pending_and_not_for_failures() -> None:
    generator, rng = made(), np.random.default_rng(0)
    table = list(generator.generate(500, rng=rng, context=context({}, {})))
    crystals = {crystal.id: crystal for crystal, _ in table}
    values = {crystal.id: merit(crystal) for crystal, _ in table}
    step = list(generator.generate(500, rng=rng, context=context(values, crystals)))
    base = step[0][1].condition["base"]
    mine = [crystal for crystal, proposal in step if proposal.condition["base"] == base]
    crystals |= {crystal.id: crystal for crystal in mine}
    begun = values | {mine[0].id: merit(mine[0])}
    waiting = generator.generate(
        500,
        rng=rng,
        context=context(begun, crystals, tuple(Candidate(crystal) for crystal in mine[1:])),
    )
    assert base not in {
        proposal.condition["base"]
        for _, proposal in waiting
        if proposal.condition["iteration"] == 2
    }
    failed = generator.generate(500, rng=rng, context=context(begun, crystals))
    assert 2 in {
        proposal.condition["iteration"]
        for _, proposal in failed
        if proposal.condition["base"] == base
    }


def test_bad_settings_are_told() -> None:
    with pytest.raises(ValidationError, match="last rule should have no `when`"):
        made(lattices=RULE[:1])
    with pytest.raises(InputError, match="expected 200 compositions of 16 atoms, found"):
        made(compositions=200).table(context({}, {}))


def test_a_campaign_labels_the_table_and_the_searches(tmp_path: Path) -> None:
    params = {
        "compositions": 4,
        "orderings": 3,
        "improve": {"share": 0.5, "iterations": 2, "swaps": 4},
    }
    loaded = load(
        tmp_path,
        space={"max_fraction": 0.8},
        generators=[{"use": "alloy_dataset", "count": 200, "params": params}],
        acquisition={"use": "all", "initial_labels": 200, "batch_size": 200, "pool_size": 200},
        surrogate=None,
        budget={"rounds": 3, "labels": 500},
    )
    Campaign(tmp_path / "campaign", loaded).run()
    every, table, improved = (
        labelled_of_campaign(tmp_path / "campaign", "energy_per_atom", None, name)
        for name in ("all", "random", "improved")
    )
    assert len(table) < len(improved) < len(every)
    lowest = min(item.values["energy_per_atom"] for item in every if item not in table)
    assert lowest in [item.values["energy_per_atom"] for item in improved]
