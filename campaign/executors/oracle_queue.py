"""The labels of one oracle as jobs of a batch queue, in folders that outlive the driver.

A folder is named by its label's work key and holds ``request``, ``script``, the ``job``'s id, its
``log``, the ``claim`` of the job that began, and the ``answer``. Each is written whole, in this
order, so that a driver that comes back knows by them where the label stands; a request without an
id may have been submitted, and is looked for by the job's name first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from campaign import interpreters, plugins
from campaign.clock import awake_seconds
from campaign.config.schema import QueueConfig
from campaign.executors import wire
from campaign.executors.polling import Polling
from campaign.executors.queued import ANSWER, CLAIM, REQUEST, claim_of
from campaign.executors.schedulers import Job, SchedulerAwayError, Script, scheduler_of
from campaign.files import write_whole
from campaign.protocols import EvaluationJob, FinishedJob, OracleSpec
from campaign.seeds import content_hash
from campaign.types import Cost, Evaluation, FailureKind

log = logging.getLogger(__name__)

FAILED = "failed"
_SCRIPT, _NOTE, _LOG = "script", "job", "log"
_LOOK_SECONDS, _GRACE_SECONDS = 0.5, 5.0
_TOLD_BYTES = 4096


def folder_name(key: str) -> str:
    """Of a work key."""
    kind, _, rest = key.partition("/")
    return rest if kind == "evaluate" else content_hash([key])[:32]


def job_name(folder: Path) -> str:
    """The name of a folder's job, which no other folder's has."""
    return f"oreloop-{content_hash([str(folder.resolve())])[:24]}"


@dataclass(frozen=True)
class Note:
    """What is known of a job once it is submitted."""

    identity: str
    name: str
    scheduler: str


def note_of(folder: Path) -> Note | None:
    """None where nothing was noted, or of another folder, such as before this one was moved."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        note = Note(**json.loads((folder / _NOTE).read_bytes()))
        return note if note.name == job_name(folder) else None
    return None


def write_note(folder: Path, note: Note) -> None:
    write_whole(folder / _NOTE, json.dumps(vars(note)).encode())


@dataclass(eq=False)
class _Label:
    """A label under way. ``identity``: its job's id, empty until it is submitted; ``ended``: when
    that was first seen, in awake seconds.
    """

    job: EvaluationJob
    folder: Path
    identity: str = ""
    phase: str = ""
    ended: float | None = None
    has_failed: bool = False


