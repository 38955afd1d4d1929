"""Studies: a seed gives one result, pruning saves steps, failures are told, and a driver that dies
loses and counts nothing twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import CampaignLockedError, InputError
from campaign.ledger.dataset import Dataset
from campaign.ledger.lock import FolderLock
from campaign.reading.arguments import laid
from campaign.study import config as studies
from campaign.study import run as runs
from campaign.study import show
from campaign.study.config import Study
from campaign.study.trials import Step

ROOT = Path(__file__).resolve().parent.parent.parent
BACKTEST: dict[str, Any] = {
    "name": "quick",
    "labels": 12,
    "seeds": 3,
    "workers": 1,
    "campaign": {
        "space": {"elements": ["Ni", "Fe"], "max_fraction": 1.0},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "generators": [
            {
                "use": "random_alloy",
                "count": 12,
                "params": {"lattices": ["bcc"], "repeats": [2, 1, 1]},
            }
        ],
        "oracles": [{"use": "lennard_jones"}],
    },
    "virtual": {"seconds": {"lennard_jones": 10.0}},
    "strategies": {
        "random": {"acquisition": {"use": "random"}},
        "tuned": {"acquisition": {"use": "random", "batch_size": 2}},
    },
}
STUDY: dict[str, Any] = {
    "name": "quick",
    "seed": 3,
    "trials": 8,
    "value": {"use": "backtest", "path": "quick.yaml", "strategy": "tuned"},
    "space": {
        "x": {"use": "float", "low": -2.0, "high": 2.0},
        "n": {"use": "integer", "low": 1, "high": 9},
        "kind": {"use": "choice", "of": ["a", "b"]},
    },
    "startup": 3,
    "executor": {"use": "serial"},
}


def study(folder: Path, **changes: Any) -> Study:
    """With a value that is made up by the tests, so that the space is not checked against a
    backtest.
    """
    return Study(studies.StudyConfig.model_validate(STUDY | changes), folder)


def bowl(study: Study, settings: dict[str, Any], step: int, state: Any) -> Step:
    """Falls with each step towards (x - 0.7)^2 + n / 10 + (kind is b)."""
    if settings["n"] == 9:
        raise ValueError("nine is too many")
    floor = (settings["x"] - 0.7) ** 2 + settings["n"] / 10 + (settings["kind"] == "b")
    return Step(
        {
            "regret": floor + 1.0 / (step + 1),
            "virtual_seconds": 10.0 * settings["n"] + settings["x"] ** 2,
        },
        None,
    )


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run_step", bowl)
    monkeypatch.setattr(runs, "n_steps", lambda study: 4)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "qmc", "nsga2"])
def test_a_seed_gives_one_result(tmp_path: Path, sampler: str) -> None:
    found = [
        runs.run(study(tmp_path / str(k), sampler=sampler, trials=10), tmp_path / str(k))
        for k in range(2)
    ]
    trials = [[(t.params, t.state, t.value) for t in each.get_trials()] for each in found]
    assert trials[0] == trials[1]
    assert runs.best(found[0]).params == runs.best(found[1]).params
    other = runs.run(
        study(tmp_path / "other", sampler=sampler, trials=10, seed=4), tmp_path / "other"
    )
    assert [t.params for t in other.get_trials()] != [t.params for t in found[0].get_trials()]


@pytest.mark.usefixtures("made_up")
def test_a_study_finds_the_least_prunes_and_tells_failures(tmp_path: Path) -> None:
    found = runs.run(study(tmp_path, trials=40), tmp_path)
    winner = runs.best(found)
    assert winner.params["kind"] == "a"
    assert winner.value is not None
    assert winner.value < 0.8, "the least is 0.35"
    states = [trial.state.name for trial in found.get_trials()]
    assert states.count("PRUNED") >= 8
    assert runs.steps_saved(found, 4) > 0.2
    failed = [trial for trial in found.get_trials() if trial.state.name == "FAIL"]
    assert all(
        trial.params["n"] == 9 and trial.user_attrs["error"] == "ValueError: nine is too many"
        for trial in failed
    )
    assert len(runs.records(found)) == 40


@pytest.mark.usefixtures("made_up")
def test_what_was_under_way_is_queued_again_and_counted_once(tmp_path: Path) -> None:
    whole = runs.run(study(tmp_path / "whole"), tmp_path / "whole")
    broken = study(tmp_path / "broken")
    begun = runs.opened(broken, tmp_path / "broken")
    left = begun.ask(
        {key: runs.distribution(dimension) for key, dimension in broken.config.space.items()}
    )
    done = runs.run(broken, tmp_path / "broken")
    again = [trial for trial in done.get_trials() if trial.user_attrs.get("again") == left.number]
    assert [trial.params for trial in again] == [left.params]
    assert runs.standing(done)[0] == 8 == len(runs.records(done))
    assert len(done.get_trials()) == 9
    more = runs.run(broken, tmp_path / "broken")
    assert len(more.get_trials()) == 9, "nothing is left to do"
    assert runs.standing(whole)[0] == 8


@pytest.mark.usefixtures("made_up")
def test_a_second_driver_is_turned_away(tmp_path: Path) -> None:
    holder = FolderLock(tmp_path)
    with pytest.raises(CampaignLockedError, match=f"process {os.getpid()}"):
        runs.run(study(tmp_path), tmp_path)
    holder.release()
    assert runs.standing(runs.run(study(tmp_path, trials=2), tmp_path))[0] == 2


@pytest.mark.usefixtures("made_up")
def test_another_space_under_the_same_name_is_refused(tmp_path: Path) -> None:
    runs.run(study(tmp_path, trials=1), tmp_path)
    with pytest.raises(InputError, match="another value, goals or space"):
        runs.opened(
            study(tmp_path, space={"x": {"use": "float", "low": 0.0, "high": 1.0}}), tmp_path
        )
    with pytest.raises(InputError, match="no trial of quick has ended"):
        runs.best(runs.opened(study(tmp_path / "new"), tmp_path / "new"))


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_several_goals_leave_a_front_to_choose_from(tmp_path: Path, sampler: str) -> None:
    goals = {"regret": "minimize", "virtual_seconds": "maximize"}
    config = study(tmp_path, trials=40, sampler=sampler, pruner="none", goals=goals, startup=8)
    found = runs.run(config, tmp_path)
    front = found.best_trials
    assert len(front) >= 3
    for trial in front:
        others = [other.values for other in found.get_trials() if other.values is not None]
        assert not any(a < trial.values[0] and b > trial.values[1] for a, b in others), (
            "no other is better in both"
        )
    with pytest.raises(InputError, match="trials of quick are the best: they are"):
        runs.best(found)
    with pytest.raises(InputError, match="99 is not one of them"):
        runs.best(found, 99)
    assert runs.best(found, front[1].number).number == front[1].number
    assert runs.standing(found) == (40, f"{len(front)} on the front")
    assert all(
        set(measured) == set(goals)
        for record in runs.records(found)
        for measured in record.measured
    )


def write(folder: Path, document: dict[str, Any], name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.open("w") as file:
        YAML().dump(document, file)
    return path


def strategy_study(folder: Path, **changes: Any) -> Path:
    write(folder, BACKTEST, "quick.yaml")
    space = {"acquisition.batch_size": {"use": "integer", "low": 1, "high": 6}}
    return write(folder, STUDY | {"space": space, "trials": 3} | changes, "study.yaml")


def test_a_strategy_is_tuned_by_backtest_from_the_command_line(tmp_path: Path) -> None:
    """Trials, the winning backtest as a file that is valid, and one MLflow child run for each
    trial.
    """
    import mlflow

    path = strategy_study(tmp_path)
    for _ in range(2):
        told = CliRunner().invoke(app, ["study", str(path), "--folder", str(tmp_path / "out")])
        assert told.exit_code == 0, told.output
        assert "3 complete" in told.output or "pruned" in told.output
    told = CliRunner().invoke(
        app,
        [
            "study",
            "best",
            str(path),
            "--folder",
            str(tmp_path / "out"),
            "--write",
            str(tmp_path / "best.yaml"),
        ],
    )
    assert told.exit_code == 0, told.output
    from campaign.backtest import config as backtests

    winner = backtests.read(tmp_path / "best.yaml")
    found = runs.best(runs.opened(studies.read(path), tmp_path / "out"))
    measured = [
        record.measured
        for record in runs.records(runs.opened(studies.read(path), tmp_path / "out"))
    ]
    assert all(step["regret"] >= 0 for steps in measured for step in steps)
    assert (
        winner.config.strategies["tuned"]["acquisition"]["batch_size"]
        == found.params["acquisition.batch_size"]
    )
    client = mlflow.MlflowClient(f"sqlite:///{(tmp_path / 'out' / 'mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name("study quick")
    assert experiment is not None
    kept = client.search_runs([experiment.experiment_id])
    children = [run for run in kept if "trial" in run.data.tags]
    assert sorted(run.data.tags["trial"] for run in children) == ["0", "1", "2"]
    parents = {run.data.tags["mlflow.parentRunId"] for run in children}
    assert len(parents) == 1
    assert len(kept) == 4, "a second call writes nothing again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": {"acquisition.batch_sise": {"use": "integer", "low": 1, "high": 6}}},
            "batch_sise",
        ),
        (
            {"space": {"acquisition.batch_size": {"use": "integer", "low": 0, "high": 6}}},
            "acquisition.batch_size = 0",
        ),
        ({"space": {"acquisition.use": {"use": "choice", "of": ["random", "magic"]}}}, "magic"),
        (
            {"space": {"acquisition.use.deeper": {"use": "float", "low": 0.0, "high": 1.0}}},
            "use is a value",
        ),
        ({"space": {"x": {"use": "float", "low": 1.0, "high": 1.0}}}, "expected low below high"),
        ({"space": {"x": {"use": "float", "low": 0.0, "high": 1.0, "log": True}}}, "both above 0"),
        (
            {"value": {"use": "backtest", "path": "quick.yaml", "strategy": "best"}},
            "no strategy 'best'",
        ),
        (
            {"value": {"use": "backtest", "path": "absent.yaml", "strategy": "tuned"}},
            "cannot read the backtest",
        ),
        (
            {
                "value": {"use": "training", "component": "random_alloy", "campaign": "."},
                "space": {"repeats.0": {"use": "integer", "low": 1, "high": 2}},
            },
            "repeats.0 = 1",
        ),
        ({"sampler": "best"}, "sampler"),
        ({"goals": {"regret": "minimize", "virtual_seconds": "minimize"}}, "set pruner: none"),
        (
            {
                "goals": {"regret": "minimize", "seconds": "minimize"},
                "pruner": "none",
                "sampler": "cmaes",
            },
            "cmaes searches by one goal",
        ),
    ],
)
def test_bad_studies_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        studies.read(strategy_study(tmp_path, **changes))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_studies_are_valid(path: Path) -> None:
    assert studies.read(path).config.trials >= 20


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with 40 labels."""
    folder = tmp_path_factory.mktemp("labelled")
    generators = [
        {"use": "random_alloy", "count": 40, "params": {"lattices": ["bcc"], "repeats": [2, 1, 1]}}
    ]
    config = {
        **BACKTEST["campaign"],
        "generators": generators,
        "acquisition": {"use": "random", "initial_labels": 40},
    }
    config |= {
        "name": "labelled",
        "budget": {"rounds": 1},
        "tracking": {"use": "none"},
        "executor": {"use": "serial"},
    }
    Campaign.from_config(write(folder, config, "labelled.yaml"), folder / "campaign").run()
    return folder


