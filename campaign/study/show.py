"""What a study found: a table of its trials, and the winning config as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.table import Table
from ruamel.yaml import YAML

from campaign.artifacts import write_whole
from campaign.protocols import PluginSpec
from campaign.study.config import Study
from campaign.study.run import best


def table(found: optuna.Study, most: int = 10) -> Table:
    """The best trials, and how many ended in which way."""
    trials = found.get_trials(deepcopy=False)
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    told = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    sign = 1 if found.direction is optuna.study.StudyDirection.MINIMIZE else -1
    ended = sorted((trial for trial in trials if trial.state is TrialState.COMPLETE), key=lambda trial: sign * (trial.value or 0.0))
    keys = sorted({key for trial in ended for key in trial.params})
    shown = Table("trial", "value", *keys, title=f"{found.study_name}: {told}")
    for trial in ended[:most]:
        shown.add_row(str(trial.number), f"{trial.value:.5g}", *(_text(trial.params.get(key)) for key in keys))
    return shown


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_best(study: Study, found: optuna.Study, target: Path) -> Path:
    """The winner as YAML: the whole backtest, or ``use`` and ``params`` of the component. Written whole or not at all."""
    winner = study.with_settings(best(found).params)
    document = (
        {"use": winner.use, "params": dict(winner.params)} if isinstance(winner, PluginSpec) else winner.config.model_dump(mode="json")
    )
    text = io.StringIO()
    YAML().dump(document, text)
    head = f"# The best of the study {found.study_name}: trial {best(found).number}, value {best(found).value:.6g}\n"
    write_whole(target, (head + text.getvalue()).encode())
    return target
