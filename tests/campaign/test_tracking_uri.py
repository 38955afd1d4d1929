"""MLflow's store lies where it is said to, and a run that was deleted is followed by a new one with all rounds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from campaign.api import Campaign
from campaign.tracking.mlflow import default_uri


def test_a_folder_of_any_name_holds_its_store(tmp_path: Path) -> None:
    for name in ("plain", "a ? b", "a#b", "100 %", "a%3Fb"):
        folder = tmp_path / name
        folder.mkdir()
        client = MlflowClient(default_uri(folder))
        client.create_run(client.create_experiment("x", artifact_location=folder.as_uri()))
        assert (folder / "mlflow.db").exists(), name
        assert (folder / "mlflow.db").stat().st_size > 0
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_a_deleted_run_is_followed_by_a_new_one(
    small: Callable[..., Campaign], tmp_path: Path, deleted: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"tracking": {"use": "mlflow"}, "name": deleted}
    campaign = small(**changes, budget={"labels": 9})
    campaign.run()
    client = MlflowClient(default_uri(campaign.folder))
    tracking = campaign.state().tracking
    assert tracking is not None
    if deleted == "run":
        client.delete_run(tracking.run)
    else:
        client.delete_experiment(client.get_run(tracking.run).info.experiment_id)
    with caplog.at_level(logging.WARNING):
        again = small(**changes, budget={"labels": 14})
        again.run()
    assert "was deleted; a new one begins" in caplog.text
    assert "cannot be reached" not in caplog.text
    after = again.state().tracking
    assert after is not None
    assert after.run != tracking.run
    labels = {metric.step for metric in client.get_metric_history(after.run, "labels")}
    rounds = [record.index for record in again.state().rounds if record.ended is not None]
    assert labels == set(rounds)
    assert 0 in labels