SURROGATE = {
    "value": {"use": "cross_validation", "component": "gp", "campaign": "campaign", "folds": 3},
    "space": {"kernel": {"use": "choice", "of": ["linear_and_rbf", "rbf"]}},
    "pruner": "none",
    "trials": 3,
}


def test_a_surrogate_is_judged_by_labels_that_it_was_not_fitted_to(
    labelled: Path, tmp_path: Path
) -> None:
    path = write(labelled, STUDY | SURROGATE, "surrogate.yaml")
    config = studies.read(path)
    found = runs.run(config, tmp_path)
    records = runs.records(found)
    assert [record.state for record in records] == ["complete"] * 3, [
        trial.user_attrs for trial in found.get_trials()
    ]
    for record in records:
        assert len(record.measured) == 3
        assert record.measured[-1]["rmse"] > 0
    assert runs.best(found).value == min(
        record.measured[-1]["negative_log_likelihood"] for record in records
    )
    show.write_best(config, runs.best(found), tmp_path / "best.yaml")
    written = YAML(typ="safe").load((tmp_path / "best.yaml").read_text())
    assert written == {"use": "gp", "params": {"kernel": runs.best(found).params["kernel"]}}


def test_a_goal_that_is_not_measured_is_a_failed_trial_that_says_so(
    labelled: Path, tmp_path: Path
) -> None:
    config = studies.read(
        write(
            labelled,
            STUDY | SURROGATE | {"goals": {"accuracy": "maximize"}, "trials": 1},
            "goal.yaml",
        )
    )
    (trial,) = runs.run(config, tmp_path).get_trials()
    assert trial.state.name == "FAIL"
    assert "'accuracy' is not measured" in trial.user_attrs["error"]


def test_a_study_holds_on_to_its_labels(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = studies.read(write(labelled, STUDY | SURROGATE | {"trials": 1}, "labels.yaml"))
    runs.run(config, tmp_path)
    monkeypatch.setattr(runs, "labels_of", lambda study: Dataset(()))
    with pytest.raises(InputError, match="other labels than when it began"):
        runs.run(config, tmp_path)


def test_settings_are_laid_at_dotted_keys() -> None:
    base = {"a": {"b": [{"c": 1}, {"c": 2}]}}
    assert laid(base, {"a.b.1.c": 5, "a.d": 6, "e.f": 7}) == {
        "a": {"b": [{"c": 1}, {"c": 5}], "d": 6},
        "e": {"f": 7},
    }
    assert base == {"a": {"b": [{"c": 1}, {"c": 2}]}}
    with pytest.raises(InputError, match="expected a place from 0 to 1"):
        laid(base, {"a.b.2.c": 5})


DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from campaign.study import run as runs
from test_study import bowl, study
def slow(*arguments):
    time.sleep(0.1)
    return bowl(*arguments)
runs.run_step, runs.n_steps = slow, lambda study: 4
runs.run(study(Path(sys.argv[1]), trials=30), Path(sys.argv[1]))
"""


def test_a_driver_that_is_killed_loses_no_trial_and_counts_none_twice(tmp_path: Path) -> None:
    """``kill -9`` at several moments: what had ended stays as it was, and the study ends with its
    trials.
    """
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(Path(__file__).parent)]
    ended: dict[int, tuple[Any, Any]] = {}
    config = study(tmp_path, trials=30)
    for pause in (0.3, 0.5, 0.4):
        process = subprocess.Popen(command)
        deadline = time.time() + 60
        before = len(ended)
        while process.poll() is None and time.time() < deadline:
            time.sleep(pause / 4)
            if (tmp_path / runs.JOURNAL).exists() and runs.standing(runs.opened(config, tmp_path))[
                0
            ] > before:
                time.sleep(pause)
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = {
            record.number: (record.state, record.measured)
            for record in runs.records(runs.opened(config, tmp_path))
        }
        assert all(now[number] == kept for number, kept in ended.items()), (
            "what had ended is as it was"
        )
        ended = now
    assert 0 < len(ended) < 30
    subprocess.run(command, check=True, timeout=60)
    found = runs.opened(config, tmp_path)
    records = runs.records(found)
    assert runs.standing(found)[0] == len(records) == 30
    assert all(
        (record.state, record.measured) == ended[record.number]
        for record in records
        if record.number in ended
    )
    again = [
        int(trial.user_attrs["again"])
        for trial in found.get_trials()
        if "again" in trial.user_attrs
    ]
    assert len(set(again)) == len(again), "no trial is queued twice"
