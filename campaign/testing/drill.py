"""A campaign that is run by the real command in a folder of its own, so that a fault can be made
while it runs or between its sessions.

Its oracles are ``campaign.testing.stand_in.Faulty`` ones, whose trace tells what was paid for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from campaign.api import Campaign
from campaign.errors import OreloopError
from campaign.executors.leftovers import running
from campaign.files import write_whole
from campaign.ledger.engines import CONFIG_COPY
from campaign.testing.stand_in import LOG, SWITCH

Config = dict[str, Any]
CONFIG_NAME = "small.yaml"
LIMIT_SECONDS = {"serial": 240.0, "ray": 360.0}
_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.005
_MARK = "ORELOOP_FAULT_DRILL"
_TRACEBACK = "Traceback (most recent call last)"
_TOLD = re.compile(r"\b(?:WARNING|ERROR)\s+(\S.*)")
_CLOCK = """import os, time
_real, _file = time.time, os.environ["ORELOOP_FAULT_CLOCK"]
def _moved():
    try:
        with open(_file) as file:
            return _real() + float(file.read() or 0)
    except (OSError, ValueError):
        return _real()
time.time = _moved
"""

ORDERLY = frozenset({0, 2, 3, 130})
"""Exit codes of commands that were not broken off."""


class StuckError(Exception):
    """A session that did not end, or a point that it never reached."""


def _hear_of_closed_terminals() -> None:
    """Also where the measurement itself was started with ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Session:
    """A command under way, with what it prints and when."""

    def __init__(
        self, name: str, command: list[str], folder: Path, environment: dict[str, str]
    ) -> None:
        self.name, self.lines, self.began = name, list[tuple[float, str]](), time.monotonic()
        self.seconds = 0.0
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
            preexec_fn=_hear_of_closed_terminals,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append((time.monotonic(), line.rstrip()))

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, limit: float) -> int:
        """Its exit code. Raises StuckError where it does not end."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise StuckError(f"{self.name} did not end within {limit:g} s") from error
        self._reader.join(_GRACE_SECONDS)
        self.seconds = time.monotonic() - self.began
        return code

    def said(self, since: float) -> list[str]:
        return [line for moment, line in list(self.lines) if moment >= since and line]

    def message(self, since: float) -> str:
        """The error that it ended with, or the first warning, or why it stopped."""
        said = self.said(since)
        error = [line for line in said if line.startswith(("error: ", "what to do: "))]
        warned = [found[1] for line in said if (found := _TOLD.search(line))]
        stopped = [
            line for line in said if line.startswith(("ended: ", "stopped: ", "stopped at once"))
        ]
        return " / ".join(error or warned[:1] or stopped[:1] or said[-1:])

    def told_at(self, since: float) -> float | None:
        return next((moment for moment, line in list(self.lines) if moment >= since and line), None)


@dataclass
class Trace:
    """Executions by candidate, as the oracle wrote them down."""

    begun: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    workers: dict[str, int] = field(default_factory=dict)
    """Processes by the candidates that they began last."""

    @property
    def n_ended(self) -> int:
        return self.ended.total()

    @property
    def under_way(self) -> Counter[str]:
        return self.begun - self.ended


class Drill:
    """The folder, the sessions in it, and what is counted. ``at_risk``: executions under way when
    something was killed.
    """

    def __init__(self, document: Callable[[Path], Config], home: Path | None = None) -> None:
        """A campaign of the config that ``document`` gives for the drill's folder, where the trace
        lies too. ``home``: where the relative paths and modules of the config are; the drill's
        folder by default.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="drill-"))
        self.config, self._home = document(self.folder), home
        self.limit = LIMIT_SECONDS.get(self.config["executor"]["use"], LIMIT_SECONDS["serial"])
        self.place = self.folder / "campaigns" / self.config["name"]
        self.temporary = self.folder / "t"
        self.temporary.mkdir()
        self.sessions: list[Session] = []
        self.fault: tuple[Session, float] | None = None
        self.at_risk = self.unrecoverable = 0
        self.was_broken_off = False
        self.clock = self.folder / "clock" / "offset"
        self.configure()
        self.closing = contextlib.ExitStack()

    def configure(self, **changes: Any) -> None:
        """Write the campaign's config, changed."""
        self.config |= changes
        if self._home is None:
            (self.folder / CONFIG_NAME).write_text(json.dumps(self.config))
            return
        self.place.mkdir(parents=True, exist_ok=True)
        kept = json.dumps({"config": self.config, "folder": str(self._home)})
        write_whole(self.place / CONFIG_COPY, kept.encode())

    @property
    def run_words(self) -> tuple[str, str]:
        """The command that runs the campaign, which is also the one that goes on with it."""
        return "run", CONFIG_NAME if self._home is None else str(self.place)

    @property
    def middle(self) -> int:
        """Half of its labels."""
        return int(self.config["budget"]["labels"]) // 2

    # --- commands
    # ------------------------------------------------------------

    @property
    def _environment(self) -> dict[str, str]:
        own = {
            "TMPDIR": str(self.temporary),
            "RAY_TMPDIR": str(self.temporary),
            "COLUMNS": "2000",
            _MARK: str(self.folder),
        }
        if self.clock.exists():
            paths = (str(self.clock.parent), *filter(None, [os.environ.get("PYTHONPATH")]))
            own |= {"ORELOOP_FAULT_CLOCK": str(self.clock), "PYTHONPATH": os.pathsep.join(paths)}
        return os.environ | {"OMP_NUM_THREADS": "1"} | own

    def start(self, *arguments: str) -> Session:
        """A command of the product; the campaign's run where none is named."""
        words = arguments or self.run_words
        return self.start_python(["-m", "campaign.cli", *words], words[0])

    def start_python(self, arguments: list[str], name: str) -> Session:
        session = Session(name, [sys.executable, *arguments], self.folder, self._environment)
        self.sessions.append(session)
        return session

    def end(self, session: Session) -> int:
        code = session.end(self.limit)
        if session.name == "run" and code not in ORDERLY:
            self.was_broken_off = True
        return code

    def command(self, *arguments: str) -> int:
        """A command to its end."""
        return self.end(self.start(*arguments))

    def run_until(self, labels: int) -> None:
        """A session that ends in good order once so many executions ended."""
        session = self.start()
        self.reach(labels)
        session.process.send_signal(signal.SIGTERM)
        self.end(session)

    def run_fault(self, *arguments: str) -> int:
        """A command that meets a fault which is there already."""
        session = self.start(*arguments)
        self.fault = session, session.began
        return self.end(session)

    def injected(self, session: Session, *, kills_work: bool = False) -> None:
        """The fault is made now; where it ``kills_work``, what is under way may be paid for
        again.
        """
        self.fault = session, time.monotonic()
        if kills_work:
            self.at_risk = self.trace().under_way.total()

    # --- what can be seen
    # ------------------------------------------------------------

    def trace(self) -> Trace:
        found = Trace()
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / LOG).read_text().splitlines():
                what, identity, process = line.split()
                getattr(found, what)[identity] += 1
                if what == "begun":
                    found.workers[identity] = int(process)
        return found

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Raises StuckError where a condition never holds, or the last session ends before."""
        deadline = time.monotonic() + self.limit
        while not condition():
            if time.monotonic() > deadline or self.sessions[-1].process.poll() is not None:
                raise StuckError(f"never reached: {what}")
            time.sleep(_POLL_SECONDS)

    def reach(self, labels: int) -> None:
        self.wait_for(lambda: self.trace().n_ended >= labels, f"{labels} labels")

    def switch(self, how: str, times: int | None = None) -> None:
        (self.folder / SWITCH).write_text(json.dumps([how, times]))

    def switch_off(self) -> None:
        (self.folder / SWITCH).unlink(missing_ok=True)

    def family(self, session: Session) -> list[psutil.Process]:
        return list(psutil.Process(session.pid).children(recursive=True))

    def process(self, session: Session, sign: str) -> psutil.Process:
        """The one below a driver whose name is ``sign`` or whose command begins so."""
        for process in self.family(session):
            with contextlib.suppress(psutil.Error):
                if process.name() == sign or "".join(process.cmdline()[:1]).startswith(sign):
                    return process
        raise StuckError(f"there is no process {sign}")

    def busy_worker(self) -> tuple[psutil.Process, str]:
        """An oracle's process in the middle of an execution, and the candidate."""
        self.wait_for(lambda: self.trace().under_way.total() > 0, "an execution under way")
        trace = self.trace()
        candidate = next(reversed(list(trace.under_way)), "")
        return psutil.Process(trace.workers[candidate]), candidate

    def left_processes(self) -> list[str]:
        """The processes of this drill that live on after a while, by their commands."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while (found := list(self._own_processes())) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [command[:80] for _, command in found]

    def _own_processes(self) -> Iterator[tuple[psutil.Process, str]]:
        """Each with its command. Ray's helpers overwrite their surroundings; they are known by the
        files that they hold open.
        """
        for process in running():
            with contextlib.suppress(psutil.Error, OSError):
                words = process.cmdline()
                is_ours = any(str(self.folder) in word for word in words) or process.environ().get(
                    _MARK
                ) == str(self.folder)
                if not is_ours and words and words[0].startswith("ray::"):
                    is_ours = any(
                        file.path.startswith(str(self.folder)) for file in process.open_files()
                    )
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, " ".join(words)

    def left_folders(self) -> list[str]:
        """What lies in the folder for temporary files, without Ray's own link to its last
        session.
        """
        return sorted(
            path.name
            for path in (*self.temporary.glob("oreloop-*"), *self.temporary.glob("ray/session_2*"))
        )

    def labels(self) -> Counter[str]:
        """How many labels each candidate has in the ledger."""
        return Counter(candidate for candidate, _ in self.state().labels)

    def state(self) -> Any:
        return Campaign.open(self.place).state()

    # --- the outcome
    # ------------------------------------------------------------

    def finish(self) -> None:
        """The cause is gone: the same command to its end."""
        if self.was_broken_off:
            with contextlib.suppress(OreloopError):
                state = self.state()
                known = {candidate for candidate, _ in (*state.labels, *state.quarantined)}
                self.at_risk = sum(
                    count for identity, count in self.trace().begun.items() if identity not in known
                )
        self.command()

    def outcome(self) -> dict[str, Any]:
        """What the drill came to, once it is finished."""
        trace, state = self.trace(), self.state()
        labels, n_oracles = self.labels(), len(self.config["oracles"])
        ended = {identity: min(count, n_oracles) for identity, count in trace.ended.items()}
        return {
            "labels": len(state.own),
            "labels_lost": sum(
                max(0, count - labels[identity]) for identity, count in ended.items()
            ),
            "paid_twice": sum(
                max(0, count - max(1, labels[identity])) for identity, count in trace.begun.items()
            ),
            "given_up": len(state.quarantined),
        }

    def told(self) -> dict[str, Any]:
        """What the command said that met the fault, and how soon."""
        tracebacks = sum(
            _TRACEBACK in line for session in self.sessions for _, line in session.lines
        )
        found: dict[str, Any] = {
            "steps": [],
            "tracebacks": tracebacks,
            "message": "",
            "exit_code": None,
            "seconds_until_told": None,
        }
        for session in self.sessions:
            found["steps"].append([session.name, session.process.poll()])
        if self.fault is not None:
            session, since = self.fault
            moment = session.told_at(since)
            found["message"] = (
                session.message(since)
                .replace(str(self.place), "FOLDER")
                .replace(str(self.folder), "HERE")
            )
            found["exit_code"] = session.process.poll()
            is_at_start = since == session.began
            found["seconds_until_told"] = (
                session.seconds if is_at_start else moment - since if moment is not None else None
            )
        return found

    def output(self) -> str:
        return "\n".join(
            f"--- {session.name} {session.process.poll()}\n" + "\n".join(session.said(0.0))
            for session in self.sessions
        )

    def __enter__(self) -> Drill:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill whatever lives on and remove the folder."""
        for session in self.sessions:
            session.process.kill()
            session.process.wait()
        for process, _ in self._own_processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.closing.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def set_clock(self, seconds: float) -> None:
        """Move what the sessions take for the time; asked for before they start, with 0."""
        self.clock.parent.mkdir(exist_ok=True)
        (self.clock.parent / "sitecustomize.py").write_text(_CLOCK)
        self.clock.write_text(str(seconds))
