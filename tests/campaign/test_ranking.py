"""What is wanted is what is shown: constraints, several objectives and the space in every view of
the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import HELPERS, load

from campaign.api import Campaign
from campaign.decide import budget, ladder, ranking
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.ledger.leaders import Bound, Wanted, dominates
from campaign.report import write_report
from campaign.types import Objective, SearchSpace
from campaign.views import metrics
from campaign.views.export import export
from campaign.views.view import OpenView, View

MORE, LESS = Objective("value", "maximize"), Objective("price", "minimize")


def labelled(
    rows: list[dict[str, float]], oracle: str = "o", formulas: list[str] | None = None
) -> CampaignState:
    """A state with one label for each row, in their order, one a round."""
    state = CampaignState()
    numbers = itertools.count(1)
    for i, row in enumerate(rows):
        name = f"c{i:03d}"
        formula = formulas[i] if formulas else "Fe1Ni1"
        state.apply(next(numbers), 0.0, ev.RoundStarted(round=i))
        proposal = ev.ProposalRow(name, f"{formula}:{i}")
        state.apply(
            next(numbers),
            0.0,
            ev.Proposed(
                round=i,
                generator="g",
                checkpoint=None,
                stream="s",
                seconds=0.0,
                proposals=(proposal,),
            ),
        )
        state.apply(next(numbers), 0.0, decided(i, name, oracle))
        observations = tuple(
            ev.ObservationRow(quantity, value, "1") for quantity, value in row.items()
        )
        state.apply(next(numbers), 0.0, ev.Labelled(
            candidate=name, oracle=oracle, fidelity="f", attempt=0, observations=observations, crystal=None, artifacts={},  # noqa: E501
            wall_seconds=1.0, cpu_seconds=1.0, started=0.0, worker="w"))  # fmt: skip
        state.apply(next(numbers), 0.0, ev.RoundEnded(round=i))
    return state


def decided(index: int, candidate: str, oracle: str) -> ev.Decided:
    return ev.Decided(
        round=index, acquisition="random", model=None, model_labels=0, stream="s", pool="h", pool_size=1, table=None, pending=(),  # noqa: E501
        choices=(ev.ChoiceRow(candidate, oracle),), seconds=0.0, labels_at_decision=0)  # fmt: skip


numbers = st.integers(-3, 3).map(float) | st.just(float("nan"))
rows_of_two = st.lists(st.fixed_dictionaries({"value": numbers, "price": numbers}), max_size=14)


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    rows_of_two,
    st.sampled_from([(MORE,), (LESS,), (MORE, LESS), (Objective("value", "match", value=1.0),)]),
    st.booleans(),
)
def test_leaders_kept_while_labels_come_are_those_found_from_all(
    rows: list[dict[str, float]], objectives: tuple[Objective, ...], is_bounded: bool
) -> None:
    wanted = Wanted("o", objectives, (Bound("price", -1, 1.0),) if is_bounded else ())
    early, late = labelled([]), labelled(rows)
    early.leaders(wanted)
    early = _continued(wanted, rows)
    ranked = ranking.ranked(late, wanted)
    assert [label.candidate for label in early.leaders(wanted).front] == [
        label.candidate for label in ranking.front(late, wanted)
    ]
    holding = [item for item in ranked if item.holds]
    assert [item.rank for item in ranked] == list(range(1, len(ranked) + 1))
    assert ranked == sorted(ranked, key=lambda item: not item.holds), "what holds comes first"
    for item in ranked:
        assert item.holds == (not is_bounded or item.label.values.get("price", float("nan")) <= 1.0)
    gains = {item.label.candidate: wanted.gains(item.label.values) for item in holding}
    for one, other in itertools.combinations(holding, 2):
        assert not dominates(gains[other.label.candidate], gains[one.label.candidate]), (
            "nothing stands above what beats it"
        )  # type: ignore[arg-type]
    best = ranking.best(late, wanted)
    assert (best is None) == (not holding)
    assert best is None or best is holding[0].label
    fronted = {label.candidate for label in ranking.front(late, wanted)}
    expected = {
        name for name, g in gains.items() if not any(dominates(o, g) for o in gains.values())
    }  # type: ignore[arg-type]
    assert fronted <= expected
    assert len(objectives) == 1 or fronted == expected


def _continued(wanted: Wanted, rows: list[dict[str, float]]) -> CampaignState:
    """The state whose leaders were asked for before the first label came."""
    whole = labelled(rows)
    state = CampaignState()
    state.candidates, state.labels = whole.candidates, {}
    leaders = state.leaders(wanted)
    for label in whole.labels.values():
        leaders.add(label, whole.counts(label.candidate))
    return state


def test_a_target_is_reached_by_what_holds_alone_and_by_every_target() -> None:
    config = load(
        HELPERS,
        objective={"quantity": "energy_per_atom", "direction": "minimize", "target": -5.0},
        budget={"labels": None},
    ).config
    config = config.model_copy(
        update={"constraints": (config_bound("volume_per_atom", at_least=15.0),)}
    )
    broken = {"energy_per_atom": -6.0, "volume_per_atom": 12.0}
    held = {"energy_per_atom": -4.0, "volume_per_atom": 16.0}
    assert (
        budget.stop_reason(labelled([broken, held], "lennard_jones"), config, "lennard_jones") == ""
    )
    reason = budget.stop_reason(
        labelled([broken, {**held, "energy_per_atom": -5.1}], "lennard_jones"),
        config,
        "lennard_jones",
    )
    assert reason == "target reached: energy_per_atom -5.1, wanted -5"


def config_bound(quantity: str, **bound: float) -> Any:
    from campaign.config.schema import ConstraintConfig

    return ConstraintConfig(quantity=quantity, **bound)


def test_stagnation_counts_from_the_last_label_that_leads() -> None:
    rows = [
        {"value": 1.0, "price": 5.0},
        {"value": 9.0, "price": 50.0},
        {"value": 0.0, "price": 0.0},
        {"value": 0.0, "price": 1.0},
    ]
    state = labelled(rows)
    assert ranking.rounds_without_gain(state, Wanted("o", (MORE,))) == 2
    assert (
        ranking.rounds_without_gain(state, Wanted("o", (MORE,), (Bound("price", -1, 10.0),))) == 3
    )
    assert ranking.rounds_without_gain(state, Wanted("o", (MORE, LESS))) == 1, (
        "the third is on the front"
    )
    assert (
        ranking.rounds_without_gain(state, Wanted("o", (MORE,), (Bound("price", -1, -1.0),))) == 0
    ), "nothing holds yet"


def test_what_breaks_a_constraint_comes_last_the_nearest_first() -> None:
    state = labelled(
        [
            {"value": 9.0, "price": 30.0},
            {"value": 1.0, "price": 1.0},
            {"value": 8.0, "price": 11.0},
            {"value": 7.0},
        ]
    )
    wanted = Wanted("o", (MORE,), (Bound("price", -1, 10.0),))
    assert [item.label.candidate for item in ranking.ranked(state, wanted)] == [
        "c001",
        "c002",
        "c000",
        "c003",
    ]
    assert [value for _, value in ranking.best_so_far(state, wanted)] == [None, 1.0, 1.0, 1.0]


def test_what_lies_outside_the_space_is_not_wanted() -> None:
    state = labelled([{"value": 9.0}, {"value": 1.0}], formulas=["Fe4", "Fe1Ni1"])
    wanted = Wanted("o", (MORE,), (), SearchSpace(("Fe", "Ni"), {}, {"Fe": 0.9}))
    best = ranking.best(state, wanted)
    assert best is not None
    assert best.candidate == "c001", "an element's reference is no alloy of the space"


def test_a_gate_lets_nobody_pass_who_breaks_a_constraint_that_its_level_measures() -> None:
    levels = [{"oracle": "a"}, {"oracle": "b", "gate": {"best_fraction": 0.5}}]
    config = load(
        HELPERS,
        oracles=[{"use": "lennard_jones", "name": name} for name in ("a", "b")],
        fidelities={"levels": levels},
        constraints=[{"quantity": "volume_per_atom", "at_least": 15.0}],
        surrogate=None,
        acquisition={"use": "random"},
    ).config
    rows = [{"energy_per_atom": float(-i), "volume_per_atom": 20.0 - i} for i in range(10)]
    state = labelled(rows, "a", formulas=["Cr1Fe1Ni1"] * 10)
    chosen = ladder.climbers(state, config, before=10_000, stream="s")
    assert [row.candidate for row in chosen] == ["c005", "c004", "c003", "c002", "c001"]
    unmeasured = labelled(
        [{"energy_per_atom": float(-i)} for i in range(10)], "a", formulas=["Cr1Fe1Ni1"] * 10
    )
    assert [
        row.candidate for row in ladder.climbers(unmeasured, config, before=10_000, stream="s")
    ][:2] == ["c009", "c008"]


def test_the_front_of_many_points_is_found_in_little_memory() -> None:
    gains = np.random.default_rng(0).random((300, 3))
    slow = [not any(dominates(tuple(other), tuple(one)) for other in gains) for one in gains]
    assert ranking.is_on_front(gains).tolist() == slow


def test_every_view_of_a_campaign_shows_the_best_that_holds(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    from campaign.views.progress import facts

    campaign = small(
        constraints=[{"quantity": "volume_per_atom", "at_least": 11.2}],
        oracles=[{"use": "user_oracles:Sized"}],
        acquisition={"initial_labels": 14},
        budget={"labels": 14},
    )
    campaign.run()
    state, wanted = campaign.state(), campaign.wanted
    table = campaign.best
    held = table[table["volume_per_atom (angstrom^3/atom)"] >= 11.2]
    assert 0 < len(held) < len(table), "the constraint divides the labels"
    top = held.sort_values("energy_per_atom (eV/atom)").iloc[0]
    assert table.iloc[0]["candidate"] == top["candidate"]
    assert table["holds constraints"].tolist() == [True] * len(held) + [False] * (
        len(table) - len(held)
    )
    assert top["candidate"] in facts(View(campaign.loaded, state))["best"]
    assert f"{len(held)} of 14 labels" in facts(View(campaign.loaded, state))["constraints"]
    reader = campaign.reader()
    page = write_report(OpenView(campaign.loaded, state, reader), tmp_path).read_text()
    assert page.index(top["candidate"]) == min(
        page.index(name) for name in table["candidate"] if f"<code>{name}" in page
    )
    assert "breaks a constraint" in page
    first = next(path for path in (tmp_path / "best").glob("01-*.cif"))
    assert top["candidate"][:8] in first.name
    export(state, reader, tmp_path / "export", ("parquet",), wanted)
    import pandas as pd

    assert pd.read_parquet(tmp_path / "export" / "best.parquet")["candidate"][0] == top["candidate"]
    reader.close()
    figures = metrics.round_figures(state, state.rounds[-1], wanted)
    assert figures["best_so_far"] == pytest.approx(top["energy_per_atom (eV/atom)"])
    assert figures["labels_holding_constraints"] == len(held)
