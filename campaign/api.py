"""Campaigns from Python: open a folder, run it, look at it as tables."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from html import escape
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from campaign import clock, plugins
from campaign.code import installed
from campaign.config import loaded as configs
from campaign.config.loaded import LoadedConfig
from campaign.errors import (
    CampaignLockedError,
    InputError,
    LedgerDamagedError,
    OreloopError,
    SurroundingsError,
)
from campaign.files import write_whole
from campaign.ledger import CampaignState, Ledger, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.engines import CONFIG_COPY, DATABASE, JOURNAL, remains
from campaign.ledger.lock import LOCK, STOP_REQUEST
from campaign.parameters import as_recorded
from campaign.reading.passwords import without_passwords
from campaign.seeds import content_hash
from campaign.types import Crystal, Evaluation, Failure, FailureKind, Objective, Quantity

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from pymatgen.core import Structure

    from campaign.config.schema import CampaignConfig
    from campaign.ledger.leaders import Wanted
    from campaign.ledger.state import LabelRecord
    from campaign.protocols import Tracker
    from campaign.report.plots import Plots
    from campaign.rounds.asking import OpenQuestion
    from campaign.rounds.controlling import Control
    from campaign.views.view import OpenView

__all__ = ["CONFIG_COPY", "STOP_REQUEST", "Campaign", "StopRequests", "campaign_folder"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS, _LOOK_SECONDS = 60.0, 0.05


def campaign_folder(loaded: LoadedConfig, folder: Path | None = None) -> Path:
    """Where a config's campaign lives: the given folder, or ``campaigns/<name>`` below the working
    directory.
    """
    return folder if folder is not None else Path("campaigns") / loaded.config.name


class StopRequests:
    """Reasons to stop in good order: SIGINT, SIGTERM, SIGHUP (a closed terminal), or the file that
    ``oreloop stop`` leaves.

    A second signal stops at once; not a second SIGHUP, as a terminal that closes sends several.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / STOP_REQUEST
        self._signal = ""

    def reason(self) -> str:
        return self._signal or ("stop was asked for" if self._file.exists() else "")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals for the time of a block; in other threads than the main one there are
        none to catch.

        The file may be there already: the lock of the folder removed the one of an earlier driver.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _: FrameType | None) -> None:
            if number == signal.SIGHUP:
                _let_go_of_closed_terminals()
            if self._signal and number == signal.SIGHUP:
                return
            if self._signal:
                raise KeyboardInterrupt
            self._signal = f"interrupted by {signal.Signals(number).name}"
            log.warning("%s: waiting for the work under way; once more stops at once", self._signal)

        asked = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
            asked.append(signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in asked}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            with suppress(OSError):
                self._file.unlink(missing_ok=True)


