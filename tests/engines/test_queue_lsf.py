"""LSF by a fake that answers as it does: what is asked of it, and what became of jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fake_lsf
import fake_queue
import pytest
from support import HELPERS, load
from test_queue_pbs import settings

from campaign.api import Campaign
from campaign.config.schema import QueueConfig
from campaign.errors import SurroundingsError
from campaign.executors.lsf import Lsf
from campaign.executors.schedulers import SchedulerAwayError, Script, scheduler_of
from campaign.protocols import OracleSpec, PluginSpec
from campaign.types import FailureKind


@pytest.fixture
def lsf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with its jobs."""
    home = tmp_path / "lsf"
    programs = fake_queue.install(home, fake_lsf.__file__, fake_lsf.NAMES)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LSF", str(home))
    return home


def says(home: Path, program: str, text: str, code: int = 255) -> None:
    (home / "programs" / program).write_text(f"#!/bin/sh\necho '{text}' >&2\nexit {code}\n")


def test_labels_are_jobs_of_lsf_in_a_folder_with_a_blank(lsf: Path, tmp_path: Path) -> None:
    place = tmp_path / "my campaign"
    found = Campaign(place, load(HELPERS, **settings(tmp_path, 2, scheduler="lsf", time=7200.0)))
    found.run()
    assert len(found.state().labels) == 2
    assert len((tmp_path / "executions").read_text().split()) == 2
    assert [job.phase for job in Lsf().jobs().values()] == ["ended"] * 2
    assert all(json.loads(path.read_text())["-W"] == ["120"] for path in lsf.glob("*.asked"))


def test_what_lsf_ended_is_told_by_kind(lsf: Path, tmp_path: Path) -> None:
    (lsf / "endings").write_text(
        "TERM_RUNLIMIT: job killed after reaching LSF run time limit\n"
        "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit"
    )
    found = Campaign(tmp_path / "campaign", load(HELPERS, **settings(tmp_path, 2, scheduler="lsf")))
    found.run()
    failures = {event.kind: event.message for _, _, event in found.state().failures}
    assert set(failures) == {"out_of_memory", "timeout"}
    assert "TERM_RUNLIMIT: job killed after reaching LSF run time limit" in failures["timeout"]


@pytest.mark.parametrize(
    ("state", "reason", "phase", "kind"),
    [
        ("PEND", "", "queued", None),
        ("PSUSP", "", "queued", None),
        ("RUN", "", "running", None),
        ("SSUSP", "", "running", None),
        ("UNKWN", "", "running", None),
        ("DONE", "", "ended", FailureKind.INFRASTRUCTURE),
        ("EXIT", "TERM_CPULIMIT: ...", "ended", FailureKind.TIMEOUT),
        ("EXIT", "TERM_SWAP: ...", "ended", FailureKind.OUT_OF_MEMORY),
        ("EXIT", "TERM_PREEMPT: ...", "ended", FailureKind.INFRASTRUCTURE),
        ("EXIT", "TERM_OWNER: ...", "ended", FailureKind.INFRASTRUCTURE),
        ("EXIT", "", "ended", FailureKind.INFRASTRUCTURE),
        ("ZOMBI", "", "ended", FailureKind.INFRASTRUCTURE),
    ],
)
def test_states_of_lsf(state: str, reason: str, phase: str, kind: FailureKind | None) -> None:
    job = Lsf().job(fake_lsf.record(1, "one", state, EXIT_REASON=reason))
    assert job.phase == phase
    assert kind is None or job.kind is kind


def test_jobs_can_be_cancelled_those_that_ended_too(lsf: Path) -> None:
    fake_queue.write(lsf / "1.lsf", fake_lsf.record(1, "one", "DONE"))
    fake_queue.write(lsf / "2.lsf", fake_lsf.record(2, "two", "PEND"))
    Lsf().cancel(["1", "2", "3"])
    assert Lsf().jobs()["2"].told == "TERM_OWNER: job killed by owner"


def test_no_jobs_are_no_error(lsf: Path) -> None:
    assert Lsf().jobs() == {}


@pytest.mark.parametrize("text", ["LSF is down. Please wait ...", "batch daemon not responding"])
def test_an_lsf_that_is_away_is_asked_again(lsf: Path, text: str) -> None:
    for program in fake_lsf.NAMES:
        says(lsf, program, text)
    with pytest.raises(SchedulerAwayError, match=text.split(".")[0]):
        Lsf().jobs()
    with pytest.raises(SchedulerAwayError):
        Lsf().cancel(["1"])
    with pytest.raises(SchedulerAwayError):
        Lsf().submit(script(lsf))


def test_a_refusal_is_told(lsf: Path) -> None:
    says(lsf, "bsub", "nowhere: No such queue. Job not submitted.")
    with pytest.raises(SurroundingsError, match="bsub refuses the job: nowhere: No such queue"):
        Lsf().submit(script(lsf))


def script(folder: Path) -> Script:
    plugin = PluginSpec(group="oracles", use="lennard_jones", params={})
    spec = OracleSpec(name="one", plugin=plugin, cpus=4, gpus=1, memory=2 * 2**30)
    config = QueueConfig(scheduler="lsf", nodes=2, partition="long", account="me", time=90)
    return Script(folder / "script", "one", folder / "log", spec, config)


def test_what_is_asked_of_lsf(lsf: Path) -> None:
    asked = script(lsf)
    assert scheduler_of(asked.config).submit(asked) == "1"
    assert json.loads((lsf / "1.asked").read_text()) == {
        "-J": ["one"],
        "-cwd": [str(lsf)],
        "-o": [str(lsf / "log")],
        "-n": ["8"],
        "-R": ["span[ptile=4]", "rusage[mem=2048MB]"],
        "-W": ["2"],
        "-M": ["2048MB"],
        "-gpu": ["num=1"],
        "-q": ["long"],
        "-P": ["me"],
    }
