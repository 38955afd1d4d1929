"""Noisy labels lead by what is believed after them: the luckiest label is neither the best nor a
target reached.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.decide import ranking
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.ledger.beliefs import Belief
from campaign.ledger.leaders import Wanted
from campaign.types import Objective
from campaign.views import metrics, tables

MORE = Objective("value", "maximize", target=10.0)
WANTED = Wanted("o", (MORE,))
BOTH = Wanted("o", (MORE, Objective("price", "minimize")))


@dataclass(frozen=True)
class Row:
    """A label, with what the model that chose it expected."""

    value: float
    noise: float | None = None
    expected: tuple[float, float] | None = None
    price: float = 1.0
    purpose: str = ""


def started() -> CampaignState:
    state = CampaignState()
    config = {"objective": {"quantity": "value"}}
    state.apply(1, 0.0, ev.ConfigRevised(revision=0, sha256="s", config=config, fidelities={}))
    return state


def add(state: CampaignState, rows: Sequence[Row], first: int = 0) -> CampaignState:
    """One label a round, in their order."""
    numbers = itertools.count(state.sequence + 1)

    def apply(event: ev.Event) -> None:
        state.apply(next(numbers), 0.0, event)

    for i, row in enumerate(rows, start=first):
        name = f"c{i:03d}"
        apply(ev.RoundStarted(round=i))
        if row.purpose:
            asked = ev.RequestRow(name, f"Fe1Ni1:{i}", "o")
            apply(ev.Requested(purpose=row.purpose, rows=(asked,)))
        else:
            apply(ev.Proposed(
                round=i, generator="g", checkpoint=None, stream="s", seconds=0.0,
                proposals=(ev.ProposalRow(name, f"Fe1Ni1:{i}"),)))  # fmt: skip
            mean, deviation = row.expected or (None, None)
            apply(ev.Decided(
                round=i, acquisition="a", model="m", model_labels=0, stream="s", pool="h",
                pool_size=1, table=None, pending=(), seconds=0.0, labels_at_decision=0,
                choices=(ev.ChoiceRow(name, "o", 1.0, mean, deviation),)))  # fmt: skip
        observed = (
            ev.ObservationRow("value", row.value, "1", row.noise),
            ev.ObservationRow("price", row.price, "1"),
        )
        apply(ev.Labelled(
            candidate=name, oracle="o", fidelity="f", attempt=0, observations=observed,
            crystal=None, artifacts={}, wall_seconds=1.0, cpu_seconds=1.0, started=0.0,
            worker="w"))  # fmt: skip
        apply(ev.RoundEnded(round=i))
    return state


@settings(deadline=None)
@given(
    mean=st.floats(-5, 5),
    deviation=st.floats(0.1, 5),
    value=st.floats(-5, 5),
    noise=st.floats(0.1, 5),
)
def test_a_belief_is_the_posterior(
    mean: float, deviation: float, value: float, noise: float
) -> None:
    """Against the product of both densities, integrated."""
    x = np.linspace(-60, 60, 24001)
    logarithm = -0.5 * (((x - mean) / deviation) ** 2 + ((x - value) / noise) ** 2)
    density = np.exp(logarithm - logarithm.max())
    weight = density / density.sum()
    found = Belief(mean, deviation).after(value, noise)
    assert found.mean == pytest.approx(float(weight @ x), abs=1e-6)
    spread = float(weight @ (x - weight @ x) ** 2)
    assert found.deviation == pytest.approx(np.sqrt(spread), rel=1e-5)


@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=6), noise=st.floats(0.1, 5))
def test_labels_one_after_another_are_their_mean(values: list[float], noise: float) -> None:
    after = Belief(0.0, 2.0)
    for value in values:
        after = after.after(value, noise)
    once = Belief(0.0, 2.0).after(float(np.mean(values)), noise / np.sqrt(len(values)))
    assert after.mean == pytest.approx(once.mean, abs=1e-9)
    assert after.deviation == pytest.approx(once.deviation)


def test_the_luckiest_label_neither_leads_nor_reaches_the_target() -> None:
    state = add(started(), [
        Row(8.0),
        Row(14.0, noise=6.0, expected=(5.0, 2.0)),
        Row(9.0, noise=0.1, expected=(7.0, 2.0)),
    ])  # fmt: skip
    best = ranking.best(state, WANTED)
    assert best is not None
    assert best.candidate == "c002"
    assert ranking.reached(state, WANTED) is None
    assert [item.label.candidate for item in ranking.ranked(state, WANTED)] == [
        "c002",
        "c000",
        "c001",
    ]
    assert ranking.best_so_far(state, WANTED)[1][1] == 8.0
    figures = metrics.round_figures(state, state.rounds[-1], WANTED)
    assert figures["best_so_far"] == pytest.approx(8.995, abs=1e-3)
    add(state, [Row(12.0, noise=0.5, expected=(9.0, 2.0))], first=3)
    found = ranking.reached(state, WANTED)
    assert found is not None
    assert found.candidate == "c003"
    assert ranking.value_of(state, WANTED, found) == "11.8235 +- 0.49 (label 12)"


def test_labels_that_no_model_chose_are_drawn_to_what_lies_behind_them() -> None:
    """Values near 5 with little noise, and one of 14 with much: nothing there is worth 10."""
    quiet = [Row(5.0 + 0.2 * k, noise=0.1) for k in range(-5, 6)]
    state = add(started(), [*quiet, Row(14.0, noise=6.0)])
    best = ranking.best(state, WANTED)
    assert best is not None
    assert best.candidate == "c010"
    assert ranking.reached(state, WANTED) is None
    belief = state.leaders(WANTED).belief(state.labels["c011", "o"])
    assert belief is not None
    assert 5.0 < belief.mean < 6.0
    assert belief.deviation < 1.0


def test_labels_without_noise_are_taken_at_their_word() -> None:
    state = add(started(), [Row(8.0, expected=(1.0, 0.1)), Row(11.0, expected=(2.0, 0.1))])
    found = ranking.reached(state, WANTED)
    assert found is not None
    assert found.candidate == "c001"
    assert ranking.value_of(state, WANTED, found) == "11"
    assert "value believed (1)" not in tables.best(state, WANTED)


def test_tables_tell_belief_and_standard_error() -> None:
    state = add(started(), [Row(8.0), Row(14.0, noise=6.0, expected=(5.0, 2.0))])
    table = tables.best(state, WANTED).set_index("candidate")
    assert table.loc["c001", "value believed (1)"] == pytest.approx(5.9)
    assert table.loc["c001", "value standard error (1)"] == pytest.approx(np.sqrt(3.6))
    assert table.loc["c001", "value (1)"] == 14.0
    assert np.isnan(table.loc["c000", "value believed (1)"])


ROWS = st.lists(
    st.builds(
        Row,
        value=st.floats(-5, 15),
        noise=st.sampled_from([None, 0.5, 4.0]),
        expected=st.sampled_from([None, (3.0, 1.0), (9.0, 3.0)]),
        price=st.sampled_from([0.0, 1.0, 2.0]),
        purpose=st.sampled_from(["", "", ev.KNOWN_PHASE]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, wanted=st.sampled_from([WANTED, BOTH]))
def test_leaders_kept_are_leaders_found_anew(rows: list[Row], wanted: Wanted) -> None:
    """Asked after each label or once at the end; and all ways to rank agree."""
    state, asked_once = started(), add(started(), rows)
    for i, row in enumerate(rows):
        ranking.front(state, wanted)
        add(state, [row], first=i)
    kept, found = state.leaders(wanted), asked_once.leaders(wanted)
    assert [label.candidate for label in kept.front] == [label.candidate for label in found.front]
    assert (kept.n_known, kept.n_holding) == (found.n_known, found.n_holding)
    first = [item.label.candidate for item in ranking.ranked(state, wanted) if item.front == 1]
    assert first == [label.candidate for label in kept.front]
