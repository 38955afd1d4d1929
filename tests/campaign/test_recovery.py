"""`recover`: the side whose checksum holds wins, what is lost is named, and killed at any point it
is run again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledgers import flip, made_crystals, made_ledger, values
from support import label_set

from campaign.api import Campaign
from campaign.errors import LedgerDamagedError
from campaign.ledger import Ledger, LedgerReader, journal
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE, JOURNAL, RECOVERING, SET_ASIDE
from campaign.ledger.recover import ranges, recover


def changed(folder: Path, statement: str, *parameters: Any) -> None:
    connection = sqlite3.connect(folder / DATABASE)
    assert connection.execute(statement, parameters).rowcount > 0
    connection.commit()
    connection.close()


def alter_digit(folder: Path) -> int:
    """Write a label's value as -9.99 into the database; returns its sequence."""
    connection = sqlite3.connect(folder / DATABASE)
    sequence, payload = connection.execute(
        "SELECT sequence, payload FROM oreloop_events WHERE kind = 'Labelled' LIMIT 1"
    ).fetchone()
    connection.execute(
        "UPDATE oreloop_events SET payload = ? WHERE sequence = ?",
        (payload.replace(b'"q",0.0', b'"q",-9.99'), sequence),
    )
    connection.commit()
    connection.close()
    return int(sequence)


def test_a_digit_changed_in_the_database_is_not_believed(tmp_path: Path) -> None:
    made_ledger(tmp_path)
    before = values(LedgerReader(tmp_path).fold())
    sequence = alter_digit(tmp_path)
    for opening in (Ledger, lambda folder: LedgerReader(folder).fold()):
        with pytest.raises(
            LedgerDamagedError, match=rf"differs from its journal in event {sequence} \(Labelled\)"
        ) as caught:
            opening(tmp_path)
        assert "oreloop recover" in caught.value.hint
    found = recover(tmp_path)
    assert found.contradicted == (sequence,)
    assert found.missing == ()
    assert values(LedgerReader(tmp_path).fold()) == before
    Ledger(tmp_path).close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE oreloop_events SET time = time + 1 WHERE sequence = 7",
            "differs from its journal in event 7",
        ),
        (
            "UPDATE oreloop_events SET payload = x'00' WHERE sequence = 7",
            "event, number 7, that cannot be read",
        ),
        ("DELETE FROM oreloop_events WHERE sequence = 7", "misses event 7"),
        ("DELETE FROM oreloop_events", "the database only 0"),
        (
            "DELETE FROM oreloop_blobs WHERE id = (SELECT min(id) FROM oreloop_blobs)",
            "misses the crystals of 1 candidates",
        ),
    ],
)
def test_other_changes_of_the_database_are_found_on_opening_and_mended(
    tmp_path: Path, statement: str, problem: str
) -> None:
    made_ledger(tmp_path)
    before = values(LedgerReader(tmp_path).fold())
    changed(tmp_path, statement)
    with pytest.raises(LedgerDamagedError, match=problem) as caught:
        Ledger(tmp_path)
    assert "oreloop recover" in caught.value.hint
    assert recover(tmp_path).missing == ()
    Ledger(tmp_path).close()
    assert values(LedgerReader(tmp_path).fold()) == before


