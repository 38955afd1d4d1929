"""MLflow as a view of the ledger: one run per campaign, the round as the step, written by a thread of its own.

The run's id is in the ledger before anything is logged to it. Metrics carry the time of the round's last event, so writing one twice is
harmless. Where the server is away there is one warning; the campaign goes on and what is missing follows when it is back, or
with the next ``oreloop run``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from campaign import calibration, ladder, metrics, ranking, tables, versions
from campaign.artifacts import ArtifactStore
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.passwords import without_password
from campaign.schema import CampaignConfig
from campaign.tracking import about, border, trainings
from campaign.tracking.trainings import TrainingLog
from campaign.types import Crystal

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)

_RETRY_SECONDS = 10.0
_FINISH_SECONDS, _FINISH_AWAY_SECONDS = 60.0, 10.0
_BEST, _ROWS_OF_BEST = 5, 100
_LOGGED = "oreloop.rounds_logged"


def default_uri(folder: Path) -> str:
    """Of a SQLite file in a folder of any name: as a SQLite URI where the path has what a URL would take for its query or a code.

    Quoted twice, as SQLAlchemy takes one layer off and SQLite the other.
    """
    path = str((folder / "mlflow.db").resolve())
    return f"sqlite:///file:{quote(quote(path))}?uri=true" if set(path) & set("?#%") else f"sqlite:///{path}"


@dataclass(frozen=True)
class _RoundLog:
    round: int
    time: float
    figures: dict[str, float]
    trainings: tuple[TrainingLog, ...]


@dataclass(frozen=True)
class _Drawing:
    """What figures are drawn from: values in order with the best so far, predicted against found, and the best crystals; and tables."""

    quantity: str
    unit: str
    values: list[float]
    best: list[float]
    predicted: list[tuple[float, float, float]]
    crystals: list[tuple[str, float, Crystal]]
    tables: dict[str, pd.DataFrame]


class MlflowTracker:
    def __init__(self, config: CampaignConfig, ledger: Ledger, oracle: str, units: Mapping[str, str]) -> None:
        """``oracle`` is the one that measures the objective; ``units`` by quantity."""
        self._config, self._ledger, self._oracle = config, ledger, oracle
        self.uri = config.tracking.uri or default_uri(ledger.folder)
        self._artifacts = ArtifactStore(ledger.folder).folder
        self._units = units
        self._objective, self._wanted = config.objective.objective, ranking.wanted_of(config, oracle)
        self._seen_rounds: set[int] = set()
        self._rounds: deque[_RoundLog] = deque()
        self._drawing: _Drawing | None = None
        self._wake, self._closing = threading.Event(), False
        self._run = ledger.state.tracking.run if ledger.state.tracking is not None else None
        self._created: str | None = None
        self._has_warned = self._is_away = False
        self._has_opened = False
        self._trainings: set[str] = set()
        self._monitor: SystemMetricsMonitor | None = None
        self._status = "FINISHED"
        self._settings = self._settings_now()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    # --- on the driver's thread ---------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self.update()

    def update(self) -> None:
        """Hand over the rounds that ended since the last time. Costs about 0.1 ms a label of a round."""
        self._record_run()
        state = self._ledger.state
        ended = [record for record in state.rounds if record.ended is not None and record.index not in self._seen_rounds]
        for record in ended:
            self._seen_rounds.add(record.index)
            figures = metrics.round_figures(state, record, self._wanted) | ladder.figures(state, self._config)
            workers = next(oracle.workers for oracle in self._config.oracles if oracle.label == self._oracle)
            figures["busy_fraction"] = metrics.busy_fraction(state, self._oracle, workers, start=record.started, end=record.ended or 0.0)
            self._rounds.append(_RoundLog(record.index, record.ended or 0.0, figures, trainings.of_round(record, self._artifacts)))
            if record.index and record.index % self._config.tracking.figure_rounds == 0:
                self._drawing = self._draw()
        if ended:
            self._wake.set()

    def finish(self) -> None:
        """Write the rest, for at most a minute, less where the server was away; the campaign's end does not depend on it."""
        self.update()
        ended = self._ledger.state.session_ended
        self._status = "FINISHED" if ended is not None and ended.is_final else "KILLED"
        if self._ledger.state.labels:
            self._drawing = self._draw()
        self._closing = True
        deadline = time.monotonic() + (_FINISH_AWAY_SECONDS if self._is_away else _FINISH_SECONDS)
        while self._thread.is_alive() and time.monotonic() < deadline:
            self.update()
            self._wake.set()
            self._thread.join(0.05)

    def _record_run(self) -> None:
        if self._created is not None:
            self._ledger.append([ev.TrackingStarted(run=self._created, uri=without_password(self.uri))])
            self._run, self._created = self._created, None
            self._wake.set()

    def _draw(self) -> _Drawing:
        state, objective, oracle = self._ledger.state, self._objective, self._oracle
        series = ranking.best_so_far(state, self._wanted)
        unit = next((o.unit for label, _ in series[:1] for o in label.observations if o.quantity == objective.quantity), "")
        found = [item for record in state.rounds for item in calibration.predictions(record, state, objective, oracle)]
        best = [item.label for item in ranking.ranked(state, self._wanted, _BEST)]
        crystals = self._ledger.crystals([label.crystal or label.candidate for label in best])
        return _Drawing(
            objective.quantity,
            unit,
            [label.values[objective.quantity] for label, _ in series],
            [math.nan if value is None else value for _, value in series],
            [(item.mean, item.deviation, item.value) for item in found],
            [(label.candidate, label.values[objective.quantity], crystal) for label, crystal in zip(best, crystals, strict=True)],
            {
                "best": tables.best(state, self._wanted, _ROWS_OF_BEST),
                "candidates": tables.candidates(state),
                "labels": tables.labels(state),
                "failures": tables.failures(state),
                "decisions": tables.decisions(state),
            },
        )

    def _settings_now(self) -> dict[str, Any]:
        state = self._ledger.state
        return {
            "created": state.created_time,
            "campaign": state.created.campaign if state.created else "",
            "revisions": [(revision.revision, json.dumps(revision.config, indent=2)) for _, _, revision in state.revisions],
            "versions": versions.installed(),
        }

    # --- on the tracker's thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        import mlflow

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        while True:
            closing = self._closing
            is_behind = False
            try:
                client = mlflow.MlflowClient(tracking_uri=self.uri)
                is_behind = not self._flush(client, closing)
                self._is_away = False
            except Exception as error:
                is_behind = self._is_away = True
                if not (self._run is not None and self._has_opened and self._begins_anew(client, self._run)):
                    self._warn(error)
                if closing:
                    return
            if closing and not is_behind:
                return
            self._wake.wait(_RETRY_SECONDS if is_behind else None)
            self._wake.clear()

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            log.warning(
                "MLflow at %s cannot be reached (%s); the campaign goes on, what is missing is written when it is back",
                without_password(self.uri),
                without_password(str(error).splitlines()[0]),
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
            try:
                self._log_drawing(client, self._run, drawing)
            except Exception:
                self._drawing = self._drawing or drawing
                raise
        if closing:
            if self._monitor is not None:
                self._monitor.finish()
            client.set_terminated(self._run, status=self._status)
        return True

    def _begins_anew(self, client: MlflowClient, run: str) -> bool:
        """Whether the run was deleted, so that a new one has to begin, with all rounds in it."""
        if not _is_deleted(client, run):
            return False
        log.warning("the MLflow run %s was deleted; a new one begins, with all that the ledger holds", run)
        self._run, self._has_opened = None, False
        self._rounds.clear()
        self._seen_rounds = set()
        return True

    def _create(self, client: MlflowClient) -> str:
        name, n = self._config.tracking.experiment, 1
        while (experiment := client.get_experiment_by_name(name)) is not None and experiment.lifecycle_stage == "deleted":
            n += 1
            name = f"{self._config.tracking.experiment}-{n}"
        if n > 1:
            deleted = self._config.tracking.experiment
            log.warning(
                "the MLflow experiment %s was deleted; the run goes to %s (mlflow experiments restore brings it back)", deleted, name
            )
        if experiment is not None:
            identity = experiment.experiment_id
        else:
            local = self.uri.startswith("sqlite:")
            place = (self._ledger.folder / "mlartifacts").resolve().as_uri() if local else None
            identity = client.create_experiment(name, artifact_location=place)
        if experiment is None or about.KIND not in experiment.tags:
            client.set_experiment_tag(identity, about.KIND, about.MODEL_TRAINING)
        tags = {"oreloop.campaign": self._settings["campaign"]}
        return border.begin(client, identity, self._config.name, tags, int(1000 * self._settings["created"]))

    def _open(self, client: MlflowClient, run: str) -> None:
        """Go on in the run: config revisions as artifacts, settings that may change as tags."""
        if self._monitor is not None:
            self._monitor.finish()
        client.update_run(run, status="RUNNING")
        known = client.get_run(run).data
        logged = int(known.tags.get(_LOGGED, "-1"))
        self._rounds = deque(item for item in self._rounds if item.round > logged)
        for revision, text in self._settings["revisions"]:
            client.log_text(run, text, f"config/revision-{revision}.json")
        client.log_text(run, json.dumps(self._settings["versions"], indent=2), "versions.json")
        objective = self._objective
        tags = {"objective": f"{objective.direction} {objective.quantity}", "mode": self._config.mode, "seed": str(self._config.seed)}
        tags |= {"acquisition": self._config.acquisition.use, "oracles": ", ".join(o.label for o in self._config.oracles)}
        tags |= {"generators": ", ".join(g.label for g in self._config.generators)}
        tags[about.NOTE] = about.description(self._config, self._units)
        tags |= self._log_params(client, run, known.params)
        for key, value in border.tags_of(tags).items():
            client.set_tag(run, key, value)
        self._trainings = trainings.known(client, run)
        if self._config.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run, resume_logging=True, tracking_uri=self.uri)
            self._monitor.start()
        self._has_opened = True

    def _log_params(self, client: MlflowClient, run: str, known: Mapping[str, str]) -> dict[str, str]:
        """The settings that the run does not have yet; those that were changed since are returned, as parameters keep their values."""
        settings = about.flat(self._config.model_dump(mode="json", exclude={"ledger": True, "tracking": {"uri"}}))
        border.log_values(client, run, {}, time=0, step=0, params={k: v for k, v in settings.items() if border.name_of(k) not in known})
        changed = {k: v for k, v in settings.items() if known.get(border.name_of(k), border.param_of(v)) != border.param_of(v)}
        return {f"changed/{key}": value for key, value in changed.items()}

    def _log_rounds(self, client: MlflowClient, run: str) -> None:
        while self._rounds:
            item = self._rounds[0]
            stamp = int(1000 * item.time)
            for training in item.trainings:
                if training.name not in self._trainings:
                    trainings.log(client, run, training, self._settings["versions"], self._config.tracking.weights)
                    self._trainings.add(training.name)
            border.log_values(client, run, item.figures, time=stamp, step=item.round)
            client.set_tag(run, _LOGGED, str(item.round))
            self._rounds.popleft()

    def _log_drawing(self, client: MlflowClient, run: str, drawing: _Drawing) -> None:
        from campaign.tracking import pictures

        client.log_figure(run, pictures.best_so_far(drawing.values, drawing.best, drawing.quantity, drawing.unit), "best_so_far.png")
        if drawing.predicted:
            client.log_figure(run, pictures.parity(drawing.predicted, drawing.quantity, drawing.unit), "parity.png")
        for rank, (candidate, value, crystal) in enumerate(drawing.crystals, start=1):
            name = f"best/rank-{rank}"
            title = f"{rank}. {crystal.formula}  {drawing.quantity} {value:.5g} {drawing.unit}\n{candidate}"
            client.log_text(run, pictures.cif(crystal), f"{name}.cif")
            client.log_figure(run, pictures.crystal(crystal, title), f"{name}.png")
        for name, table in drawing.tables.items():
            client.log_text(run, table.to_json(orient="split", index=False), f"tables/{name}.json")
        shown = [{"path": f"tables/{name}.json", "type": "table"} for name in drawing.tables]
        client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(shown))


def _is_deleted(client: MlflowClient, run: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "deleted")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise
