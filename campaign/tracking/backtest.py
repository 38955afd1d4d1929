"""A backtest as an MLflow experiment: one run for each strategy and seed, one for each strategy's
summary.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign.backtest.figures import Run, best_so_far
from campaign.tracking import border, places
from campaign.types import Objective

_STEPS = 200


def log(
    uri: str,
    folder: Path,
    experiment: str,
    objective: Objective,
    runs: Sequence[Run],
    summaries: Mapping[str, Mapping[str, float]],
    files: Sequence[Path],
) -> None:
    """Write an experiment anew; ``folder`` is the backtest's. Each run has its best gain after each
    call and the virtual time.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.entities import Metric

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = places.client_of(uri)
    number = places.experiment(client, uri, experiment, folder)
    for old in client.search_runs([number]):
        client.delete_run(old.info.run_id)
    for run in runs:
        made = border.begin(
            client,
            number,
            f"{run.strategy} {run.seed}",
            {"strategy": run.strategy, "seed": run.seed},
        )
        best = best_so_far(run, objective)
        every = max(1, math.ceil(len(best) / _STEPS))
        metrics = [
            Metric(name, float(value[i]), int(1000 * run.ends[i]), i + 1)
            for i in range(0, len(best), every)
            for name, value in (("best_gain", best), ("virtual_seconds", run.ends))
            if math.isfinite(value[i])
        ]
        client.log_batch(made, metrics=metrics)
        client.set_terminated(made)
    for strategy, figures in summaries.items():
        made = border.begin(
            client, number, f"{strategy}: summary", {"strategy": strategy, "kind": "summary"}
        )
        border.log_values(client, made, figures, time=0, step=0)
        for path in files:
            client.log_artifact(made, str(path))
        client.set_terminated(made)