def test_a_flipped_blob_is_told_when_it_is_read_and_mended(tmp_path: Path) -> None:
    made_ledger(tmp_path)
    crystal = made_crystals(1)[0]
    data = bytearray(crystal.to_bytes())
    data[len(data) // 2] ^= 1
    changed(tmp_path, "UPDATE oreloop_blobs SET data = ? WHERE id = ?", bytes(data), crystal.id)
    for read in (LedgerReader(tmp_path).crystal, LedgerReader(tmp_path).blob):
        with pytest.raises(LedgerDamagedError, match="other content than its id says") as caught:
            read(crystal.id)
        assert "oreloop recover" in caught.value.hint
    assert recover(tmp_path).lost_blobs == 0
    assert LedgerReader(tmp_path).crystal(crystal.id) == crystal


@pytest.mark.parametrize(
    "kind",
    [
        "CampaignCreated",
        "RoundStarted",
        "Proposed",
        "Judged",
        "Decided",
        "Labelled",
        "Failed",
        "RoundEnded",
    ],
)
def test_whatever_line_is_wiped_out_the_others_stand(tmp_path: Path, kind: str) -> None:
    """Not a bit but a whole line, so that its crystals are gone too; the campaign's ledger opens
    and goes on.
    """
    length = made_ledger(tmp_path)
    before = values(LedgerReader(tmp_path).fold())
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    hit = [i for i, line in enumerate(lines) if b'"%s"' % kind.encode() in line][
        1 if kind != "CampaignCreated" else 0
    ]
    lines[hit] = b"\0" * (len(lines[hit]) - 1) + b"\n"
    (tmp_path / JOURNAL).write_bytes(b"".join(lines))
    (tmp_path / DATABASE).unlink()
    found = recover(tmp_path)
    assert found.events == length
    assert len(found.missing) == (3 if kind == "CampaignCreated" else 1)
    state = LedgerReader(tmp_path).fold()
    lost = {"Proposed": 2, "Labelled": 1}.get(kind, 0)
    assert len(state.labels) == len(before) - lost
    assert values(state).items() <= before.items()
    assert bool(found.unusable) == (kind == "Proposed")
    kept = [
        event
        for _, _, event in LedgerReader(tmp_path).events()
        if isinstance(event, ev.Lost) and event.remains
    ]
    assert len(kept) == len(found.unusable)
    ledger = Ledger(tmp_path)
    assert ledger.state.sequence == length
    ledger.append([ev.SessionStarted(host="h", process=2, versions={})])
    ledger.close()


def test_gaps_of_both_sides_are_filled_from_the_other(tmp_path: Path) -> None:
    made_ledger(tmp_path)
    before = values(LedgerReader(tmp_path).fold())
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    flip(tmp_path / JOURNAL, sum(map(len, lines[:10])) + 30)
    changed(tmp_path, "DELETE FROM oreloop_events WHERE sequence BETWEEN 20 AND 22")
    found = recover(tmp_path)
    assert (found.missing, found.only_database, found.only_journal) == ((), (13,), (20, 21, 22))
    assert "events 20-22: missing from the database, taken from the journal" in found.lines()
    assert "events 13: missing from the journal, taken from the database" in found.lines()
    assert values(LedgerReader(tmp_path).fold()) == before


def recover_until(folder: Path, count: int, when: str) -> bool:
    """`recover` in a process that dies before or after its ``count``-th change of a file; whether
    it died.
    """
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1] != 0
    counter = itertools.count()

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            is_last = next(counter) == count
            if is_last and when == "before":
                os._exit(9)
            found = original(*arguments, **options)
            if is_last:
                os._exit(9)
            return found

        return wrapped

    try:
        os.replace, os.link, shutil.rmtree = dying(os.replace), dying(os.link), dying(shutil.rmtree)  # type: ignore[assignment]
        Path.unlink, Path.mkdir = dying(Path.unlink), dying(Path.mkdir)  # type: ignore[method-assign]
        journal.Journal.append = dying(journal.Journal.append)  # type: ignore[method-assign]
        recover(folder)
        os._exit(0)
    except BaseException:
        os._exit(1)


def opened_in_between(folder: Path) -> Any:
    """The labels that a driver finds; "refused" where it is told to recover."""
    try:
        ledger = Ledger(folder)
    except LedgerDamagedError as error:
        return "refused" if "oreloop recover" in error.hint else error
    ledger.close()
    return values(ledger.state)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_point_it_is_run_again(tmp_path: Path, when: str) -> None:
    """What only one side holds is there still, and no opening in between begins anew or shortens
    anything.
    """
    original = tmp_path / "original"
    made_ledger(original)
    before = values(LedgerReader(original).fold())
    lines = (original / JOURNAL).read_bytes().splitlines(keepends=True)
    flip(original / JOURNAL, sum(map(len, lines[:10])) + 30)
    changed(original, "DELETE FROM oreloop_events WHERE sequence > 25")
    count, has_died = 0, True
    while has_died:
        folder = tmp_path / f"killed-{count}"
        shutil.copytree(original, folder)
        has_died = recover_until(folder, count, when)
        if has_died:
            assert opened_in_between(folder) in ("refused", before)
            recover(folder)
        assert values(LedgerReader(folder).fold()) == before
        assert not (folder / RECOVERING).exists()
        Ledger(folder).close()
        shutil.rmtree(folder)
        count += 1 if count < 12 else 7
    assert count > 30


@pytest.mark.parametrize("left", ["set aside", "recovering"])
def test_no_campaign_begins_where_the_remains_of_one_lie(
    small: Callable[..., Campaign], tmp_path: Path, left: str
) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    before = label_set(campaign)
    folder = campaign.folder
    if left == "recovering":
        (folder / RECOVERING).mkdir()
    for name in (DATABASE, JOURNAL):
        target = (
            folder / RECOVERING / name
            if left == "recovering"
            else folder / f"{SET_ASIDE}20260101-000000-{name}"
        )
        (folder / name).rename(target)
    for remove_config in (False, True):
        if remove_config:
            (folder / "config.json").unlink()
        with pytest.raises(LedgerDamagedError, match="database is missing") as caught:
            small(budget={"labels": 9}).run()
        assert "oreloop recover" in caught.value.hint
    recover(folder)
    assert label_set(small(budget={"labels": 9})) == before


def test_a_recovered_campaign_goes_on(small: Callable[..., Campaign]) -> None:
    campaign = small(budget={"labels": 14})
    campaign.run()
    before = label_set(campaign)
    path = campaign.folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    hit = next(i for i, line in enumerate(lines) if b'"Decided"' in line)
    flip(path, sum(map(len, lines[:hit])) + 40)
    (campaign.folder / DATABASE).unlink()
    found = recover(campaign.folder)
    assert len(found.missing) == 1
    assert label_set(campaign) == before
    assert small().run() == "budget spent: 24 labels"
    assert before.items() <= label_set(campaign).items()


def test_ranges_are_told_shortly() -> None:
    assert ranges([3, 5, 6, 7, 9]) == "3, 5-7, 9"
