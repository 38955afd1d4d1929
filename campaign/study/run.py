"""Runs a study by ask and tell: batches of trials step by step, told to Optuna in their order, so
that a seed gives one result.

Every trial is in the storage before its work begins, and its value once it has ended. A trial that
was under way when the driver died is marked as failed and its settings are queued again; none that
ended is run again or counted twice. A trial that raises is failed and told.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from campaign.code import code_key
from campaign.errors import InputError
from campaign.executors import make_executor
from campaign.ledger.lock import FolderLock
from campaign.protocols import RunsTasks
from campaign.seeds import content_hash
from campaign.study.config import BacktestValue, Choice, Dimension, IntegerRange, Study
from campaign.study.trials import Measured, Step, TrialRecord, labels_of, n_steps, run_step

JOURNAL = "study.journal"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def storage_of(study: Study, folder: Path) -> BaseStorage:
    if study.config.storage is not None:
        return RDBStorage(study.config.storage)
    folder.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def opened(study: Study, folder: Path) -> optuna.Study:
    """Begun, or gone on with. Raises InputError where a study of that name searched another space
    or value.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = study.config
    space = {key: dimension.model_dump(mode="json") for key, dimension in config.space.items()}
    value = config.value.model_dump(
        mode="json", exclude={"campaign"}
    )  # its folder may move; its labels are held on to by themselves
    meaning = content_hash([value, list(config.directions.items()), space])
    storage = storage_of(study, folder)
    if config.name in optuna.get_all_study_names(storage):
        found = optuna.load_study(study_name=config.name, storage=storage, pruner=_pruner(study))
    else:
        directions = list(config.directions.values())
        found = optuna.create_study(
            study_name=config.name, storage=storage, directions=directions, pruner=_pruner(study)
        )
    if found.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found.set_metric_names(list(config.directions))
    _keep(
        found,
        "meaning",
        meaning,
        f"the study {config.name} in {folder} has another value, goals or space",
    )
    if isinstance(config.value, BacktestValue):
        if not (study.folder / config.value.path).exists():
            return found
        problem = content_hash(study.backtest.problem(config.value.strategy))
        told = (
            f"the study {config.name} in {folder} began on another problem: "
            f"{config.value.path}, or a file or module of it, has changed"
        )
        _keep(found, "problem", problem, told)
    elif key := code_key(study.component):
        _keep(
            found,
            "code",
            key,
            f"the study {config.name} in {folder} began with other code of "
            f"{config.value.component}",
        )
    return found


def _keep(found: optuna.Study, name: str, value: str, otherwise: str) -> None:
    """Note a fact of a study once. Raises InputError where another was noted."""
    kept = found.user_attrs.get(name)
    if kept is None:
        found.set_user_attr(name, value)
    elif kept != value:
        raise InputError(otherwise, hint="give this one another name or --folder")


