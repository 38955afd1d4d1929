"""The program of a queue's job: one label, asked by a file in the job's folder and answered by
another.

A second job for the same folder does nothing: the first to start puts its id there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from campaign import plugins
from campaign.errors import OreloopError
from campaign.executors import wire
from campaign.executors.process import WorkerProcess
from campaign.files import write_whole
from campaign.protocols import EvaluationJob, OracleSpec
from campaign.types import Evaluation, FailureKind

REQUEST, CLAIM, ANSWER = "request", "claim", "answer"
_IDENTITIES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
_WAIT_SECONDS, _LAST_SECONDS = 1.0, 3.0


@dataclass(frozen=True)
class Claim:
    """Which job does a label, where, and since when (s since the epoch)."""

    identity: str
    host: str
    began: float


def claim_of(folder: Path) -> Claim | None:
    """None where no job has begun."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Claim(**json.loads((folder / CLAIM).read_bytes()))
    return None


def perform(place: str) -> None:
    folder = Path(place)
    request = wire.unpack((folder / REQUEST).read_bytes())
    if not _is_ours(folder):
        return
    plugins.learn_names(request["names"])
    write_whole(
        folder / ANSWER, wire.pack(_evaluated(request["spec"], request["job"], request["threads"]))
    )


def _is_ours(folder: Path) -> bool:
    """Claim the label for this job."""
    identity = next((os.environ[name] for name in _IDENTITIES if name in os.environ), "")
    mine = folder / f".{CLAIM}-{identity}"
    write_whole(mine, json.dumps(vars(Claim(identity, socket.gethostname(), time.time()))).encode())
    with contextlib.suppress(FileExistsError):
        os.link(mine, folder / CLAIM)
    mine.unlink()
    found = claim_of(folder)
    return found is not None and found.identity == identity


def _evaluated(spec: OracleSpec, job: EvaluationJob, threads: int) -> Evaluation:
    """By a worker process, which limits and crashes end; a worker that does not start here may
    start on another node.
    """
    worker = WorkerProcess(spec, f"{spec.name}@{socket.gethostname()}", threads)
    try:
        worker.submit(job)
        while not (finished := worker.wait(_WAIT_SECONDS)):
            pass
        evaluation = finished[0].evaluation
    except OreloopError as error:
        evaluation = Evaluation.failed(
            FailureKind.INFRASTRUCTURE, f"on {socket.gethostname()}: {error.message}"
        )
    finally:
        worker.close()
    if evaluation.failure is not None and evaluation.failure.kind is FailureKind.INFRASTRUCTURE:
        time.sleep(
            _LAST_SECONDS
        )  # what the scheduler ends is its to tell: it signals the worker and this process at once
    return evaluation
