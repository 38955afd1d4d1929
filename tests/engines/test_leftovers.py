"""What a killed driver leaves is removed by the next start; what belongs to a living process
stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from campaign.executors.leftovers import MARK, OwnedFolder, sweep
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.types import Candidate, Crystal

OWNER = """
import subprocess, sys, os, time
from campaign.executors.leftovers import OwnedFolder
folder = OwnedFolder("test")
folder.remove_also(__import__("pathlib").Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"], env=os.environ | folder.surroundings, start_new_session=True)
print(folder.path, child.pid, flush=True)
time.sleep(600)
"""  # noqa: E501


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a name short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="o-") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr("tempfile.tempdir", name)
        yield Path(name)


def owner(also: Path) -> tuple[subprocess.Popen[str], Path, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(also)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    path, child = process.stdout.readline().split()
    return process, Path(path), int(child)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_next_start_removes_what_a_killed_owner_left(temporary: Path) -> None:
    session, other = temporary / "ray" / "session_1_77", temporary / "ray" / "session_1_78"
    session.mkdir(parents=True)
    other.mkdir()
    living, kept, its_child = owner(temporary / "nothing")
    dead, left, orphan = owner(session.parent / "session_*_77")
    assert dead.poll() is living.poll() is None
    sweep()
    assert all(path.exists() for path in (kept, left, session))
    dead.kill()
    dead.wait()
    assert is_alive(orphan)
    mine = OwnedFolder("test")
    assert not left.exists()
    assert not session.exists()
    assert not is_alive(orphan)
    assert all(path.exists() for path in (kept, other, mine.path))
    assert is_alive(its_child)
    living.kill()
    living.wait()
    mine.close()
    assert not mine.path.exists()
    sweep()
    assert not kept.exists()
    assert not is_alive(its_child)


def test_a_process_with_the_number_of_an_earlier_one_is_found(temporary: Path) -> None:
    """Numbers come round after some ten thousand processes; psutil remembers the earlier owner."""
    list(psutil.process_iter())
    dead, left, orphan = owner(temporary / "nothing")
    earlier = psutil.Process(orphan)
    earlier._ident = (orphan, 0.0)
    psutil._pmap[orphan] = earlier
    dead.kill()
    dead.wait()
    sweep()
    assert not left.exists()
    assert not is_alive(orphan)


def test_a_session_that_a_living_process_works_in_stays(temporary: Path) -> None:
    session = temporary / "session_1_77"
    session.mkdir()
    user = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(session)])
    folder = OwnedFolder("test")
    folder.remove_also(session)
    folder.close()
    assert session.exists()
    user.kill()
    user.wait()


def test_folders_of_others_stay(temporary: Path) -> None:
    """Without a file that an owner locks, a folder is not ours to judge."""
    (temporary / "oreloop-worker-old").mkdir()
    sweep()
    assert (temporary / "oreloop-worker-old").exists()


RAY_DRIVER = """
import sys, time
from campaign.executors import make_executor
from campaign.config.schema import ExecutorConfig
from pathlib import Path
executor = make_executor(ExecutorConfig(use="ray", cpus=1), module_folder=Path(sys.argv[1]))
executor.start([])
print("started", flush=True)
time.sleep(600)
"""


def test_a_killed_driver_on_ray_leaves_nothing_to_the_next(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    environment = os.environ | {"RAY_TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", RAY_DRIVER, str(tmp_path / "modules")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert len(list(temporary.glob("oreloop-modules-*"))) == 1
    assert len(list((temporary / "ray").glob("session_2*"))) == 1
    servers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(is_alive(server.pid) for server in servers) and time.monotonic() < deadline:
        sweep()
    assert not any(is_alive(server.pid) for server in servers)
    assert list(temporary.glob("oreloop-*")) == []
    assert list((temporary / "ray").glob("session_2*")) == []


KILLED_KEEPER = """
import psutil, time
from campaign.executors import make_executor
from campaign.protocols import OracleSpec, PluginSpec
from campaign.config.schema import ExecutorConfig
executor = make_executor(ExecutorConfig(use="ray", cpus=1))
executor.start([OracleSpec(name="lj", plugin=PluginSpec(group="oracles", use="lennard_jones"), cpus=0.5)])
while not executor.free_workers("lj"):
    executor.wait(0.2)
(keeper,) = [one for one in psutil.Process().children(recursive=True) if "ray::OracleWorker" in "".join(one.cmdline())]
keeper.kill()
executor.shutdown()
"""  # noqa: E501


def test_a_worker_killed_before_the_end_on_ray_leaves_nothing(temporary: Path) -> None:
    environment = os.environ | {"RAY_TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", KILLED_KEEPER], env=environment, check=True)
    assert list(temporary.glob("oreloop-*")) == []


def test_the_processes_of_a_worker_carry_its_mark(temporary: Path) -> None:
    """So that they are found where the driver was killed and their parents with it."""
    from campaign.executors.serial import SerialExecutor

    executor = SerialExecutor()
    plugin = PluginSpec(group="oracles", use="lennard_jones")
    executor.start([OracleSpec(name="lj", plugin=plugin)])
    executor.submit(
        EvaluationJob(
            key="k",
            oracle="lj",
            candidate=Candidate(Crystal([[3, 0, 0], [0, 3, 0], [0, 0, 3]], [[0, 0, 0]], [28])),
        )
    )
    (pid,) = executor.processes
    while MARK not in (surroundings := psutil.Process(pid).environ()):
        time.sleep(0.02)  # before it becomes the program that it is to be
    folder = surroundings[MARK]
    assert os.getsid(pid) == pid
    assert Path(folder).parent == temporary
    os.kill(pid, signal.SIGSTOP)
    executor.shutdown()
    assert not is_alive(pid)
    assert list(temporary.iterdir()) == []
