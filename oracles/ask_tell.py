"""The oracle ``ask_tell``: labels made elsewhere, by an experiment or a cluster without Ray.

It writes each question into a folder, as ``<candidate id>.cif`` with a row in ``questions.csv``.
Answers are that table with its columns filled in, or ``answers.csv`` with columns ``id`` and one
for each quantity (or ``failure`` with a reason), plain or with a unit, as in ``hardness (GPa)``;
other units are converted. A row with blanks is no answer yet. Tables are read once they stood
unchanged from one look to the next, so that half a number of one that is being written is no label.
What cannot be read leaves its question open, and is told at once: in the log and in
``problems.txt`` in the folder. A question is asked once, also after a restart. ``workers`` of the
oracle says how many questions are open at a time. It waits as long as it takes, or the
``wall_limit`` (s) that the config sets.
"""

from __future__ import annotations

import csv
import difflib
import fcntl
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from campaign.errors import InputError, SurroundingsError
from campaign.parameters import Parameters
from campaign.reading.tables import (
    Column,
    Measure,
    Problems,
    Table,
    found_in,
    is_gap,
    measure,
    read_table,
    text_of,
)
from campaign.types import Crystal, Evaluation, FailureKind, Fidelity, Observation, Quantity

log = logging.getLogger(__name__)

QUESTIONS, ANSWERS, PROBLEMS = "questions.csv", "answers.csv", "problems.txt"


class AskTellConfig(Parameters):
    folder: Path | None = Field(
        None,
        description="Folder for questions and answers, seen by the workers; without it "
        "`oreloop ask` and `tell` are used alone.",
    )
    quantities: dict[str, str] = Field(
        min_length=1, description="Name of each quantity and its unit."
    )
    level: str = Field(
        "experiment", description="Name of the level of theory or of the experiment."
    )
    poll_seconds: float = Field(
        1.0,
        gt=0,
        description="Time between two looks at the answers (s); read once they stood unchanged.",
    )


@dataclass
class Answers:
    """What the tables say: values by candidate and quantity, reasons why there are none, and what
    is wrong with the tables.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class AskTell:
    Config = AskTellConfig
    waits_for_people = True

    def __init__(self, config: AskTellConfig) -> None:
        self.config = config
        self.quantities = tuple(Quantity(name, unit) for name, unit in config.quantities.items())
        self._told = ""

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(self.config.level, {"quantities": self.config.quantities})

    @property
    def folder(self) -> Path:
        """Raises SurroundingsError where the config names none."""
        if self.config.folder is None:
            raise SurroundingsError(
                "ask_tell has no folder to write its questions to",
                hint="use `oreloop ask` and `oreloop tell` (Campaign.ask and tell) in place of "
                "`oreloop run`, or name a folder",
            )
        return self.config.folder

    def evaluate(self, crystal: Crystal) -> Evaluation:
        self.folder.mkdir(parents=True, exist_ok=True)
        before: object = None
        taken: object = None
        while True:
            now = [_stamp(self.folder / name) for name in (QUESTIONS, ANSWERS)]
            has_stood, before = now == before, now
            if has_stood and now != taken:
                taken = now
                answers = self.answers(crystal)
                if crystal.id in answers.failures:
                    return Evaluation.failed(
                        FailureKind.NOT_CONVERGED, answers.failures[crystal.id], retryable=False
                    )
                if crystal.id in answers.values:
                    found = answers.values[crystal.id]
                    return Evaluation(
                        observations=tuple(
                            Observation(q.name, found[q.name], q.unit) for q in self.quantities
                        )
                    )
            time.sleep(self.config.poll_seconds)

    def answers(self, crystal: Crystal) -> Answers:
        """What has been answered so far, and ask for a crystal where that has not been done.

        ``answers.csv`` counts before filled-in questions, a later row before an earlier one.
        """
        found = Answers()
        for name in (QUESTIONS, ANSWERS):
            path = self.folder / name
            try:
                if name == QUESTIONS:
                    self._ask(crystal)
                if path.exists():
                    self._read(read_table(path), found)
            except InputError as error:
                found.problems.append(str(error))
        self._tell(found.problems)
        return found

    def _read(self, table: Table, found: Answers) -> None:
        """Raises InputError where the table's columns cannot be read; what is wrong with a row
        becomes one of the problems.
        """
        where = str(table.path)
        key = found_in("id", table.header, where)
        measures = {
            q.name: measure(q.name, q, Column(q.name), table.header, where) for q in self.quantities
        }
        asked = {path.stem for path in self.folder.glob("*.cif")}
        for row in table:
            place, identity = f"{where}, row {row.number}", row.cells[key].strip()
            failure = row.cells.get("failure", "").strip()
            if not failure and any(is_gap(row.cells[item.key]) for item in measures.values()):
                continue
            if identity not in asked:
                nearest = difflib.get_close_matches(identity, sorted(asked), n=1)
                found.problems.append(
                    f"{place}: no question has the id "
                    f"{identity!r}{f'; did you mean {nearest[0]}?' if nearest else ''}"
                )
                continue
            found.values.pop(identity, None)
            found.failures.pop(identity, None)
            if failure:
                found.failures[identity] = failure
                continue
            values, problems = _values(measures, row.cells, place)
            found.problems += problems
            if not problems:
                found.values[identity] = values

    def _tell(self, problems: list[str]) -> None:
        """Say what is wrong, once as long as it stays the same."""
        text = "\n".join(problems)
        if text == self._told:
            return
        self._told = text
        _write_whole(self.folder / PROBLEMS, f"{text}\n" if text else "")
        for problem in problems:
            log.warning("ask_tell, a question stays open: %s", problem)

    def _ask(self, crystal: Crystal) -> None:
        """Raises InputError where the questions that stand there cannot be read."""
        folder = self.folder
        cif, path = folder / f"{crystal.id}.cif", folder / QUESTIONS
        with _locked(folder):
            if not cif.exists():
                _write_whole(cif, crystal.structure.to(fmt="cif"))
            header = ["id", "formula", "file", *(f"{q.name} ({q.unit})" for q in self.quantities)]
            separator, before = ",", _line(header, ",")
            if path.exists() and path.stat().st_size:
                before, table = text_of(path), read_table(path)
                header, separator = list(table.header), table.separator
                key = found_in("id", header, str(path))
                if any(row.cells[key].strip() == crystal.id for row in table):
                    return
            cells = {"id": crystal.id, "formula": crystal.formula, "file": cif.name}
            end = "" if before.endswith("\n") else "\n"
            _write_whole(
                path, f"{before}{end}{_line([cells.get(name, '') for name in header], separator)}"
            )


def _values(
    measures: dict[str, Measure], cells: object, place: str
) -> tuple[dict[str, float], list[str]]:
    """The values of a row, and what is wrong with it."""
    assert isinstance(cells, dict)
    problems = Problems()
    values = {}
    for name, item in measures.items():
        try:
            values[name] = item.of(cells[item.key], 1, place)
        except InputError as error:
            problems.add(error)
    return values, [str(error) for error in problems.found]


def _line(cells: list[str], separator: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _write_whole(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}-", encoding="utf-8", newline="", delete=False
    ) as part:
        part.write(text)
    os.chmod(part.name, 0o644)
    os.replace(part.name, path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one worker writes into the folder at a time."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
