"""What happens around a campaign: other drivers, disks, damaged files, servers and clusters that
are away.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML
from support import HELPERS, SMALL, label_set, merged

from campaign.api import Campaign
from campaign.errors import CampaignLockedError, LedgerDamagedError, SurroundingsError
from campaign.ledger import Ledger
from campaign.ledger.lock import file_system, refuse_network_file_system
from campaign.ledger.recover import recover

OVER = "budget spent: 24 labels"


def write_config(path: Path, **changes: Any) -> Path:
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    return path


def oreloop(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "campaign.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False, **options
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_second_driver_is_turned_away(small: Callable[..., Campaign], tmp_path: Path) -> None:
    campaign = small()
    holder = Ledger(tmp_path / "campaign")
    with pytest.raises(CampaignLockedError, match=f"process {os.getpid()}"):
        campaign.run()
    holder.close()
    assert campaign.run() == OVER


def test_a_full_disk_stops_the_campaign_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "campaigns" / "small"
    config = write_config(tmp_path / "small.yaml", budget={"labels": 14})
    assert oreloop("run", str(config), cwd=tmp_path).returncode == 0
    largest = max(path.stat().st_size for path in folder.glob("[jl]*"))
    kept = label_set(Campaign.open(folder))
    config = write_config(tmp_path / "small.yaml", budget={"labels": 60})

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 30_000, largest + 30_000))

    full = oreloop("run", str(config), cwd=tmp_path, preexec_fn=limit)
    assert full.returncode == 4, full.stderr
    assert "cannot be written" in full.stderr
    assert "free disk space" in full.stderr
    more = label_set(Campaign.open(folder))
    assert kept.items() <= more.items()
    assert len(more) < 60
    assert oreloop("run", str(config), cwd=tmp_path).returncode == 0
    after = label_set(Campaign.open(folder))
    assert len(after) == 60
    assert more.items() <= after.items()


def test_a_truncated_database_is_recovered_from_the_journal(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small(budget={"labels": 19})
    campaign.run()
    before = label_set(campaign)
    database = tmp_path / "campaign" / "ledger.db"
    os.truncate(database, database.stat().st_size // 2)
    with pytest.raises(LedgerDamagedError, match="oreloop recover"):
        campaign.run()
    found = recover(tmp_path / "campaign")
    assert found.set_aside
    assert label_set(campaign) == before
    assert small().run() == OVER


def test_a_missing_database_is_not_taken_for_a_new_campaign(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small()
    campaign.run()
    before = label_set(campaign)
    for path in (tmp_path / "campaign").glob("ledger.db*"):
        path.unlink()
    with pytest.raises(LedgerDamagedError, match="database is missing"):
        campaign.run()
    recover(tmp_path / "campaign")
    assert label_set(campaign) == before


def test_a_truncated_journal_mends_itself(small: Callable[..., Campaign], tmp_path: Path) -> None:
    campaign = small(budget={"labels": 19})
    campaign.run()
    journal = tmp_path / "campaign" / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - 500)
    assert small().run() == OVER
    database = tmp_path / "campaign" / "ledger.db"
    before = label_set(campaign)
    database.unlink()
    recover(tmp_path / "campaign")
    assert label_set(campaign) == before


def test_what_is_whole_of_both_files_is_recovered(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small()
    campaign.run()
    before = label_set(campaign)
    for name in ("ledger.db", "journal.jsonl"):
        path = tmp_path / "campaign" / name
        os.truncate(path, int(path.stat().st_size * 0.7))
    found = recover(tmp_path / "campaign")
    assert found.events >= found.from_journal
    assert label_set(campaign).items() <= before.items()
    assert campaign.run() == OVER
    assert label_set(campaign) == before


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_the_journal_costs_no_more_than_its_line(
    small: Callable[..., Campaign], tmp_path: Path, place: float
) -> None:
    campaign = small()
    campaign.run()
    before = label_set(campaign)
    journal = tmp_path / "campaign" / "journal.jsonl"
    data = bytearray(journal.read_bytes())
    data[int(place * len(data))] ^= 1
    journal.write_bytes(bytes(data))
    (tmp_path / "campaign" / "ledger.db").unlink()
    found = recover(tmp_path / "campaign")
    state = campaign.state()
    assert found.events == state.sequence
    assert found.missing
    assert len(state.labels) >= 23
    assert label_set(campaign).items() <= before.items()
    assert campaign.run() == OVER


def test_network_file_systems_are_refused_with_the_two_ways_out(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/home {tmp_path} nfs4 rw 0 0\n/dev/vda / ext4 rw 0 0\n")
    assert file_system(tmp_path / "x", mounts) == "nfs4"
    with pytest.raises(SurroundingsError, match="network file system") as caught:
        refuse_network_file_system(tmp_path, mounts)
    assert "--folder" in caught.value.hint
    assert "PostgreSQL" in caught.value.hint


@pytest.mark.timeout(150)
def test_mlflow_away_and_back(
    small: Callable[..., Campaign], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    campaign = small(tracking={"use": "mlflow", "uri": uri})
    assert campaign.run() == OVER
    warnings = [record for record in caplog.records if "cannot be reached" in record.message]
    assert len(warnings) == 1
    assert campaign.state().tracking is None

    store = f"sqlite:///{tmp_path}/server.db"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    server = subprocess.Popen(
        [*command, "--workers", "1", "--artifacts-destination", str(tmp_path / "artifacts")],
        start_new_session=True,
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        campaign.run()
        tracking = campaign.state().tracking
        assert tracking is not None
        client = mlflow.MlflowClient(tracking_uri=uri)
        history = client.get_metric_history(tracking.run, "labels/best_so_far")
        rounds = campaign.state().rounds
        assert [item.step for item in history] == [record.index for record in rounds]
        assert client.get_run(tracking.run).info.status == "FINISHED"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def test_mlflow_goes_on_in_one_run(
    small: Callable[..., Campaign], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its trainings are there once each, as children with their weights and a card, and the
    tables are those of the end.
    """
    import mlflow

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    for labels in (14, 24):
        campaign = small(
            tracking={"use": "mlflow", "system_metrics": True}, budget={"labels": labels}
        )
        campaign.run()
        if labels == 14:
            break_off_a_training(campaign)
    state = small(tracking={"use": "mlflow"}).state()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'campaign' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    steps = [item.step for item in client.get_metric_history(run.info.run_id, "labels/so_far")]
    assert steps == [record.index for record in state.rounds]
    assert run.data.metrics["labels/so_far"] == 24
    assert any(name.startswith("system/cpu") for name in run.data.metrics)
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"best", "best_so_far.png", "config", "tables", "versions.json"} <= files

    trained = [event for record in state.rounds for event in record.trained]
    assert len(trained) >= 2
    assert len(children) == len(trained) == len(runs) - 1
    event = next(event for event in trained if event.is_published)
    child = children[f"{event.generator} {event.checkpoint[:8]} of round {event.round}"]
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert child.data.metrics["labels"] == event.labels
    text = Path(
        client.download_artifacts(child.info.run_id, "weights/card.md", str(tmp_path))
    ).read_text()
    assert f"on {event.labels} labels" in text
    assert "| torch |" in text
    kept = {item.path for item in client.list_artifacts(child.info.run_id, "weights")}
    assert f"weights/{event.generator}.safetensors" in kept

    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    tables = {
        item["path"]: mlflow_table(client, run.info.run_id, item["path"], tmp_path)
        for item in shown
    }
    assert len(tables["tables/candidates.json"]) == len(state.candidates)
    assert len(tables["tables/labels.json"]) == len(state.labels)
    assert len(tables["tables/failures.json"]) == len(state.failures)
    assert len(tables["tables/decisions.json"]) == sum(
        len(record.decided.choices) for record in state.rounds if record.decided
    )


