"""What a person meets in MLflow: the campaign's run under model training, settings as parameters,
units; and a server that ends with us.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from campaign.api import Campaign
from campaign.errors import InputError
from campaign.tracking import about, ui
from campaign.tracking.places import default_uri

Make = Callable[..., Campaign]


def logged(campaign: Campaign) -> Any:
    tracking = campaign.state().tracking
    assert tracking is not None
    return MlflowClient(default_uri(campaign.folder)).get_run(tracking.run)


def test_settings_are_parameters_and_what_changes_later_is_told(small: Make) -> None:
    campaign = small(tracking={"use": "mlflow"}, budget={"labels": 9})
    campaign.run()
    run = logged(campaign)
    assert run.data.params["budget.labels"] == "9"
    assert run.data.params["objective.quantity"] == "energy_per_atom"
    assert run.data.params["oracles.lennard_jones.workers"] == "1"
    assert run.data.params["space.elements"] == '["Ni", "Fe", "Cr"]'
    assert not [key for key in run.data.tags if key.startswith("changed")]
    note = run.data.tags["mlflow.note.content"]
    assert "minimize energy_per_atom (eV/atom) in Ni-Fe-Cr" in note
    assert "| labels/best_so_far, labels/best_of_round | eV/atom |" in note
    again = small(tracking={"use": "mlflow"}, budget={"labels": 14})
    again.run()
    after = logged(again)
    assert after.info.run_id == run.info.run_id
    assert after.data.params["budget.labels"] == "9"
    assert after.data.tags["changed/budget.labels"] == "14"


def test_the_experiment_is_one_of_model_training(small: Make) -> None:
    campaign = small(tracking={"use": "mlflow"}, budget={"labels": 9})
    campaign.run()
    uri = default_uri(campaign.folder)
    run = logged(campaign)
    experiment = MlflowClient(uri).get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert (
        ui.link(uri, "http://127.0.0.1:5", run.info.run_id)
        == f"http://127.0.0.1:5/{place}?workflowType=machine_learning"
    )
    assert (
        ui.link(uri, "http://127.0.0.1:5/", "0" * 32)
        == "http://127.0.0.1:5/#/experiments?workflowType=machine_learning"
    )


def test_lists_are_flattened_by_name() -> None:
    oracles = [{"use": "a", "x": 1}, {"use": "b", "x": 2}, {"use": "b", "x": None}]
    found = about.flat({"oracles": oracles, "none": None, "few": [1, 2], "empty": {}})
    by_name = {
        "oracles.a.use": "a",
        "oracles.a.x": "1",
        "oracles.b.1.use": "b",
        "oracles.b.1.x": "2",
        "oracles.b.2.use": "b",
    }
    assert found == by_name | {"few": "[1, 2]"}


def test_names_of_any_kind_hold_no_figure_back(small: Make) -> None:
    names = ("odd % name (x)", "Größe λ")
    generators = [
        {"use": "random_alloy", "name": name, "params": {"repeats": [2, 2, 2]}} for name in names
    ]
    campaign = small(tracking={"use": "mlflow"}, budget={"labels": 14}, generators=generators)
    campaign.run()
    figures = logged(campaign).data.metrics
    assert figures["labels/so_far"] == 14
    assert "share/odd _x25_ name _x28_x_x29_" in figures
    assert [name for name in figures if name.startswith("share/Gr_x")]


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken"):
            ui.free_port(port)
    assert ui.free_port(None) > 0


def test_the_server_ends_with_the_command(small: Make) -> None:
    campaign = small(tracking={"use": "mlflow"}, budget={"labels": 9})
    campaign.run()
    port = _free()
    command = [
        sys.executable,
        "-m",
        "campaign.cli",
        "ui",
        str(campaign.folder),
        "--port",
        str(port),
    ]
    asked = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert asked.stdout is not None
        told = asked.stdout.readline()
        assert re.fullmatch(
            rf"http://127\.0\.0\.1:{port}/#/experiments/\d+/runs/\w+\?workflowType=machine_learning\n",
            told,
        )
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    finally:
        asked.terminate()
        asked.wait(20)
    with socket.socket() as tried, pytest.raises(ConnectionRefusedError):
        tried.connect(("127.0.0.1", port))


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
