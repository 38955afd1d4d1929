"""A config's campaign under faults: small, with stand-ins for its oracles, in a folder that is
removed, run by the real command; to see that nothing paid for is lost and nothing waits for ever.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from campaign.config.loaded import LoadedConfig
from campaign.errors import InputError
from campaign.rounds.rehearsal import with_stand_ins
from campaign.testing.drill import Config, Drill
from campaign.testing.faults import (
    COMPUTE_WORKER,
    KILL,
    STOP,
    Fault,
    damaged,
    drain,
    failing,
    flip_middle_of_journal,
    full_disk,
    kill_driver,
    limit,
    signal_process,
    signal_worker,
    stop_driver,
)
from campaign.testing.outcome import Row, outcome, problems

Executor = Literal["serial", "ray"]
LABELS, INITIAL_LABELS, BATCH = 16, 6, 4
_EVALUATION_SECONDS, _STOPPED_SECONDS = 0.1, 10.0
_FAILURES = 3
_MOST_WORKERS = 2

FAULTS = (
    Fault("driver killed", kill_driver, (-9,)),
    Fault("driver told to end", drain(signal.SIGTERM), (130,)),
    Fault("driver stopped and continued", stop_driver(_STOPPED_SECONDS), (0,), changes=limit(5.0)),
    Fault("oracle worker killed", signal_worker(KILL), (0,)),
    Fault("oracle worker stopped", signal_worker(STOP), (0,), changes=limit(5.0)),
    Fault(
        "compute worker killed",
        signal_process(COMPUTE_WORKER, KILL, kills_work=False),
        (0,),
        "ray",
    ),
    Fault(
        "compute worker stopped",
        signal_process(COMPUTE_WORKER, STOP, kills_work=False),
        (0,),
        "ray",
    ),
    Fault("disk full", full_disk, (4,)),
    Fault("journal: a bit flipped", damaged(flip_middle_of_journal), (0,)),
    Fault("oracle fails", failing("unphysical", _FAILURES), (0,), is_of_the_candidate=True),
    Fault("oracle raises", failing("error", _FAILURES), (0,), is_of_the_candidate=True),
    Fault(
        "oracle hangs",
        failing("hang", _FAILURES),
        (0,),
        changes=limit(2.0),
        is_of_the_candidate=True,
    ),
    Fault(
        "oracle gives no number",
        failing("not a number", _FAILURES),
        (0,),
        is_of_the_candidate=True,
    ),
)


def executor_of(loaded: LoadedConfig) -> Executor:
    """The config's own executor; serial where that is neither serial nor Ray."""
    return "ray" if loaded.config.executor.use == "ray" else "serial"


def faults_of(executor: Executor, only: Sequence[str] = ()) -> tuple[Fault, ...]:
    """The faults that can be made under an executor, whose names hold one of the words. Raises
    InputError where there are none.
    """
    there = [fault for fault in FAULTS if fault.is_made(executor)]
    found = tuple(fault for fault in there if not only or any(word in fault.name for word in only))
    if not found:
        raise InputError(
            f"under the executor {executor} no fault is called {' or '.join(only)}",
            hint=f"there are: {'; '.join(fault.name for fault in there)}",
        )
    return found


def small(loaded: LoadedConfig, executor: Executor, folder: Path) -> Config:
    """The config with stand-ins, which leave their trace in ``folder``, and few labels."""
    document = with_stand_ins(
        loaded,
        "campaign.testing.stand_in:FaultyStandIn",
        folder=str(folder),
        seconds=_EVALUATION_SECONDS,
    )
    if executor == "ray":
        for oracle, own in zip(document["oracles"], loaded.config.oracles, strict=True):
            oracle["workers"] = min(own.workers, _MOST_WORKERS)
    cpus = sum(oracle["workers"] * oracle["cpus"] for oracle in document["oracles"])
    document["executor"] |= {
        "use": executor,
        "address": None,
        "cpus": math.ceil(cpus),
        "gpus": 0.0,
        "dashboard": False,
    }
    acquisition: dict[str, Any] = document["acquisition"]
    for key, most in (("initial_labels", INITIAL_LABELS), ("batch_size", BATCH)):
        acquisition[key] = min(acquisition[key], most)
    return document | {"budget": {"labels": LABELS}, "stopping": {}}


def broken(
    loaded: LoadedConfig,
    faults: Sequence[Fault],
    executor: Executor,
    *,
    limit_seconds: float | None = None,
    on_fault: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """A row for each fault, on a campaign of its own. ``limit_seconds``: after how long a session
    that does not end is called stuck.
    """
    for fault in faults:
        on_fault(fault.name)

        def configured(folder: Path, fault: Fault = fault) -> Config:
            document = small(loaded, executor, folder)
            fault.changes(document)
            return document

        with Drill(configured, home=loaded.folder) as drill:
            drill.limit = limit_seconds or drill.limit
            row = outcome(fault, drill, None)
            yield {
                "fault": fault.name,
                **row,
                "problems": problems(row),
                "output": drill.output(),
            }
