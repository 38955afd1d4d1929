"""The live state is the fold of the ledger, after every event and whatever an oracle answers."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import made_crystals, made_decision, made_failure, made_label

from campaign.errors import LedgerDamagedError
from campaign.ledger import CampaignState, Ledger, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.leaders import Wanted
from campaign.types import Objective

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(st.characters(codec=None, categories=None), max_size=6) | st.sampled_from(
    ["\udc80", "a\ud800", "\x00", '"{', "é\\", "\U0001f600"]
)
ANSWERS = st.one_of(
    NUMBERS,
    st.none(),
    st.integers(-(2**70), 2**70),
    TEXTS,
    st.lists(st.lists(NUMBERS, max_size=2), max_size=2),
)


def told(state: CampaignState) -> dict[str, str]:
    """All that a state is, as text, so that NaN equals NaN."""
    found = dict(vars(state))
    found["keys"] = sorted(state.keys)
    return {name: repr(value) for name, value in found.items()}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_after_every_event_the_fold_of_the_ledger_is_the_live_state(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        ledger, reader = Ledger(Path(name)), None
        crystals = made_crystals(3)
        ids = [crystal.id for crystal in crystals]
        rows = tuple(
            ev.ProposalRow(item, "Ni8Fe8:0", (), {"wanted": data.draw(ANSWERS)}) for item in ids
        )
        created = ev.CampaignCreated(campaign="c", name=data.draw(TEXTS), seed=1)
        fitted = ev.Fitted(
            round=0,
            model="m",
            labels=1,
            hyperparameters={"h": data.draw(ANSWERS)},
            seconds=data.draw(NUMBERS),
            cpu_seconds=0.0,
        )
        proposed = ev.Proposed(
            round=0,
            generator=data.draw(TEXTS),
            checkpoint=None,
            stream="s",
            seconds=data.draw(NUMBERS),
            proposals=rows,
        )
        trained = ev.Trained(
            round=0,
            generator="g",
            checkpoint="h",
            parent=None,
            is_published=True,
            metrics={"loss": data.draw(NUMBERS)},
            seconds=1.0,
            labels=1,
        )
        outcomes = [
            made_label(
                item,
                data.draw(ANSWERS),
                noise=data.draw(NUMBERS | st.none()),
                key=f"{data.draw(TEXTS)}{i}",
            )
            if data.draw(st.booleans())
            else made_failure(item, data.draw(TEXTS))
            for i, item in enumerate(ids)
        ]
        events = [
            created,
            ev.RoundStarted(round=0),
            fitted,
            trained,
            proposed,
            ev.Judged(
                round=0,
                verdicts=tuple(ev.VerdictRow(item, True, "", data.draw(TEXTS)) for item in ids),
            ),
            made_decision(0, ids, data.draw(NUMBERS)),
            *outcomes,
            ev.OraclePaused(oracle="o", reason=data.draw(TEXTS)),
            ev.SessionEnded(reason=data.draw(TEXTS)),
        ]
        try:
            for event in events:
                blobs = (
                    {crystal.id: crystal.to_bytes() for crystal in crystals}
                    if event is proposed
                    else {}
                )
                ledger.append([event], blobs)
                reader = reader or LedgerReader(Path(name))
                assert told(reader.fold()) == told(ledger.state)
        finally:
            ledger.close()
        again = Ledger(Path(name))
        assert told(again.state) == told(ledger.state)
        again.close()


ASKED: dict[str, Any] = {"by": "me@here", "asked": 1.0}
IDS = [crystal.id for crystal in made_crystals(6)]
SOME = st.sampled_from(IDS)
WITHDRAWN = st.lists(SOME, max_size=3, unique=True).map(
    lambda ids: tuple(ev.PairRow(item, "o") for item in ids)
)


def _pin(candidate: str, screen: str, name: str) -> ev.CrystalsPinned:
    return ev.CrystalsPinned(
        source=name, rows=(ev.PinnedRow(candidate, "Ni8Fe8:0", name, screen, name),), **ASKED
    )


def _inject(candidate: str, screen: str, name: str) -> ev.CrystalsInjected:
    return ev.CrystalsInjected(
        source=name, rows=(ev.PinnedRow(candidate, "Ni8Fe8:0", name, screen, name),), **ASKED
    )


CONTROLS = st.one_of(
    st.builds(lambda: ev.CampaignPaused(**ASKED)),
    st.builds(lambda: ev.CampaignResumed(**ASKED)),
    st.builds(lambda n: ev.LabelsChanged(labels=n, **ASKED), st.integers(-20, 20)),
    st.builds(
        lambda c, w: ev.CandidateVetoed(candidate=c, withdrawn=w, **ASKED), SOME | TEXTS, WITHDRAWN
    ),
    st.builds(
        lambda e, w: ev.ElementBanned(element=e, withdrawn=w, **ASKED),
        st.sampled_from(["Ni", "Fe", "Cr"]),
        WITHDRAWN,
    ),
    st.builds(
        lambda e: ev.ElementUnbanned(element=e, **ASKED), st.sampled_from(["Ni", "Fe", "Cr"])
    ),
    st.builds(_inject, SOME, st.sampled_from(["", "known"]), TEXTS),
    st.builds(lambda c: ev.CandidateApproved(candidate=c, **ASKED), SOME | TEXTS),
    st.builds(_pin, SOME, st.sampled_from(["", "known"]), TEXTS),
)


def _after(seed: int, names: list[str]) -> list[ev.Event]:
    """What a round may go on to after any controls: it decides, is labelled, fails."""
    held = tuple(ev.ChoiceRow(name, "costly", reason="gate") for name in names[:seed])
    return [
        msgspec.structs.replace(made_decision(0, names[seed:]), held=held),
        *(made_label(name, 1.0) for name in names[seed : seed + 2]),
        *(made_failure(name, "no") for name in names[seed + 2 :]),
        ev.RoundEnded(round=0),
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    controls=st.lists(CONTROLS, max_size=12),
    places=st.lists(st.integers(0, 9), max_size=12),
    seed=st.integers(0, 3),
)
def test_after_every_control_the_fold_of_the_ledger_is_the_live_state(
    controls: list[ev.Controlled], places: list[int], seed: int
) -> None:
    crystals = {crystal.id: crystal.to_bytes() for crystal in made_crystals(6)}
    rows = tuple(
        ev.ProposalRow(item, "Ni8Fe8:0" if i % 2 else "Ni8Cr8:0") for i, item in enumerate(IDS)
    )
    events: list[ev.Event] = [
        ev.SessionStarted(host="h", process=1, versions={}),
        ev.RoundStarted(round=0),
        ev.Proposed(
            round=0, generator="g", checkpoint=None, stream="s", seconds=0.0, proposals=rows
        ),
        ev.Judged(round=0, verdicts=tuple(ev.VerdictRow(item, True, "") for item in IDS)),
        *_after(seed, IDS),
    ]
    for control, place in zip(controls, places, strict=False):
        events.insert(min(3 + place, len(events)), control)
    with tempfile.TemporaryDirectory() as name:
        ledger = Ledger(Path(name))
        try:
            for event in events:
                ledger.append(
                    [event], crystals if isinstance(event, ev.Proposed | ev.CrystalsGiven) else {}
                )
                barred = {
                    candidate
                    for candidate in ledger.state.candidates
                    if ledger.state.is_barred(candidate)
                }
                assert not barred & ledger.state.unlabelled.keys()
                assert not barred & set(ledger.state.pinned)
            assert told(LedgerReader(Path(name)).fold()) == told(ledger.state)
            assert len(ledger.state.controls.history) == min(len(controls), len(places))
        finally:
            ledger.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_what_is_no_number_is_kept_and_never_the_best(
    tmp_path: Path, value: float, direction: str
) -> None:
    ledger = Ledger(tmp_path)
    crystals = made_crystals(2)
    ids = [crystal.id for crystal in crystals]
    rows = tuple(ev.ProposalRow(item, "Ni8Fe8:0") for item in ids)
    proposed = ev.Proposed(
        round=0, generator="g", checkpoint=None, stream="s", seconds=0.0, proposals=rows
    )
    ledger.append(
        [ev.RoundStarted(round=0), proposed, made_decision(0, ids)],
        {crystal.id: crystal.to_bytes() for crystal in crystals},
    )
    ledger.append([made_label(ids[0], value), made_label(ids[1], 1.0)])
    ledger.close()
    for state in (ledger.state, LedgerReader(tmp_path).fold()):
        assert state.labels[ids[0], "o"].values == {}
        assert str(state.labels[ids[0], "o"].observations[0].value) == str(value)
        assert (
            state.leaders(Wanted("o", (Objective("q", direction),))).best
            is state.labels[ids[1], "o"]
        )  # type: ignore[arg-type]


def test_events_that_cannot_follow_one_another_are_no_traceback(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([ev.SessionEnded(reason="over")])
    with pytest.raises(IndexError):
        ledger.append([ev.RoundEnded(round=3)])
    ledger.close()
    with pytest.raises(LedgerDamagedError, match="cannot follow one another"):
        Ledger(tmp_path)
