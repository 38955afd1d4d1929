"""A Slurm of its own in a folder, of this machine alone and on loopback, for the tests and the
measurements of queues.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
INSTALL = "apt-get install slurm-wlm munge"
_START_SECONDS, _LOOK_SECONDS = 20.0, 0.05


def lacking() -> str:
    """Why no Slurm can be started here; empty where one can."""
    missing = [name for name in PROGRAMS if _found(name) is None]
    if missing:
        return f"no {', '.join(missing)}: {INSTALL}"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as root alone"


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A controller and one node with so many cores, which are more than the machine has.
    ``surroundings``: for whoever asks it.
    """

    def __init__(self, folder: Path, cores: int = 8) -> None:
        self.folder, self.node = folder, socket.gethostname().partition(".")[0]
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(mode=0o700, parents=True)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._socket, self._config = folder / "munge" / "socket", folder / "slurm.conf"
        self._config.write_text(self._settings(cores))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        munge = [
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self._socket}",
            f"--pid-file={folder / 'munge' / 'pid'}",
        ]
        munge += [
            f"--log-file={folder / 'munge' / 'log'}",
            f"--seed-file={folder / 'munge' / 'seed'}",
        ]
        self._start("munged", *munge)
        self._wait_for(self._socket.exists, "munged")
        self.start_controller()
        self.start_node()

    @property
    def surroundings(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self._config)}

    def _settings(self, cores: int) -> str:
        folder = self.folder
        return "\n".join(
            [
                "ClusterName=oreloop",
                f"SlurmctldHost={self.node}(127.0.0.1)",
                f"SlurmctldPort={_free_port()}",
                f"SlurmdPort={_free_port()}",
                f"AuthInfo=socket={self._socket}",
                "SlurmUser=root",
                f"StateSaveLocation={folder / 'state'}",
                f"SlurmdSpoolDir={folder / 'spool'}",
                f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
                f"SlurmdPidFile={folder / 'slurmd.pid'}",
                "ProctrackType=proctrack/linuxproc",
                "TaskPlugin=task/none",
                "SwitchType=switch/none",
                "MpiDefault=none",
                "AccountingStorageType=accounting_storage/none",
                "JobCompType=jobcomp/none",
                "JobAcctGatherType=jobacct_gather/none",
                "SelectType=select/cons_tres",
                "SelectTypeParameters=CR_Core",
                "SlurmdParameters=config_overrides",
                "SchedulerType=sched/builtin",
                "SchedulerParameters=batch_sched_delay=1,sched_interval=1",
                "ReturnToService=2",
                "KillWait=2",
                "MessageTimeout=3",
                "MinJobAge=86400",
                f"NodeName={self.node} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000",
                f"PartitionName=main Nodes={self.node} Default=YES MaxTime=60 State=UP",
                "",
            ]
        )

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [_found(name) or name, *arguments],
                env=os.environ | self.surroundings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_for(self, condition: object, what: str) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if callable(condition) and condition():
                return
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(
            f"{what} does not start: {(self.folder / f'{what}.log').read_text()[-2000:]}"
        )

    def start_controller(self) -> None:
        self._start("slurmctld", "-D")
        self._wait_for(lambda: self.command("scontrol", "ping").returncode == 0, "slurmctld")

    def start_node(self) -> None:
        self._start("slurmd", "-D", "-N", self.node)
        self._wait_for(
            lambda: "idle" in self.command("sinfo", "--noheader", "--format=%T").stdout, "slurmd"
        )

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=os.environ | self.surroundings, capture_output=True, text=True, check=False
        )

    def jobs(self) -> dict[str, tuple[str, str]]:
        """By id the name and state of all jobs that it remembers."""
        lines = self.command(
            "squeue", "--noheader", "--states=all", "--format=%A|%j|%T"
        ).stdout.splitlines()
        return {
            number: (name, state) for number, name, state in (line.split("|") for line in lines)
        }

    def stop(self) -> None:
        if "slurmctld" in self._processes:
            self.command("scancel", "--state=PENDING", "--user=root")
            self.command("scancel", "--signal=KILL", "--full", "--user=root")
        for name in ("slurmd", "slurmctld", "munged"):
            if name in self._processes:
                self._end(name)
