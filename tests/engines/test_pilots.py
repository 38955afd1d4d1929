"""Workers in jobs of a real Slurm, which the tests start on this machine: they come with the work
and go without it, and none is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, load
from test_queue import Driver, check, until

from benchmarks.slurm_server import Server, lacking
from campaign.api import Campaign
from campaign.errors import InputError, SurroundingsError

needs_slurm = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("slurm"))
    yield server
    server.stop()


@pytest.fixture
def slurm(machine: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in machine.surroundings.items():
        monkeypatch.setenv(name, value)
    yield machine
    until(lambda: not alive(machine))


def alive(slurm: Server) -> list[str]:
    """Ids of the jobs that wait or run."""
    return [key for key, (_, state) in slurm.jobs().items() if state in ("PENDING", "RUNNING")]


def settings(
    folder: Path, labels: int, bounds: Any, *, seconds: float = 0.0, **queue: Any
) -> dict[str, Any]:
    (folder / "executions").touch()
    return {
        "budget": {"labels": labels},
        "surrogate": None,
        "acquisition": {"use": "random", "batch_size": labels, "initial_labels": labels},
        "generators": [{"use": "random_alloy", "count": 16, "params": {"repeats": [2, 1, 1]}}],
        "oracles": [
            {
                "use": "user_oracles:Counting",
                "params": {"log": str(folder / "executions"), "seconds": seconds},
                "run_on": "pilots",
                "workers": bounds,
                "start_limit": 60,
                "wall_limit": 30,
                "queue": {"check_every": 0.5, "time": 600, "idle": 2, **queue},
            }
        ],
        "executor": {"use": "ray", "host": "127.0.0.1", "cpus": 1},
    }


def campaign(folder: Path, changes: dict[str, Any]) -> Campaign:
    return Campaign(folder / "campaign", load(HELPERS, **changes))


@needs_slurm
def test_labels_are_made_by_workers_in_jobs(slurm: Server, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    found = campaign(tmp_path, settings(tmp_path, 6, [0, 4], workers=2, max_jobs=1))
    found.run()
    check(found.state(), tmp_path, 6)
    assert len(set(slurm.jobs()) - before) == 1
    assert not list((tmp_path / "campaign" / "pilots").glob("*/script"))


HELD = """
import time
from pathlib import Path
from campaign.types import ENERGY_PER_ATOM, Evaluation

class Held:
    quantities = (ENERGY_PER_ATOM,)

    def evaluate(self, crystal):
        folder = Path({folder!r})
        (folder / f"begun-{{crystal.id}}").touch()
        while len(list(folder.glob("begun-*"))) == 3 and (folder / "gate").exists():
            time.sleep(0.05)
        return Evaluation.single(ENERGY_PER_ATOM, float(crystal.fractional.sum()))
