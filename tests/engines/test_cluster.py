"""A Ray cluster of several machines, here of several servers on this one: machines that join are
used, one that dies ends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import load
from test_surroundings import free_port

from campaign.api import Campaign
from campaign.errors import SurroundingsError
from campaign.ledger import CampaignState

SLOW = """
import time
from pathlib import Path
from campaign.types import ENERGY_PER_ATOM, Evaluation

class Slow:
    quantities = (ENERGY_PER_ATOM,)

    def evaluate(self, crystal):
        time.sleep(0.02 if Path({quick!r}).exists() else 1.0)
        return Evaluation.single(ENERGY_PER_ATOM, float(crystal.fractional.sum()))
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "gcs_server_port": free_port(), "include_dashboard": False},
    )
    yield found
    found.shutdown()


def campaign(folder: Path, address: str, **oracle: Any) -> Campaign:
    """Labels take a second each until there is a file ``quick``."""
    (folder / "slow.py").write_text(SLOW.format(quick=str(folder / "quick")))
    changes: dict[str, Any] = {
        "acquisition": {"use": "random", "initial_labels": 200, "batch_size": 200},
        "budget": {"labels": 200},
        "generators": [{"use": "random_alloy", "count": 220, "params": {"repeats": [2, 2, 2]}}],
        "oracles": [{"use": "slow:Slow", "start_limit": 10, "wall_limit": 30, **oracle}],
        "executor": {"use": "ray", "address": address},
    }
    return Campaign(folder / "campaign", load(folder, **changes))


@pytest.mark.timeout(180)
def test_a_node_joins_and_dies_and_the_rest_goes_on(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("campaign.executors.ray._START_ATTEMPTS", 1)
    monkeypatch.setattr("campaign.executors.ray._REST_SECONDS", 1.0)
    nodes: list[Any] = []
    told = "the others go on, it is tried again later"
    told_before = 0

    def on_change(state: CampaignState) -> None:
        nonlocal told_before
        if len(state.labels) >= 4 and not nodes:
            nodes.append(cluster.add_node(num_cpus=2))
        if len({label.worker for label in state.own_labels}) > 2 and len(nodes) == 1:
            nodes.append(None)
            cluster.remove_node(nodes[0], allow_graceful=False)
            told_before = caplog.text.count(told)
        if len(nodes) == 2 and caplog.text.count(told) > told_before:
            (tmp_path / "quick").touch()

    found = campaign(tmp_path, cluster.address, workers=4, cpus=1, start_limit=20)
    assert found.run(on_change=on_change) == "budget spent: 200 labels"
    state = found.state()
    assert len(state.labels) == 200
    assert len(nodes) == 2
    assert (tmp_path / "quick").exists()
    assert "the workers ask for 4 CPU, the cluster has 2: some start when nodes join" in caplog.text


def test_what_no_machine_can_hold_is_told_at_once(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2)
    with pytest.raises(
        SurroundingsError,
        match="asks for 3 CPU on one machine; the machines of the cluster have 2 CPU; 2 CPU",
    ):
        campaign(tmp_path, cluster.address, cpus=3).run()
