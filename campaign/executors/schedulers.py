"""Batch schedulers by their own commands: submit a script, list this user's jobs, cancel some.

Why no library: a job has to be found by its name where a driver died between submission and the
note of its id, its end has to be told in kinds (a time limit, memory, a lost node, preemption), and
nothing may be pickled.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from campaign.config.schema import QueueConfig
from campaign.errors import SurroundingsError
from campaign.protocols import OracleSpec
from campaign.types import FailureKind

_COMMAND_SECONDS = 60.0
_SPARE_SECONDS = 60.0
MEBIBYTE = 2**20

Phase = Literal["queued", "running", "ended"]


class SchedulerAwayError(SurroundingsError):
    """The scheduler does not answer, or takes nothing at present: to be asked again later."""


@dataclass(frozen=True)
class Job:
    """A job as the scheduler has it. ``told``: its state in the scheduler's words; ``kind``: of
    what a job that ended so failed.
    """

    name: str
    phase: Phase
    told: str
    kind: FailureKind = FailureKind.INFRASTRUCTURE


@dataclass(frozen=True)
class Script:
    """What is submitted: a file in the folder where the job runs, the file that its output goes to,
    and what the job asks for.
    """

    path: Path
    name: str
    output: Path
    spec: OracleSpec
    config: QueueConfig

    @property
    def seconds(self) -> float:
        """Longest time that it may run; infinite where nothing limits it."""
        return self.config.time or self.spec.wall_limit + self.spec.start_limit + _SPARE_SECONDS


class Scheduler(Protocol):
    def submit(self, script: Script) -> str:
        """The job's id. Raises SchedulerAwayError, after which the job may be there all the same;
        SurroundingsError where it is refused.
        """
        ...

    def jobs(self) -> Mapping[str, Job]:
        """This user's jobs by id, with those that ended of late. Raises SchedulerAwayError."""
        ...

    def past(self, identity: str) -> Job | None:
        """A job that ended longer ago, where accounts are kept."""
        ...

    def cancel(self, identities: Sequence[str]) -> None:
        """Raises SchedulerAwayError; jobs that ended already are no error."""
        ...


def scheduler_of(config: QueueConfig) -> Scheduler:
    if config.scheduler == "lsf":
        from campaign.executors.lsf import Lsf

        return Lsf()
    return Slurm() if config.scheduler == "slurm" else Pbs()


def asked(*words: str) -> subprocess.CompletedProcess[str]:
    """A command that ended. Raises SchedulerAwayError where it does not; SurroundingsError where
    there is none.
    """
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SchedulerAwayError(
            f"{words[0]} did not answer within {_COMMAND_SECONDS:g} s"
        ) from error
    except OSError as error:
        raise SurroundingsError(
            f"{words[0]} cannot be run: {error.strerror}",
            hint="run the campaign where jobs are submitted",
        ) from error


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Of what a command said."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip() if lines else f"exit code {done.returncode}"


def answer(*words: str) -> str:
    """What a command prints. Raises SchedulerAwayError where it fails."""
    done = asked(*words)
    if done.returncode != 0:
        raise SchedulerAwayError(f"{words[0]}: {last_line(done)}")
    return done.stdout


def submitted(words: Sequence[str], passing: Sequence[str]) -> str:
    """What a submission says. ``passing``: words of refusals that pass."""
    done = asked(*words)
    if done.returncode == 0:
        return done.stdout.strip()
    told = last_line(done)
    if any(word.lower() in done.stderr.lower() for word in passing):
        raise SchedulerAwayError(f"{words[0]}: {told}")
    raise SurroundingsError(
        f"{words[0]} refuses the job: {told}",
        hint="see the oracle's queue section: partition, account, nodes, time, options",
    )


