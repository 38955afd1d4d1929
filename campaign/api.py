"""Campaigns from Python: open a folder, run it, look at it as tables."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from campaign import config as configs
from campaign import plugins, sources, versions
from campaign.artifacts import write_whole
from campaign.config import LoadedConfig
from campaign.errors import InputError, LedgerDamagedError, OreloopError, SurroundingsError
from campaign.ledger import CampaignState, Ledger, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.store import DATABASE
from campaign.seeds import content_hash
from campaign.types import Crystal, Objective

if TYPE_CHECKING:
    import pandas as pd

    from campaign.ledger.leaders import Wanted
    from campaign.protocols import Tracker

log = logging.getLogger(__name__)

CONFIG_COPY, STOP_REQUEST = "config.json", "stop-requested"


def campaign_folder(loaded: LoadedConfig, folder: Path | None = None) -> Path:
    """Where a config's campaign lives: the given folder, or ``campaigns/<name>`` below the working directory."""
    return folder if folder is not None else Path("campaigns") / loaded.config.name


class StopRequests:
    """Reasons to stop in good order: SIGINT, SIGTERM, or the file that ``oreloop stop`` leaves. A second signal stops at once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / STOP_REQUEST
        self._signal = ""

    def reason(self) -> str:
        return self._signal or ("stop was asked for" if self._file.exists() else "")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals for the time of a block; in other threads than the main one there are none to catch."""
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _: FrameType | None) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = f"interrupted by {signal.Signals(number).name}"
            log.warning("%s: waiting for the work under way; once more stops at once", self._signal)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._file.unlink(missing_ok=True)


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
            kept = json.loads((self.folder / CONFIG_COPY).read_text())
            self._loaded = configs.validate(kept["config"], folder=Path(kept["folder"]), source=self.folder / CONFIG_COPY)
        return self._loaded

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
        loaded = self.loaded
        parts = loaded.parts
        ledger = self._open_ledger(loaded)
        tracker: Tracker | None = None
        try:
            self._begin_session(ledger, {name: f.key for name, f in parts.fidelities.items()}, accept_changes)
            self._import(ledger)
            from campaign.roles import objective_oracle
            from campaign.tracking import make_tracker

            tracker = make_tracker(loaded.config, ledger, objective_oracle(loaded))
            tracker.start()
            reason, is_final = self._loop(ledger, tracker, on_change)
            ledger.append([ev.SessionEnded(reason=reason, is_final=is_final)])
            return reason
        except OreloopError as error:
            if not isinstance(error, SurroundingsError):
                ledger.append([ev.SessionEnded(reason=error.message)])
            raise
        finally:
            try:
                if tracker is not None:
                    tracker.finish()
            finally:
                ledger.close()

    def _open_ledger(self, loaded: LoadedConfig) -> Ledger:
        is_new = not (self.folder / DATABASE).exists()
        if is_new and self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / CONFIG_COPY).exists():
            known = {"driver.lock", "journal.jsonl"}
            if any(item.name not in known for item in self.folder.iterdir()):
                raise InputError(f"{self.folder} is not empty and holds no campaign", hint="name another folder with --folder")
        return Ledger(self.folder, loaded.config.ledger.url)

    def _begin_session(self, ledger: Ledger, fidelities: dict[str, str], accept_changes: bool) -> None:
        loaded, state = self.loaded, ledger.state
        resolved = loaded.resolved()
        events: list[ev.Event] = []
        revised = ev.ConfigRevised(revision=len(state.revisions), sha256=content_hash(resolved), config=resolved, fidelities=fidelities)
        if state.created is None or state.config is None:
            events += [ev.CampaignCreated(campaign=uuid.uuid4().hex, name=loaded.config.name, seed=loaded.config.seed), revised]
        elif state.config.sha256 != revised.sha256 or state.config.fidelities != fidelities:
            before = _with_defaults(state.config.config)
            found = configs.changes(before, resolved, state.config.fidelities, fidelities)
            configs.check_changes(found, accepted=accept_changes)
            if found:
                log.info("config changed: %s", ", ".join(change.key for change in found))
                accepted = tuple(change.key for change in found)
                events.append(ev.ConfigRevised(**{**_fields(revised), "accepted": accepted}))
        events.append(ev.SessionStarted(host=socket.gethostname(), process=os.getpid(), versions=versions.installed()))
        copy = json.dumps({"config": resolved, "folder": str(loaded.folder)}, indent=2)
        write_whole(self.folder / CONFIG_COPY, copy.encode())
        ledger.append(events)

    def _import(self, ledger: Ledger) -> None:
        loaded, quantities = self.loaded, self.loaded.parts.quantities()
        for purpose, found in (("initial_data", loaded.config.initial_data), ("candidate_pools", loaded.config.candidate_pools)):
            for source in found:
                fidelity = loaded.parts.fidelities[source.oracle].key if source.oracle else ""
                event, blobs = sources.imported(source, folder=loaded.folder, purpose=purpose, quantities=quantities, fidelity=fidelity)
                ledger.append([event], blobs)

    def _loop(self, ledger: Ledger, tracker: Tracker, on_change: Callable[[CampaignState], None] | None) -> tuple[str, bool]:
        from campaign.executors import make_executor
        from campaign.loop import Loop

        loaded = self.loaded
        stop = StopRequests(self.folder)
        executor = make_executor(loaded.config.executor, module_folder=loaded.folder if loaded.has_user_modules else None)

        def changed() -> None:
            tracker.update()
            if on_change is not None:
                on_change(ledger.state)

        with stop.listening():
            try:
                loop = Loop(loaded, ledger, executor, on_change=changed, should_stop=stop.reason)
                if not loop.is_over():
                    executor.start([loaded.oracle_spec(oracle) for oracle in loaded.config.oracles])
                    loop.warm_up()
                return loop.run()
            finally:
                executor.shutdown()


def _with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """An older resolved config read by today's schema, so that settings that are new since then do not count as changes."""
    from campaign.schema import CampaignConfig

    return CampaignConfig.model_validate(document).model_dump(mode="json")


def _fields(event: ev.Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
