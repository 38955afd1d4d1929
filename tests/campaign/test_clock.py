"""Running time: what a driver that is stopped, or whose clock is set, books."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from campaign.api import Campaign
from campaign.clock import awake_seconds
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.state import fold

SESSION = ev.SessionStarted(host="h", process=1, versions={})
REVISED = ev.ConfigRevised(revision=0, sha256="", config={}, fidelities={})


def test_the_clock_runs_as_time_does() -> None:
    before, began = awake_seconds(), time.monotonic()
    time.sleep(0.3)
    assert awake_seconds() - before == pytest.approx(time.monotonic() - began, abs=0.1)


def test_time_in_which_a_process_is_stopped_does_not_count() -> None:
    code = (
        "import time\nfrom campaign.clock import "
        "awake_seconds\nawake_seconds()\nprint(flush=True)\ninput()\nprint(awake_seconds())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate("\n", timeout=20)
    assert float(output) < 2.0


def test_a_clock_that_jumps_books_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "campaign")
    ledger.append([REVISED, SESSION])
    for jump in (36_000.0, -72_000.0, 0.0):
        now = time.time()
        monkeypatch.setattr(
            "campaign.ledger.store.clock.time", lambda now=now, jump=jump: now + jump
        )
        ledger.append([ev.OraclePaused(oracle="o", reason="r")])
    assert ledger.state.active_seconds < 60
    assert ledger.fold().active_seconds == ledger.state.active_seconds
    ledger.close()


def test_older_ledgers_fold_by_their_times_and_downtime_is_not_running_time() -> None:
    paused = ev.OraclePaused(oracle="o", reason="r")
    rows = [(1, 100.0, REVISED), (2, 100.0, SESSION), (3, 107.0, paused)]
    assert fold(rows).active_seconds == 7.0
    killed_and_resumed = [*rows, (4, 9000.0, REVISED), (5, 9000.0, SESSION), (6, 9003.0, paused)]
    assert fold(killed_and_resumed).active_seconds == 10.0
    stamped = [(7, 9004.0, msgspec.structs.replace(REVISED, awake=500.0)), (8, 9004.0, SESSION)]
    stamped.append((9, 1.0, msgspec.structs.replace(paused, awake=502.5)))
    assert fold([*killed_and_resumed, *stamped]).active_seconds == 12.5


def test_a_campaigns_running_time_is_what_it_took(small: Callable[..., Campaign]) -> None:
    began = time.monotonic()
    campaign = small(budget={"labels": 12})
    campaign.run()
    took = time.monotonic() - began
    assert 0 < campaign.state().active_seconds <= took
    lines = (campaign.folder / "journal.jsonl").read_text().splitlines()
    assert all("awake" in json.loads(line[9:])["events"][0] for line in lines)
