"""Campaigns from Python: open a folder, run it, look at it as tables."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from campaign import config as configs
from campaign import imports, plugins, versions
from campaign.artifacts import write_whole
from campaign.config import LoadedConfig
from campaign.errors import InputError, LedgerDamagedError, OreloopError, SurroundingsError
from campaign.ledger import CampaignState, Ledger, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.engines import CONFIG_COPY, DATABASE, JOURNAL, remains
from campaign.ledger.lock import LOCK, STOP_REQUEST
from campaign.seeds import content_hash
from campaign.types import Crystal, FailureKind, Objective

if TYPE_CHECKING:
    import pandas as pd

    from campaign.ledger.leaders import Wanted
    from campaign.protocols import Tracker

__all__ = ["CONFIG_COPY", "STOP_REQUEST", "Campaign", "StopRequests", "campaign_folder"]

log = logging.getLogger(__name__)


def campaign_folder(loaded: LoadedConfig, folder: Path | None = None) -> Path:
    """Where a config's campaign lives: the given folder, or ``campaigns/<name>`` below the working directory."""
    return folder if folder is not None else Path("campaigns") / loaded.config.name


class StopRequests:
    """Reasons to stop in good order: SIGINT, SIGTERM, SIGHUP (a closed terminal), or the file that ``oreloop stop`` leaves.

    A second signal stops at once; not a second SIGHUP, as a terminal that closes sends several.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / STOP_REQUEST
        self._signal = ""

    def reason(self) -> str:
        return self._signal or ("stop was asked for" if self._file.exists() else "")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals for the time of a block; in other threads than the main one there are none to catch.

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
    """A campaign on disk. ``best``, ``candidates``, ``labels`` and ``rounds`` are tables of the ledger as it stands."""

    def __init__(self, folder: Path, loaded: LoadedConfig | None = None) -> None:
        self.folder, self._loaded = folder, loaded

    @classmethod
    def open(cls, folder: str | Path) -> Campaign:
        """A campaign that exists. Raises SurroundingsError where there is none."""
        path = Path(folder)
        if not (path / CONFIG_COPY).exists():
            raise SurroundingsError(f"there is no campaign in {path}", hint="start one with `oreloop run CONFIG.yaml`")
        return cls(path)

    @classmethod
    def from_config(cls, source: str | Path, folder: str | Path | None = None) -> Campaign:
        """The campaign of a YAML file, begun or not. Raises InputError for a bad config."""
        loaded = configs.read(Path(source))
        return cls(campaign_folder(loaded, Path(folder) if folder is not None else None), loaded)

    @property
    def loaded(self) -> LoadedConfig:
        """The config: as given, or as the campaign was last run with."""
        if self._loaded is None:
            kept = self._kept_config()
            loaded = configs.validate(kept["config"], folder=Path(kept["folder"]), source=self.folder / CONFIG_COPY)
            self._loaded = replace(loaded, recorded=configs.Recorded.read(kept["parts"])) if "parts" in kept else loaded
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
        return self.loaded.config.objective.objective

    def reader(self) -> LedgerReader:
        return LedgerReader(self.folder, self.loaded.config.ledger.url)

    def state(self) -> CampaignState:
        """The state as it stands, also while a driver runs."""
        reader = self.reader()
        try:
            return reader.fold()
        finally:
            reader.close()

    def crystal(self, identity: str) -> Crystal:
        """A candidate as proposed, or a relaxed crystal, by its id. Raises InputError where there is none."""
        reader = self.reader()
        try:
            return reader.crystal(identity)
        except LedgerDamagedError:
            state = reader.fold()
            if identity in state.candidates or any(identity == label.crystal for label in state.labels.values()):
                raise
            raise InputError(f"no such candidate: {identity!r}", hint="Campaign.candidates lists all ids, whole") from None
        finally:
            reader.close()

    @property
    def candidates(self) -> pd.DataFrame:
        from campaign import tables

        return tables.candidates(self.state())

    @property
    def labels(self) -> pd.DataFrame:
        from campaign import tables

        return tables.labels(self.state())

    @property
    def rounds(self) -> pd.DataFrame:
        from campaign import tables

        return tables.rounds(self.state(), self.wanted)

    @property
    def wanted(self) -> Wanted:
        """What the config wants of the labels of its objective's oracle."""
        from campaign.ranking import wanted_of
        from campaign.roles import objective_oracle

        return wanted_of(self.loaded.config, objective_oracle(self.loaded))

    @property
    def best(self) -> pd.DataFrame:
        """Labels in the order of the ranking, the best first; those that break a constraint last."""
        from campaign import tables

        return tables.best(self.state(), self.wanted)

    def run(self, *, accept_changes: bool = False, on_change: Callable[[CampaignState], None] | None = None) -> str:
        """Begin or go on until there is a reason to stop, and return it.

        Raises InputError for a config that may not change so, CampaignLockedError where another driver is at work,
        StoppedByFailuresError where every oracle is paused, SurroundingsError where disk, cluster or ledger fail.
        """
        plugins.check_installation()
        loaded = self._loaded = replace(self.loaded, recorded=None)
        parts = loaded.parts
        ledger = self._open_ledger(loaded)
        tracker: Tracker | None = None
        has_begun = False
        try:
            found = imports.compare(loaded, ledger.state, accepted=accept_changes)
            self._begin_session(ledger, {name: f.key for name, f in parts.fidelities.items()}, accept_changes)
            has_begun = True
            imports.take_in(loaded, ledger, found)
            from campaign.roles import objective_oracle
            from campaign.tracking import make_tracker

            tracker = make_tracker(loaded.config, ledger, objective_oracle(loaded))
            tracker.start()
            reason, is_final = self._loop(ledger, tracker, on_change)
            ledger.append([ev.SessionEnded(reason=reason, is_final=is_final)])
            return reason
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

    def retry(self, candidates: Sequence[str] = (), kind: str | None = None) -> list[ev.RetriedRow]:
        """Give another chance to what was given up: all of it, the candidates named, or what failed in one way; at the next run.

        Raises InputError for a candidate that was not given up or a kind of failure that there is not, CampaignLockedError where a
        driver is at work.
        """
        if kind is not None and kind not in {known.value for known in FailureKind}:
            raise InputError(f"there is no kind of failure {kind!r}", hint=f"kinds are {', '.join(FailureKind)}")
        with closing(self._open_ledger(self.loaded)) as ledger:
            failed = ledger.state.quarantined
            wanted = {_given_up(failed, identity) for identity in candidates}
            chosen = {
                choice: r.index for r in ledger.state.rounds if r.decided for choice in ((c.candidate, c.oracle) for c in r.decided.choices)
            }
            rows = [
                ev.RetriedRow(*pair, chosen.get(pair, -1))
                for pair, event in failed.items()
                if (not wanted or pair[0] in wanted) and kind in (None, event.kind)
            ]
            if rows:
                ledger.append([ev.Retried(reason="asked for", rows=tuple(rows))])
            return rows

    def _open_ledger(self, loaded: LoadedConfig) -> Ledger:
        is_new = not (self.folder / DATABASE).exists() and not (self.folder.is_dir() and remains(self.folder))
        if is_new and self.folder.exists() and not (self.folder / CONFIG_COPY).exists():
            known = {LOCK, JOURNAL}
            if not self.folder.is_dir() or any(item.name not in known for item in self.folder.iterdir()):
                raise InputError(f"{self.folder} is not empty and holds no campaign", hint="name another folder with --folder")
        return Ledger(self.folder, loaded.config.ledger.url)

    def _begin_session(self, ledger: Ledger, fidelities: dict[str, str], accept_changes: bool) -> None:
        loaded, state = self.loaded, ledger.state
        if state.created is not None and state.created.name != loaded.config.name:
            raise InputError(
                f"the ledger holds campaign {state.created.name!r}, the config is of another one, {loaded.config.name!r}",
                hint="give each campaign a folder of its own with --folder, and a database of its own where ledger.url names one",
            )
        resolved = loaded.resolved()
        events: list[ev.Event] = []
        code = loaded.code
        revised = ev.ConfigRevised(
            revision=len(state.revisions), sha256=content_hash(resolved), config=resolved, fidelities=fidelities, code=code
        )
        if state.created is None or state.config is None:
            events += [ev.CampaignCreated(campaign=uuid.uuid4().hex, name=loaded.config.name, seed=loaded.config.seed), revised]
        elif state.config.sha256 != revised.sha256 or state.config.fidelities != fidelities or state.config.code != code:
            before = _with_defaults(state.config.config)
            found = configs.changes(before, resolved, state.config.fidelities, fidelities)
            found += configs.code_changes(state.config.code, code)
            configs.check_changes(found, accepted=accept_changes)
            if found or state.config.code != code:
                log.info("config changed: %s", ", ".join(change.key for change in found) or "code is recorded")
                accepted = tuple(change.key for change in found)
                events.append(ev.ConfigRevised(**{**_fields(revised), "accepted": accepted}))
        here = versions.installed() | loaded.parts.versions_elsewhere
        events.append(ev.SessionStarted(host=socket.gethostname(), process=os.getpid(), versions=here))
        parts = configs.Recorded.of(loaded.parts).document()
        copy = json.dumps({"config": resolved, "folder": str(loaded.folder), "parts": parts}, indent=2)
        write_whole(self.folder / CONFIG_COPY, copy.encode())
        ledger.append(events)

    def _loop(self, ledger: Ledger, tracker: Tracker, on_change: Callable[[CampaignState], None] | None) -> tuple[str, bool]:
        from campaign.executors import make_executor
        from campaign.loop import Loop

        loaded = self.loaded
        stop = StopRequests(self.folder)

        def should_stop() -> str:
            ledger.check()
            return stop.reason()

        executor = make_executor(loaded.config.executor, module_folder=loaded.folder if loaded.has_user_modules else None)

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
        what = "no candidate that was given up has" if not found else f"{len(found)} candidates that were given up have"
        raise InputError(
            f"{what} an id that begins with {identity!r}", hint="`oreloop status` counts what was given up, the report names it"
        )
    return found[0]


def _with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """An older resolved config read by today's schema, so that settings that are new since then do not count as changes."""
    from campaign.schema import CampaignConfig

    return CampaignConfig.model_validate(document).model_dump(mode="json")


def _fields(event: ev.Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
