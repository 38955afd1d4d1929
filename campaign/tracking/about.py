"""What MLflow tells of a campaign's run beside its figures: the settings, flat, and a description
with the units of what is logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from campaign.text import one_line
from campaign.views.view import View

KIND, MODEL_TRAINING = "mlflow.experimentKind", "custom_model_development"
"""The tag by which MLflow shows an experiment in its view of model training."""
NOTE = "mlflow.note.content"

_FIGURES = (
    (
        "labels/best_so_far, labels/best_of_round",
        "{unit}",
        "best {quantity} of the labels that hold the constraints",
    ),
    ("labels/so_far", "1", "labels of the objective's oracle that the campaign paid for"),
    (
        "candidates/proposed, candidates/accepted, candidates/selected",
        "1",
        "crystals of the round, step by step",
    ),
    ("labels/of_round, failures/of_round, failures/KIND", "1", "what became of those selected"),
    (
        "candidates/acceptance, workers/busy_fraction, share/GENERATOR",
        "1",
        "shares of proposals, of the workers' time, of what was asked for",
    ),
    ("seconds/STEP", "s", "running time of the round's steps"),
    (
        "workers/seconds_per_label/ORACLE, workers/seconds/ORACLE",
        "s",
        "time of the oracles' workers, a label and in all",
    ),
    (
        "model/rmse, model/mae, model/sharpness",
        "{unit}",
        "the model on labels that it had not seen",
    ),
    ("model/coverage_90", "1", "share of these labels inside the predicted 90 % interval"),
    ("training/GENERATOR/...", "as the generator tells", "trainings of generators"),
)

_GROUPED = {
    "proposed": "candidates/proposed",
    "accepted": "candidates/accepted",
    "acceptance": "candidates/acceptance",
    "selected": "candidates/selected",
    "labels": "labels/of_round",
    "labels_so_far": "labels/so_far",
    "labels_holding_constraints": "labels/holding_constraints",
    "labels_unseen_by_model": "model/labels_unseen",
    "best_of_round": "labels/best_of_round",
    "best_so_far": "labels/best_so_far",
    "failures": "failures/of_round",
    "busy_fraction": "workers/busy_fraction",
    "seconds_per_label": "workers/seconds_per_label",
    "worker_seconds": "workers/seconds",
}


def grouped(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of a round under names in groups, as MLflow folds its charts by what stands
    before the first slash.
    """
    found = {}
    for name, value in figures.items():
        first, slash, rest = name.partition("/")
        is_family = first in ("seconds_per_label", "worker_seconds")
        found[f"{_GROUPED[first]}/{rest}" if slash and is_family else _GROUPED.get(name, name)] = (
            value
        )
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted key: parts of a list by their name or ``use``, other lists as JSON; what
    is empty or not set is left out.
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if value is None or value in ({}, [], ""):
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
            for label, item in _labelled(value):
                found |= flat(item, f"{name}.{label}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _labelled(items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    labels = [str(item.get("name") or item.get("use") or place) for place, item in enumerate(items)]
    for place, (label, item) in enumerate(zip(labels, items, strict=True)):
        yield (label if labels.count(label) == 1 else f"{label}.{place}"), item


def description(view: View) -> str:
    """Markdown: what the campaign looks for, where, by whom, and the units of its figures."""
    config, units = view.config, view.units
    wanted = [
        f"{item.direction} {item.quantity} ({units[item.quantity]})" for item in config.objectives
    ]
    lines = [
        f"Campaign **{_cell(config.name)}**: {_cell(' and '.join(wanted))} in "
        f"{'-'.join(config.space.elements)}.",
        "",
        f"Oracles: {_cell(', '.join(item.label for item in config.oracles))}. "
        f"Generators: {_cell(', '.join(item.label for item in config.generators) or 'none')}. "
        f"Acquisition: {config.acquisition.use}. A step is a round.",
        "",
        "| metric | unit | meaning |",
        "|---|---|---|",
    ]
    for name, unit, meaning in _FIGURES:
        words = {"unit": view.unit, "quantity": view.objective.quantity}
        lines.append(
            f"| {name} | {_cell(unit.format(**words))} | {_cell(meaning.format(**words))} |"
        )
    return "\n".join(lines)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")