def run(
    study: Study, folder: Path, on_step: Callable[[optuna.Study], None] = lambda found: None
) -> optuna.Study:
    """All trials that are left.

    Raises CampaignLockedError where another driver runs the study, InputError where the labels are
    not those that it began with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        return _run(study, folder, on_step)
    finally:
        lock.release()


def _run(study: Study, folder: Path, on_step: Callable[[optuna.Study], None]) -> optuna.Study:
    found = opened(study, folder)
    if not isinstance(study.config.value, BacktestValue):
        _keep(
            found,
            "labels",
            labels_of(study).key,
            f"the campaign of the study {study.config.name} has other labels than when it began",
        )
    _queue_what_was_under_way(found)
    executor = make_executor(study.config.executor)
    if not isinstance(executor, RunsTasks):
        raise InputError(
            f"executor: use {study.config.executor.use} cannot run studies",
            hint="take ray or serial",
        )
    executor.start([])
    try:
        while (left := study.config.trials - _n_ended(found)) > 0:
            _batch(study, found, executor, min(left, study.config.at_once), on_step)
    finally:
        executor.shutdown()
    return found


def _batch(
    study: Study,
    found: optuna.Study,
    executor: RunsTasks,
    n: int,
    on_step: Callable[[optuna.Study], None],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found.sampler = _sampler(study, _n_ended(found))
    space = {key: distribution(dimension) for key, dimension in study.config.space.items()}
    live = [found.ask(space) for _ in range(n)]
    states: dict[int, Any] = {trial.number: None for trial in live}
    measured: dict[int, list[Measured]] = {trial.number: [] for trial in live}
    goals = list(study.config.directions)
    last = n_steps(study) - 1
    for step in range(last + 1):
        calls = [(study, trial.params, step, states[trial.number]) for trial in live]
        answers = executor.run_all(run_step, calls, cpus=study.config.cpus, gpus=study.config.gpus)
        going = []
        for trial, answer in zip(live, answers, strict=True):
            if not isinstance(answer, Step):
                trial.set_user_attr("error", f"{type(answer).__name__}: {answer}")
                found.tell(trial, state=TrialState.FAIL)
                continue
            states[trial.number] = answer.state
            measured[trial.number].append(answer.measured)
            trial.set_user_attr("measured", measured[trial.number])
            if len(goals) == 1:
                trial.report(answer.measured[goals[0]], step)
            if step == last:
                found.tell(trial, [answer.measured[name] for name in goals])
            elif len(goals) == 1 and trial.should_prune():
                found.tell(trial, state=TrialState.PRUNED)
            else:
                going.append(trial)
        live = going
        on_step(found)


def _n_ended(found: optuna.Study) -> int:
    """Without those that were queued again."""
    trials = found.get_trials(deepcopy=False)
    again = _queued_again(found)
    return sum(trial.state in _DONE and trial.number not in again for trial in trials)


def _queued_again(found: optuna.Study) -> set[int]:
    return {
        int(trial.user_attrs["again"])
        for trial in found.get_trials(deepcopy=False)
        if "again" in trial.user_attrs
    }


def _queue_what_was_under_way(found: optuna.Study) -> None:
    again = _queued_again(found)
    for trial in found.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in again:
            found.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        found.tell(trial.number, state=TrialState.FAIL)


def distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.of)
    if isinstance(dimension, IntegerRange):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _sampler(study: Study, ended: int) -> optuna.samplers.BaseSampler:
    """With a seed of its own for each batch, so that a study that goes on chooses as one that was
    never broken.
    """
    config = study.config
    seed = int(content_hash([config.seed, ended])[:8], 16)
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if config.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=config.startup)
    if config.sampler == "gp":
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=config.startup, deterministic_objective=True
        )
    if config.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, config.startup))
    if config.sampler == "qmc":
        return optuna.samplers.QMCSampler(seed=config.seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=config.startup, multivariate=True, constant_liar=True
    )


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    startup = study.config.startup
    if study.config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=startup)
    if study.config.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    if study.config.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=n_steps(study))
    return optuna.pruners.NopPruner()


def best(found: optuna.Study, number: int | None = None) -> FrozenTrial:
    """The best trial; with several goals the one with a number, of those that no other is better
    than in every goal.

    Raises InputError where no trial has ended, where there are several and none is named, and where
    it is not one of them.
    """
    if not _ended_whole(found):
        raise InputError(f"no trial of {found.study_name} has ended with a value")
    front = [found.best_trial] if _has_one_goal(found) else found.best_trials
    if number is None and len(front) == 1:
        return front[0]
    chosen = next((trial for trial in front if trial.number == number), None)
    if chosen is None:
        told = "they are" if number is None else f"{number} is not one of them:"
        raise InputError(
            f"{len(front)} trials of {found.study_name} are the best: {told} "
            f"{', '.join(str(trial.number) for trial in front)}",
            hint="choose one by --trial",
        )
    return chosen


def _has_one_goal(found: optuna.Study) -> bool:
    return len(found.directions) == 1


def _ended_whole(found: optuna.Study) -> list[FrozenTrial]:
    return found.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def steps_saved(found: optuna.Study, steps: int) -> float:
    """Share (1) of the steps that pruning saved, of those of all trials that did not fail."""
    trials = [
        trial
        for trial in found.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    taken = sum(len(trial.user_attrs.get("measured", ())) for trial in trials)
    return 1 - taken / (steps * len(trials)) if trials else 0.0


def standing(found: optuna.Study) -> tuple[int, str]:
    """How many trials have ended, and the best value, or how many trials are the best, in words."""
    if not _ended_whole(found):
        return _n_ended(found), ""
    told = (
        f"best {found.best_value:.5g}"
        if _has_one_goal(found)
        else f"{len(found.best_trials)} on the front"
    )
    return _n_ended(found), told


def records(found: optuna.Study) -> list[TrialRecord]:
    """Every trial but those that were queued again."""
    again = _queued_again(found)
    return [
        TrialRecord(
            trial.number,
            trial.state.name.lower(),
            dict(trial.params),
            trial.user_attrs.get("measured", ()),
        )
        for trial in found.get_trials(deepcopy=False)
        if trial.number not in again and trial.state in _DONE
    ]
