"""What the driver does for a label does not grow with the labels that are there: by counting looks
at labels, never by seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from support import label_set

from campaign.api import Campaign
from campaign.decide import ladder, question
from campaign.ledger import CampaignState, dataset
from campaign.ledger.state import RoundRecord
from campaign.report import figures, thinning
from campaign.tracking.mlflow import MlflowTracker
from campaign.views import metrics
from campaign.views.view import OpenView

Make = Callable[..., Campaign]
QUICK: dict[str, Any] = {
    "generators": [{"use": "random_alloy", "count": 6, "params": {"repeats": [2, 2, 1]}}],
    "acquisition": {"use": "random", "initial_labels": 4, "batch_size": 4},
    "surrogate": None,
    "executor": {"use": "virtual"},
}


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_a_round_looks_at_new_labels_alone_and_at_none_that_nobody_asks_for(
    small: Make, monkeypatch: pytest.MonkeyPatch, is_looked_at: bool
) -> None:
    looks: list[int] = []
    plain, current = dataset._labelled, dataset.CurrentDataset.__call__

    def counted(ledger: Any, labels: Any, **how: Any) -> Any:
        looks.append(len(labels))
        return plain(ledger, labels, **how)

    def looked_at(self: dataset.CurrentDataset) -> dataset.Dataset:
        found = current(self)
        assert len(list(found.labelled)) == len(found.labelled)
        return found

    monkeypatch.setattr(dataset, "_labelled", counted)
    if is_looked_at:
        monkeypatch.setattr(dataset.CurrentDataset, "__call__", looked_at)
    campaign = small(**QUICK, budget={"labels": 80})
    campaign.run()
    assert len(label_set(campaign)) == 80
    assert sum(looks) == (76 if is_looked_at else 0)
    assert max(looks) == (4 if is_looked_at else 0)


def test_labels_that_nobody_looked_at_in_time_are_those_of_their_round(small: Make) -> None:
    """An element's label that comes later gives all labels formation energies, but not those that
    stood before.
    """
    campaign = small(**QUICK, budget={"labels": 8})
    campaign.run()
    with closing(campaign.reader()) as reader:
        state = reader.fold()
        (oracle,) = {label.oracle for label in state.labels.values()}
        before = dataset.CurrentDataset(reader, state, oracle)()
        for label in state.labels.values():
            label.derive("formation_energy_per_atom", 0.5)
        state.n_changes += 1
        after = dataset.CurrentDataset(reader, state, oracle)()
        assert len(before.labelled) == 8
        assert {tuple(item.values) for item in before.labelled} == {("energy_per_atom",)}
        assert {item.values["formation_energy_per_atom"] for item in after.labelled} == {0.5}


def test_what_events_say_again_and_again_is_in_memory_once(small: Make) -> None:
    campaign = small(**QUICK, budget={"labels": 12})
    campaign.run()
    state = campaign.state()
    names = {id(name) for name in state.candidates}
    for record in state.rounds:
        assert {id(row.candidate) for row in record.judged.verdicts} <= names
        assert {id(row.candidate) for row in record.decided.choices} <= names
    labels = list(state.labels.values())
    assert {id(label.candidate) for label in labels} <= names
    assert len({id(label.oracle) for label in labels}) == 1
    assert len({id(label.observations[0].unit) for label in labels}) == 1
    conditions = [
        row.condition
        for record in state.rounds
        for event in record.proposed
        for row in event.proposals
    ]
    assert len({id(condition) for condition in conditions}) == len(
        {repr(condition) for condition in conditions}
    )
    assert all(
        row.candidate == name and row in event.proposals
        for name, record in state.candidates.items()
        for event, row in record.proposals
    )


@pytest.mark.parametrize(
    ("quantity", "failing"), [("energy_above_hull", 0.0), ("energy_per_atom", 0.3)]
)
def test_a_dataset_that_goes_on_is_the_one_made_anew(
    small: Make, monkeypatch: pytest.MonkeyPatch, quantity: str, failing: float
) -> None:
    compared = []
    plain = dataset.CurrentDataset.__call__

    def checked(self: dataset.CurrentDataset) -> dataset.Dataset:
        found = plain(self)
        anew = dataset.dataset_before(
            self._ledger, self._state, self._state.sequence + 1, self._oracle
        )
        compared.append(found == anew and found.key == anew.key)
        return found

    monkeypatch.setattr(dataset.CurrentDataset, "__call__", checked)
    changes = QUICK | {
        "executor": {"use": "virtual", "virtual": {"failures": {"lennard_jones": failing}}}
    }
    changes |= {
        "objective": {"quantity": quantity, "direction": "minimize"},
        "failure_policy": {"pause_above": 1.0},
    }
    campaign = small(**changes, budget={"labels": 32})
    campaign.run()
    small(**changes, budget={"labels": 44}).run()
    assert len(compared) > 8
    assert all(compared)
    assert len(label_set(campaign)) >= 44


def test_a_decision_looks_at_the_labels_of_its_round_alone(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(**QUICK, budget={"labels": 40})
    campaign.run()
    state = campaign.state()
    last = state.rounds[-1]
    assert question._unseen(state, last, ["lennard_jones"]) == tuple(
        sorted(pair for pair, label in state.labels.items() if label.sequence >= last.sequence)
    )
    before = state.rounds[-2]
    assert len(question._unseen(state, before, ["lennard_jones"])) == len(
        {*before.decided.choices, *last.decided.choices}
    )
    assert ladder.costs(state, campaign.loaded.config) == {"lennard_jones": 1.0}


def test_a_figure_of_many_marks_shows_some_and_says_so() -> None:
    assert thinning.thinned(range(10), 20) == list(range(10))
    some = thinning.thinned(range(100_000), 50)
    assert len(some) == len(set(some)) == 50
    assert some[0] == 0
    assert some[-1] == 99_999
    assert thinning.steps([1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0]) == [0, 2, 5, 6]
    assert thinning.steps([]) == []
    values = [({"Ni": 0.5, "Fe": 0.5}, float(i), f"candidate {i}") for i in range(5000)]
    figure = figures.composition(values, ["Ni", "Fe"], "energy (eV)")
    assert [len(trace.x) for trace in figure.data] == [thinning.MOST] * 2
    assert figure.layout.xaxis.title.text == "fraction (at%), 2000 of 5000 shown"
    assert (
        figures.composition(values[:9], ["Ni", "Fe"], "energy (eV)").layout.xaxis.title.text
        == "fraction (at%)"
    )


def test_spans_too_near_to_be_told_apart_are_one() -> None:
    spans = [("b", float(start), 0.9, f"label {start}") for start in range(1000)]
    spans += [("a", 500.0, 1.0, "alone"), ("b", 1500.0, 500.0, "after a rest")]
    assert thinning.joined(spans, 2000) == sorted(spans)
    found = thinning.joined(spans, 1000)
    assert found == [
        ("a", 500.0, 1.0, "alone"),
        ("b", 0.0, 999.9, "1000 labels"),
        ("b", 1500.0, 500.0, "after a rest"),
    ]


@pytest.mark.parametrize("constraints", [(), ({"quantity": "price_per_kg", "at_most": 12.0},)])
def test_figures_of_a_round_are_the_same_live_and_afterwards(
    small: Make, monkeypatch: pytest.MonkeyPatch, constraints: Any
) -> None:
    campaign = small(**QUICK, budget={"labels": 24}, constraints=list(constraints))
    live: dict[int, dict[str, float]] = {}

    def look(state: CampaignState) -> None:
        record = state.rounds[-1]
        if record.ended is not None:
            live[record.index] = metrics.round_figures(state, record, campaign.wanted)

    with monkeypatch.context() as forbidden:
        forbidden.setattr(metrics, "SoFar", None)
        campaign.run(on_change=look)
    state = campaign.state()
    so_far = metrics.SoFar(state, campaign.wanted)
    assert len(live) == len(state.rounds) == 6
    for record in state.rounds:
        assert live[record.index] == metrics.round_figures(state, record, campaign.wanted, so_far)
    assert "best_so_far" in live[5]
    assert live[5]["labels_so_far"] == 24


def test_drawings_of_a_long_campaign_come_rarer(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(**QUICK, tracking={"use": "mlflow", "figure_rounds": 1}, budget={"labels": 4})
    drawn: list[int] = []
    rounds: list[RoundRecord] = []
    looked = 0

    class Rounds(list[RoundRecord]):
        def __iter__(self) -> Any:
            raise AssertionError("all rounds were looked at")

        def __getitem__(self, rows: Any) -> Any:
            nonlocal looked
            found = rounds[rows]
            looked += len(found) if isinstance(found, list) else 0
            return found

        def __len__(self) -> int:
            return len(rounds)

    ledger = SimpleNamespace(folder=campaign.folder, state=CampaignState())
    tracker = MlflowTracker(
        OpenView(campaign.loaded, ledger.state, ledger),  # type: ignore[arg-type]
        ledger,  # type: ignore[arg-type]
    )
    ledger.state.rounds = Rounds()
    monkeypatch.setattr(metrics, "round_figures", lambda *given: {})
    monkeypatch.setattr(tracker, "_draw", lambda: drawn.append(len(rounds)))
    for index in range(1000):
        rounds.append(RoundRecord(index, index, 0.0, ended=1.0))
        tracker.update()
    assert looked <= 2000
    assert 30 < len(drawn) < 100


def test_a_campaign_leaves_no_thread(small: Make) -> None:
    before = set(threading.enumerate())
    small(**QUICK, budget={"labels": 8}).run()
    assert set(threading.enumerate()) == before
