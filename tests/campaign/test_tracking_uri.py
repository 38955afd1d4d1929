"""MLflow's store lies where it is said to, and a run that was deleted is followed by a new one with
all rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from campaign.api import Campaign
from campaign.tracking import backtest, study
from campaign.tracking.places import artifact_location, default_uri, tracking_uri
from campaign.types import Objective


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
    labels = {metric.step for metric in client.get_metric_history(after.run, "labels/of_round")}
    rounds = [record.index for record in again.state().rounds if record.ended is not None]
    assert labels == set(rounds)
    assert 0 in labels


@pytest.mark.parametrize("named", ["{}", "file:{}", "file://{}", "file://localhost{}"])
def test_a_named_folder_holds_all_that_is_tracked(
    small: Callable[..., Campaign], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = tmp_path / "a store" / "é & 'b'"
    uri = named.format(str(store) if named == "{}" else str(store).replace(" ", "%20"))
    campaign = small(tracking={"use": "mlflow", "uri": uri}, budget={"labels": 5})
    campaign.run()
    tracking = campaign.state().tracking
    assert tracking is not None
    client = MlflowClient(default_uri(store))
    assert client.get_run(tracking.run).info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(tracking.run)} >= {
        "best",
        "tables",
        "best_so_far.png",
    }
    assert {path.name for path in store.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["a ? b", "a#b", "100 %", "a%3Fb", "é;&='\"\\", "a:b@c", "[x]"])
def test_artifacts_lie_beside_a_store_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "stores" / name
    file = tmp_path / "stores" / "figures.txt"
    uri = tracking_uri(str(store), tmp_path)
    file.parent.mkdir()
    file.write_text("figures")
    objective = Objective(quantity="energy_per_atom", direction="minimize")
    backtest.log(uri, tmp_path, "backtest", objective, [], {"random": {"gain": 1.0}}, [file])
    study.log(uri, tmp_path, "study", [])
    assert [path.name for path in tmp_path.iterdir()] == ["stores"]
    assert [path.read_text() for path in store.rglob("figures.txt")] == ["figures"]


def test_artifacts_of_a_database_lie_in_the_folder_and_those_of_a_server_are_its_own() -> None:
    assert (
        artifact_location("postgresql+psycopg://someone@somewhere/oreloop", Path("/campaigns/a"))
        == "file:///campaigns/a/mlartifacts"
    )
    assert (
        artifact_location("sqlite:////stores/mlflow.db", Path("/campaigns/a"))
        == "file:///stores/mlartifacts"
    )
    assert artifact_location("http://127.0.0.1:5000", Path("/campaigns/a")) is None
    assert tracking_uri("http://127.0.0.1:5000", Path("/campaigns/a")) == "http://127.0.0.1:5000"
