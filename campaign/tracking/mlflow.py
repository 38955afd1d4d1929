"""MLflow as a view of the ledger: one run per campaign, the round as the step, written by a thread
of its own.

The run's id is in the ledger before anything is logged to it. Metrics carry the time of the round's
last event, so writing one twice is harmless. Where the server is away there is one warning; the
campaign goes on and what is missing follows when it is back, or with the next ``oreloop run``. What
a server that is well refuses is told, and holds nothing else back.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from campaign.code import installed
from campaign.decide import ladder
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.reading.passwords import without_password
from campaign.tracking import about, border, drawings, places, trainings
from campaign.tracking.drawings import Drawing
from campaign.tracking.trainings import TrainingLog
from campaign.views import metrics
from campaign.views.view import OpenView

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    from campaign.tracking.drawings import Send

log = logging.getLogger(__name__)

_RETRY_SECONDS = 10.0
_FINISH_SECONDS, _FINISH_AWAY_SECONDS = 60.0, 10.0
_ROUNDS_A_DRAWING = 10
"""Figures and tables are drawn anew when there are a tenth more rounds: all drawings together cost
a label the same, however many.
"""
_LOGGED = "oreloop.rounds_logged"


@dataclass(frozen=True)
class _RoundLog:
    round: int
    time: float
    figures: dict[str, float]
    trainings: tuple[TrainingLog, ...]


class MlflowTracker:
    def __init__(self, view: OpenView, ledger: Ledger) -> None:
        """The view's state and reader are the ledger's."""
        self._view, self._ledger, self._config = view, ledger, view.config
        self.uri = places.tracking_uri(view.config.tracking.uri, ledger.folder)
        self._artifacts = ArtifactStore(ledger.folder).folder
        self._seen_rounds: set[int] = set()
        self._from = 0
        """The first round that may not be handed over yet."""
        self._drawn = 0
        self._rounds: deque[_RoundLog] = deque()
        self._drawing: Drawing | None = None
        self._owed: dict[str, Send] = {}
        """What is to be sent beside figures, by name, in order: the latest of each."""
        self._refused: dict[str, Send] = {}
        """What the server refused while it was well; tried once more at the end."""
        self._told: set[str] = set()
        """Names of figures that the server refuses, as was told."""
        self._logged: set[int] = set()
        self._logged_to = -1
        """All rounds up to this one are in MLflow."""
        self._wake, self._closing, self._is_over = threading.Event(), False, False
        self._run = ledger.state.tracking.run if ledger.state.tracking is not None else None
        self._created: str | None = None
        self._has_warned = self._is_away = False
        self._has_opened = False
        self._trainings: set[str] | None = None
        """Names of those in MLflow; None where it has to be asked."""
        self._monitor: SystemMetricsMonitor | None = None
        self._status = "FINISHED"
        self._settings = self._settings_now()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    # --- on the driver's thread
    # ------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self.update()

    def update(self) -> None:
        """Hand over the rounds that ended since the last time. Costs about 0.1 ms a label of a
        round.
        """
        self._record_run()
        state, wanted, oracle = self._ledger.state, self._view.wanted, self._view.oracle
        while self._from < len(state.rounds) and self._from in self._seen_rounds:
            self._from += 1
        ended = [
            record
            for record in state.rounds[self._from :]
            if record.ended is not None and record.index not in self._seen_rounds
        ]
        so_far = metrics.SoFar(state, wanted) if len(ended) > 1 else None
        for record in ended:
            self._seen_rounds.add(record.index)
            figures = metrics.round_figures(state, record, wanted, so_far)
            figures |= ladder.figures(state, self._config)
            workers = next(item.at_once for item in self._config.oracles if item.label == oracle)
            figures["busy_fraction"] = metrics.busy_fraction(
                state, oracle, workers, start=record.started, end=record.ended or 0.0
            )
            self._rounds.append(
                _RoundLog(
                    record.index,
                    record.ended or 0.0,
                    about.grouped(figures),
                    trainings.of_round(record, self._artifacts),
                )
            )
            if record.index - self._drawn >= max(
                self._config.tracking.figure_rounds, record.index // _ROUNDS_A_DRAWING
            ):
                self._drawn, self._drawing = record.index, self._draw()
        if ended:
            self._wake.set()

    def finish(self) -> None:
        """Write the rest, for at most a minute, 10 s where the server is away; the campaign's end
        does not depend on it.
        """
        self.update()
        ended = self._ledger.state.session_ended
        self._status = "FINISHED" if ended is not None and ended.is_final else "KILLED"
        if self._ledger.state.labels:
            self._drawing = self._draw()
        self._closing = True
        began = time.monotonic()
        while self._thread.is_alive() and time.monotonic() - began < (
            _FINISH_AWAY_SECONDS if self._is_away else _FINISH_SECONDS
        ):
            self.update()
            self._wake.set()
            self._thread.join(0.05)
        self._is_over = True
        if self._thread.is_alive() or self._is_away:
            log.warning(
                "MLflow at %s does not hold all of the campaign yet: oreloop run sends what is "
                "missing once it answers",
                without_password(self.uri),
            )

    def _record_run(self) -> None:
        if self._created is not None:
            self._ledger.append(
                [ev.TrackingStarted(run=self._created, uri=without_password(self.uri))]
            )
            self._run, self._created = self._created, None
            self._wake.set()

    def _draw(self) -> Drawing:
        return drawings.gathered(self._view)

    def _settings_now(self) -> dict[str, Any]:
        state = self._ledger.state
        return {
            "created": state.created_time,
            "campaign": state.created.campaign if state.created else "",
            "revisions": [
                (revision.revision, json.dumps(revision.config, indent=2))
                for _, _, revision in state.revisions
            ],
            "versions": installed(),
        }

    # --- on the tracker's thread
    # ------------------------------------------------------------

    def _work(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        while True:
            closing = self._closing
            is_behind = self._flushed_or_told(closing)
            if (closing and (self._is_away or not is_behind)) or self._is_over:
                return
            self._wake.wait(_RETRY_SECONDS if is_behind else None)
            self._wake.clear()

    def _flushed_or_told(self, closing: bool) -> bool:
        """Write what is waiting; whether something still is."""
        try:
            client = places.client_of(self.uri)
        except Exception as error:
            self._warn(error)
            self._is_away = True
            return True
        try:
            is_behind = not self._flush(client, closing)
        except Exception as error:
            if not (self._has_opened and self._was_deleted(client)):
                self._warn(error)
                self._is_away = True
            return True
        self._is_away = False
        return is_behind

    def _was_deleted(self, client: MlflowClient) -> bool:
        """False where the server does not say."""
        try:
            return self._run is not None and self._begins_anew(client, self._run)
        except Exception:
            return False

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            log.warning(
                "MLflow at %s cannot be reached (%s); the campaign goes on, what is missing is "
                "written when it is back",
                without_password(self.uri),
                _told(error),
            )
            self._has_warned = True

    def _flush(self, client: MlflowClient, closing: bool) -> bool:
        """Write all that is waiting; False where the run's id still has to reach the ledger."""
        if self._run is None:
            if self._created is None:
                self._created = self._create(client)
            return False
        if not self._has_opened:
            if self._begins_anew(client, self._run):
                return False
            self._open(client, self._run)
        self._log_rounds(client, self._run)
        drawing, self._drawing = self._drawing, None
        if drawing is not None:
            self._owed |= drawings.sendings(drawing)
        if closing:
            self._owed, self._refused = self._refused | self._owed, {}
        self._send_owed(client, self._run)
        if closing:
            if self._monitor is not None:
                self._monitor.finish()
            client.set_terminated(self._run, status=self._status)
        return True

    def _send_owed(self, client: MlflowClient, run: str) -> None:
        while self._owed:
            name, send = next(iter(self._owed.items()))
            try:
                send(client, run)
                self._is_away = False
            except Exception as error:
                if not border.takes(client, run):
                    raise
                log.warning(
                    "MLflow does not take %s, which waits for the next oreloop run: %s",
                    name,
                    _told(error),
                )
                self._refused[name] = send
            del self._owed[name]

    def _begins_anew(self, client: MlflowClient, run: str) -> bool:
        """Whether the run was deleted, so that a new one has to begin, with all rounds in it."""
        if not _is_deleted(client, run):
            return False
        log.warning(
            "the MLflow run %s was deleted; a new one begins, with all that the ledger holds", run
        )
        self._run, self._has_opened = None, False
        self._rounds.clear()
        self._owed.clear()
        self._refused.clear()
        self._logged, self._logged_to = set(), -1
        self._seen_rounds, self._from = set(), 0
        return True

    def _create(self, client: MlflowClient) -> str:
        name, n = self._config.tracking.experiment, 1
        while (
            experiment := client.get_experiment_by_name(name)
        ) is not None and experiment.lifecycle_stage == "deleted":
            n += 1
            name = f"{self._config.tracking.experiment}-{n}"
        if n > 1:
            deleted = self._config.tracking.experiment
            log.warning(
                "the MLflow experiment %s was deleted; the run goes to %s (mlflow experiments "
                "restore brings it back)",
                deleted,
                name,
            )
        if experiment is not None:
            identity = experiment.experiment_id
        else:
            identity = client.create_experiment(
                name, places.artifact_location(self.uri, self._ledger.folder)
            )
        if experiment is None or about.KIND not in experiment.tags:
            client.set_experiment_tag(identity, about.KIND, about.MODEL_TRAINING)
        tags = {"oreloop.campaign": self._settings["campaign"]}
        return border.begin(
            client, identity, self._config.name, tags, int(1000 * self._settings["created"])
        )

    def _open(self, client: MlflowClient, run: str) -> None:
        """Go on in the run: config revisions as artifacts, settings that may change as tags."""
        if self._monitor is not None:
            self._monitor.finish()
        client.update_run(run, status="RUNNING")
        known = client.get_run(run).data
        self._logged_to = int(known.tags.get(_LOGGED, "-1"))
        self._owe_documents()
        while self._rounds and self._rounds[0].round <= self._logged_to:
            self._owe_trainings(self._rounds.popleft())
        objective = self._view.objective
        tags = {
            "objective": f"{objective.direction} {objective.quantity}",
            "mode": self._config.mode,
            "seed": str(self._config.seed),
        }
        tags |= {
            "acquisition": self._config.acquisition.use,
            "oracles": ", ".join(o.label for o in self._config.oracles),
        }
        tags |= {"generators": ", ".join(g.label for g in self._config.generators)}
        tags[about.NOTE] = about.description(self._view)
        tags |= self._log_params(client, run, known.params)
        for key, value in border.tags_of(tags).items():
            client.set_tag(run, key, value)
        if self._config.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run, resume_logging=True, tracking_uri=self.uri)
            self._monitor.start()
        self._has_opened = True

    def _log_params(
        self, client: MlflowClient, run: str, known: Mapping[str, str]
    ) -> dict[str, str]:
        """The settings that the run does not have yet; those that were changed since are returned,
        as parameters keep their values.
        """
        settings = about.flat(
            self._config.model_dump(mode="json", exclude={"ledger": True, "tracking": {"uri"}})
        )
        border.log_values(
            client,
            run,
            {},
            time=0,
            step=0,
            params={k: v for k, v in settings.items() if border.name_of(k) not in known},
        )
        changed = {
            k: v
            for k, v in settings.items()
            if known.get(border.name_of(k), border.param_of(v)) != border.param_of(v)
        }
        return {f"changed/{key}": value for key, value in changed.items()}

    def _owe_documents(self) -> None:
        documents = {
            f"config/revision-{revision}.json": text
            for revision, text in self._settings["revisions"]
        }
        documents["versions.json"] = json.dumps(self._settings["versions"], indent=2)
        for name, text in documents.items():
            self._owed[name] = partial(_log_text, text, name)

    def _owe_trainings(self, item: _RoundLog) -> None:
        for training in item.trainings:
            self._owed[training.name] = partial(self._log_training, training)

    def _log_training(self, item: TrainingLog, client: MlflowClient, run: str) -> None:
        if self._trainings is None:
            self._trainings = trainings.known(client, run)
        if item.name in self._trainings:
            return
        known, self._trainings = self._trainings, None
        trainings.log(client, run, item, self._settings["versions"], self._config.tracking.weights)
        self._trainings = known | {item.name}

    def _log_rounds(self, client: MlflowClient, run: str) -> None:
        while self._rounds:
            item = self._rounds[0]
            stamp = int(1000 * item.time)
            border.log_values(
                client, run, item.figures, time=stamp, step=item.round, refused=self._told
            )
            self._logged.add(item.round)
            while self._logged_to + 1 in self._logged:
                self._logged_to += 1
                self._logged.discard(self._logged_to)
            client.set_tag(run, _LOGGED, str(self._logged_to))
            self._is_away = False
            self._owe_trainings(item)
            self._rounds.popleft()


def _log_text(text: str, name: str, client: MlflowClient, run: str) -> None:
    client.log_text(run, text, name)


def _told(error: Exception) -> str:
    return without_password((str(error).splitlines() or [type(error).__name__])[0])


def _is_deleted(client: MlflowClient, run: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "deleted")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise
