"""Backtests: the campaign's own code on a table, in virtual time; their figures in closed form;
again after an interruption.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from ase.io import write
from pydantic import ValidationError
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.backtest import config as backtests
from campaign.backtest import replay
from campaign.backtest.figures import Run, best_so_far, calls_to, summarise
from campaign.backtest.table import Table, TableConfig, rows_of
from campaign.cli import app
from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.types import Objective

MORE = Objective("value", "maximize")
NO_TABLE = {"use": "table", "params": {"path": "no.csv", "columns": {"value": "v"}}}


def table(folder: Path, n: int = 60, gaps: int = 0) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(n):
        atoms = supercell("bcc", (2, 1, 1), rng.choice(["Ni", "Fe", "Cr"], 4).tolist()).atoms
        atoms.set_cell(atoms.cell * (1 + 0.001 * i), scale_atoms=True)
        atoms.info["v"] = (
            float("nan") if i < gaps else float(np.mean(atoms.numbers == 28) + 0.001 * i)
        )
        frames.append(atoms)
    write(folder / "table.extxyz", frames)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "labels": 20,
        "seeds": 2,
        "workers": 1,
        "top": 0.05,
        "campaign": {
            "space": {"elements": ["Ni", "Fe", "Cr"]},
            "objective": {"quantity": "value"},
            "candidate_pools": [{"path": "table.extxyz"}],
            "oracles": [
                {
                    "use": "table",
                    "workers": 2,
                    "params": {"path": "table.extxyz", "columns": {"value": "v"}},
                }
            ],
            "screens": {"match_length": 1e-6, "match_site": 1e-6},
        },
        "strategies": {
            "random": {"acquisition": {"use": "random"}},
            "model": {
                "surrogate": {"use": "gp", "params": {"max_iterations": 15}},
                "acquisition": {"initial_labels": 6, "batch_size": 4},
            },
        },
        **changes,
    }


def read(folder: Path, **changes: Any) -> backtests.Backtest:
    return backtests.validate(document(**changes), folder=folder, source=folder / "backtest.yaml")


def test_strategies_are_replayed_and_kept(tmp_path: Path) -> None:
    table(tmp_path)
    backtest = read(tmp_path)
    done: list[tuple[str, int]] = []
    outcome = replay.run_all(backtest, tmp_path / "out", lambda *key: done.append(key))
    assert sorted(done) == sorted(backtest.runs)
    assert outcome.n_best == 3
    random, model = outcome.summaries
    assert model.discovery > random.discovery
    assert model.regret <= random.regret
    assert random.acceleration == pytest.approx(1.0)
    for run in outcome.runs:
        assert len(run.values) == 20
        assert len(set(run.values.tolist())) == 20, "no row is asked for twice"
        assert run.ends[-1] == pytest.approx(11.0 if run.strategy == "random" else 10.0), (
            "two workers, one second a label, batch by batch"
        )
    again = replay.run_all(
        backtest, tmp_path / "out", lambda *key: pytest.fail("nothing is run twice")
    )
    assert [run.values.tolist() for run in again.runs] == [
        run.values.tolist() for run in outcome.runs
    ]
    assert len(replay.run_all(read(tmp_path, labels=10), tmp_path / "out").runs[0].values) == 10, (
        "other settings are other runs"
    )
    table(tmp_path, gaps=1)
    backtest = read(tmp_path)
    assert not replay._path(backtest, tmp_path / "out", "random", 0).exists(), (
        "another table is another run"
    )


def test_gaps_and_drawn_failures_are_failures_and_count_as_calls(tmp_path: Path) -> None:
    table(tmp_path, gaps=20)
    gaps = replay.replay(read(tmp_path, labels=60), "random", 0)
    assert int(np.isnan(gaps.values).sum()) == 20
    table(tmp_path)
    backtest = read(
        tmp_path,
        labels=60,
        virtual={"failures": {"table": 0.5}, "seconds": {"table": 3.0}, "spread": 0.2},
    )
    drawn = replay.replay(backtest, "random", 0)
    assert 15 < np.isnan(drawn.values).sum() < 45
    assert drawn.ends.max() == pytest.approx(90, rel=0.2)
    assert (np.diff(drawn.ends) >= 0).all()


def test_the_command_writes_table_figure_and_experiment(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    table(tmp_path)
    with (tmp_path / "backtest.yaml").open("w") as file:
        YAML().dump(document(labels=12, seeds=1), file)
    result = CliRunner().invoke(
        app,
        ["backtest", str(tmp_path / "backtest.yaml"), "--folder", str(tmp_path / "out")],
        env={"COLUMNS": "200"},
    )
    assert result.exit_code == 0, result.output
    assert "acceleration" in result.output
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert [row["strategy"] for row in rows] == ["random", "model"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n_best"] == 3
    assert b"plotly" in (tmp_path / "out" / "curves.html").read_bytes()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("backtest small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4
    curve = next(run for run in runs if run.data.tags.get("seed") == "0")
    assert len(client.get_metric_history(curve.info.run_id, "best_gain")) == 12


def test_another_campaigns_labels_are_a_table(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small()
    campaign.run()
    labels = {
        label.candidate: label.values["energy_per_atom"] for label in campaign.state().own_labels
    }
    oracle = Table(
        TableConfig(path=campaign.folder, columns={"energy_per_atom": "energy_per_atom"})
    )
    for candidate, value in labels.items():
        assert oracle.evaluate(campaign.crystal(candidate)).value("energy_per_atom") == value
    unknown = oracle.evaluate(supercell("bcc", (1, 1, 1), ["Fe", "Ni"]))
    assert unknown.failure is not None
    assert "no such crystal" in unknown.failure.message


def run(values: list[float], strategy: str = "s") -> Run:
    return Run(
        strategy, 0, np.array(values), np.arange(1.0, len(values) + 1), np.full(len(values), 2.0)
    )


def test_figures_in_closed_form() -> None:
    slow, fast = run([1, 2, math.nan, 3, 9, 4], "random"), run([math.nan, 9, 8, 1, 2, 3], "fast")
    assert best_so_far(slow, MORE).tolist() == [1, 2, 2, 3, 9, 9]
    assert best_so_far(fast, Objective("value", "minimize"))[1:].tolist() == [-9, -8, -1, -1, -1]
    assert (calls_to(slow, MORE, 9), calls_to(fast, MORE, 9), calls_to(slow, MORE, 10)) == (
        5,
        2,
        math.inf,
    )
    summary = summarise([fast], [slow], MORE, target=8, best=10, n_best=4)
    assert summary.calls_to_target == summary.time_to_target == 2
    assert summary.acceleration == 2.5
    assert summary.cost_to_target == 4
    assert summary.regret == 1
    assert summary.enhancement == 2.0
    assert summary.discovery == pytest.approx((0 + 1 + 2 + 2 + 2 + 2) / 6 / 4)
    assert summary.failures == pytest.approx(1 / 6)
    missed = summarise([slow], [slow], MORE, target=20, best=20, n_best=1)
    assert (missed.calls_to_target, missed.acceleration) == (math.inf, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labls": 3}, "did you mean 'labels'"),
        ({"baseline": "luck"}, "baseline 'luck' is no strategy"),
        ({"strategies": {"random": {"acquisition": {"use": "luck"}}}}, "strategy random"),
        (
            {
                "strategies": {
                    "random": {
                        "acquisition": {"use": "random"},
                        "oracles": [
                            {
                                "use": "table",
                                "params": {"path": "no.csv", "columns": {"value": "v"}},
                            }
                        ],
                    }
                }
            },
            "no table",
        ),
    ],
)
def test_bad_backtests_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    table(tmp_path)
    with pytest.raises(InputError, match=message):
        read(tmp_path, **change)


def test_a_table_states_the_noise_of_its_labels(tmp_path: Path) -> None:
    table(tmp_path)
    settings: dict[str, Any] = {"path": tmp_path / "table.extxyz", "columns": {"value": "v"}}
    plain, noisy = (Table(TableConfig(**settings, noise=noise)) for noise in ({}, {"value": 0.3}))
    crystal = next(iter(rows_of(plain.config).values()))[0]
    (one,), (other,) = (oracle.evaluate(crystal).observations for oracle in (plain, noisy))
    assert (one.noise, other.noise) == (None, 0.3)
    assert one.value == other.value
    assert plain.fidelity != noisy.fidelity, "a label with stated noise is another label"
    with pytest.raises(ValidationError, match="noise of energy, which columns does not name"):
        TableConfig(**settings, noise={"energy": 0.1})
