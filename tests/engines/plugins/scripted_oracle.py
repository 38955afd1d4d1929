"""An oracle that does what a note with the crystal's id says, and computations, for the tests of
the executors.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from campaign.protocols import Kept
from campaign.types import Crystal, Evaluation, FailureKind, Quantity

ANSWER = Quantity("answer", "1")


class Scripted:
    quantities = (ANSWER,)

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._asked = 0

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """Gives how often this instance was asked."""
        self._asked += 1
        note = self._folder / crystal.id
        what, _, detail = (note.read_text() if note.exists() else "").partition(" ")
        match what:
            case "sleep":
                time.sleep(float(detail))
            case "exit":
                os._exit(int(detail))
            case "signal":
                os.kill(os.getpid(), int(detail))
                time.sleep(60)
            case "errno":
                raise OSError(int(detail), os.strerror(int(detail)))
            case "wrapped":
                try:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as error:
                    raise ValueError("the engine gave nothing") from error
            case "raise":
                raise RuntimeError(detail)
            case "fail":
                return Evaluation.failed(FailureKind.CRASH, detail)
            case "children":
                self._leave_children()
                time.sleep(float(detail))
            case "once":
                is_again = (self._folder / "once").exists()
                (self._folder / "once").touch()
                self._leave_children()
                time.sleep(0 if is_again else 60)
        return Evaluation.single(ANSWER, self._asked)

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        """One after the other, the last first; a note that begins with ``together`` holds here
        alone.
        """
        for index in reversed(range(len(crystals))):
            note = self._folder / crystals[index].id
            what, _, rest = (note.read_text() if note.exists() else "").partition(" ")
            if what == "together":
                if rest == "raise":
                    raise RuntimeError("all at once")
                os.kill(os.getpid(), int(rest))
                time.sleep(60)
            yield index, self.evaluate(crystals[index])

    def _leave_children(self) -> None:
        """One child of its own, and one whose parent is gone and that left the session."""
        sleep = [
            sys.executable,
            "-SE",
            "-c",
            "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "
            "time.sleep(600)",
        ]
        written = str(self._folder / "children")
        subprocess.Popen([*sleep, written], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        leave = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
        subprocess.run(
            [sys.executable, "-SE", "-c", leave, *sleep, written],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(Path(written).read_text().split() if Path(written).exists() else ()) < 2:
            time.sleep(0.02)


def add(*numbers: int) -> int:
    return sum(numbers)


def refuse(error: Exception) -> None:
    raise error


def hidden(value: int) -> Kept:
    """A value that only later computations get; the loop is told where it was made."""
    return Kept(value, told=os.getpid())


def ids_of(crystals: list[Crystal], one: Crystal) -> list[str]:
    return [crystal.id for crystal in (*crystals, one)]


def once(folder: str, what: str, result: int) -> int:
    """Dies, hangs or stops the first time that it is called with a folder; gives the result later.
    Each call leaves a line there.
    """
    calls = Path(folder) / "calls"
    with calls.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(calls.read_text().split()) == 1 or what.startswith("always"):
        match what.removeprefix("always "):
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "is stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hangs":
                time.sleep(600)
            case "takes too much memory":
                raise MemoryError
    return result
