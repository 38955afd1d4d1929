"""A study as MLflow runs: one parent, and a child for each trial with its settings and what was measured after each step."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from campaign.study.trials import TrialRecord


def log(uri: str, experiment: str, trials: Sequence[TrialRecord]) -> None:
    """Write what is not there yet: trials that have ended do not change."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = mlflow.MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    number = known.experiment_id if known is not None else client.create_experiment(experiment)
    there = client.search_runs([number], max_results=50_000)
    parents = [run for run in there if "trial" not in run.data.tags]
    parent = parents[0] if parents else client.create_run(number, run_name=experiment)
    written = {run.data.tags["trial"] for run in there if "trial" in run.data.tags}
    for trial in trials:
        if str(trial.number) in written:
            continue
        tags = {"mlflow.parentRunId": parent.info.run_id, "trial": str(trial.number), "state": trial.state}
        made = client.create_run(number, tags=tags, run_name=f"trial {trial.number}")
        metrics = [Metric(name, value, 0, step) for step, measured in enumerate(trial.measured) for name, value in measured.items()]
        client.log_batch(made.info.run_id, metrics=metrics, params=[Param(key, str(value)) for key, value in trial.settings.items()])
        client.set_terminated(made.info.run_id, "FAILED" if trial.state == "fail" else "FINISHED")
    client.set_terminated(parent.info.run_id)
