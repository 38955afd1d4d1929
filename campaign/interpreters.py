"""Oracles that live in an interpreter of their own: another virtual environment, or one behind a
container's command.

Only plain data crosses to it. It needs Python 3.11 or newer with numpy, scipy, ase, pydantic and
matscipy, and what the oracle itself needs; our packages come to it from this installation (see
``campaign.executors.door``).
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import InputError, OreloopError
from campaign.parameters import may_download
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.seeds import content_hash
from campaign.types import Candidate, Checkpoint, Crystal, Evaluation, Fidelity, Quantity

if TYPE_CHECKING:
    from campaign.executors.process import WorkerProcess

DOOR = str(Path(__file__).parent / "executors" / "door.py")
NEEDS = ("numpy>=2", "scipy", "ase", "pydantic>=2.11", "matscipy")
"""What our own packages need there."""
_OWN_SURROUNDINGS = frozenset({"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV"})
_ANSWER_SECONDS = 300.0


class InterpreterError(InputError):
    """An oracle's interpreter is not there, or is none that we can use."""


def command(python: tuple[str, ...], purpose: str) -> list[str]:
    """The command that starts a process for a purpose (see ``door``); this interpreter's where
    ``python`` is empty.
    """
    return [*(python or (sys.executable,)), DOOR, purpose]


def surroundings(python: tuple[str, ...]) -> dict[str, str]:
    """The environment variables for it: another interpreter gets none of those that point at the
    packages of this one.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not (python and name in _OWN_SURROUNDINGS)
    }


def search_path(python: tuple[str, ...]) -> list[str]:
    """Folders of modules for it: another interpreter gets the user's own, and none of this one's
    packages.
    """
    if not python:
        return list(sys.path)
    ours = (sys.prefix, sys.base_prefix, str(Path(DOOR).parent.parent.parent))
    is_installed = {"site-packages", "dist-packages"}
    return [
        folder
        for folder in sys.path
        if folder and not folder.startswith(ours) and not is_installed & set(Path(folder).parts)
    ]


def words_of(python: str | tuple[str, ...] | None, folder: Path) -> tuple[str, ...]:
    """The words of a command as a config gives it: a first word that is a path starts at the
    config's folder.
    """
    if python is None:
        return ()
    first, *others = (python,) if isinstance(python, str) else python
    place = os.path.expanduser(first)
    return (os.path.abspath(folder / place) if os.sep in place else place, *others)


@dataclass(frozen=True)
class Description:
    """What an oracle says of itself in its interpreter. ``stated``: optional skills, by the name of
    their property.
    """

    quantities: tuple[Quantity, ...]
    fidelity: Fidelity
    stated: Mapping[str, Any]
    evaluates_many: bool
    settings: tuple[str, ...] | None
    versions: Mapping[str, str]


_known: dict[str, Description] = {}


def describe(spec: PluginSpec) -> Description:
    """Ask an oracle's interpreter to build it, and try it where it can be tried; asked once.

    Raises InterpreterError, or what building or trying it raised.
    """
    from campaign import plugins
    from campaign.executors import wire

    request = {
        "plugin": replace(spec, python=()),
        "names": plugins.names_to_tell(),
        "may_download": may_download(),
        "search_path": search_path(spec.python),
    }
    key = content_hash([spec.python, repr(request)])
    if key not in _known:
        answer = wire.unpack(_answer(spec, wire.pack(request)))
        if isinstance(answer, OreloopError):
            raise answer
        _known[key] = Description(**answer)
    return _known[key]


def _answer(spec: PluginSpec, request: bytes) -> bytes:
    from campaign.executors.door import GREETING

    told = " ".join(spec.python)
    hint = (
        f"it needs Python 3.11 or newer: {told} -m pip install "
        f"{' '.join(repr(need) for need in NEEDS)}"
    )
    if shutil.which(spec.python[0]) is None:
        raise InterpreterError(
            f"the interpreter of {spec.use}, {spec.python[0]}, is not there",
            hint="`make potentials` builds .venv-sevennet; give the path of another one, or "
            "the words of a command, with python:",
        )
    try:
        done = subprocess.run(
            command(spec.python, "describe"),
            input=request,
            capture_output=True,
            env=surroundings(spec.python),
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except OSError as error:
        raise InterpreterError(
            f"the interpreter of {spec.use}, {told}, cannot be started: {error.strerror}", hint=hint
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InterpreterError(
            f"the interpreter of {spec.use}, {told}, said nothing for {_ANSWER_SECONDS:g} s",
            hint=hint,
        ) from error
    _, is_there, answer = done.stdout.partition(GREETING)
    if not is_there or not answer:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise InterpreterError(
            f"the interpreter of {spec.use}, {told}, gave no answer: "
            f"{lines[-1].strip() if lines else f'exit code {done.returncode}'}",
            hint=hint,
        )
    return answer


class OracleElsewhere:
    """An oracle in its own interpreter, as this one sees it: it states what that one states, and
    evaluates there.
    """

    def __init__(self, spec: PluginSpec) -> None:
        found = describe(spec)
        self.quantities, self.fidelity, self.versions = (
            found.quantities,
            found.fidelity,
            found.versions,
        )
        vars(self).update(
            {
                name: frozenset(value) if name == "elements" else value
                for name, value in found.stated.items()
            }
        )
        self._spec = spec
        self._worker: WorkerProcess | None = None
        self._committee: bytes | None = None

    def load(self, committee: Checkpoint) -> None:
        from campaign.checkpoints import checkpoint_to_bytes

        self._committee = checkpoint_to_bytes(committee)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """In a worker that lives as long as this object. Raises SurroundingsError where it does not
        start.
        """
        return next(self._evaluated([crystal]))[1]

    def _evaluated(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        from campaign.executors.process import WorkerProcess

        if self._worker is None:
            spec = OracleSpec(
                name=self._spec.use,
                plugin=self._spec,
                wall_limit=math.inf,
                start_limit=_ANSWER_SECONDS,
            )
            self._worker = WorkerProcess(
                spec, self._spec.use, int(os.environ.get("OMP_NUM_THREADS", "1"))
            )
            weakref.finalize(self, self._worker.close)
        jobs = [
            EvaluationJob(
                key=f"{i}/{crystal.id}",
                oracle=self._spec.use,
                candidate=Candidate(crystal),
                committee=self._committee,
            )
            for i, crystal in enumerate(crystals)
        ]
        order = {job.key: i for i, job in enumerate(jobs)}
        self._worker.submit(*jobs)
        while self._worker.is_busy:
            for finished in self._worker.wait(1.0):
                yield order[finished.job.key], replace(finished.evaluation, fidelity="")


class BatchedOracleElsewhere(OracleElsewhere):
    """One that takes several crystals together."""

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        """Raises SurroundingsError where the worker does not start."""
        return self._evaluated(crystals)


def elsewhere(spec: PluginSpec) -> OracleElsewhere:
    """Raises InterpreterError, or what building or trying it raised."""
    return BatchedOracleElsewhere(spec) if describe(spec).evaluates_many else OracleElsewhere(spec)