"""


@needs_slurm
def test_no_more_pilots_than_allowed_and_one_without_work_goes(
    slurm: Server, tmp_path: Path
) -> None:
    """The third label, on either, goes on until the other pilot is gone."""
    before = set(slurm.jobs())
    (tmp_path / "held.py").write_text(HELD.format(folder=str(tmp_path)))
    (tmp_path / "gate").touch()
    changes = settings(tmp_path, 3, [0, 2], idle=1)
    changes["oracles"][0] |= {"use": "held:Held", "params": {}}
    found = Campaign(tmp_path / "campaign", load(tmp_path, **changes))

    def open_gate() -> None:
        until(lambda: len(alive(slurm)) == 2)
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 3)
        until(lambda: len(alive(slurm)) == 1)
        (tmp_path / "gate").unlink()

    with ThreadPoolExecutor(1) as beside:
        opened = beside.submit(open_gate)
        found.run()
        opened.result()
    assert len(found.state().labels) == 3
    assert not found.state().failures
    assert len(set(slurm.jobs()) - before) == 2


def done(folder: Path) -> list[str]:
    return (folder / "executions").read_text().split()


@needs_slurm
def test_a_cancelled_pilot_is_the_surroundings_doing(slurm: Server, tmp_path: Path) -> None:
    changes = settings(tmp_path, 2, [0, 1], seconds=4.0)
    driver = Driver(tmp_path, changes)
    until(lambda: done(tmp_path))
    slurm.command("scancel", *alive(slurm))
    assert driver.process.wait(60) == 0, driver.said
    state = campaign(tmp_path, changes).state()
    assert len(state.labels) == 2
    assert {event.kind for _, _, event in state.failures} == {"infrastructure"}
    assert not state.quarantined


@needs_slurm
def test_the_pilots_of_a_killed_driver_end(slurm: Server, tmp_path: Path) -> None:
    setup = ["export RAY_gcs_rpc_server_reconnect_timeout_s=2"]
    driver = Driver(tmp_path, settings(tmp_path, 1, [0, 1], seconds=600.0, setup=setup))
    until(lambda: any(state == "RUNNING" for _, state in slurm.jobs().values()))
    until(lambda: "ray" in " ".join(log.read_text() for log in logs(tmp_path)).lower())
    driver.kill()
    until(lambda: not alive(slurm))


def logs(folder: Path) -> list[Path]:
    return list((folder / "campaign" / "pilots").glob("*/log"))


@needs_slurm
def test_the_next_driver_cancels_pilots_that_still_wait(slurm: Server, tmp_path: Path) -> None:
    changes = settings(tmp_path, 1, [0, 1], options=["--hold"])
    driver = Driver(tmp_path, changes)
    until(lambda: alive(slurm))
    driver.kill()
    assert alive(slurm)
    campaign(tmp_path, changes | {"budget": {"wall_time": 0.001}}).run()
    assert not alive(slurm)
    assert not list((tmp_path / "campaign" / "pilots").glob("*/"))


@needs_slurm
@pytest.mark.parametrize("n_workers", [1, 2])
def test_pilots_that_do_not_join_end_the_campaign(
    slurm: Server, tmp_path: Path, n_workers: int
) -> None:
    setup = ["echo no such module: ray", "exit 3"]
    with pytest.raises(SurroundingsError, match="before they join, 3 times: FAILED; no such modul"):
        campaign(tmp_path, settings(tmp_path, n_workers, [0, n_workers], setup=setup)).run()
    failed = list((tmp_path / "campaign" / "pilots" / "failed").glob("*/"))
    assert 3 <= len(failed) <= 3 * n_workers
    assert n_workers == 1 or len(failed) > 3, "those that begin side by side count once"


@pytest.mark.parametrize(
    ("oracle", "executor", "told"),
    [
        ({"workers": [0, 4]}, {}, "only workers of run_on: pilots come and go, found workers: .0"),
        ({"workers": [4, 2]}, {}, "the least number comes first, found .4, 2."),
        ({"run_on": "queue", "workers": [0, 4]}, {}, "found workers: .0, 4."),
        ({"run_on": "pilots"}, {}, "needs queue.time"),
        ({"run_on": "pilots", "queue": {"time": 9000, "nodes": 2}}, {}, "found nodes: 2"),
        (
            {"run_on": "pilots", "queue": {"time": 9000}},
            {"use": "serial"},
            "needs a Ray that the campaign starts, found use: serial",
        ),
        (
            {"run_on": "pilots", "queue": {"time": 9000}},
            {"address": "10.0.0.1:6379"},
            "found address: 10.0.0.1:6379",
        ),
    ],
)
def test_settings_of_pilots_that_cannot_be_are_refused(
    oracle: dict[str, Any], executor: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load(
            HELPERS,
            oracles=[{"use": "lennard_jones", **oracle}],
            executor={"use": "ray"} | executor,
        )


def test_a_job_too_short_for_one_label_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaign.config.schema.QueueConfig.lacking", "")
    oracle = {"use": "lennard_jones", "run_on": "pilots", "wall_limit": 900, "queue": {"time": 600}}
    with pytest.raises(InputError, match="a job of 600 s is over before its first label may be"):
        _ = load(HELPERS, oracles=[oracle], executor={"use": "ray"}).parts


@needs_slurm
@pytest.mark.timeout(300)  # Ray gives a node 30 s to start, three times
def test_the_config_of_the_documentation_labels_by_lammps(slurm: Server, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "queues.md").read_text()
    config = tmp_path / "pilots.yaml"
    config.write_text("# pilots.yaml" + page.partition("# pilots.yaml")[2].partition("```")[0])
    found = Campaign.from_config(config, tmp_path / "campaign")
    found.run()
    assert len(found.state().labels) == 4
