"""The ledger: committed once, folded the same, read while it is written, found again whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from campaign.crystals.lattice import supercell
from campaign.decide.select import decode_table, encode_table
from campaign.errors import LedgerDamagedError, SurroundingsError
from campaign.ledger import Ledger, LedgerReader, journal
from campaign.ledger import events as ev
from campaign.ledger.engines import JOURNAL
from campaign.ledger.leaders import Wanted
from campaign.ledger.store import meta_table
from campaign.types import Crystal, Objective


def proposed(round_index: int, *crystals: Crystal) -> tuple[ev.Proposed, dict[str, bytes]]:
    rows = tuple(
        ev.ProposalRow(c.id, f"{c.formula}:0", ("parent",), {"move": "swap"}) for c in crystals
    )
    event = ev.Proposed(
        round=round_index,
        generator="g",
        checkpoint=None,
        stream="1/g/0/0",
        seconds=0.5,
        proposals=rows,
        key=f"p{round_index}",
    )
    return event, {c.id: c.to_bytes() for c in crystals}


@pytest.fixture
def crystals() -> list[Crystal]:
    rng = np.random.default_rng(0)
    return [
        supercell("bcc", (2, 2, 2), rng.permutation(["Ni"] * 8 + ["Fe"] * 8).tolist())
        for _ in range(3)
    ]


def label(candidate: str, key: str, value: float) -> ev.Labelled:
    return ev.Labelled(
        key=key, candidate=candidate, oracle="o", fidelity="f", attempt=0, observations=(ev.ObservationRow("q", value, "eV"),),  # noqa: E501
        crystal=None, artifacts={}, wall_seconds=1.5, cpu_seconds=1.4, started=10.0, worker="o-0",
    )  # fmt: skip


def begin(ledger: Ledger, crystals: list[Crystal]) -> list[str]:
    ids = [crystal.id for crystal in crystals]
    event, blobs = proposed(0, *crystals)
    ledger.append([ev.CampaignCreated(campaign="c", name="n", seed=1)])
    ledger.append([ev.RoundStarted(round=0, key="r0")])
    ledger.append([event], blobs)
    ledger.append(
        [
            ev.Judged(
                round=0,
                verdicts=tuple(ev.VerdictRow(identity, True, "") for identity in ids),
                key="j0",
            )
        ]
    )
    choices = tuple(ev.ChoiceRow(identity, "o", 1.0, 2.0, 0.1) for identity in ids[:2])
    ledger.append(
        [
            ev.Decided(
                round=0, acquisition="random", model=None, model_labels=0, stream="s", pool="h", pool_size=3, table=None, pending=(),  # noqa: E501
                choices=choices, seconds=0.1, labels_at_decision=0, key="d0",
            )
        ]
    )  # fmt: skip
    return ids


def test_state_folds_the_same_from_disk(tmp_path: Path, crystals: list[Crystal]) -> None:
    ledger = Ledger(tmp_path)
    ids = begin(ledger, crystals)
    ledger.append([label(ids[0], "k0", -1.25)])
    live = ledger.state
    ledger.close()
    again = LedgerReader(tmp_path).fold()
    for state in (live, again):
        assert list(state.pending) == [(ids[1], "o")]
        assert list(state.unlabelled) == [ids[2]]
        assert state.labels[ids[0], "o"].values == {"q": -1.25}
        assert state.labels[ids[0], "o"].round == 0
        assert (
            state.leaders(Wanted("o", (Objective("q", "maximize"),))).best
            is state.labels[ids[0], "o"]
        )
    assert again.sequence == live.sequence == 6
    assert LedgerReader(tmp_path).crystals(ids) == crystals


def test_a_result_that_arrives_twice_is_stored_once(
    tmp_path: Path, crystals: list[Crystal]
) -> None:
    ledger = Ledger(tmp_path)
    ids = begin(ledger, crystals)
    assert len(ledger.append([label(ids[0], "k0", 1.0), label(ids[0], "k0", 2.0)])) == 1
    assert ledger.append([label(ids[0], "k0", 3.0)]) == []
    assert ledger.state.labels[ids[0], "o"].values == {"q": 1.0}
    ledger.close()


def test_every_event_survives_its_encoding() -> None:
    event = label("a", "k", 0.1 + 0.2)
    assert ev.decode(ev.encode(event)) == event
    assert ev.decode(ev.encode(ev.RoundEnded(round=3))) == ev.RoundEnded(round=3)


def test_the_journal_mirrors_the_database(tmp_path: Path, crystals: list[Crystal]) -> None:
    ledger = Ledger(tmp_path)
    begin(ledger, crystals)
    ledger.close()
    from_journal = [
        event for transaction, _ in journal.read(tmp_path / JOURNAL) for event in transaction.events
    ]
    assert from_journal == [event for _, _, event in LedgerReader(tmp_path).events()]


def test_the_journal_catches_up_with_what_it_missed(
    tmp_path: Path, crystals: list[Crystal]
) -> None:
    ledger = Ledger(tmp_path)
    begin(ledger, crystals)
    ledger.close()
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(lines[:2]) + lines[2][:40])
    Ledger(tmp_path).close()
    blobs = {
        identity
        for transaction, _ in journal.read(tmp_path / JOURNAL)
        for identity in transaction.blobs
    }
    assert blobs == {crystal.id for crystal in crystals}


def test_a_database_that_lost_its_end_is_noticed(tmp_path: Path, crystals: list[Crystal]) -> None:
    ledger = Ledger(tmp_path)
    begin(ledger, crystals)
    with ledger.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM oreloop_events WHERE sequence > 3"))
    ledger.close()
    with pytest.raises(
        LedgerDamagedError, match=r"the journal in .* knows 5 events, the database only 3"
    ):
        Ledger(tmp_path)


def test_newer_schemas_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(meta_table).values(value="99"))
    ledger.close()
    with pytest.raises(SurroundingsError, match="schema version 99"):
        Ledger(tmp_path)


def test_folders_without_a_campaign_are_named(tmp_path: Path) -> None:
    with pytest.raises(SurroundingsError, match="no campaign in"):
        LedgerReader(tmp_path)


def test_score_tables_survive_their_encoding() -> None:
    ids = [f"{i:032x}" for i in range(3)]
    values = np.array([1.0, -np.inf, 1e-300])
    table = decode_table(encode_table(ids, values, values, values))
    assert list(table) == ids
    assert table[ids[1]] == (-np.inf,) * 3
