"""The command line: what a person types, what they see, and the exit codes."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import SMALL, merged
from typer.testing import CliRunner

from campaign import __version__
from campaign.cli import app
from campaign.protocols import OracleSpec, PluginSpec
from campaign.testing import examine

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def config(home: Path, **changes: Any) -> str:
    path = home / "small.yaml"
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    return str(path)


def oreloop(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_a_campaign_from_first_to_last_command(home: Path) -> None:
    source = config(home)
    assert "is valid" in oreloop("validate", source)
    planned = oreloop("plan", source)
    assert "lennard_jones" in planned
    assert "nothing was recorded" in planned
    assert not (home / "campaigns").exists()
    ran = oreloop("run", source)
    assert "budget spent: 24 labels" in ran
    assert "report.html" in ran
    folder = "campaigns/small"
    assert "24 of 24" in oreloop("status", folder)
    assert "not running; it ended: budget spent: 24 labels" in oreloop("status", source)
    assert "campaigns/small" in oreloop("list")
    assert "labels.extxyz" in oreloop("export", folder)
    best = next(line for line in ran.splitlines() if "│ 1 " in line).split("│")[4].strip()
    told = oreloop("explain", folder, best[:10])
    assert "energy_per_atom = " in told
    assert "proposed" in told
    assert "no driver runs" in oreloop("stop", folder)
    assert oreloop("report", folder).strip().endswith("report.html")
    assert "budget spent: 24 labels" in oreloop("run", folder)


def test_init_writes_templates_and_never_over_a_file(home: Path) -> None:
    assert "nifecr_bulk_modulus" in oreloop("init", "--template", "list")
    assert "oreloop run" in oreloop("init", "mine.yaml")
    assert "is valid" in oreloop("validate", "mine.yaml")
    oreloop("init", "mine.yaml", code=2)
    oreloop("init", "other.yaml", "--template", "unknown", code=2)


def test_exit_codes(home: Path) -> None:
    oreloop("run", "missing.yaml", code=2)
    oreloop("status", str(home), code=4)
    failing = {
        "oracles": [{"use": "lennard_jones", "sanity": {"energy_per_atom": [50, 60]}}],
        "failure_policy": {"window": 3},
    }
    oreloop("run", config(home, **failing), code=3)
    assert "paused" in oreloop("status", "campaigns/small")


def test_doctor_schema_and_version(home: Path) -> None:
    told = oreloop("doctor")
    for name in ("torch", "lammps", "oracle lammps_bulk_modulus", "disk"):
        assert name in told
    assert __version__ in oreloop("version")
    result = subprocess.run(
        [sys.executable, "-m", "campaign.cli", "schema"], capture_output=True, text=True, check=True
    )
    assert '"CampaignConfig"' in result.stdout


def test_errors_are_one_message_without_a_traceback(home: Path) -> None:
    path = config(home, space={"max_fractoin": 0.5})
    result = subprocess.run(
        [sys.executable, "-m", "campaign.cli", "run", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "did you mean" in result.stderr
    assert "Traceback" not in result.stderr


def test_progress_is_live_at_a_terminal(home: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "campaign.cli", "run", config(home)]
    process = subprocess.Popen(
        command, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    assert process.wait() == 0
    os.close(leader)
    text = shown.decode(errors="replace")
    assert "rounds" in text
    assert "of 24" in text
    assert "\x1b[" in text


def test_the_version_is_an_option_too(home: Path) -> None:
    assert oreloop("--version").strip() == __version__


def ids_in(told: str) -> list[str]:
    return re.findall(r"\b[0-9a-f]{32}\b", told)


@pytest.mark.parametrize("width", ["80", "60"])
def test_ids_are_whole_on_a_narrow_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    ran = oreloop(
        "run",
        config(
            home, budget={"labels": 9}, constraints=[{"quantity": "price_per_kg", "at_most": 5.0}]
        ),
    )
    assert "ended: budget spent: 9 labels" in ran
    assert len(ids_in(ran)) == 5
    assert "…" not in ran
    assert max(map(len, ran.splitlines())) <= int(width)
    assert len(ids_in(oreloop("explain", "campaigns/small", ids_in(ran)[0][:8]))) >= 1


def test_nothing_is_broken_that_goes_into_a_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    oreloop("run", config(home, budget={"labels": 9}))
    told = subprocess.run(
        [sys.executable, "-m", "campaign.cli", "status", "campaigns/small"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    best = next(line for line in told.splitlines() if line.startswith("best"))
    assert len(ids_in(best)) == 1
    wrong = [
        sys.executable,
        "-m",
        "campaign.cli",
        "run",
        config(home, generators=[{"use": "random_alloi"}]),
    ]
    said = subprocess.run(wrong, capture_output=True, text=True, check=False).stderr
    assert len([line for line in said.splitlines() if line]) == 2, (
        "the message and what to do, a line each"
    )


def test_checks_of_an_oracle_are_told_one_by_one(home: Path) -> None:
    """What it is at is told before it begins, and each finding as soon as it is there."""
    (home / "slow_parts.py").write_text(SLOW)
    command = [
        sys.executable,
        "-m",
        "campaign.cli",
        "oracle",
        "check",
        "slow_parts:Slow",
        "--element",
        "Ni",
    ]
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert asked.stdout is not None
    try:
        assert asked.stdout.readline().strip() == "oracle Slow"
        assert asked.stdout.readline().startswith("quantities and units")
        assert asked.poll() is None, "it waits for a slow evaluation, and the first check is told"
    finally:
        os.killpg(asked.pid, signal.SIGKILL)
        asked.wait()
    steps: list[str] = []
    found = examine(
        OracleSpec(name="lj", plugin=PluginSpec(group="oracles", use="lennard_jones", params={})),
        ["Ni"],
        on_step=steps.append,
    )
    assert next(found).check == "quantities and units"
    assert next(found).check == "gives what it promises"
    assert steps == ["gives what it promises", "gives what it promises: evaluation 1, Ni4"]
    found.close()


SLOW = """
import time
from oreloop import Evaluation, Quantity

class Slow:
    quantities = (Quantity("energy_per_atom", "eV/atom"),)
    def evaluate(self, crystal):
        time.sleep(60)
        return Evaluation.single(self.quantities[0], 0.0)
"""
