"""Signals that ask a driver to stop: what is under way is waited for, on every executor, and
nothing is left.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML
from support import HELPERS, SMALL, merged

from campaign.api import Campaign


def write_campaign(folder: Path, executor: str, seconds: float = 0.2) -> Path:
    oracle = {
        "use": "user_oracles:Counting",
        "params": {"log": str(folder / "log"), "seconds": seconds},
        "cpus": 0.5,
    }
    (folder / "user_oracles.py").write_text((HELPERS / "user_oracles.py").read_text())
    document: dict[str, Any] = merged(
        SMALL, {"oracles": [oracle], "executor": {"use": executor, "cpus": 1}}
    )
    with (folder / "small.yaml").open("w") as file:
        YAML().dump(document, file)
    return folder / "small.yaml"


def started(config: Path, **options: Any) -> subprocess.Popen[str]:
    """A driver in a session of its own, once a label is made; it minds SIGHUP also where the tests
    run under nohup.
    """
    command = [sys.executable, "-m", "campaign.cli", "run", str(config)]
    settings = {
        "text": True,
        "start_new_session": True,
        "preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    process = subprocess.Popen(command, cwd=config.parent, **(settings | options))
    log, deadline = config.parent / "log", time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < 1:
        assert process.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline, "nothing was labelled"
        time.sleep(0.05)
    return process


def check_drained(config: Path) -> None:
    """Every evaluation that was begun is a label, and the session ended in good order."""
    state = Campaign.open(config.parent / "campaigns" / "small").state()
    assert state.session_ended is not None
    assert state.session_ended.reason.startswith("interrupted by SIG")
    assert len(state.labels) == (config.parent / "log").read_text().count("\n") < 24


@pytest.mark.parametrize("executor", ["serial", "ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains(tmp_path: Path, executor: str, number: signal.Signals) -> None:
    """SIGINT and SIGHUP as a terminal sends them: to the driver with all that is in its process
    group.

    On Ray a label takes longer than the three seconds after which Ray's library would abort a
    driver that got SIGTERM.
    """
    config = write_campaign(tmp_path, executor, seconds=4.0 if executor == "ray" else 0.2)
    process = started(config, stdout=subprocess.PIPE)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, number) if number == signal.SIGTERM else os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted by {number.name}" in output
    check_drained(config)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_closed_terminal_drains(tmp_path: Path) -> None:
    """What is printed after the terminal is gone ends nothing."""
    config = write_campaign(tmp_path, "serial")
    terminal, end = pty.openpty()
    process = started(config, stdin=end, stdout=end, stderr=end)
    os.close(end)
    os.close(terminal)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 130
    check_drained(config)


def test_nohup_is_respected(tmp_path: Path) -> None:
    config = write_campaign(tmp_path, "serial", seconds=0.02)
    process = started(
        config,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "budget spent: 24 labels" in output
