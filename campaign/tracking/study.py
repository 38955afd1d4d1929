"""A study as MLflow runs: one parent, and a child for each trial with its settings and what was
measured after each step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.tracking import border, places

if TYPE_CHECKING:
    from campaign.study.trials import TrialRecord


def log(uri: str, folder: Path, experiment: str, trials: Sequence[TrialRecord]) -> None:
    """Write what is not there yet: trials that have ended do not change. ``folder`` is the
    study's.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = places.client_of(uri)
    number = places.experiment(client, uri, experiment, folder)
    there = client.search_runs([number], max_results=50_000)
    parents = [run for run in there if "trial" not in run.data.tags]
    parent = parents[0] if parents else client.create_run(number, run_name=experiment)
    written = {run.data.tags["trial"] for run in there if "trial" in run.data.tags}
    for trial in trials:
        if str(trial.number) in written:
            continue
        tags = {
            "mlflow.parentRunId": parent.info.run_id,
            "trial": str(trial.number),
            "state": trial.state,
        }
        made = border.begin(client, number, f"trial {trial.number}", tags)
        border.log_values(client, made, {}, time=0, step=0, params=trial.settings)
        for step, measured in enumerate(trial.measured):
            border.log_values(client, made, measured, time=0, step=step)
        client.set_terminated(made, "FAILED" if trial.state == "fail" else "FINISHED")
    client.set_terminated(parent.info.run_id)