class OracleQueue:
    """One oracle's jobs. ``folder`` holds those of the campaign; ``threads`` of the numerics in
    each.
    """

    def __init__(self, spec: OracleSpec, config: QueueConfig, folder: Path, threads: int) -> None:
        self._spec, self._config, self._folder, self._threads = spec, config, folder, threads
        self._scheduler = scheduler_of(config)
        self._labels: list[_Label] = []
        self._handed_over: list[_Label] = []
        self._ending: set[str] = set()
        """Jobs that have answered, until the scheduler says that they are gone."""
        self._polling, self._looked = Polling(spec.name, config), -_LOOK_SECONDS

    @property
    def free(self) -> int:
        return max(0, self._config.max_jobs - len(self._labels) - len(self._ending))

    def submit(self, job: EvaluationJob) -> None:
        """Make a label's job, or wait for the one that an earlier driver made. Raises
        SurroundingsError where it is refused.
        """
        label = _Label(job, self._folder / folder_name(job.key))
        self._labels.append(label)
        if (label.folder / REQUEST).exists():
            note = note_of(label.folder)
            label.identity = note.identity if note is not None else ""
            self._polling.next = 0.0
            return
        request = {
            "spec": self._spec,
            "job": job,
            "threads": self._threads,
            "names": plugins.names_to_tell(),
        }
        write_whole(label.folder / _SCRIPT, self._script(label.folder).encode())
        write_whole(label.folder / REQUEST, wire.pack(request))
        with self._polling.asking():
            self._begin(label)

    def _script(self, folder: Path) -> str:
        command = shlex.join([sys.executable, interpreters.DOOR, "job", str(folder.resolve())])
        return "\n".join(["#!/bin/bash -l", "set -e", *self._config.setup, f"exec {command}", ""])

    def _begin(self, label: _Label) -> None:
        folder = label.folder.resolve()
        name = job_name(folder)
        (folder / CLAIM).unlink(missing_ok=True)
        label.identity = self._scheduler.submit(
            Script(folder / _SCRIPT, name, folder / _LOG, self._spec, self._config)
        )
        self._note(label, name)

    def _note(self, label: _Label, name: str) -> None:
        write_note(label.folder, Note(label.identity, name, self._config.scheduler))

    def look(self) -> list[FinishedJob]:
        """What has an answer, or has none and never will; what an earlier call told is recorded by
        now.
        """
        self._put_away()
        now = awake_seconds()
        if now - self._looked < _LOOK_SECONDS:
            return []
        self._looked = now
        finished = [
            item for label in list(self._labels) if (item := self._answered(label)) is not None
        ]
        if (self._labels or self._ending) and self._polling.is_due():
            with self._polling.asking():
                self._check(finished)
        return finished

    def _put_away(self) -> None:
        for label in self._handed_over:
            put_away(label.folder, keep=label.has_failed)
        self._handed_over.clear()

    def _answered(self, label: _Label) -> FinishedJob | None:
        try:
            evaluation = wire.unpack((label.folder / ANSWER).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            evaluation = Evaluation.failed(
                FailureKind.INFRASTRUCTURE,
                f"the answer of job {label.identity} cannot be read: {error}",
            )
        self._ending |= {label.identity} - {""}
        return self._hand_over(label, evaluation)

    def _hand_over(self, label: _Label, evaluation: Evaluation) -> FinishedJob:
        label.has_failed = evaluation.failure is not None
        self._labels.remove(label)
        self._handed_over.append(label)
        return FinishedJob(label.job, evaluation)

    def _check(self, finished: list[FinishedJob]) -> None:
        """By the scheduler's list; what was not submitted yet is, unless it is in the list. Raises
        SchedulerAwayError.
        """
        found = self._scheduler.jobs()
        self._ending &= {identity for identity, job in found.items() if job.phase != "ended"}
        by_name = {job.name: identity for identity, job in found.items() if job.phase != "ended"}
        for label in list(self._labels):
            if label.identity:
                job = found.get(label.identity) or self._scheduler.past(label.identity)
                finished += self._judged(label, job or Job("", "ended", "unknown to the scheduler"))
            elif (identity := by_name.get(job_name(label.folder))) is not None:
                label.identity = identity
                self._note(label, job_name(label.folder))
            else:
                self._begin(label)

    def _judged(self, label: _Label, job: Job) -> list[FinishedJob]:
        label.phase = job.phase
        self._polling.tell_if_waiting(label.identity, job)
        if job.phase != "ended":
            return []
        now, claim = awake_seconds(), claim_of(label.folder)
        if claim is not None and claim.identity != label.identity:
            label.identity, label.ended = claim.identity, None
            return []
        label.ended = now if label.ended is None else label.ended
        if now - label.ended < _GRACE_SECONDS:
            self._polling.next = min(self._polling.next, label.ended + _GRACE_SECONDS)
            return []
        if (answered := self._answered(label)) is not None:
            return [answered]
        return [self._hand_over(label, self._failed(label, job))]

    def _failed(self, label: _Label, job: Job) -> Evaluation:
        claim = claim_of(label.folder)
        words = last_words(label.folder / _LOG)
        told = (
            f"{self._config.scheduler} job {label.identity} ended without an answer: "
            f"{job.told}{f'; {words}' if words else ''}"
        )
        cost = Cost()
        if claim is not None:
            longest = Script(label.folder, "", label.folder, self._spec, self._config).seconds
            cost = Cost(
                wall_seconds=min(longest, max(0.0, time.time() - claim.began)),
                started=claim.began,
                worker=claim.host,
            )
        return replace(Evaluation.failed(job.kind, told), cost=cost)

    def not_begun(self) -> list[EvaluationJob]:
        return [label.job for label in self._labels if label.phase in ("", "queued")]

    def withdraw(self, keys: Collection[str]) -> None:
        gone = [label for label in self._labels if label.job.key in keys]
        self._labels = [label for label in self._labels if label not in gone]
        cancel({label.folder: label.identity for label in gone}, self._config.scheduler)

    def let_go(self, *, is_wanted: bool) -> list[EvaluationJob]:
        """Wait no more for what is wanted later; cancel what is not and has not begun. All that was
        told is recorded by now.
        """
        self._put_away()
        if not is_wanted:
            gone = self.not_begun()
            self.withdraw([job.key for job in gone])
            return gone
        left, self._labels = self._labels, []
        return [label.job for label in left]


def cancel(jobs: Mapping[Path, str], scheduler: str) -> None:
    """Cancel the jobs of folders, by id or, where none is known, by name, and remove the folders;
    where the scheduler is away they stay.
    """
    asked = scheduler_of(QueueConfig.model_validate({"scheduler": scheduler}))
    try:
        names = (
            {job.name: identity for identity, job in asked.jobs().items() if job.phase != "ended"}
            if jobs
            else {}
        )
        wanted = {
            folder: identity or names.get(job_name(folder), "") for folder, identity in jobs.items()
        }
        if identities := [identity for identity in wanted.values() if identity in names.values()]:
            asked.cancel(identities)
    except SchedulerAwayError as error:
        log.warning(
            "%s; %d jobs that are not wanted any more are cancelled the next time",
            error.message,
            len(jobs),
        )
        return
    for folder in jobs:
        put_away(folder, keep=False)


def put_away(folder: Path, *, keep: bool) -> None:
    """Take a label's folder away once its outcome is recorded; those of failures are kept beside
    the others.
    """
    if keep:
        (folder.parent / FAILED).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            folder.rename(folder.parent / FAILED / folder.name)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def last_words(path: Path) -> str:
    """The last line that a job printed."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TOLD_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""
    return ""
