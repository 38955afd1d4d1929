"""The faults that any campaign may meet: each is made while it runs or between its sessions, and
its cause is removed before the same command runs again.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from campaign.ledger.engines import JOURNAL
from campaign.testing.drill import Config, Drill, Session

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
COMPUTE_WORKER = "ray::ComputeWorker"


class NotHereError(Exception):
    """A fault that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Fault:
    """``make`` runs the campaign into the fault and removes its cause; ``exit_codes`` are those
    that the command may end with then.

    ``labels``: how many the campaign ends with, its budget by default. ``when``: ``running``, also
    under every executor; ``ray``, only there; ``at rest``, when no executor is at work, so serial
    alone. ``is_of_the_candidate``: giving up candidates is right.
    """

    name: str
    make: Callable[[Drill], None]
    exit_codes: tuple[int, ...]
    when: Literal["running", "ray", "at rest"] = "running"
    changes: Callable[[Config], object] = lambda _: None
    is_of_the_candidate: bool = False
    labels: int | None = None

    def is_made(self, executor: str) -> bool:
        return self.when == "running" or (executor == "ray") == (self.when == "ray")


def under_way(drill: Drill, labels: int | None = None) -> Session:
    """A session in the middle of an execution, after so many; after half of all by default."""
    session = drill.start()
    drill.reach(drill.middle if labels is None else labels)
    drill.wait_for(lambda: drill.trace().under_way.total() > 0, "an execution under way")
    return session


def kill_driver(drill: Drill) -> None:
    session = under_way(drill)
    session.process.kill()
    drill.injected(session)
    drill.end(session)


def signal_process(
    sign: str, number: signal.Signals, *, kills_work: bool
) -> Callable[[Drill], None]:
    """A signal to a process below the driver, which goes on or ends by itself."""

    def make(drill: Drill) -> None:
        session = under_way(drill)
        drill.process(session, sign).send_signal(number)
        drill.injected(session, kills_work=kills_work)
        drill.end(session)

    return make


def signal_worker(number: signal.Signals) -> Callable[[Drill], None]:
    """A signal to an oracle's process in the middle of an execution."""

    def make(drill: Drill) -> None:
        session = under_way(drill)
        drill.busy_worker()[0].send_signal(number)
        drill.injected(session, kills_work=True)
        drill.end(session)

    return make


def drain(number: signal.Signals) -> Callable[[Drill], None]:
    """As a terminal sends it: SIGTERM to the driver, the others to all that are in its group."""

    def make(drill: Drill) -> None:
        session = under_way(drill)
        drill.injected(session)
        os.kill(session.pid, number) if number == signal.SIGTERM else os.killpg(session.pid, number)
        drill.end(session)

    return make


def stop_driver(seconds: float) -> Callable[[Drill], None]:
    def make(drill: Drill) -> None:
        session = under_way(drill)
        drill.injected(session)
        session.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        session.process.send_signal(signal.SIGCONT)
        drill.end(session)

    return make


def full_disk(drill: Drill) -> None:
    """No file of the driver grows beyond what the journal has reached."""
    session = under_way(drill)
    _, hard = resource.prlimit(session.pid, resource.RLIMIT_FSIZE)
    drill.injected(session)
    resource.prlimit(
        session.pid, resource.RLIMIT_FSIZE, ((drill.place / JOURNAL).stat().st_size, hard)
    )
    drill.end(session)


def refused_then_recovered(drill: Drill) -> None:
    if drill.run_fault() == 4:
        drill.command("recover", str(drill.place))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def damaged(damage: Callable[[Path], object]) -> Callable[[Drill], None]:
    def make(drill: Drill) -> None:
        drill.run_until(drill.middle)
        damage(drill.place)
        refused_then_recovered(drill)

    return make


def flip_middle_of_journal(place: Path) -> None:
    flip(place / JOURNAL, (place / JOURNAL).stat().st_size // 2)


def failing(
    how: str, times: int | None = None, *, at_once: bool = False
) -> Callable[[Drill], None]:
    """A session whose oracle fails so many times, from half of the labels or from its start on."""

    def make(drill: Drill) -> None:
        if not at_once:
            session = under_way(drill)
            drill.injected(session)
            drill.switch(how, times)
            drill.end(session)
        else:
            drill.switch(how, times)
            drill.run_fault()
        drill.switch_off()

    return make


def limit(seconds: float) -> Callable[[Config], object]:
    """Of an evaluation (s), for all oracles."""

    def change(config: Config) -> None:
        for oracle in config["oracles"]:
            oracle["wall_limit"] = seconds

    return change
