"""A journal in which bits flip or lines are torn: nothing that is whole is lost, and nothing is
ever cut off.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import flip, made_ledger, steps, values

from campaign.errors import LedgerDamagedError
from campaign.ledger import Ledger, LedgerReader, journal
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE, JOURNAL
from campaign.ledger.recover import recover

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "original"
    made_ledger(folder)
    return folder


def copied(original: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    return folder


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@QUICK
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flip_costs_at_most_the_event_that_it_hits(
    original: Path, tmp_path: Path, place: float, bit: int
) -> None:
    """With the journal alone: labels on both sides of it stand, and what is missing is told."""
    folder = copied(original, tmp_path / "flipped")
    size = (folder / JOURNAL).stat().st_size
    offset = int(place * size)
    flip(folder / JOURNAL, offset, bit)
    (folder / DATABASE).unlink()
    damaged = (folder / JOURNAL).read_bytes()
    found = recover(folder)
    state = LedgerReader(folder).fold()
    before = values(LedgerReader(original).fold())
    after = values(state)
    assert found.events == state.sequence
    assert set(after) <= set(before)
    assert len(after) >= len(before) - 1
    assert all(after[pair] == before[pair] for pair in after)
    assert not found.unusable or len(found.missing) > 0
    assert any(path.read_bytes() == damaged for path in found.set_aside)
    ledger = Ledger(folder)
    ledger.append([ev.SessionStarted(host="h", process=2, versions={})])
    ledger.close()


@QUICK
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_run_never_shortens_a_journal(
    original: Path, tmp_path: Path, place: float, bit: int
) -> None:
    """The database knows all: what the flipped line held is written again, and the whole journal is
    one that recovers everything.
    """
    folder = copied(original, tmp_path / "flipped")
    flip(folder / JOURNAL, int(place * (folder / JOURNAL).stat().st_size), bit)
    damaged = (folder / JOURNAL).read_bytes()
    ledger = Ledger(folder)
    ledger.append([ev.SessionStarted(host="h", process=2, versions={})])
    ledger.close()
    assert (folder / JOURNAL).read_bytes().startswith(damaged)
    reference = values(LedgerReader(folder).fold())
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
    assert recover(folder).missing == ()
    assert values(LedgerReader(folder).fold()) == reference == values(LedgerReader(original).fold())


@pytest.mark.parametrize("kept", [1, 5, 12])
def test_a_flip_beside_an_older_database_is_refused_and_recovered(
    tmp_path: Path, kept: int
) -> None:
    """The database is of an earlier time; the journal alone knows the later labels, on both sides
    of the flip.
    """
    folder, transactions = tmp_path / "older", list(steps())
    for part in (transactions[:kept], transactions[kept:]):
        if folder.exists():
            shutil.copyfile(folder / DATABASE, tmp_path / "backup.db")
        ledger = Ledger(folder)
        for events, blobs in part:
            ledger.append(events, blobs)
        ledger.close()
    shutil.copyfile(tmp_path / "backup.db", folder / DATABASE)
    journal_lines = lines_of(folder / JOURNAL)
    labelled = max(i for i, line in enumerate(journal_lines) if b'"Labelled"' in line)
    flip(folder / JOURNAL, sum(map(len, journal_lines[:labelled])) + 60)
    damaged = (folder / JOURNAL).read_bytes()
    with pytest.raises(
        LedgerDamagedError, match=r"the journal in .* knows 35 events, the database only"
    ) as refused:
        Ledger(folder)
    assert "oreloop recover" in str(refused.value)
    assert (folder / JOURNAL).read_bytes() == damaged
    found = recover(folder)
    assert len(found.missing) == 1
    assert f"events {found.missing[0]}: in neither" in "\n".join(found.lines())
    assert found.damaged_lines == 1
    assert len(LedgerReader(folder).fold().labels) == 7


@pytest.mark.parametrize("cut", [1, 2, 40, 700])
def test_a_torn_last_line_is_kept_and_its_events_are_written_again(
    original: Path, tmp_path: Path, cut: int
) -> None:
    folder = copied(original, tmp_path / "torn")
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes()[:-cut])
    torn = path.read_bytes()
    Ledger(folder).close()
    assert path.read_bytes().startswith(torn)
    index = journal.index(path)
    assert sorted(index.events) == list(range(1, LedgerReader(folder).fold().sequence + 1))


def test_a_lost_end_of_line_loses_neither_line(original: Path, tmp_path: Path) -> None:
    folder = copied(original, tmp_path / "joined")
    path = folder / JOURNAL
    lines = lines_of(path)
    flip(path, len(lines[0]) - 1, 3)
    flip(path, sum(map(len, lines)) - 1, 2)
    assert len(journal.index(path).events) == LedgerReader(folder).fold().sequence


def test_events_that_json_cannot_say_are_in_the_journal_as_they_are(tmp_path: Path) -> None:
    made_ledger(tmp_path, rounds=1)
    ledger = Ledger(tmp_path)
    ledger.append([ev.SessionEnded(reason="a\udc80b", is_final=False)])
    ledger.close()
    last = list(journal.read(tmp_path / JOURNAL))[-1][0].events[-1]
    assert isinstance(last, ev.SessionEnded)
    assert last.reason == "a\\udc80b", "as its escape"
