"""What a study found: a table of its trials, and the winning config as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from ruamel.yaml import YAML

from campaign.files import write_whole
from campaign.protocols import PluginSpec
from campaign.study.config import Study


def table(found: optuna.Study, most: int = 10) -> Table:
    """The best trials, and how many ended in which way."""
    trials = found.get_trials(deepcopy=False)
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    told = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    front = {trial.number for trial in found.best_trials} if len(found.directions) > 1 else set()
    sign = 1 if found.directions[0] is StudyDirection.MINIMIZE else -1
    ended = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    ended.sort(key=lambda trial: (trial.number not in front, sign * trial.values[0]))
    keys = sorted({key for trial in ended for key in trial.params})
    shown = Table("trial", *(found.metric_names or ()), *keys, title=f"{found.study_name}: {told}")
    for trial in ended[: max(most, len(front))]:
        number = f"{trial.number}{' on the front' if trial.number in front else ''}"
        shown.add_row(
            number,
            *(f"{value:.5g}" for value in trial.values),
            *(_text(trial.params.get(key)) for key in keys),
        )
    return shown


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_best(study: Study, trial: FrozenTrial, target: Path) -> Path:
    """A trial's settings as YAML: the whole backtest, or ``use`` and ``params`` of the component.
    Written whole or not at all.
    """
    winner = study.with_settings(trial.params)
    document = (
        {"use": winner.use, "params": dict(winner.params)}
        if isinstance(winner, PluginSpec)
        else winner.config.model_dump(mode="json")
    )
    text = io.StringIO()
    YAML().dump(document, text)
    told = ", ".join(
        f"{name} {value:.6g}"
        for name, value in zip(study.config.directions, trial.values, strict=True)
    )
    head = f"# The best of the study {study.config.name}: trial {trial.number}, {told}\n"
    write_whole(target, (head + text.getvalue()).encode())
    return target
