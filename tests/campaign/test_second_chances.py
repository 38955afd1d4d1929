"""Failures that are nobody's fault, that are over, or that are all there is: who is tried again,
who is held, and what is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interleaving import InterleavingExecutor
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import ContradictionError, InputError, StoppedByFailuresError, StuckError
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.rounds import dispatch

Make = Callable[..., Campaign]
OVER = "budget spent: 24 labels"


@pytest.fixture
def switched(small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The small campaign on the oracle with a switch, without patience."""
    monkeypatch.setattr(dispatch, "_PATIENCE_SECONDS", 0.0)

    def make(**changes: Any) -> Campaign:
        return small(
            **{
                "oracles": [
                    {"use": "user_oracles:Switched", "params": {"switch": str(tmp_path / "switch")}}
                ],
                **changes,
            }
        )

    return make


def test_a_burst_of_failing_surroundings_gives_nobody_up(switched: Make, tmp_path: Path) -> None:
    (tmp_path / "switch").write_text("infrastructure 6")
    campaign = switched()
    assert campaign.run() == OVER
    state = campaign.state()
    assert [event.kind for _, _, event in state.failures] == ["infrastructure"] * 6
    assert not state.quarantined
    assert not state.pending


@pytest.mark.parametrize("mode", ["rounds", "streaming"])
@pytest.mark.parametrize("window", [20, 1000])
def test_surroundings_that_keep_failing_stop_the_campaign_and_it_goes_on_when_they_work(
    switched: Make, tmp_path: Path, mode: str, window: int
) -> None:
    changes = {"mode": mode, "failure_policy": {"window": window}}
    (tmp_path / "switch").write_text("infrastructure")
    with pytest.raises(StoppedByFailuresError, match=r"infrastructure|paused"):
        switched(**changes).run()
    state = switched(**changes).state()
    assert state.pending
    assert not state.quarantined
    (tmp_path / "switch").unlink()
    assert switched(**changes).run() == OVER
    assert not switched(**changes).state().pending


@pytest.mark.parametrize("mode", ["rounds", "streaming"])
def test_a_campaign_without_a_label_says_what_failed(
    switched: Make, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "switch").write_text("unphysical")
    campaign = switched(mode=mode, budget={"labels": None, "rounds": 1})
    for _ in range(2):
        with pytest.raises(
            StoppedByFailuresError,
            match=r"all 9 attempts failed, 9 of them with Switched: unphysical: the switch says",
        ):
            campaign.run()
    (tmp_path / "switch").unlink()
    config = campaign.folder.parent / "missing"
    assert CliRunner().invoke(app, ["retry", str(config)]).exit_code == 2
    result = CliRunner().invoke(app, ["retry", str(campaign.folder)])
    assert result.exit_code == 0, result.output
    assert "9 will be tried again" in result.output
    assert campaign.run() == "budget spent: 1 rounds"
    state = campaign.state()
    assert len(state.own) == 9
    assert not state.quarantined
    assert {label.round for label in state.own.values()} == {0}


def test_who_is_tried_again_can_be_chosen(switched: Make, tmp_path: Path) -> None:
    (tmp_path / "switch").write_text("unphysical 4")
    campaign = switched(budget={"labels": 14})
    campaign.run()
    failed = [candidate for candidate, _ in campaign.state().quarantined]
    assert len(failed) == 4
    with pytest.raises(InputError, match="there is no kind of failure 'boredom'"):
        campaign.retry(kind="boredom")
    with pytest.raises(InputError, match="no candidate that was given up has an id"):
        campaign.retry(["zz"])
    assert campaign.retry(kind="crash") == []
    assert [row.candidate for row in campaign.retry([failed[0]])] == [failed[0]]
    assert switched(budget={"labels": 15}).run() == "budget spent: 15 labels"
    state = campaign.state()
    assert (failed[0], "Switched") in state.own
    assert {candidate for candidate, _ in state.quarantined} == set(failed[1:])


def test_references_that_failed_are_tried_again_by_the_next_session(
    switched: Make, tmp_path: Path
) -> None:
    changes = {"objective": {"quantity": "formation_energy_per_atom"}}
    (tmp_path / "switch").write_text("unphysical 1")
    with pytest.raises(StoppedByFailuresError, match="the elements' reference"):
        switched(**changes).run()
    assert switched(**changes).run() == OVER


def test_a_decision_against_the_ledger_is_refused(small: Make) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    ledger = Ledger(campaign.folder)
    before = ledger.state.sequence
    decided = ledger.state.rounds[0].decided
    assert decided is not None
    unlabelled = next(iter(ledger.state.unlabelled))
    for choices, why in (
        (decided.choices[:1], "labelled already"),
        (
            (ev.ChoiceRow(unlabelled, "lennard_jones"), ev.ChoiceRow(unlabelled, "lennard_jones")),
            "chosen twice",
        ),
    ):
        event = ev.Decided(
            round=0, acquisition="random", model=None, model_labels=0, stream="s", pool="h", pool_size=3, table=None, pending=(),  # noqa: E501
            choices=choices, seconds=0.1, labels_at_decision=0, key=why,
        )  # fmt: skip
        with pytest.raises(ContradictionError, match=why):
            ledger.append([event])
    assert ledger.state.sequence == before
    ledger.close()


def test_a_campaign_that_would_wait_for_ever_says_for_whom(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = InterleavingExecutor(0)
    monkeypatch.setattr("campaign.executors.make_executor", lambda *_, **__: executor)
    monkeypatch.setattr(dispatch.Dispatcher, "add", lambda *_: None)
    with pytest.raises(StuckError, match=r"9 labels are pending: [0-9a-f]{8} at lennard_jones, "):
        small().run()
