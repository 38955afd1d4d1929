"""Ask and tell: a campaign without workers, for labels that somebody makes elsewhere.

What is asked for and what is told stands in the ledger at once, as in any campaign; the questions
that are open are those of the ledger, so that a process that ends between the two loses nothing,
several may ask and tell in turn, and any decision replays.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from campaign.config import loaded as configs
from campaign.config.loaded import LoadedConfig
from campaign.decide import ladder
from campaign.errors import InputError
from campaign.executors import sanity
from campaign.executors.serial import computed
from campaign.executors.worker import ComputeWorker
from campaign.files import write_whole
from campaign.ledger import CampaignState, Ledger, LedgerReader
from campaign.ledger.artifacts import ArtifactStore
from campaign.ledger.engines import JOURNAL
from campaign.ledger.events import ChoiceRow
from campaign.ledger.recover import rebuild
from campaign.ledger.state import LabelRecord, Pair
from campaign.protocols import EvaluationJob, FinishedJob, Handle, OracleSpec
from campaign.reading.tables import (
    Column,
    Problems,
    found_in,
    header_parts,
    is_gap,
    measure,
    read_table,
)
from campaign.rounds.dispatch import Dispatcher
from campaign.text import file_name
from campaign.types import Crystal, Evaluation, Failure, FailureKind, Observation, Quantity

if TYPE_CHECKING:
    from campaign.api import Campaign

_MANY = 1_000_000


@dataclass(frozen=True, eq=False)
class OpenQuestion:
    """A label that is wanted: of which crystal, from which oracle, in which quantities.

    ``mean`` and ``deviation``: what the model expects of the objective, where one chose. ``start``:
    the crystal to begin from where it is not the candidate's own, such as one that a lower level
    relaxed.
    """

    candidate: str
    oracle: str
    crystal: Crystal
    quantities: tuple[Quantity, ...]
    round: int
    reason: str = ""
    mean: float | None = None
    deviation: float | None = None
    start: Crystal | None = None

    @property
    def formula(self) -> str:
        """That of its crystal."""
        return self.crystal.formula

    def __repr__(self) -> str:
        wanted = ", ".join(f"{quantity.name} ({quantity.unit})" for quantity in self.quantities)
        return f"<{self.formula} {self.candidate[:8]} at {self.oracle}: {wanted}>"


class WithoutWorkers:
    """An executor whose oracles are somewhere else; computations run at once."""

    def __init__(self) -> None:
        self._compute = ComputeWorker(1)

    def start(self, oracles: Sequence[OracleSpec]) -> None:
        pass

    def free_workers(self, oracle: str) -> int:
        return _MANY

    def submit(self, *jobs: EvaluationJob) -> None:
        pass

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        return []

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return computed(self._compute, function, arguments)

    def shutdown(self) -> None:
        pass


def open_questions(
    loaded: LoadedConfig, state: CampaignState, reader: LedgerReader
) -> list[OpenQuestion]:
    """All that is wanted and not labelled, in the order in which it was asked for."""
    rows = {
        (row.candidate, row.oracle): row
        for record in state.rounds
        if record.decided
        for row in record.decided.choices
    }
    found = []
    for (candidate, oracle), index in state.pending.items():
        row = rows.get((candidate, oracle)) or ChoiceRow(
            candidate, oracle, reason=state.requested.get((candidate, oracle), "")
        )
        below = ladder.relaxed_below(state, loaded.config, candidate, oracle)
        found.append(
            OpenQuestion(
                candidate,
                oracle,
                reader.crystal(candidate),
                tuple(loaded.measured[oracle]),
                index,
                row.reason,
                row.mean,
                row.deviation,
                reader.crystal(below) if below is not None else None,
            )
        )
    return found


def pair_of(state: CampaignState, candidate: str, oracle: str | None = None) -> Pair:
    """The open question of a candidate, by its id or first digits. Raises InputError where there is
    none, or several.
    """
    found = [
        pair
        for pair in state.pending
        if pair[0].startswith(candidate) and oracle in (None, pair[1])
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{len(found)} open questions begin with {candidate!r}: "
            f"{', '.join(f'{c[:8]} at {o}' for c, o in found[:5])}",
            hint="give the whole id, and the oracle",
        )
    if any(pair[0].startswith(candidate) and oracle in (None, pair[1]) for pair in state.labels):
        raise InputError(
            f"the question {candidate!r} has its answer already", hint="a label is never replaced"
        )
    nearest = difflib.get_close_matches(candidate, [name for name, _ in state.pending], n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "Campaign.pending lists the open ones"
    raise InputError(f"no open question has the id {candidate!r}", hint=hint)


def told(
    quantities: Sequence[Quantity],
    values: Mapping[str, Any],
    relaxed: Crystal | None,
    candidate: Crystal,
) -> Evaluation:
    """An answer as an oracle would give it. Keys are quantities, ``name (unit)`` where a value is
    in another unit; values are numbers, arrays of the quantity's shape, or observations with their
    noise.

    Raises InputError where a quantity is missing, unknown or in a unit that is none of it, and for
    values that are no finite numbers.
    """
    where = f"the answer for {candidate.formula}"
    wanted = {quantity.name for quantity in quantities}
    foreign = [key for key in values if header_parts(key)[0] not in wanted]
    if foreign:
        raise InputError(
            f"{where}: nobody asked for {foreign[0]!r}",
            hint=f"asked for are {', '.join(sorted(wanted))}",
        )
    missing = sorted(wanted - {header_parts(key)[0] for key in values})
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}", hint="give every quantity, or say that it failed"
        )
    if relaxed is not None and sorted(relaxed.numbers.tolist()) != sorted(
        candidate.numbers.tolist()
    ):
        raise InputError(f"{where} has a relaxed crystal of {relaxed.formula}")
    return Evaluation(
        observations=tuple(
            _observed(quantity, values, len(candidate), where) for quantity in quantities
        ),
        crystal=relaxed,
    )


def _observed(
    quantity: Quantity, values: Mapping[str, Any], n_atoms: int, where: str
) -> Observation:
    key = found_in(quantity.name, values, where)
    given = values[key]
    if quantity.shape:
        array = np.asarray(given.value if isinstance(given, Observation) else given, dtype=float)
        shape = tuple(n_atoms if n == -1 else n for n in quantity.shape)
        if array.shape != shape:
            raise InputError(
                f"{where}: {quantity.name} should have shape {shape}, but has {array.shape}"
            )
        return Observation(quantity.name, array, quantity.unit, getattr(given, "noise", None))
    column = Column(quantity.name, given.unit if isinstance(given, Observation) else "")
    item = measure(quantity.name, quantity, column, values, where)
    value, noise = (given.value, given.noise) if isinstance(given, Observation) else (given, None)
    scatter = None if noise is None else item.of(noise, n_atoms, where)
    return Observation(quantity.name, item.of(value, n_atoms, where), quantity.unit, scatter)


def read_answers(
    loaded: LoadedConfig, state: CampaignState, reader: LedgerReader, path: Path
) -> list[tuple[Pair, Evaluation]]:
    """Answers from a table with the columns id, oracle (where there are several), one for each
    quantity, and failure (a reason).

    Rows without any value are no answers yet. Raises InputError with every row and column that is
    wrong; then nothing is taken in.
    """
    table = read_table(path)
    key = found_in("id", table.header, str(path))
    found, problems = [], Problems()
    for row in table:
        cells = {name: text for name, text in row.cells.items() if not is_gap(text)}
        failure, oracle = cells.pop("failure", ""), cells.pop("oracle", None)
        place = f"{path}, row {row.number}"
        try:
            if key not in cells:
                raise InputError(f"{place} has no id")
            identity = cells.pop(key).strip()
            pair = (
                pair_of(state, identity, oracle) if failure or _values_in(cells, loaded) else None
            )
            if pair is not None:
                found.append((pair, _answer(loaded, reader, pair, cells, failure)))
        except InputError as error:
            problems.add(
                error
                if error.message.startswith(place)
                else InputError(f"{place}: {error.message}", hint=error.hint)
            )
    problems.check()
    return found


def _values_in(cells: Mapping[str, str], loaded: LoadedConfig) -> dict[str, str]:
    names = {quantity.name for quantities in loaded.measured.values() for quantity in quantities}
    return {key: text for key, text in cells.items() if header_parts(key)[0] in names}


def _answer(
    loaded: LoadedConfig, reader: LedgerReader, pair: Pair, cells: Mapping[str, str], failure: str
) -> Evaluation:
    if failure:
        return failed(FailureKind.NOT_CONVERGED, failure)
    wanted = {quantity.name for quantity in loaded.measured[pair[1]]}
    values = {key: text for key, text in cells.items() if header_parts(key)[0] in wanted}
    return told(loaded.measured[pair[1]], values, None, reader.crystal(pair[0]))


def record(
    loaded: LoadedConfig, ledger: Ledger, answers: Sequence[tuple[Pair, Evaluation]]
) -> list[LabelRecord | Failure]:
    """Write answers into the ledger, all in one transaction; what is outside the oracle's sanity
    window becomes a failure.
    """
    dispatcher = Dispatcher(loaded, ledger, WithoutWorkers(), lambda: None)
    finished = []
    for pair, evaluation in answers:
        oracle = dispatcher.oracle_configs[pair[1]]
        job = dispatcher.job(pair)
        failure = sanity.check(
            evaluation, job.candidate.crystal, loaded.measured[pair[1]], oracle.sanity
        )
        finished.append(
            FinishedJob(job, evaluation if failure is None else Evaluation(failure=failure))
        )
    dispatcher.record(finished)
    return [
        ledger.state.labels[item.job.candidate.id, item.job.oracle]
        if item.evaluation.failure is None
        else item.evaluation.failure
        for item in finished
    ]


def failed(kind: FailureKind | str, message: str) -> Evaluation:
    """Raises InputError for a kind that there is not."""
    try:
        return Evaluation.failed(FailureKind(kind), message, retryable=False)
    except ValueError:
        raise InputError(
            f"there is no kind of failure {kind!r}", hint=f"kinds are {', '.join(FailureKind)}"
        ) from None


def suggested(campaign: Campaign, n: int) -> list[OpenQuestion]:
    """What a copy of the campaign, made of its journal, would ask for."""
    from campaign.api import Campaign

    with tempfile.TemporaryDirectory(prefix="oreloop-suggest-") as name:
        folder = Path(name) / "campaign"
        folder.mkdir()
        if (campaign.folder / JOURNAL).exists():
            shutil.copyfile(campaign.folder / JOURNAL, folder / JOURNAL)
            rebuild(folder)
        artifacts = ArtifactStore(campaign.folder).folder
        if artifacts.is_dir():
            shutil.copytree(artifacts, ArtifactStore(folder).folder, copy_function=os.symlink)
        document = campaign.loaded.resolved() | {"tracking": {"use": "none"}}
        document.pop("ledger")
        loaded = configs.validate(
            document, folder=campaign.loaded.folder, source=campaign.loaded.source
        )
        return Campaign(folder, loaded).ask(n)


def write_questions(questions: Sequence[OpenQuestion], folder: Path) -> Path:
    """``questions.csv`` with blank columns for the answers, and each crystal as a CIF beside it;
    returns the table.
    """
    quantities = dict.fromkeys(
        f"{q.name} ({q.unit})" for item in questions for q in item.quantities if not q.shape
    )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "oracle", "formula", "file", *quantities, "failure"])
    for item in questions:
        file = file_name(f"{item.candidate}.cif")
        write_whole(folder / file, (item.start or item.crystal).structure.to(fmt="cif").encode())
        table.writerow(
            [item.candidate, item.oracle, item.formula, file, *("" for _ in quantities), ""]
        )
    write_whole(folder / "questions.csv", text.getvalue().encode())
    return folder / "questions.csv"
