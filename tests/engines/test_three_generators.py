"""configs/three_generators.yaml in a form of minutes: three learned generators, three oracles, a
kill on the way. Nothing stands in.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from campaign.api import Campaign
from campaign.errors import SurroundingsError
from campaign.ledger import LedgerReader
from campaign.ledger.state import CampaignState
from oracles.dft import engines

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GENERATORS, ORACLES = ("pcdvae", "flow_matching", "cvae"), ("lammps", "mace", "gpaw")


def short_form() -> dict[str, Any]:
    """The shipped campaign with small cells, few epochs, and a coarse GPAW without spin."""
    document = copy.deepcopy(YAML(typ="safe").load(CONFIGS / "three_generators.yaml"))
    document |= {"name": "short", "budget": {"rounds": 6}, "train_every": 1}
    document["acquisition"] = {"initial_labels": 12, "batch_size": 4}
    document["fidelities"]["audit"]["every"] = 1
    generators = {item["use"]: item for item in document["generators"]}
    document["generators"].remove(generators["random_alloy"])
    generators["ordered_alloy"] |= {
        "count": 24,
        "params": {"lattices": ["fcc"], "atoms": [2, 3, 4]},
    }
    changes: dict[str, dict[str, Any]] = {
        "pcdvae": {
            "training": {"epochs": 3, "batch_size": 16},
            "optimisation": {"share": 0.0},
            "sampler": {"use": "focused", "steps": 40, "ancestral": 10},
        },
        "flow_matching": {"training": {"steps": 60, "again": 30}},
        "cvae": {"training": {"epochs": 5}, "sites": {"atoms": [2, 4], "sites": [2, 4]}},
    }
    for name, params in changes.items():
        generators[name]["count"] = 4
        generators[name]["params"] |= {**params, "min_labels": 10}
    target = generators["cvae"]["params"]["target"]
    target["files"] = [str(CONFIGS / file) for file in target["files"]]
    document["committee"]["params"] |= {
        "min_labels": 10,
        "training": {"epochs": 5},
        "architecture": {"channels": 8, "layers": 1, "cutoff": 4.0},
    }
    oracles = {item["use"]: item for item in document["oracles"]}
    oracles["mace"]["params"]["relax"] = "none"
    oracles["gpaw"]["params"] |= {
        "cutoff": 250,
        "kpoint_density": 0.8,
        "moments": {},
        "energy_convergence": 1e-3,
    }
    return document


def run(config: Path, *, until_round: int | None = None) -> int:
    """``oreloop run``, killed with its process group once a round has ended; the exit code
    otherwise.
    """
    command = [sys.executable, "-m", "campaign.cli", "run", str(config)]
    surroundings = os.environ | {"RAY_worker_niceness": "0"}
    with (config.parent / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=config.parent,
            stdout=output,
            stderr=output,
            env=surroundings,
            start_new_session=True,
        )
    while until_round is not None and process.poll() is None:
        state = state_of(config.parent / "campaigns" / "short")
        if len(state.rounds) > until_round and state.rounds[until_round].decided is not None:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.5)
    return process.wait()


def state_of(folder: Path) -> CampaignState:
    """As the ledger stands; empty where its driver has not made its tables yet."""
    try:
        reader = LedgerReader(folder)
    except SurroundingsError:
        return CampaignState()
    try:
        return reader.fold()
    except SurroundingsError:
        return CampaignState()
    finally:
        reader.close()


@pytest.mark.skipif(find_spec("gpaw") is None, reason=engines.missing_gpaw())
@pytest.mark.dft
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_oracle_labels_what_every_generator_proposes(tmp_path: Path) -> None:
    config = tmp_path / "short.yaml"
    YAML(typ="safe").dump(short_form(), config)
    assert run(config, until_round=1) == -signal.SIGKILL
    before = state_of(tmp_path / "campaigns" / "short")
    assert run(config) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    campaign = Campaign.open(tmp_path / "campaigns" / "short")
    state = campaign.state()
    assert len(state.sessions) == 2
    assert before.labels.keys() <= state.labels.keys()
    reader = campaign.reader()
    keys = Counter(event.key for _, _, event in reader.events() if getattr(event, "key", None))
    reader.close()
    assert max(keys.values()) == 1, "nothing is paid twice"
    pairs = Counter(
        (state.source_of(label.candidate), label.oracle)
        for label in state.own_labels
        if not label.purpose
    )
    missing = {(generator, oracle) for generator in GENERATORS for oracle in ORACLES} - pairs.keys()
    assert not missing, f"{missing}; found {pairs}"
    assert len({label.fidelity for label in state.own_labels if label.oracle == "mace"}) == 1
    trained = Counter(event.generator for record in state.rounds for event in record.trained)
    assert all(trained[name] >= 2 for name in GENERATORS), trained
    assert sum(record.fitted is not None for record in state.rounds) >= 2
    assert all(record.ended is not None for record in state.rounds)
    bulk = [label.values["bulk_modulus"] for label in state.own_labels if label.oracle == "lammps"]
    assert all(0 <= value <= 500 for value in bulk)
    _every_round_is_in_mlflow(campaign, len(state.rounds))


def _every_round_is_in_mlflow(campaign: Campaign, rounds: int) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{campaign.folder / 'mlflow.db'}")
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    ]
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1, "both sessions are in one run"
    steps = {
        metric.step for metric in client.get_metric_history(parents[0].info.run_id, "proposed")
    }
    assert steps == set(range(rounds)), "each round once"
