"""Oracles in place of costly ones, to see what faults cost a campaign: they leave a trace of each
execution, and fail as a file says.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign.rounds.rehearsal import StandIn
from campaign.types import Crystal, Evaluation, FailureKind, Quantity

LOG, SWITCH = "log", "switch"
MARKED_TEXT = "half a character \udc80 and a closing tag [/x] of none [bold red]"
_FOR_EVER_SECONDS = 1000.0


class Faulty(ABC):
    """An oracle that writes ``begun`` and ``ended`` lines into a file, one of each for an execution
    that nothing breaks off; one ``failed`` line otherwise.

    Each line holds the candidate's id and the process. While the file ``switch`` is there, it names
    a way to fail and how many times it does so (null: for ever).
    """

    quantities: tuple[Quantity, ...]

    def __init__(self, folder: str, seconds: float) -> None:
        self._folder, self._seconds = Path(folder), seconds

    @abstractmethod
    def label(self, crystal: Crystal) -> Evaluation:
        """What an execution that nothing breaks off gives."""

    def evaluate(self, crystal: Crystal) -> Evaluation:
        how = self._fault()
        if how:
            self._write("failed", crystal)
            return self._fail(how)
        self._write("begun", crystal)
        time.sleep(self._seconds)
        found = self.label(crystal)
        self._write("ended", crystal)
        return found

    def _write(self, what: str, crystal: Crystal) -> None:
        with (self._folder / LOG).open("a") as file:
            file.write(f"{what} {crystal.id} {os.getpid()}\n")

    def _fault(self) -> str:
        """How to fail now; each time that is left is taken by one worker."""
        try:
            how, times = json.loads((self._folder / SWITCH).read_bytes())
        except (OSError, ValueError):
            return ""
        return how if times is None or any(self._takes(i) for i in range(times)) else ""

    def _takes(self, number: int) -> bool:
        try:
            os.close(os.open(self._folder / f"{SWITCH}-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _fail(self, how: str) -> Evaluation:
        match how:
            case "full disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case "error":
                raise ArithmeticError("the switch says so")
            case "not a number":
                return Evaluation.single(self.quantities[0], math.nan)
            case "marked text":
                return Evaluation.failed(FailureKind.CRASH, MARKED_TEXT)
            case "hang":
                subprocess.Popen(["sleep", "613"])
                subprocess.Popen(["sh", "-c", "sleep 613 & sleep 613"], start_new_session=True)
                time.sleep(_FOR_EVER_SECONDS)
        return Evaluation.failed(FailureKind.UNPHYSICAL, "the switch says so")


class FaultyStandIn(Faulty):
    """Made-up values of any quantities, the same for the same crystal."""

    def __init__(
        self,
        folder: str,
        quantities: Mapping[str, tuple[str, Sequence[int]]],
        seconds: float = 0.05,
    ) -> None:
        super().__init__(folder, seconds)
        self._stand_in = StandIn(quantities)
        self.quantities = self._stand_in.quantities

    def label(self, crystal: Crystal) -> Evaluation:
        return self._stand_in.evaluate(crystal)