def _seconds(clock: str) -> int:
    """Of hours:minutes:seconds."""
    return sum(int(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


class Slurm:
    """By sbatch, squeue and scancel; sacct where squeue remembers a job no more."""

    _PASSING = (
        *(
            "unable to contact slurm controller",
            "socket timed out",
            "zero bytes",
            "connection refused",
            "temporarily",
        ),
        *("transport endpoint", "submit limit", "slurmctld", "munge", "credential"),
    )
    _QUEUED = frozenset(
        {
            "PENDING",
            "CONFIGURING",
            "REQUEUED",
            "REQUEUE_FED",
            "REQUEUE_HOLD",
            "RESV_DEL_HOLD",
            "SPECIAL_EXIT",
        }
    )
    _RUNNING = frozenset(
        {"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
    )
    _KINDS: Mapping[str, FailureKind] = {
        "TIMEOUT": FailureKind.TIMEOUT,
        "DEADLINE": FailureKind.TIMEOUT,
        "OUT_OF_MEMORY": FailureKind.OUT_OF_MEMORY,
    }

    def submit(self, script: Script) -> str:
        spec, config = script.spec, script.config
        words = [
            "sbatch",
            "--parsable",
            "--no-requeue",
            f"--job-name={script.name}",
            f"--chdir={script.path.parent}",
        ]
        words += [f"--output={script.output}", f"--nodes={config.nodes}"]
        words += (
            [f"--time={math.ceil(script.seconds / 60)}"] if math.isfinite(script.seconds) else []
        )
        words += [f"--partition={config.partition}"] if config.partition else []
        words += [f"--account={config.account}"] if config.account else []
        words += [f"--cpus-per-task={math.ceil(spec.cpus)}"] if spec.cpus > 1 else []
        words += [f"--gpus={math.ceil(spec.gpus)}"] if spec.gpus else []
        words += [f"--mem={math.ceil(spec.memory / MEBIBYTE)}M"] if spec.memory else []
        return submitted([*words, *config.options, str(script.path)], self._PASSING).partition(";")[
            0
        ]

    def jobs(self) -> dict[str, Job]:
        told = answer(
            "squeue", "--noheader", f"--user={os.getuid()}", "--states=all", "--format=%A|%j|%T|%r"
        )
        return {
            number: self.job(name, state, reason)
            for number, name, state, reason in (line.split("|", 3) for line in told.splitlines())
        }

    def job(self, name: str, state: str, reason: str = "") -> Job:
        """A job of a name and state as squeue and sacct write it, such as `CANCELLED by 1000`."""
        word = state.partition(" ")[0]
        if word in self._QUEUED:
            return Job(name, "queued", reason.strip() or word)
        if word in self._RUNNING:
            return Job(name, "running", word)
        return Job(name, "ended", word, self._KINDS.get(word, FailureKind.INFRASTRUCTURE))

    def past(self, identity: str) -> Job | None:
        if shutil.which("sacct") is None:
            return None
        done = asked(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            f"--jobs={identity}",
            "--format=JobName%64,State%64",
        )
        lines = (
            [line.split("|", 1) for line in done.stdout.splitlines() if "|" in line]
            if done.returncode == 0
            else []
        )
        return self.job(*lines[-1]) if lines else None

    def cancel(self, identities: Sequence[str]) -> None:
        answer("scancel", "--quiet", *identities)


class Pbs:
    """By qsub, qselect, qstat and qdel of OpenPBS or PBS Professional."""

    _PASSING = (
        "cannot connect",
        "connection refused",
        "timed out",
        "would exceed",
        "limit",
        "server is busy",
        "try again",
    )
    _QUEUED, _RUNNING = frozenset("QHWT"), frozenset("RESUB")
    _KINDS: Mapping[int, FailureKind] = {
        -29: FailureKind.TIMEOUT,
        -28: FailureKind.TIMEOUT,
        -27: FailureKind.OUT_OF_MEMORY,
        -26: FailureKind.OUT_OF_MEMORY,
    }
    """Exit codes that PBS gives to jobs that it killed: for their wall time, processor time,
    memory, virtual memory.
    """
    _UNKNOWN_JOB, _FINISHED, _TERMINATED = 153, 35, 271

    def submit(self, script: Script) -> str:
        spec, config = script.spec, script.config
        select = f"select={config.nodes}:ncpus={max(1, math.ceil(spec.cpus))}"
        select += f":ngpus={math.ceil(spec.gpus)}" if spec.gpus else ""
        select += f":mem={math.ceil(spec.memory / MEBIBYTE)}mb" if spec.memory else ""
        words = [
            "qsub",
            "-r",
            "n",
            "-N",
            script.name,
            "-j",
            "oe",
            "-o",
            str(script.output),
            "-l",
            select,
        ]
        words += (
            ["-l", f"walltime={math.ceil(script.seconds)}"] if math.isfinite(script.seconds) else []
        )
        words += ["-q", config.partition] if config.partition else []
        words += ["-A", config.account] if config.account else []
        return submitted([*words, *config.options, str(script.path)], self._PASSING)

    def jobs(self) -> dict[str, Job]:
        mine = answer("qselect", "-x", "-u", getpass.getuser()).split()
        if not mine:
            return {}
        done = asked("qstat", "-x", "-f", "-F", "json", *mine)
        if done.returncode not in (0, self._UNKNOWN_JOB, self._FINISHED):
            raise SchedulerAwayError(f"qstat: {last_line(done)}")
        try:
            found: dict[str, dict[str, Any]] = json.loads(done.stdout)["Jobs"]
            return {number: self.job(job) for number, job in found.items()}
        except (ValueError, LookupError, TypeError) as error:
            raise SchedulerAwayError(f"qstat says what is no list of jobs: {error}") from error

    def past(self, identity: str) -> Job | None:
        return None

    def job(self, job: Mapping[str, Any]) -> Job:
        """A job as qstat describes it."""
        name, state = str(job["Job_Name"]), str(job["job_state"])
        if state in self._QUEUED:
            return Job(name, "queued", str(job.get("comment", state)))
        if state in self._RUNNING:
            return Job(name, "running", state)
        code = int(job.get("Exit_status", 0))
        kind = self._KINDS.get(code, FailureKind.INFRASTRUCTURE)
        if code == self._TERMINATED and self._is_late(job):
            kind = FailureKind.TIMEOUT
        return Job(name, "ended", f"exit status {code}", kind)

    def _is_late(self, job: Mapping[str, Any]) -> bool:
        """Whether a job used up its time, where the exit code is that of one which was deleted."""
        used, most = (
            str(job.get(part, {}).get("walltime", ""))
            for part in ("resources_used", "Resource_List")
        )
        return bool(used and most) and _seconds(used) >= _seconds(most)

    def cancel(self, identities: Sequence[str]) -> None:
        done = asked("qdel", *identities)
        if done.returncode not in (0, self._UNKNOWN_JOB, self._FINISHED):
            raise SchedulerAwayError(f"qdel: {last_line(done)}")
