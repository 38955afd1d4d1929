"""Live controls: events with who and when, taken once whatever is killed, and honoured by the loop,
by views and by replay.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ase.io import write
from interleaving import ALLOYS, SCENARIOS, InterleavingExecutor
from ledgers import made_decision
from support import merged
from typer.testing import CliRunner

from campaign.api import Campaign, StopRequests
from campaign.cli import app
from campaign.crystals.lattice import supercell
from campaign.crystals.matching import equivalence_key
from campaign.decide import ladder
from campaign.decide.replay import replay
from campaign.errors import InputError, SurroundingsError
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.controls import told
from campaign.ledger.engines import DATABASE
from campaign.ledger.events import AnyControl
from campaign.ledger.recover import recover
from campaign.rounds import loop, requests
from campaign.rounds.controlling import asked
from campaign.rounds.requests import Request
from campaign.types import Crystal

Make = Callable[..., Campaign]
OVER = "budget spent: 24 labels"
QUICK: dict[str, Any] = {"generators": ALLOYS, "surrogate": None, "acquisition": {"use": "random"}}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_REST_SECONDS", 0.01)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Callable[[Campaign, Callable[[], str | None]], str]:
    """Runs a campaign and calls a function whenever its driver looks for a reason to stop; what it
    returns is one.
    """

    def run(campaign: Campaign, tick: Callable[[], str | None]) -> str:
        monkeypatch.setattr(StopRequests, "reason", lambda self: tick() or "")
        return campaign.run()

    return run


def left(campaign: Campaign, kind: type[AnyControl], **fields: Any) -> Path:
    """A request as another process leaves it."""
    return requests.leave(campaign.folder, Request(control=asked(kind, **fields)))


def own(campaign: Campaign) -> int:
    """How many labels it has by now."""
    return len(campaign.state().own)


def waiting(campaign: Campaign) -> list[Path]:
    folder = campaign.folder / requests.FOLDER
    return sorted(folder.iterdir()) if folder.exists() else []


def invoke(campaign: Campaign, *words: str) -> str:
    result = CliRunner().invoke(app, ["control", str(campaign.folder), *words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_paused_driver_lets_work_end_and_waits_until_it_is_resumed(
    small: Make, driven: Any
) -> None:
    campaign = small(**QUICK)
    seen: list[int] = []

    def tick() -> None:
        if not seen and own(campaign) >= 12:
            left(campaign, ev.CampaignPaused)
            seen.append(-1)
        elif seen:
            seen.append(len(campaign.state().own))
            if len(seen) == 8:
                left(campaign, ev.CampaignResumed)

    assert driven(campaign, tick) == OVER
    assert 12 <= seen[1] <= seen[2] <= 13, "at most the label under way came in"
    assert len(set(seen[2:8])) == 1
    assert campaign.state().controls.paused is None
    assert not waiting(campaign)


def test_a_paused_campaign_that_is_started_again_stays_so_and_says_it(
    small: Make, driven: Any, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = small(**QUICK, budget={"labels": 24, "wall_time": 1000.0})
    assert driven(campaign, lambda: "enough" if own(campaign) else "") == "enough"
    event = campaign.control.pause()
    assert isinstance(event, ev.CampaignPaused)
    assert "@" in event.by
    labels, active = len(campaign.state().own), campaign.state().active_seconds
    for _ in range(2):
        ticks = iter(range(20))
        assert (
            driven(campaign, lambda ticks=ticks: "enough" if next(ticks) == 19 else "") == "enough"
        )  # type: ignore[misc]
    assert len(campaign.state().own) == labels
    assert campaign.state().active_seconds == active, "a pause is no running time"
    assert "is paused since" in caplog.text
    assert "paused" in CliRunner().invoke(app, ["status", str(campaign.folder)]).output
    assert campaign.ask(1) == []
    ended = campaign.state().session_ended
    assert ended is not None
    assert ended.reason == f"paused {campaign.state().controls.pause}"
    assert not ended.is_final
    campaign.control.resume()
    assert driven(campaign, lambda: "") == OVER


def test_the_command_reaches_a_driver_of_another_thread(small: Make, tmp_path: Path) -> None:
    campaign = small(
        oracles=[
            {
                "use": "user_oracles:Counting",
                "params": {"log": str(tmp_path / "log"), "seconds": 0.2},
            }
        ],
        **QUICK,
        budget={"labels": 9},
    )
    driver = threading.Thread(target=campaign.run)
    driver.start()
    try:
        while not (tmp_path / "log").exists():
            driver.join(0.02)
        other = Campaign.open(campaign.folder)
        assert isinstance(other.control.pause(), ev.CampaignPaused)
        labels = len(other.state().own)
        driver.join(0.6)
        assert driver.is_alive()
        assert len(other.state().own) <= labels + 1
        assert "running" in CliRunner().invoke(app, ["status", str(campaign.folder)]).output
        assert "budget changed by +2 labels by" in invoke(campaign, "budget", "+2")
        assert "resumed by" in invoke(campaign, "resume")
    finally:
        other.control.resume()
        driver.join(30)
    assert len(campaign.state().own) == 11


def test_the_budget_is_changed_and_what_is_over_goes_on(small: Make) -> None:
    campaign = small(**QUICK)
    assert campaign.run() == OVER
    assert "+3 labels" in invoke(campaign, "budget", "+3")
    assert campaign.run() == "budget spent: 27 labels"
    assert "-2 labels" in invoke(campaign, "budget", "-2")
    assert campaign.run() == "budget spent: 27 labels"
    status = CliRunner().invoke(app, ["status", str(campaign.folder)]).output
    assert "27 of 25" in status
    assert "changed by +1 labels" in status


def test_a_budget_that_grows_at_the_last_moment_counts(small: Make, driven: Any) -> None:
    campaign = small(**QUICK)
    is_asked: list[Path] = []

    def tick() -> None:
        if not is_asked and own(campaign) == 23:
            is_asked.append(left(campaign, ev.LabelsChanged, labels=2))

    assert driven(campaign, tick) == "budget spent: 26 labels"


def test_who_is_vetoed_is_withdrawn_and_never_chosen(small: Make, driven: Any) -> None:
    campaign = small(**QUICK)
    vetoed: list[str] = []

    def tick() -> None:
        state = campaign.state()
        if not vetoed and len(state.pending) > 4 and state.unlabelled:
            vetoed.extend([list(state.pending)[-1][0], next(iter(state.unlabelled))])
            for candidate in vetoed:
                left(campaign, ev.CandidateVetoed, candidate=candidate)

    assert driven(campaign, tick) == OVER
    state = campaign.state()
    assert not {candidate for candidate, _ in state.labels} & set(vetoed)
    assert not state.pending
    assert all(record.ended is not None for record in state.rounds[:-1])
    selected, waited = (state.controls.vetoed[candidate] for candidate in vetoed)
    assert [row.oracle for row in selected.withdrawn] == ["lennard_jones"]
    assert waited.withdrawn == ()
    told = dict(campaign.explain(vetoed[0]))
    assert told["controlled"].endswith(
        f"vetoed {vetoed[0]}, withdrawn from lennard_jones, by {selected.by}"
    )
    for index, record in enumerate(state.rounds):
        assert record.decided is not None
        assert replay(campaign, index) == record.decided.choices


def test_a_veto_while_a_decision_is_made_counts_and_the_decision_replays(
    small: Make, driven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(mode="rounds", **SCENARIOS["plain"])
    monkeypatch.setattr(
        "campaign.executors.make_executor", lambda *_, **__: InterleavingExecutor(1)
    )
    vetoed: set[str] = set()

    def tick() -> None:
        state = campaign.state()
        if (
            not vetoed
            and len(state.rounds) > 1
            and state.rounds[1].judged is not None
            and state.rounds[1].decided is None
        ):
            vetoed.update(state.unlabelled)
            for candidate in vetoed:
                left(campaign, ev.CandidateVetoed, candidate=candidate)

    assert driven(campaign, tick) == OVER
    state = campaign.state()
    decided = state.rounds[1].decided
    assert decided is not None
    assert {choice.candidate for choice in decided.choices} <= vetoed
    assert decided.choices == replay(campaign, 1), "as it was made"
    assert not {candidate for candidate, _ in state.labels} & vetoed
    assert state.rounds[1].ended is not None


def test_a_lost_database_is_rebuilt_with_what_people_said(small: Make) -> None:
    campaign = small(**QUICK)
    campaign.ask(3)
    campaign.control.pin(
        [supercell("fcc", (2, 1, 1), ["Ni", "Fe", "Fe", "Ni"]), campaign.pending[0].crystal]
    )
    campaign.control.veto(campaign.pending[0].candidate)
    campaign.control.ban("Cr")
    campaign.control.pause()
    before = campaign.state()
    (campaign.folder / DATABASE).unlink()
    recover(campaign.folder)
    after = campaign.state()
    assert repr(after.controls) == repr(before.controls)
    assert (after.pinned, after.pending, after.unlabelled) == (
        before.pinned,
        before.pending,
        before.unlabelled,
    )
    assert campaign.crystal(after.pinned[0]).formula == "Fe2Ni2"


def test_questions_of_ask_and_tell_are_withdrawn_too(small: Make) -> None:
    campaign = small(**QUICK)
    first, second = campaign.ask(2)
    campaign.control.veto(first.candidate[:12])
    assert [item.candidate for item in campaign.pending] == [second.candidate]
    with pytest.raises(InputError, match="no open question"):
        campaign.tell(first, {"energy_per_atom": -1.0})
    assert first.candidate not in {item.candidate for item in campaign.ask(20)}


CONTROLS = (
    ev.CampaignPaused,
    ev.CampaignResumed,
    ev.LabelsChanged,
    ev.CandidateVetoed,
    ev.CandidateVetoed,
    ev.ElementBanned,
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scenario", ["plain", "gates", "levels", "two oracles"])
def test_whatever_is_asked_whenever_the_campaign_ends_and_replays(
    small: Make, scenario: str, seed: int, driven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(seed=seed, mode="streaming", budget={"labels": 21}, **SCENARIOS[scenario])
    executor = InterleavingExecutor(seed)
    monkeypatch.setattr("campaign.executors.make_executor", lambda *_, **__: executor)
    rng = executor._random
    given: dict[str, int] = {}

    def tick() -> None:
        if rng.random() < 0.3 and len(given) < 12:
            state = campaign.state()
            kind = rng.choice(CONTROLS)
            fields: dict[str, Any] = {}
            if kind is ev.LabelsChanged:
                fields = {"labels": rng.choice((-1, 2))}
            elif kind is ev.CandidateVetoed:
                known = sorted(
                    {candidate for candidate, _ in state.pending} | state.unlabelled.keys()
                )
                if not known:
                    return
                fields = {"candidate": rng.choice(known)}
            elif kind is ev.ElementBanned:
                fields = {"element": rng.choice(("Cr", "Fe"))}
            given[left(campaign, kind, **fields).stem] = state.sequence
        if campaign.state().controls.paused is not None and rng.random() < 0.3:
            left(campaign, ev.CampaignResumed)

    driven(campaign, tick)
    state = campaign.state()
    assert not state.pending
    assert len(state.own_labels) <= 21 + max(0, state.controls.labels) + 1
    for candidate, event in state.controls.vetoed.items():
        at = next(time for time, item in state.controls.history if item == event)
        assert all(
            label.finished >= at
            for (name, _), label in state.labels.items()
            if name == candidate and label.started > at
        )
    for record in state.rounds:
        if record.decided is not None:
            assert replay(campaign, record.index) == record.decided.choices


def test_a_banned_element_is_chosen_no_more(small: Make, driven: Any) -> None:
    campaign = small(
        budget={"labels": 30},
        acquisition={"initial_labels": 9},
        surrogate={"params": {"max_iterations": 5}},
    )
    at: list[int] = []

    def tick() -> None:
        state = campaign.state()
        if not at and len(state.own) == 10:
            at.append(state.sequence)
            left(campaign, ev.ElementBanned, element="Cr")

    assert driven(campaign, tick) == "budget spent: 30 labels"
    state = campaign.state()
    later = [label for label in state.own_labels if label.sequence > at[0] + 3]
    assert len(later) > 15
    assert not [label for label in later if "Cr" in state.composition(label.candidate)]
    waiting = [candidate for candidate in state.unlabelled if "Cr" in state.composition(candidate)]
    assert not waiting
    (event,) = state.controls.banned.values()
    refused = [
        name
        for name, record in state.candidates.items()
        if record.verdict and record.verdict.screen == "banned"
    ]
    assert refused
    assert ("screened", f"refused by banned: holds Cr, banned by {event.by}") in campaign.explain(
        refused[0]
    )
    proposed = Counter(
        "Cr" in row.equivalence
        for record in state.rounds[-2:]
        for item in record.proposed
        for row in item.proposals
    )
    assert proposed[False] > proposed[True]
    for index, record in enumerate(state.rounds):
        if record.decided is not None:
            assert replay(campaign, index) == record.decided.choices
    assert "banned Cr" in " ".join(told(event).split())
    assert campaign.run() == "budget spent: 30 labels"


def test_an_element_whose_ban_ends_is_chosen_again(small: Make) -> None:
    campaign = small(**QUICK)
    with_chromium = [item for item in campaign.ask(8) if "Cr" in item.crystal.symbols]
    before = campaign.state()
    campaign.control.ban("Cr")
    banned = campaign.state()
    assert not [item for item in campaign.pending if "Cr" in item.crystal.symbols]
    assert "unbanned Cr" in invoke(campaign, "unban", "Cr")
    state = campaign.state()
    withdrawn = {item.candidate for item in with_chromium}
    assert withdrawn
    assert state.unlabelled.keys() == before.unlabelled.keys() | withdrawn
    assert len(banned.unlabelled) < len(before.unlabelled)
    for candidate in state.unlabelled:
        assert state.candidates[candidate].is_accepted
    assert any(
        heading == "controlled" and "banned Cr" in line
        for heading, line in campaign.explain(next(iter(withdrawn)))
    )
    with pytest.raises(InputError, match="'Cr' is not banned"):
        campaign.control.unban("Cr")
    decided = state.rounds[0].decided
    assert decided is not None
    assert replay(campaign, 0) == decided.choices


def test_injected_crystals_are_weighed_as_all_others(small: Make, tmp_path: Path) -> None:
    campaign = small(**merged(QUICK, {"acquisition": {"initial_labels": 1000}}))
    campaign.ask(1)
    mine = supercell("fcc", (2, 1, 1), ["Ni", "Fe", "Fe", "Ni"])
    assert "injected 1 crystals of" in invoke(
        campaign, "inject", str(written(tmp_path / "mine.extxyz", mine))
    )
    state = campaign.state()
    _, event = state.controls.history[-1]
    assert isinstance(event, ev.CrystalsInjected)
    assert event.rows[0].candidate in state.unlabelled
    assert not state.pinned
    assert campaign.ask(1)
    decided = campaign.state().rounds[-1].decided
    assert decided is not None
    assert {row.reason for row in decided.choices} != {ev.PINNED}
    assert replay(campaign, 1) == decided.choices


def test_a_ban_that_arrives_while_a_round_screens_counts(small: Make) -> None:
    """What screens accepted before they knew, and what a decision chose before it knew, is not
    labelled.
    """
    campaign = small(**QUICK)
    campaign.ask(1)
    with closing(Ledger(campaign.folder)) as ledger:
        crystal = supercell("bcc", (2, 2, 1), ["Cr", "Fe"] * 4)
        row = ev.ProposalRow(crystal.id, equivalence_key(crystal))
        proposed = ev.Proposed(
            round=1, generator="g", checkpoint=None, stream="s", seconds=0.0, proposals=(row,)
        )
        ledger.append([ev.RoundStarted(round=1), proposed], {crystal.id: crystal.to_bytes()})
        ledger.append([asked(ev.ElementBanned, element="Cr")])
        ledger.append([ev.Judged(round=1, verdicts=(ev.VerdictRow(crystal.id, True, ""),))])
        assert crystal.id not in ledger.state.unlabelled
        ledger.append([made_decision(1, [crystal.id])])
        assert (crystal.id, "o") not in ledger.state.pending
        assert not ledger.state.outstanding[1]


LADDER: dict[str, Any] = {
    "space": {"elements": ["Fe", "Ni"], "max_fraction": 0.8},
    "generators": [{"use": "ordered_alloy", "count": 80, "params": {"atoms": [2, 3]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 6, "batch_size": 4},
    "budget": {"labels": None, "rounds": 4},
    "oracles": [
        {"use": "lennard_jones", "name": "cheap"},
        {"use": "lennard_jones", "name": "costly", "params": {"epsilon": 0.2, "cutoff": 8.0}},
    ],
    "fidelities": {
        "levels": [{"oracle": "cheap"}, {"oracle": "costly", "gate": {"best_fraction": 0.25}}],
        "audit": {"every": 2, "sample": 1},
        "approval": {"before": "costly"},
    },
}


def test_nobody_climbs_until_a_person_approves(small: Make) -> None:
    campaign = small(**LADDER)
    assert campaign.run() == "budget spent: 4 rounds"
    state = campaign.state()
    assert {label.oracle for label in state.own_labels} == {"cheap"}
    waiting = ladder.waits_for_approval(state, campaign.loaded.config)
    assert {row.reason for row in waiting} == {"gate", "audit"}
    status = " ".join(CliRunner().invoke(app, ["status", str(campaign.folder)]).output.split())
    assert (
        f"waiting for approval {state.formula(waiting[0].candidate)} "
        f"{waiting[0].candidate[:8]} for costly" in status
    )
    name = waiting[1].candidate
    assert (
        "held",
        f"would climb to costly ({waiting[1].reason}) once people approve it",
    ) in campaign.explain(name)
    assert f"approved {name} by" in invoke(campaign, "approve", name[:10])
    campaign = small(**merged(LADDER, {"budget": {"rounds": 5}}))
    campaign.run()
    state = campaign.state()
    assert {label.candidate for label in state.own_labels if label.oracle == "costly"} == {name}
    assert name not in {
        row.candidate for row in ladder.waits_for_approval(state, campaign.loaded.config)
    }
    assert any(
        heading == "controlled" and f"approved {name}" in line
        for heading, line in campaign.explain(name)
    )
    for record in state.rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


@pytest.mark.parametrize(("labels", "cost", "most"), [(3, 3.0, 3), (None, 1.0, 4)])
def test_what_a_model_sends_to_a_costly_level_waits_too(
    small: Make, labels: int | None, cost: float, most: int
) -> None:
    changes = {
        "generators": ALLOYS,
        "surrogate": {"use": "multi_task_gp", "params": {"max_iterations": 5}},
        "acquisition": {"initial_labels": 6, "batch_size": 4, "shortlist": 15},
        "budget": {"labels": 14},
        "oracles": [
            {"use": "lennard_jones", "name": "cheap"},
            {"use": "lennard_jones", "name": "costly", "params": {"epsilon": 0.2}},
        ],
        "fidelities": {
            "mode": "acquisition",
            "levels": [
                {"oracle": "cheap", "cost": 1.0},
                {"oracle": "costly", "cost": cost, "labels": labels},
            ],
            "approval": {"before": "costly"},
        },
    }
    campaign = small(**changes)
    assert campaign.run() == "budget spent: 14 labels"
    state = campaign.state()
    assert {label.oracle for label in state.own_labels} == {"cheap"}
    waiting = ladder.waits_for_approval(state, campaign.loaded.config)
    assert 3 <= len(waiting) <= most, "as many as the level may be given, or a batch"
    for row in waiting:
        campaign.control.approve(row.candidate)
    campaign.control.budget(8)
    campaign.run()
    state = campaign.state()
    assert {label.candidate for label in state.own_labels if label.oracle == "costly"} >= {
        row.candidate for row in waiting
    }
    assert not {row.candidate for row in waiting} & {
        row.candidate for row in ladder.waits_for_approval(state, campaign.loaded.config)
    }
    for record in state.rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


@pytest.mark.parametrize(
    ("before", "message"),
    [("dear", "there is no oracle 'dear'"), ("cheap", "nobody climbs to the first level, cheap")],
)
def test_approval_names_a_level_that_candidates_climb_to(
    small: Make, before: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small(**merged(LADDER, {"fidelities": {"approval": {"before": before}}}))


def written(path: Path, *crystals: Crystal) -> Path:
    write(path, [crystal.atoms for crystal in crystals])
    return path


@pytest.mark.parametrize("scenario", ["plain", "gates", "levels", "two oracles"])
def test_pinned_crystals_are_labelled_next(
    small: Make, tmp_path: Path, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small(mode="rounds", budget={"labels": 13}, **SCENARIOS[scenario])
    monkeypatch.setattr(
        "campaign.executors.make_executor", lambda *_, **__: InterleavingExecutor(0)
    )
    campaign.run()
    pins = [
        supercell("fcc", (2, 1, 1), symbols)
        for symbols in (["Ni", "Fe", "Fe", "Ni"], ["Ni", "Ni", "Fe", "Ni"])
    ]
    event = campaign.control.pin(written(tmp_path / "mine.extxyz", *pins))
    assert isinstance(event, ev.CrystalsPinned)
    names = [row.candidate for row in event.rows]
    assert not [row for row in event.rows if row.screen]
    assert "pinned 2 candidates are labelled next" in " ".join(
        CliRunner().invoke(app, ["status", str(campaign.folder)]).output.split()
    )
    rounds = len(campaign.state().rounds)
    campaign.control.budget(8)
    campaign.run()
    state = campaign.state()
    oracles = ["one", "other"] if scenario == "two oracles" else [state.own_labels[0].oracle]
    decided = state.rounds[rounds].decided
    assert decided is not None
    assert {
        (row.candidate, row.oracle) for row in decided.choices if row.reason == "pinned"
    } == set(itertools.product(names, oracles))
    assert {(name, oracle) for name in names for oracle in oracles} <= {
        (label.candidate, label.oracle) for label in state.own_labels
    }
    told = campaign.explain(names[0])
    assert any(heading == "controlled" and "pinned 2 crystals of" in line for heading, line in told)
    assert any(heading == "chosen" and "(pinned)" in line for heading, line in told)
    for record in state.rounds:
        if record.decided is not None:
            assert replay(campaign, record.index) == record.decided.choices


def test_a_pin_finds_what_the_campaign_knows_and_says_what_it_refuses(
    small: Make, tmp_path: Path
) -> None:
    campaign = small(**QUICK)
    (question,) = campaign.ask(1)
    state = campaign.state()
    waits = campaign.crystal(next(iter(state.unlabelled)))
    moved = Crystal(waits.lattice, (waits.fractional + 0.1) % 1.0, waits.numbers)
    foreign = supercell("bcc", (1, 1, 1), ["Cu", "Cu"])
    path = written(tmp_path / "mine.extxyz", moved, question.crystal, foreign, waits)
    said = invoke(campaign, "pin", str(path))
    assert "pinned 1 crystals of" in said
    assert "3 refused" in said
    assert campaign.state().pinned == [waits.id]
    assert waits.id in {item.candidate for item in campaign.ask(1)}
    (refused,) = (
        record.verdict
        for record in campaign.state().candidates.values()
        if record.equivalence.startswith("Cu")
    )
    assert refused is not None
    assert (refused.screen, refused.reason) == (
        "composition",
        "holds Cu, which the search space does not",
    )
    with pytest.raises(
        InputError,
        match=f"none of the 1 crystals of Python can be labelled: crystal 1: {waits.id} is "
        "selected already",
    ):
        campaign.control.pin([waits.structure])
    with pytest.raises(InputError, match="found none"):
        campaign.control.pin([])
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(InputError, match=r"empty\.extxyz"):
        campaign.control.pin(tmp_path / "empty.extxyz")
    with pytest.raises(InputError, match="there is no"):
        campaign.control.pin(tmp_path / "nowhere.cif")
    assert not waiting(campaign)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from campaign.rounds import requests
from campaign.api import Campaign
if sys.argv[2] == "before the event":
    leave = requests.leave
    requests.leave = lambda *given: (leave(*given), os.kill(os.getpid(), signal.SIGKILL))
else:
    requests.done = lambda path: os.kill(os.getpid(), signal.SIGKILL)
Campaign.open(sys.argv[1]).control.budget(5)
"""