def break_off_a_training(campaign: Campaign) -> None:
    """As a driver leaves it that dies while it writes a child run."""
    from mlflow import MlflowClient

    client, tracking = (
        MlflowClient(f"sqlite:///{campaign.folder / 'mlflow.db'}"),
        campaign.state().tracking,
    )
    assert tracking is not None
    client.create_run(
        client.get_run(tracking.run).info.experiment_id,
        tags={"mlflow.parentRunId": tracking.run},
        run_name="broken off",
    )


def mlflow_table(client: Any, run: str, path: str, folder: Path) -> pd.DataFrame:
    return pd.read_json(client.download_artifacts(run, path, str(folder)), orient="split")


def test_a_users_module_beside_the_config_works_on_ray_from_another_folder(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "my_oracle.py").write_text((HELPERS / "user_oracles.py").read_text())
    (home / "big").mkdir()
    config = write_config(
        home / "small.yaml",
        objective={"quantity": "density", "direction": "maximize"},
        oracles=[{"use": "my_oracle:Density", "workers": 2, "cpus": 0.5}],
        executor={"use": "ray"},
        mode="streaming",
    )
    result = oreloop("run", str(config), cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    assert OVER in result.stdout
    assert (elsewhere / "campaigns" / "small" / "report.html").exists()


def test_an_unreachable_ray_address_is_one_clear_message(tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "small.yaml", executor={"use": "ray", "address": f"127.0.0.1:{free_port()}"}
    )
    result = oreloop("run", str(config), cwd=tmp_path)
    assert result.returncode == 4
    assert "no Ray cluster answers at 127.0.0.1" in result.stderr
    assert "Traceback" not in result.stderr


def test_sigterm_drains_and_the_campaign_goes_on_later(tmp_path: Path) -> None:
    oracle = {
        "use": "user_oracles:Counting",
        "params": {"log": str(tmp_path / "log"), "seconds": 0.15},
    }
    (tmp_path / "user_oracles.py").write_text((HELPERS / "user_oracles.py").read_text())
    config = write_config(tmp_path / "small.yaml", oracles=[oracle])
    process = subprocess.Popen(
        [sys.executable, "-m", "campaign.cli", "run", str(config)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "log"
    for _ in range(200):
        if log.exists() and log.read_text().count("\n") >= 3:
            break
        time.sleep(0.1)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted by SIGTERM" in output
    campaign = Campaign.open(tmp_path / "campaigns" / "small")
    assert len(campaign.state().labels) == log.read_text().count("\n")
    stopped = oreloop("stop", str(tmp_path / "campaigns" / "small"), cwd=tmp_path)
    assert "no driver" in stopped.stdout
    assert oreloop("run", str(tmp_path / "campaigns" / "small"), cwd=tmp_path).returncode == 0
    assert log.read_text().count("\n") == 24
