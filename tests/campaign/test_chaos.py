"""A campaign that is broken on purpose: which faults, on what, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from support import SMALL, load, merged
from typer.testing import CliRunner

from campaign.cli import app
from campaign.config import loaded as configs
from campaign.errors import InputError
from campaign.testing import chaos
from campaign.testing.outcome import problems
from campaign.testing.stand_in import SWITCH, FaultyStandIn
from campaign.types import Crystal, Failure

ROOT = Path(__file__).resolve().parents[2]
HELD: dict[str, Any] = {
    "fault": "disk full",
    "not_run": "",
    "why_stuck": "",
    "cannot_be_read": "",
    "at_risk": 1,
    "unrecoverable": 0,
    "labels": 16,
    "labels_lost": 0,
    "paid_twice": 1,
    "given_up": 0,
    "tracebacks": 0,
    "message": "said",
    "exit_code": 4,
    "expected_codes": (4,),
    "expected_labels": None,
    "seconds_until_told": 0.1,
    "steps": [["run", 4], ["run", 0]],
    "may_give_up": False,
    "left_processes": [],
    "left_folders": [],
}
HARM = {
    "labels lost": {"labels_lost": 1},
    "paid twice beyond what was under way": {"paid_twice": 2},
    "stuck": {"why_stuck": "run did not end within 240 s"},
    "ledger unreadable at the end": {"cannot_be_read": "damaged"},
    "traceback": {"tracebacks": 1},
    "another exit code than promised": {"exit_code": 1},
    "nothing said": {"message": ""},
    "did not end with its budget": {"steps": [["run", 4], ["run", 3]]},
    "candidates given up": {"given_up": 1},
    "processes left": {"left_processes": ["sleep 613"]},
    "folders left": {"left_folders": ["oreloop-modules-1"]},
}


def config_of(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    return path


def rows(*found: dict[str, Any]) -> Any:
    return lambda *_, **__: iter(
        [{**row, "problems": problems(row), "output": "what it printed"} for row in found]
    )


@pytest.mark.parametrize("problem", HARM)
def test_each_harm_is_told_by_its_name(problem: str) -> None:
    assert not problems(HELD)
    assert problems(HELD | HARM[problem]) == [problem]


def test_what_did_harm_ends_with_exit_code_1_and_its_output_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, config = tmp_path / "kept", str(config_of(tmp_path))
    monkeypatch.setattr(chaos, "broken", rows(HELD))
    assert CliRunner().invoke(app, ["chaos", config, "--output", str(kept)]).exit_code == 0
    assert not kept.exists()
    monkeypatch.setattr(chaos, "broken", rows(HELD, HELD | HARM["labels lost"]))
    ended = CliRunner().invoke(app, ["chaos", config, "--output", str(kept)])
    assert ended.exit_code == 1
    assert "labels lost" in ended.output
    assert "1 of 2 faults" in ended.output
    assert [path.read_text() for path in kept.iterdir()] == ["what it printed"]


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_the_copy_is_valid_small_and_reaches_nothing_outside(
    tmp_path: Path, executor: chaos.Executor
) -> None:
    loaded = load(
        tmp_path,
        oracles=[
            {
                "use": "lennard_jones",
                "workers": 64,
                "gpus": 1,
                "sanity": {"energy_per_atom": [0, 1]},
            }
        ],
        stopping={"stagnation_rounds": 1},
        objective={"target": -10.0},
        notifications={"to": ["json://localhost"]},
        tracking={"use": "mlflow"},
        budget={"labels": 10_000, "wall_time": 1.0},
    )
    document = chaos.small(loaded, executor, tmp_path)
    config = configs.validate(document, folder=tmp_path, source=tmp_path / "small.yaml").config
    assert config.budget.labels == chaos.LABELS
    assert config.budget.wall_time is None
    assert config.tracking.use == "none"
    assert config.notifications is None
    assert config.objective.target is None
    assert config.stopping.stagnation_rounds is None
    (oracle,) = config.oracles
    assert oracle.label == "lennard_jones"
    assert oracle.gpus == 0
    assert not oracle.sanity
    assert oracle.workers == (2 if executor == "ray" else 1)
    assert config.space == loaded.config.space
    assert config.generators == loaded.config.generators


def test_a_stand_in_gives_its_quantities_the_same_each_time(tmp_path: Path) -> None:
    oracle = FaultyStandIn(
        str(tmp_path), {"forces": ("eV/angstrom", [-1, 3]), "gap": ("eV", [])}, seconds=0.0
    )
    crystal = Crystal(3 * np.eye(3), [[0, 0, 0]], [28])
    found, again = oracle.evaluate(crystal).observations, oracle.evaluate(crystal).observations
    for item, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(item.value, other.value)
    assert {item.quantity: np.shape(item.value) for item in found} == {"forces": (1, 3), "gap": ()}
    (tmp_path / SWITCH).write_text('["unphysical", 1]')
    assert isinstance(oracle.evaluate(crystal).failure, Failure)
    assert oracle.evaluate(crystal).failure is None


def test_faults_are_chosen_by_words_and_by_executor() -> None:
    assert "compute worker killed" not in {fault.name for fault in chaos.faults_of("serial")}
    assert "compute worker killed" in {fault.name for fault in chaos.faults_of("ray")}
    assert len(chaos.faults_of("serial", ["oracle hangs", "disk"])) == 2
    with pytest.raises(InputError, match="no fault is called flood"):
        chaos.faults_of("serial", ["flood"])


@pytest.mark.timeout(300)
def test_a_campaign_of_a_config_elsewhere_is_broken_and_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real command; nothing is left beside the config."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = config_of(
        tmp_path,
        generators=[{"use": "random_alloy", "count": 12, "params": {"repeats": [2, 2, 1]}}],
        surrogate=None,
        acquisition={"use": "random"},
    )
    loaded = configs.read(config)
    (row,) = chaos.broken(loaded, chaos.faults_of("serial", ["driver killed"]), "serial")
    assert row["problems"] == [], row["output"]
    assert row["labels"] == chaos.LABELS
    assert row["exit_code"] == -9
    assert row["labels_lost"] == 0
    assert list(tmp_path.iterdir()) == [config]
