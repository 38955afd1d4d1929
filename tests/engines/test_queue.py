"""Labels as jobs of a real Slurm, which the tests start on this machine: whatever is killed, none
is lost and none made twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, SMALL, load, merged

from benchmarks.slurm_server import Server, lacking
from campaign.api import Campaign
from campaign.config.schema import QueueConfig
from campaign.crystals.references import elemental
from campaign.errors import SurroundingsError
from campaign.executors.oracle_queue import note_of
from campaign.executors.queues import WithQueues
from campaign.executors.serial import SerialExecutor
from campaign.ledger.state import CampaignState
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.types import Candidate

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("slurm"))
    yield server
    server.stop()


@pytest.fixture
def slurm(machine: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in machine.surroundings.items():
        monkeypatch.setenv(name, value)
    return machine


def settings(folder: Path, labels: int, *, seconds: float = 0.0, **queue: Any) -> dict[str, Any]:
    """Of a campaign of random crystals whose labels are jobs, each of which leaves a line in
    ``executions``.
    """
    (folder / "executions").touch()
    params = {"log": str(folder / "executions"), "seconds": seconds}
    queue = {"check_every": 0.5, "max_jobs": 4, **queue}
    return {
        "budget": {"labels": labels},
        "surrogate": None,
        "acquisition": {"use": "random", "batch_size": 4, "initial_labels": 4},
        "generators": [{"use": "random_alloy", "count": 8, "params": {"repeats": [2, 1, 1]}}],
        "oracles": [
            {"use": "user_oracles:Counting", "params": params, "run_on": "queue", "queue": queue}
        ],
    }


def campaign(folder: Path, changes: dict[str, Any]) -> Campaign:
    return Campaign(folder / "campaign", load(HELPERS, **changes))


def check(state: CampaignState, folder: Path, labels: int) -> None:
    """Every label once, made once."""
    assert len(state.labels) == labels
    made = Counter((folder / "executions").read_text().split())
    assert set(made.values()) == {1}, made
    assert len(made) == labels


def test_labels_are_jobs(slurm: Server, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    found = campaign(tmp_path, settings(tmp_path, 6))
    found.run()
    check(found.state(), tmp_path, 6)
    assert len(set(slurm.jobs()) - before) == 6
    assert not list((tmp_path / "campaign" / "jobs").iterdir())


class Driver:
    """The campaign in a process of its own, to be killed."""

    def __init__(self, folder: Path, changes: dict[str, Any]) -> None:
        self.folder = folder
        code = (
            "import json, sys, drive; drive.drive(sys.argv[1], sys.argv[2], "
            "json.loads(sys.argv[3]), '')"
        )
        paths = [*sys.path, str(HELPERS), str(HELPERS.parent)]
        self.log = (folder / "driver.log").open("a")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                str(folder / "campaign"),
                str(HELPERS),
                json.dumps(merged(SMALL, changes)),
            ],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdout=self.log,
            stderr=self.log,
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def states(slurm: Server, folder: Path) -> Counter[str]:
    """Of the jobs that the campaign in a folder knows."""
    notes = [
        note
        for place in (folder / "campaign" / "jobs").glob("*")
        if (note := note_of(place)) is not None
    ]
    jobs = slurm.jobs()
    return Counter(jobs[note.identity][1] for note in notes if note.identity in jobs)


def test_the_next_driver_finds_jobs_that_wait_run_and_ended(slurm: Server, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    gate = tmp_path / "gate"
    changes = settings(
        tmp_path,
        4,
        setup=[f"while [ -e {gate} ]; do sleep 0.1; done"],
        options=["--cpus-per-task=3"],
    )
    gate.touch()
    driver = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path) == {"RUNNING": 2, "PENDING": 2})
    driver.kill()
    gate.unlink()
    until(lambda: states(slurm, tmp_path)["COMPLETED"] >= 1)
    found = campaign(tmp_path, changes)
    found.run()
    check(found.state(), tmp_path, 4)
    assert len(set(slurm.jobs()) - before) == 4


def test_a_submission_whose_id_nobody_noted_is_found_by_its_name(
    slurm: Server, tmp_path: Path
) -> None:
    before = set(slurm.jobs())
    changes = settings(
        tmp_path, 2, max_jobs=2, setup=[f"while [ -e {tmp_path / 'gate'} ]; do sleep 0.1; done"]
    )
    (tmp_path / "gate").touch()
    driver = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path).total() == 2)
    driver.kill()
    for note in (tmp_path / "campaign" / "jobs").glob("*/job"):
        note.unlink()
    second = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path).total() == 2)
    (tmp_path / "gate").unlink()
    second.process.wait(60)
    check(campaign(tmp_path, changes).state(), tmp_path, 2)
    assert len(set(slurm.jobs()) - before) == 2


def test_a_second_job_for_a_label_does_nothing(slurm: Server, tmp_path: Path) -> None:
    changes = settings(tmp_path, 1, max_jobs=1, seconds=3.0)
    driver = Driver(tmp_path, changes)
    jobs = tmp_path / "campaign" / "jobs"
    until(lambda: list(jobs.glob("*/claim")))
    (place,) = (path.parent for path in jobs.glob("*/claim"))
    driver.kill()
    other = slurm.command(
        "sbatch", "--parsable", f"--output={tmp_path / 'other.log'}", str(place / "script")
    ).stdout.strip()
    until(lambda: slurm.jobs()[other][1] == "COMPLETED")
    found = campaign(tmp_path, changes)
    found.run()
    check(found.state(), tmp_path, 1)


def test_a_job_cancelled_by_hand_is_the_surroundings_doing_and_made_again(
    slurm: Server, tmp_path: Path
) -> None:
    changes = settings(
        tmp_path, 1, max_jobs=1, setup=[f"while [ -e {tmp_path / 'gate'} ]; do sleep 0.1; done"]
    )
    (tmp_path / "gate").touch()
    driver = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path)["RUNNING"] == 1)
    running = {number for number, (_, state) in slurm.jobs().items() if state == "RUNNING"}
    slurm.command("scancel", "--user=root", "--state=RUNNING")
    until(lambda: all(slurm.jobs().get(n, ("", "CANCELLED"))[1] == "CANCELLED" for n in running))
    (tmp_path / "gate").unlink()
    assert driver.process.wait(60) == 0
    state = campaign(tmp_path, changes).state()
    check(state, tmp_path, 1)
    (failed,) = [event for _, _, event in state.failures]
    assert failed.kind == "infrastructure"
    assert "CANCELLED" in failed.message


def test_a_controller_that_is_away_is_waited_for(
    slurm: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(slurm.jobs())
    changes = settings(tmp_path, 3, seconds=1.0, max_jobs=2)
    found, said = campaign(tmp_path, changes), tmp_path / "executions"

    def restart() -> None:
        until(lambda: said.read_text())
        slurm.stop_controller()
        until(lambda: "waited for until it answers" in caplog.text)
        slurm.start_controller()

    with ThreadPoolExecutor(1) as beside:
        restarted = beside.submit(restart)
        found.run()
        restarted.result()
    check(found.state(), tmp_path, 3)
    assert not found.state().failures
    assert "slurm answers again" in caplog.text
    assert len(set(slurm.jobs()) - before) == 3


def test_a_drained_node_is_told_and_waited_for(
    slurm: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slurm.command("scontrol", "update", f"nodename={slurm.node}", "state=drain", "reason=test")
    changes = settings(tmp_path, 1, max_jobs=1)

    def resume() -> None:
        until(lambda: "waits: " in caplog.text)
        slurm.command("scontrol", "update", f"nodename={slurm.node}", "state=resume")

    with ThreadPoolExecutor(1) as beside:
        resumed = beside.submit(resume)
        found = campaign(tmp_path, changes)
        found.run()
        resumed.result()
    check(found.state(), tmp_path, 1)


def test_what_nobody_wants_any_more_is_cancelled(slurm: Server, tmp_path: Path) -> None:
    changes = settings(tmp_path, 2, max_jobs=2, options=["--hold"])
    driver = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path)["PENDING"] == 2)
    mine = [note_of(place) for place in (tmp_path / "campaign" / "jobs").glob("*")]
    driver.kill()
    Campaign(
        tmp_path / "campaign", load(HELPERS, **changes | {"budget": {"wall_time": 0.001}})
    ).run()
    assert [slurm.jobs()[note.identity][1] for note in mine if note is not None] == [
        "CANCELLED"
    ] * 2
    assert not list((tmp_path / "campaign" / "jobs").iterdir())


def test_who_stops_leaves_the_jobs_to_the_next_driver(slurm: Server, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    changes = settings(
        tmp_path, 2, max_jobs=2, setup=[f"while [ -e {tmp_path / 'gate'} ]; do sleep 0.1; done"]
    )
    (tmp_path / "gate").touch()
    driver = Driver(tmp_path, changes)
    until(lambda: states(slurm, tmp_path)["RUNNING"] == 2)
    driver.process.terminate()
    assert driver.process.wait(20) == 0
    (tmp_path / "gate").unlink()
    found = campaign(tmp_path, changes)
    found.run()
    check(found.state(), tmp_path, 2)
    assert len(set(slurm.jobs()) - before) == 2


def test_a_refused_job_ends_the_campaign_with_the_schedulers_words(
    slurm: Server, tmp_path: Path
) -> None:
    with pytest.raises(SurroundingsError, match="Invalid partition"):
        campaign(tmp_path, settings(tmp_path, 1, partition="nowhere")).run()


def test_no_more_jobs_than_allowed(slurm: Server, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    changes = settings(tmp_path, 4, seconds=0.5, max_jobs=2)
    driver = Driver(tmp_path, changes)
    most = 0
    while driver.process.poll() is None:
        most = max(
            most,
            sum(
                state in ("RUNNING", "PENDING")
                for key, (_, state) in slurm.jobs().items()
                if key not in before
            ),
        )
        time.sleep(0.1)
    check(campaign(tmp_path, changes).state(), tmp_path, 4)
    assert most == 2


GPAW: dict[str, Any] = {
    "relax": "none",
    "bulk_modulus": False,
    "cutoff": 300,
    "kpoint_density": 1.0,
    "moments": {"Ni": 0.7},
}


@pytest.mark.dft
@pytest.mark.skipif(find_spec("gpaw") is None, reason="no GPAW: make dft")
def test_gpaw_labels_as_a_job(slurm: Server, tmp_path: Path) -> None:
    plugin = PluginSpec(group="oracles", use="gpaw", params=GPAW)
    executor = WithQueues(
        SerialExecutor(), {"gpaw": QueueConfig(check_every=0.5)}, tmp_path / "jobs", 1
    )
    executor.start([OracleSpec(name="gpaw", plugin=plugin)])
    executor.submit(
        EvaluationJob(key="evaluate/nickel", oracle="gpaw", candidate=Candidate(elemental("Ni")))
    )
    while not (finished := executor.wait(1.0)):
        pass
    executor.shutdown()
    evaluation = finished[0].evaluation
    assert evaluation.failure is None, evaluation.failure
    assert 0.3 < evaluation.value("magnetic_moment_per_atom") < 0.9
    assert evaluation.cost.worker.startswith("gpaw@")


def test_the_config_of_the_documentation_labels_by_lammps(slurm: Server, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "queues.md").read_text()
    config = tmp_path / "queued.yaml"
    config.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    found = Campaign.from_config(config, tmp_path / "campaign")
    found.run()
    state = found.state()
    assert len(state.labels) == 4
    assert all(100 < label.values["bulk_modulus"] < 400 for label in state.labels.values())


def test_the_job_of_a_vetoed_candidate_is_cancelled(slurm: Server, tmp_path: Path) -> None:
    driver = Driver(tmp_path, settings(tmp_path, 2, max_jobs=2, options=["--hold"]))
    until(lambda: states(slurm, tmp_path)["PENDING"] == 2)
    mine = [
        note
        for place in (tmp_path / "campaign" / "jobs").glob("*")
        if (note := note_of(place)) is not None
    ]
    found = Campaign.open(tmp_path / "campaign")
    vetoed = next(iter(found.state().pending))[0]
    found.control.veto(vetoed)
    until(
        lambda: sorted(slurm.jobs()[note.identity][1] for note in mine) == ["CANCELLED", "PENDING"]
    )
    driver.process.terminate()
    assert driver.process.wait(20) == 0
    assert vetoed not in {candidate for candidate, _ in found.state().pending}
    slurm.command("scancel", *(note.identity for note in mine))
