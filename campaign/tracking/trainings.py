"""Trainings of a campaign as child runs of its MLflow run: figures, and the weights that were
published with a card that tells of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.checkpoints import facts_of
from campaign.ledger import events as ev
from campaign.ledger.state import RoundRecord
from campaign.text import file_name, one_line
from campaign.tracking import border

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "oreloop.training"
_LONGEST_FACT = 200


@dataclass(frozen=True)
class TrainingLog:
    """A training as it stands in the ledger, its time (s since the epoch), and the file of its
    weights, which may be gone by now.
    """

    event: ev.Trained
    time: float
    weights: Path

    @property
    def name(self) -> str:
        return f"{self.event.generator} {self.event.checkpoint[:8]} of round {self.event.round}"


def of_round(record: RoundRecord, artifacts: Path) -> tuple[TrainingLog, ...]:
    return tuple(
        TrainingLog(event, record.ended or record.started, artifacts / event.checkpoint)
        for event in record.trained
    )


def known(client: MlflowClient, run: str) -> set[str]:
    """Names of the trainings that the campaign's run has child runs of; those that were broken off
    are removed.
    """
    experiment = client.get_run(run).info.experiment_id
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{run}'", max_results=50_000
    )
    for child in children:
        if TAG not in child.data.tags:
            client.delete_run(child.info.run_id)
    return {child.data.tags[TAG] for child in children if TAG in child.data.tags}


def log(
    client: MlflowClient,
    run: str,
    item: TrainingLog,
    versions: Mapping[str, str],
    with_weights: bool,
) -> None:
    """Write a child run; it carries its name only once it is whole, so that one that was broken off
    is written again.
    """
    event, stamp = item.event, int(1000 * item.time)
    tags = {
        "mlflow.parentRunId": run,
        "generator": event.generator,
        "published": str(event.is_published).lower(),
    }
    begun = stamp - int(1000 * event.seconds)
    child = border.begin(client, client.get_run(run).info.experiment_id, item.name, tags, begun)
    figures = {"seconds": event.seconds, "labels": float(event.labels), **event.metrics}
    params = {
        "generator": event.generator,
        "round": event.round,
        "checkpoint": event.checkpoint,
        "parent": event.parent or "none",
    }
    border.log_values(client, child, figures, time=stamp, step=event.round, params=params)
    if event.is_published and with_weights:
        _log_weights(client, child, item, versions)
    client.set_tag(child, TAG, border.value_of(item.name))
    client.set_terminated(child, end_time=stamp)


def _log_weights(
    client: MlflowClient, child: str, item: TrainingLog, versions: Mapping[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{file_name(item.event.generator)}.safetensors"
        try:
            shutil.copyfile(item.weights, copy)
        except FileNotFoundError:
            return
        client.log_artifact(child, str(copy), "weights")
        client.log_text(
            child, card(item.event, facts_of(copy.read_bytes()), versions), "weights/card.md"
        )


def card(event: ev.Trained, facts: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Markdown: what the weights are of, what they learned from, how they were judged, and what
    they were made with.
    """
    lines = [f"# Weights of {_cell(event.generator)}", ""]
    lines += [
        f"Trained in round {event.round} on {event.labels} labels in {event.seconds:.1f} s, "
        "and published.",
        "",
    ]
    lines += [
        f"From: {'new weights' if event.parent is None else f'checkpoint {event.parent}'}. "
        f"Checkpoint: {event.checkpoint}.",
        "",
    ]
    for title, rows in (
        ("Figures", {name: f"{value:.6g}" for name, value in event.metrics.items()}),
        ("Facts", {name: _short(value) for name, value in facts.items()}),
        ("Versions", versions),
    ):
        lines += [
            f"## {title}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {_cell(name)} | {_cell(value)} |" for name, value in sorted(rows.items())),
            "",
        ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


def _short(value: str) -> str:
    text = str(json.loads(value)) if value.startswith(("[", "{")) else value
    return (
        text
        if len(text) <= _LONGEST_FACT
        else f"{text[:_LONGEST_FACT]} ... ({len(text)} characters)"
    )