@pytest.mark.parametrize("when", ["before the event", "after the event"])
def test_a_request_counts_once_whenever_who_takes_it_is_killed(small: Make, when: str) -> None:
    campaign = small(**QUICK)
    assert campaign.run() == OVER
    root = str(Path(requests.__file__).parents[2])
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(campaign.folder), when, root],
        check=False,
        env=dict(os.environ),
        timeout=50,
    )
    assert process.returncode == -signal.SIGKILL
    assert len(waiting(campaign)) == 1
    assert campaign.state().controls.labels == (5 if when == "after the event" else 0)
    assert campaign.run() == "budget spent: 29 labels"
    assert not waiting(campaign)
    assert campaign.state().controls.labels == 5
    assert len(campaign.state().controls.history) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"pause",
        b'{"control": {"event": "Labelled"}}',
        b'{"control": {"event": "LabelsChanged", "by": "me", "asked": 1.0, "labels": "5"}}',
        b'{"control": {"event": "CandidateVetoed", "by": "me", "asked": 1.0, "candidate": "nobody"}}',  # noqa: E501
        b'{"control": {"event": "LabelsChanged", "by": "me", "asked": 1.0, "labels": -1000}}',
        b'{"control": {"event": "CampaignPaused", "by": "me", "asked": 1.0}, "run": "rm"}',
        b'{"control": {"event": "CrystalsPinned", "by": "me", "asked": 1.0, "source": "x", "rows": []}}',  # noqa: E501
        b'{"control": {"event": "CrystalsPinned", "by": "me", "asked": 1.0, "source": "x", "rows": [["abc", "Fe1:0"]]}}',  # noqa: E501
        b'{"control": {"event": "CrystalsPinned", "by": "", "asked": 1.0, "source": "", "rows": [["a", "?"]]}, "crystals": {"a": "QQ=="}}',  # noqa: E501
    ],
)
def test_what_is_no_request_is_set_aside_and_stops_nothing(small: Make, text: bytes) -> None:
    campaign = small(**QUICK)
    campaign.ask(1)
    path = campaign.folder / requests.FOLDER / "1.json"
    path.parent.mkdir()
    path.write_bytes(text)
    assert campaign.run() == OVER
    assert [found.name for found in waiting(campaign)] == ["1.refused"]
    assert not campaign.state().controls.history


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("veto", "zzz"), "no candidate's id begins with 'zzz'"),
        (("veto",), "veto: of what?"),
        (("pause", "now"), "pause takes nothing more"),
        (("ban", "Cu"), "expected an element of this campaign's space, Ni, Fe, Cr, found 'Cu'"),
        (("approve", "zzz"), "no candidate's id begins with 'zzz'"),
        (("budget", "5"), "expected a change of the budget such as"),
        (("budget", "+0"), "a change that leaves a label or more, found +0 to 24"),
        (("budget", "-24"), "found -24 to 24 labels"),
    ],
)
def test_what_makes_no_sense_is_one_clear_message(
    small: Make, words: tuple[str, ...], message: str
) -> None:
    campaign = small(**QUICK)
    campaign.ask(1)
    result = CliRunner().invoke(app, ["control", str(campaign.folder), *words])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not waiting(campaign)
    assert not campaign.state().controls.history


def test_what_has_to_be_there_cannot_be_banned(small: Make) -> None:
    campaign = small(**QUICK)
    (question,) = campaign.ask(1)
    with pytest.raises(InputError, match="asks for no approval"):
        campaign.control.approve(question.candidate)
    campaign.control.ban("Cr")
    with pytest.raises(InputError, match="without Ni no composition is left"):
        campaign.control.ban("Ni")


def test_a_budget_without_labels_and_a_campaign_that_is_not_there(
    small: Make, tmp_path: Path
) -> None:
    campaign = small(**QUICK, budget={"labels": None, "rounds": 1})
    with pytest.raises(SurroundingsError, match="there is no campaign"):
        campaign.control.pause()
    assert not campaign.folder.exists()
    campaign.ask(1)
    with pytest.raises(InputError, match="limits no labels"):
        campaign.control.budget(5)
