"""The recipes for machines, as far as they run on one machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import merged

from benchmarks.slurm_server import Server, lacking
from campaign.api import Campaign
from campaign.config import loaded as configs

FEW: dict[str, Any] = {
    "budget": {"labels": 2},
    "acquisition": {"batch_size": 2, "initial_labels": 2},
}
PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "recipes.md"


def recipe(name: str) -> dict[str, Any]:
    """The document of a block that begins with its name."""
    text = PAGE.read_text().partition(f"# {name}\n")[2].partition("```")[0]
    found: dict[str, Any] = YAML(typ="safe").load(text)
    return found


def run(name: str, folder: Path, **changes: Any) -> Campaign:
    document = merged(recipe(name), changes)
    loaded = configs.validate(document, folder=folder, source=PAGE)
    found = Campaign(folder / "campaign", loaded)
    found.run()
    return found


def test_the_workstation_labels(tmp_path: Path) -> None:
    found = run("workstation.yaml", tmp_path, **FEW)
    assert len(found.state().labels) == 2


def test_a_campaign_finds_the_ray_of_its_allocation(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    try:
        executor = {"use": "ray", "address": cluster.address}
        found = run("allocation.yaml", tmp_path, **FEW, executor=executor)
    finally:
        cluster.shutdown()
    assert len(found.state().labels) == 2


@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_the_costly_level_of_a_ladder_is_jobs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path_factory.mktemp("slurm"))
    try:
        for name, value in server.surroundings.items():
            monkeypatch.setenv(name, value)
        found = run("ladder.yaml", tmp_path, budget={"labels": 10})
        n_dear = sum(oracle == "costly" for _, oracle in found.state().labels)
        assert n_dear >= 1
        assert len(server.jobs()) == n_dear
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_campaigns_share_a_machine(tmp_path: Path) -> None:
    config = tmp_path / "shared.yaml"
    with config.open("w") as file:
        YAML().dump(merged(recipe("shared.yaml"), FEW), file)
    command = [sys.executable, "-m", "campaign.cli", "run", str(config), "--folder"]
    drivers = [
        subprocess.Popen([*command, str(tmp_path / name)], cwd=tmp_path) for name in ("a", "b")
    ]
    assert [driver.wait(250) for driver in drivers] == [0, 0]
    assert [len(Campaign.open(tmp_path / name).state().labels) for name in ("a", "b")] == [2, 2]


def test_the_manifest_of_kubernetes_is_whole() -> None:
    manifest = recipe("raycluster.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayCluster")
    assert manifest["spec"]["authOptions"] == {"mode": "token"}
    groups = [manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == groups[0]["template"]["spec"]["containers"][0]["image"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