def _let_go_of_closed_terminals() -> None:
    """What is printed from now on goes nowhere where its terminal is gone, in place of failing."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Campaign:
    """A campaign on disk. ``best``, ``candidates``, ``labels`` and ``rounds`` are tables of the
    ledger as it stands.
    """

    def __init__(self, folder: Path, loaded: LoadedConfig | None = None) -> None:
        self.folder, self._loaded = folder, loaded

    def __repr__(self) -> str:
        return f"<campaign {self.folder}>"

    def _repr_html_(self) -> str:
        """Where it stands, for notebooks: what ``oreloop status`` says."""
        if not (self.folder / CONFIG_COPY).exists():
            return escape(f"{self!r}, not begun")
        from campaign.views.progress import facts
        from campaign.views.view import View

        found = facts(View(self.loaded, self.state()))
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in found.items()
        )
        return f"<table><caption>{escape(str(self.folder))}</caption>{rows}</table>"

    @classmethod
    def open(cls, folder: str | Path) -> Campaign:
        """A campaign that exists. Raises SurroundingsError where there is none."""
        path = Path(folder)
        if not (path / CONFIG_COPY).exists():
            raise SurroundingsError(
                f"there is no campaign in {path}", hint="start one with `oreloop run CONFIG.yaml`"
            )
        return cls(path)

    @classmethod
    def from_config(cls, source: str | Path, folder: str | Path | None = None) -> Campaign:
        """The campaign of a YAML file, begun or not. Raises InputError for a bad config."""
        from campaign.tracking.registry import pinned

        loaded = configs.read(Path(source))
        place = campaign_folder(loaded, Path(folder) if folder is not None else None)
        return cls(place, pinned(loaded, place))

    @classmethod
    def create(
        cls, folder: str | Path, config: Mapping[str, Any] | CampaignConfig | str | Path
    ) -> Campaign:
        """A campaign from Python, begun or not: its config as a mapping, a model, or the path of a
        YAML file.

        Relative paths in a mapping or a model start at the working directory. Raises InputError for
        a bad config.
        """
        if isinstance(config, str | Path):
            return cls.from_config(config, folder)
        document = config if isinstance(config, Mapping) else config.model_dump(mode="json")
        from campaign.tracking.registry import pinned

        loaded = configs.validate(document, folder=Path.cwd(), source=Path("config"))
        return cls(Path(folder), pinned(loaded, Path(folder)))

    @property
    def loaded(self) -> LoadedConfig:
        """The config: as given, or as the campaign was last run with."""
        if self._loaded is None:
            kept = self._kept_config()
            loaded = configs.validate(
                kept["config"], folder=Path(kept["folder"]), source=self.folder / CONFIG_COPY
            )
            self._loaded = (
                replace(loaded, recorded=configs.Recorded.read(kept["parts"]))
                if "parts" in kept
                else loaded
            )
        return self._loaded

    def _kept_config(self) -> dict[str, Any]:
        path = self.folder / CONFIG_COPY
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
            if not {"config", "folder"} <= kept.keys():
                raise ValueError("it is not what a campaign keeps")
        except (OSError, ValueError, AttributeError) as error:
            raise SurroundingsError(
                f"the campaign's config {path} cannot be read: {error}",
                hint="name its YAML config in place of the folder; a run writes it anew",
            ) from error
        return kept

    @property
    def objective(self) -> Objective:
        """What is looked for."""
        return self.loaded.config.objective.objective

    def reader(self) -> LedgerReader:
        """A view of the ledger that never writes; to be closed."""
        return LedgerReader(self.folder, self.loaded.config.ledger.url)

    def state(self) -> CampaignState:
        """The state as it stands, also while a driver runs."""
        with closing(self.reader()) as reader:
            return reader.fold()

    @contextmanager
    def view(self) -> Iterator[OpenView]:
        """The campaign as it stands with its crystals, for the time of a block: what reports and
        stories are made of.
        """
        from campaign.views.view import OpenView

        with closing(self.reader()) as reader:
            yield OpenView(self.loaded, reader.fold(), reader)

    def crystal(self, identity: str) -> Crystal:
        """A candidate as proposed, or a relaxed crystal, by its id. Raises InputError where there
        is none.
        """
        with closing(self.reader()) as reader:
            try:
                return reader.crystal(identity)
            except LedgerDamagedError:
                state = reader.fold()
                if identity in state.candidates or any(
                    identity == label.crystal for label in state.labels.values()
                ):
                    raise
                raise InputError(
                    f"no such candidate: {identity!r}",
                    hint="Campaign.candidates lists all ids, whole",
                ) from None

    @property
    def candidates(self) -> pd.DataFrame:
        """Everyone who was proposed: by whom, the verdict, how far it came."""
        from campaign.views import tables

        return tables.candidates(self.state())

    @property
    def labels(self) -> pd.DataFrame:
        """All labels, in the order in which they came."""
        from campaign.views import tables

        return tables.labels(self.state())

    @property
    def rounds(self) -> pd.DataFrame:
        """Counts, times, the model's error and its coverage, a row for each round."""
        from campaign.views import tables

        return tables.rounds(self.state(), self.wanted)

    @property
    def wanted(self) -> Wanted:
        """What the config wants of the labels of its objective's oracle."""
        from campaign.config.roles import objective_oracle
        from campaign.decide.ranking import wanted_of

        return wanted_of(self.loaded.config, objective_oracle(self.loaded))

    @property
    def best(self) -> pd.DataFrame:
        """Labels in the order of the ranking, the best first; those that break a constraint
        last.
        """
        from campaign.views import tables

        return tables.best(self.state(), self.wanted)

    def run(
        self,
        *,
        accept_changes: bool = False,
        on_change: Callable[[CampaignState], None] | None = None,
    ) -> str:
        """Begin or go on until there is a reason to stop, and return it.

        Raises InputError for a config that may not change so, CampaignLockedError where another
        driver is at work, StoppedByFailuresError where every oracle is paused, SurroundingsError
        where disk, cluster or ledger fail.
        """
        with self._session(accept_changes) as (ledger, tracker):
            reason, is_final = self._loop(ledger, tracker, on_change)
            ledger.append([ev.SessionEnded(reason=reason, is_final=is_final)])
            return reason

    @contextmanager
    def _session(
        self, accept_changes: bool, *, patience: float = 0.0
    ) -> Iterator[tuple[Ledger, Tracker]]:
        """A session with the config as it stands: the ledger, with what is imported, and what
        tracks it.

        ``patience``: how long another driver is waited for (s).
        """
        from campaign.rounds import controlling, imports, phases
        from campaign.tracking import make_tracker

        plugins.check_installation()
        loaded = self._loaded = replace(self.loaded, recorded=None)
        parts = loaded.parts
        ledger = self._open_ledger(loaded, patience)
        tracker: Tracker | None = None
        has_begun = False
        try:
            found = imports.compare(loaded, ledger.state, accepted=accept_changes)
            competing = phases.wanted(loaded, ledger.state)
            self._begin_session(
                ledger, {name: f.key for name, f in parts.fidelities.items()}, accept_changes
            )
            has_begun = True
            imports.take_in(loaded, ledger, found)
            phases.request(loaded, ledger, competing)
            controlling.take_up(loaded, ledger)
            tracker = make_tracker(loaded, ledger)
            tracker.start()
            yield ledger, tracker
        except OreloopError as error:
            if has_begun and not isinstance(error, SurroundingsError):
                ledger.append([ev.SessionEnded(reason=error.message)])
            raise
        finally:
            try:
                if tracker is not None:
                    tracker.finish()
            finally:
                ledger.close()
                clock.rest()

    def ask(self, n: int = 1, *, accept_changes: bool = False) -> list[OpenQuestion]:
        """Decide on ``n`` candidates more, whatever else is open, and return what is wanted of
        whom; nothing where the campaign is over or paused.

        Begins the campaign where it was not. Asked of several processes at once, each waits for its
        turn and gets questions of its own; what a process that ended had asked for stays in
        ``pending``. Elements' reference crystals that the config wants come first. Raises
        InputError for a config that may not change so, CampaignLockedError where a driver is at
        work for longer than a minute.
        """
        if n < 1:
            raise InputError(f"expected a number of questions of at least 1, found {n}")
        with self._session(accept_changes, patience=_PATIENCE_SECONDS) as (ledger, tracker):
            from campaign.rounds.asking import WithoutWorkers, open_questions
            from campaign.rounds.loop import Loop

            before = set(ledger.state.pending)
            reason, is_over = Loop(
                self.loaded, ledger, WithoutWorkers(), on_change=tracker.update
            ).ask(n)
            ledger.append([ev.SessionEnded(reason=reason or "asked", is_final=is_over)])
            if reason:
                log.info("nothing more is asked: %s", reason)
            return [
                item
                for item in open_questions(self.loaded, ledger.state, ledger)
                if (item.candidate, item.oracle) not in before
            ]

    def tell(
        self,
        question: OpenQuestion | str,
        values: Mapping[str, Any],
        *,
        oracle: str | None = None,
        relaxed: Crystal | None = None,
    ) -> LabelRecord | Failure:
        """Answer an open question, named by itself or its candidate's id. The answer is in the
        ledger when this returns.

        ``values`` by quantity, in its unit or as ``name (unit)``; an Observation brings its noise.
        A value outside the oracle's sanity window becomes a failure, which is returned. Raises
        InputError for a question that is not open and for values that do not answer it.
        """
        from campaign.rounds.asking import told

        return self._answer(
            question, oracle, lambda quantities, crystal: told(quantities, values, relaxed, crystal)
        )

    def fail(
        self,
        question: OpenQuestion | str,
        kind: FailureKind | str,
        message: str,
        *,
        oracle: str | None = None,
    ) -> LabelRecord | Failure:
        """Say that an open question has no answer: models learn from it, and it is not asked
        again.
        """
        from campaign.rounds.asking import failed

        return self._answer(question, oracle, lambda quantities, crystal: failed(kind, message))

    def _answer(
        self,
        question: OpenQuestion | str,
        oracle: str | None,
        given: Callable[[Sequence[Quantity], Crystal], Evaluation],
    ) -> LabelRecord | Failure:
        from campaign.rounds.asking import pair_of, record

        named = (
            (question, oracle)
            if isinstance(question, str)
            else (question.candidate, question.oracle)
        )
        with closing(self._open_ledger(self.loaded, _PATIENCE_SECONDS)) as ledger:
            pair = pair_of(ledger.state, *named)
            answer = given(self.loaded.measured[pair[1]], ledger.crystal(pair[0]))
            return record(self.loaded, ledger, [(pair, answer)])[0]

    def tell_table(self, path: str | Path) -> list[LabelRecord | Failure]:
        """Answers from a CSV: id, oracle where there are several, a column for each quantity
        (``name (unit)``), failure (a reason).

        Rows without values are no answers yet. Raises InputError with all that is wrong; then none
        is taken in.
        """
        from campaign.rounds.asking import read_answers, record

        with closing(self._open_ledger(self.loaded, _PATIENCE_SECONDS)) as ledger:
            return record(
                self.loaded, ledger, read_answers(self.loaded, ledger.state, ledger, Path(path))
            )

    def suggest(self, n: int = 1) -> list[OpenQuestion]:
        """What ``ask`` would give now; nothing is recorded, and the next ``ask`` decides anew, of
        the same.
        """
        from campaign.rounds.asking import suggested

        return suggested(self, n)

    @property
    def pending(self) -> list[OpenQuestion]:
        """All questions that are open, the oldest first."""
        from campaign.rounds.asking import open_questions

        with closing(self.reader()) as reader:
            return open_questions(self.loaded, reader.fold(), reader)

    def predict(self, structures: Sequence[Crystal | Structure | Atoms]) -> pd.DataFrame:
        """What the model of all labels expects of crystals: formula, mean and standard deviation of
        each modelled quantity.

        Raises InputError where there are too few labels for a model.
        """
        from campaign.decide.predicting import predict

        with closing(self.reader()) as reader:
            return predict(self.loaded, reader, structures)

    def explain(self, candidate: str) -> list[tuple[str, str]]:
        """The whole story of one candidate, by its id or first digits, as (heading, line)."""
        from campaign.views.explain import resolve, story

        with self.view() as view:
            return list(story(view, resolve(view.state, candidate)))

    @property
    def plot(self) -> Plots:
        """Figures of the campaign as it stands, such as ``campaign.plot.best_so_far()``."""
        from campaign.report.plots import Plots

        return Plots(self)

    @property
    def control(self) -> Control:
        """Changes of its course, while it runs and while it does not, such as
        ``campaign.control.pause()``.
        """
        from campaign.rounds.controlling import Control

        return Control(self, lambda: self._open_ledger(self.loaded))

    def retry(self, candidates: Sequence[str] = (), kind: str | None = None) -> list[ev.RetriedRow]:
        """Give another chance to what was given up: all of it, the candidates named, or what failed
        in one way; at the next run.

        Raises InputError for a candidate that was not given up or a kind of failure that there is
        not, CampaignLockedError where a driver is at work.
        """
        if kind is not None and kind not in {known.value for known in FailureKind}:
            raise InputError(
                f"there is no kind of failure {kind!r}", hint=f"kinds are {', '.join(FailureKind)}"
            )
        with closing(self._open_ledger(self.loaded)) as ledger:
            failed = ledger.state.quarantined
            wanted = {_given_up(failed, identity) for identity in candidates}
            chosen = {
                choice: r.index
                for r in ledger.state.rounds
                if r.decided
                for choice in ((c.candidate, c.oracle) for c in r.decided.choices)
            }
            rows = [
                ev.RetriedRow(*pair, chosen.get(pair, -1))
                for pair, event in failed.items()
                if (not wanted or pair[0] in wanted)
                and kind in (None, event.kind)
                and not ledger.state.is_barred(pair[0])
            ]
            if rows:
                ledger.append([ev.Retried(reason="asked for", rows=tuple(rows))])
            return rows

    def _open_ledger(self, loaded: LoadedConfig, patience: float = 0.0) -> Ledger:
        """The ledger to write to, for who closes it. ``patience``: how long another driver is
        waited for (s).
        """
        is_new = not (self.folder / DATABASE).exists() and not (
            self.folder.is_dir() and remains(self.folder)
        )
        if is_new and self.folder.exists() and not (self.folder / CONFIG_COPY).exists():
            known = {LOCK, JOURNAL}
            if not self.folder.is_dir() or any(
                item.name not in known for item in self.folder.iterdir()
            ):
                raise InputError(
                    f"{self.folder} is not empty and holds no campaign",
                    hint="name another folder with --folder",
                )
        until = time.monotonic() + patience
        while True:
            try:
                return Ledger(self.folder, loaded.config.ledger.url)
            except CampaignLockedError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_LOOK_SECONDS)

    def _begin_session(
        self, ledger: Ledger, fidelities: dict[str, str], accept_changes: bool
    ) -> None:
        loaded, state = self.loaded, ledger.state
        if state.created is not None and state.created.name != loaded.config.name:
            raise InputError(
                f"the ledger holds campaign {state.created.name!r}, the config is of another "
                f"one, {loaded.config.name!r}",
                hint="give each campaign a folder of its own with --folder, and a database of "
                "its own where ledger.url names one",
            )
        resolved = without_passwords(loaded.resolved())
        events: list[ev.Event] = []
        code = loaded.code
        revised = ev.ConfigRevised(
            revision=len(state.revisions),
            sha256=content_hash(resolved),
            config=resolved,
            fidelities=fidelities,
            code=code,
        )
        if state.created is None or state.config is None:
            events += [
                ev.CampaignCreated(
                    campaign=uuid.uuid4().hex, name=loaded.config.name, seed=loaded.config.seed
                ),
                revised,
            ]
        elif (
            state.config.sha256 != revised.sha256
            or state.config.fidelities != fidelities
            or state.config.code != code
        ):
            before = _with_defaults(state.config.config)
            found = configs.changes(before, resolved, state.config.fidelities, fidelities)
            found += configs.code_changes(state.config.code, code)
            configs.check_changes(found, accepted=accept_changes)
            if found or state.config.code != code:
                log.info(
                    "config changed: %s",
                    ", ".join(change.key for change in found) or "code is recorded",
                )
                accepted = tuple(change.key for change in found)
                events.append(ev.ConfigRevised(**{**_fields(revised), "accepted": accepted}))
        here = installed() | loaded.parts.versions_elsewhere
        events.append(
            ev.SessionStarted(host=socket.gethostname(), process=os.getpid(), versions=here)
        )
        parts = without_passwords(configs.Recorded.of(loaded.parts).document())
        copy = json.dumps(
            {"config": resolved, "folder": str(loaded.folder), "parts": parts}, indent=2
        )
        write_whole(self.folder / CONFIG_COPY, copy.encode())
        ledger.append(events)

    def _loop(
        self, ledger: Ledger, tracker: Tracker, on_change: Callable[[CampaignState], None] | None
    ) -> tuple[str, bool]:
        from campaign.executors import make_executor, with_pilots, with_queues
        from campaign.rounds.loop import Loop

        loaded = self.loaded
        stop = StopRequests(self.folder)

        def should_stop() -> str:
            ledger.check()
            return stop.reason()

        executor = make_executor(
            loaded.config.executor, module_folder=loaded.folder if loaded.has_user_modules else None
        )
        executor = with_pilots(executor, loaded.config.oracles, loaded.config.executor, self.folder)
        executor = with_queues(executor, loaded.config.executor, loaded.config.queues, self.folder)

        def changed() -> None:
            tracker.update()
            if on_change is not None:
                on_change(ledger.state)

        with stop.listening():
            try:
                loop = Loop(loaded, ledger, executor, on_change=changed, should_stop=should_stop)
                if not loop.is_over():
                    executor.start([loaded.oracle_spec(oracle) for oracle in loaded.config.oracles])
                    loop.warm_up()
                return loop.run()
            finally:
                executor.shutdown()


def _given_up(failed: Mapping[tuple[str, str], ev.Failed], identity: str) -> str:
    """The one candidate among those given up whose id begins so."""
    found = sorted({candidate for candidate, _ in failed if candidate.startswith(identity)})
    if len(found) != 1:
        what = (
            "no candidate that was given up has"
            if not found
            else f"{len(found)} candidates that were given up have"
        )
        raise InputError(
            f"{what} an id that begins with {identity!r}",
            hint="`oreloop status` counts what was given up, the report names it",
        )
    return found[0]


def _with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """An older resolved config read by today's schema, so that settings that are new since then do
    not count as changes.
    """
    from campaign.config.schema import CampaignConfig

    with as_recorded():
        return CampaignConfig.model_validate(document).model_dump(mode="json")


def _fields(event: ev.Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
