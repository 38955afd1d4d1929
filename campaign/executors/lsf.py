"""IBM Spectrum LSF 10.1 by bsub, bjobs and bkill."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from campaign.executors.schedulers import (
    MEBIBYTE,
    Job,
    SchedulerAwayError,
    Script,
    asked,
    last_line,
    submitted,
)
from campaign.types import FailureKind

_FIELDS = "jobid job_name stat exit_code exit_reason pend_reason"


class Lsf:
    """Its list holds jobs that ended within the hour (CLEAN_PERIOD)."""

    _PASSING = (
        "batch daemon",
        "lsf is down",
        "lim is down",
        "try later",
        "not responding",
        "timed out",
        "limit has been reached",
        "limit reached",
        "too many",
    )
    _EMPTY = re.compile(r"no (unfinished |matching )?job found", re.IGNORECASE)
    _OVER = re.compile(
        r"already finished|being terminated|no matching job|is not found", re.IGNORECASE
    )
    _QUEUED = frozenset({"PEND", "PSUSP", "WAIT", "PROV"})
    _RUNNING = frozenset({"RUN", "USUSP", "SSUSP", "UNKWN"})
    _KINDS: Mapping[str, FailureKind] = {
        "TERM_RUNLIMIT": FailureKind.TIMEOUT,
        "TERM_CPULIMIT": FailureKind.TIMEOUT,
        "TERM_DEADLINE": FailureKind.TIMEOUT,
        "TERM_MEMLIMIT": FailureKind.OUT_OF_MEMORY,
        "TERM_SWAP": FailureKind.OUT_OF_MEMORY,
    }

    def submit(self, script: Script) -> str:
        spec, config = script.spec, script.config
        cpus = max(1, math.ceil(spec.cpus))
        words = ["bsub", "-rn", "-J", script.name, "-cwd", str(script.path.parent)]
        words += ["-o", str(script.output)]
        words += ["-n", str(config.nodes * cpus), "-R", f"span[ptile={cpus}]"]
        if math.isfinite(script.seconds):
            words += ["-W", str(math.ceil(script.seconds / 60))]
        if spec.memory:
            memory = f"{math.ceil(spec.memory / MEBIBYTE)}MB"
            words += ["-M", memory, "-R", f"rusage[mem={memory}]"]
        words += ["-gpu", f"num={math.ceil(spec.gpus)}"] if spec.gpus else []
        words += ["-q", config.partition] if config.partition else []
        words += ["-P", config.account] if config.account else []
        told = submitted(
            [*words, *config.options, f"/bin/bash -l {shlex.quote(str(script.path))}"],
            self._PASSING,
        )
        found = re.search(r"Job <(\d+)> is submitted", told)
        if found is None:
            raise SchedulerAwayError(f"bsub names no job: {told}")
        return found[1]

    def jobs(self) -> dict[str, Job]:
        done = asked("bjobs", "-a", "-json", "-o", _FIELDS)
        if self._EMPTY.search(done.stderr):
            return {}
        if done.returncode != 0:
            raise SchedulerAwayError(f"bjobs: {last_line(done)}")
        try:
            records: list[dict[str, Any]] = json.loads(done.stdout)["RECORDS"]
            return {str(record["JOBID"]): self.job(record) for record in records}
        except (ValueError, LookupError, TypeError) as error:
            raise SchedulerAwayError(f"bjobs says what is no list of jobs: {error}") from error

    def past(self, identity: str) -> Job | None:
        return None

    def job(self, record: Mapping[str, Any]) -> Job:
        """A job as bjobs describes it. One whose host is lost (ZOMBI) is not waited for."""
        name, state = str(record["JOB_NAME"]), str(record["STAT"])
        if state in self._QUEUED:
            return Job(name, "queued", str(record.get("PEND_REASON", "")).strip() or state)
        if state in self._RUNNING:
            return Job(name, "running", state)
        reason = str(record.get("EXIT_REASON", "")).strip()
        word = re.match(r"TERM_[A-Z_]+", reason)
        kind = self._KINDS.get(word[0], FailureKind.INFRASTRUCTURE) if word else None
        code = str(record.get("EXIT_CODE", "")).strip()
        told = reason or (f"{state}, exit code {code}" if code else state)
        return Job(name, "ended", told, kind or FailureKind.INFRASTRUCTURE)

    def cancel(self, identities: Sequence[str]) -> None:
        done = asked("bkill", *identities)
        said = (done.stderr + done.stdout).splitlines()
        lines = [line for line in said if line.strip() and "is being terminated" not in line]
        if done.returncode != 0 and not all(self._OVER.search(line) for line in lines):
            raise SchedulerAwayError(f"bkill: {last_line(done)}")
