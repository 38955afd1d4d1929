"""Queues without one: PBS by a fake that answers as it does, the states of Slurm, and what a config
is told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fake_pbs
import fake_queue
import pytest
from support import HELPERS, load

from campaign.api import Campaign
from campaign.config.loaded import changes
from campaign.errors import InputError, SurroundingsError
from campaign.executors.schedulers import Pbs, Slurm
from campaign.types import FailureKind


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with its jobs."""
    home = tmp_path / "pbs"
    programs = fake_queue.install(home, fake_pbs.__file__, fake_pbs.NAMES)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PBS", str(home))
    return home


def settings(folder: Path, labels: int, scheduler: str = "pbs", **queue: Any) -> dict[str, Any]:
    (folder / "executions").touch()
    return {
        "budget": {"labels": labels},
        "surrogate": None,
        "acquisition": {"use": "random", "batch_size": 2, "initial_labels": 2},
        "generators": [{"use": "random_alloy", "count": 8, "params": {"repeats": [2, 1, 1]}}],
        "oracles": [
            {
                "use": "user_oracles:Counting",
                "params": {"log": str(folder / "executions")},
                "run_on": "queue",
                "queue": {"scheduler": scheduler, "check_every": 0.5, **queue},
            }
        ],
    }


def test_labels_are_jobs_of_pbs(pbs: Path, tmp_path: Path) -> None:
    found = Campaign(tmp_path / "campaign", load(HELPERS, **settings(tmp_path, 2, time=7200.0)))
    found.run()
    assert len(found.state().labels) == 2
    assert len((tmp_path / "executions").read_text().split()) == 2
    jobs = Pbs().jobs()
    assert len(jobs) == 2
    assert {job.phase for job in jobs.values()} == {"ended"}
    assert all('"walltime=7200"' in path.read_text() for path in pbs.glob("*.pbs"))


def test_what_pbs_ended_is_told_by_kind(pbs: Path, tmp_path: Path) -> None:
    (pbs / "endings").write_text("-29 -27")
    found = Campaign(tmp_path / "campaign", load(HELPERS, **settings(tmp_path, 2)))
    found.run()
    kinds = sorted(event.kind for _, _, event in found.state().failures)
    assert kinds == ["out_of_memory", "timeout"]
    assert len(list((tmp_path / "campaign" / "jobs" / "failed").iterdir())) == 2


def test_jobs_of_pbs_can_be_cancelled(pbs: Path) -> None:
    fake_queue.write(pbs / "1.pbs", {"Job_Name": "one", "job_state": "Q"})
    assert Pbs().jobs()["1.fake"].phase == "queued"
    Pbs().cancel(["1.fake"])
    assert Pbs().jobs()["1.fake"].kind is FailureKind.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("used", "kind"), [("01:00:03", FailureKind.TIMEOUT), ("00:20:00", FailureKind.INFRASTRUCTURE)]
)
def test_a_job_of_pbs_that_was_terminated_is_late_where_its_time_is_used_up(
    used: str, kind: FailureKind
) -> None:
    told = {"resources_used": {"walltime": used}, "Resource_List": {"walltime": "01:00:00"}}
    assert Pbs().job({"Job_Name": "one", "job_state": "F", "Exit_status": 271, **told}).kind is kind


@pytest.mark.parametrize(
    ("state", "phase", "kind"),
    [
        ("PENDING", "queued", None),
        ("CONFIGURING", "queued", None),
        ("RUNNING", "running", None),
        ("COMPLETING", "running", None),
        ("SUSPENDED", "running", None),
        ("TIMEOUT", "ended", FailureKind.TIMEOUT),
        ("OUT_OF_MEMORY", "ended", FailureKind.OUT_OF_MEMORY),
        ("PREEMPTED", "ended", FailureKind.INFRASTRUCTURE),
        ("NODE_FAIL", "ended", FailureKind.INFRASTRUCTURE),
        ("CANCELLED by 1000", "ended", FailureKind.INFRASTRUCTURE),
        ("FAILED", "ended", FailureKind.INFRASTRUCTURE),
    ],
)
def test_states_of_slurm(state: str, phase: str, kind: FailureKind | None) -> None:
    job = Slurm().job("one", state)
    assert job.phase == phase
    assert kind is None or job.kind is kind


def test_a_scheduler_that_is_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    loaded = load(HELPERS, **settings(tmp_path, 2, scheduler="slurm"))
    with pytest.raises(
        InputError, match="sbatch, squeue, scancel of slurm are not on this machine"
    ):
        _ = loaded.parts


@pytest.mark.parametrize(
    ("oracle", "told"),
    [
        ({"queue": {"partition": "main"}}, "queue belongs to run_on: queue"),
        ({"run_on": "queue", "workers": 4}, "found workers: 4"),
        ({"run_on": "queue", "batch": 4}, "found batch: 4"),
    ],
)
def test_settings_that_say_nothing_are_refused(oracle: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(HELPERS, oracles=[{"use": "lennard_jones", **oracle}])


def test_a_campaign_may_move_to_a_queue() -> None:
    before = load(HELPERS).resolved()
    after = load(
        HELPERS, oracles=[{"use": "lennard_jones", "run_on": "queue", "queue": {"max_jobs": 2}}]
    ).resolved()
    same = {"lennard_jones": "one"}
    assert {change.kind for change in changes(before, after, same, same)} == {"free"}


def test_a_replay_asks_no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pbs: Path) -> None:
    found = Campaign(
        tmp_path / "campaign", load(HELPERS, executor={"use": "virtual"}, **settings(tmp_path, 2))
    )
    found.run()
    assert not list(pbs.glob("*.pbs"))


def test_a_refusal_is_told(pbs: Path, tmp_path: Path) -> None:
    program = pbs / "programs" / "qsub"
    program.write_text("#!/bin/sh\necho 'qsub: Unknown queue' >&2\nexit 170\n")
    with pytest.raises(SurroundingsError, match="qsub refuses the job: qsub: Unknown queue"):
        Campaign(tmp_path / "campaign", load(HELPERS, **settings(tmp_path, 1))).run()
