"""One step of a trial, run by a worker: a replay of one seed, a training that goes on from the
last, or a fold that is predicted.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from campaign.errors import InputError
from campaign.ledger.dataset import Dataset
from campaign.protocols import GenerationContext, PluginSpec, Trainable
from campaign.study.config import BacktestValue, CrossValidationValue, Study, TrainingValue

Measured = Mapping[str, float]


@dataclass(frozen=True)
class Step:
    """measured: of the trial so far, by name. state: what the next step goes on from."""

    measured: Measured
    state: Any


@dataclass(frozen=True)
class TrialRecord:
    """What is told of a trial: its state in a word, its settings, and what was measured after each
    step.
    """

    number: int
    state: str
    settings: Mapping[str, Any]
    measured: Sequence[Measured]


def n_steps(study: Study) -> int:
    value = study.config.value
    if isinstance(value, BacktestValue):
        return study.backtest.config.seeds
    return value.steps if isinstance(value, TrainingValue) else value.folds


def run_step(study: Study, settings: Mapping[str, Any], step: int, state: Any) -> Step:
    """What is measured after a step, counted from 0, of a trial with these settings.

    Raises InputError where a goal of the study is not measured, or is not finite.
    """
    value = study.config.value
    if isinstance(value, BacktestValue):
        found = _replay(study, value, settings, step, state or ())
    elif isinstance(value, TrainingValue):
        found = _train(study, value, settings, state)
    else:
        found = _predict(study, value, settings, step, state or ())
    for name in study.config.directions:
        if name not in found.measured:
            raise InputError(
                f"goals: {name!r} is not measured",
                hint=f"there are {', '.join(sorted(found.measured))}",
            )
        if not math.isfinite(found.measured[name]):
            raise InputError(f"{name} is {found.measured[name]} after step {step + 1}")
    return found


def _means(found: Sequence[Measured]) -> Step:
    return Step({name: float(np.mean([one[name] for one in found])) for name in found[0]}, found)


def _replay(
    study: Study,
    value: BacktestValue,
    settings: Mapping[str, Any],
    step: int,
    earlier: Sequence[Measured],
) -> Step:
    """The regret refers to the table's best, or the target, or what the baseline finds with the
    same seed; what lies above counts as 0.
    """
    from campaign.backtest.figures import best_so_far
    from campaign.backtest.replay import known_best, replay

    backtest = study.with_settings(settings)
    assert not isinstance(backtest, PluginSpec)
    log = logging.getLogger("campaign")
    level = log.level
    log.setLevel(logging.CRITICAL)  # failures in replays are data, not news
    try:
        run = replay(backtest, value.strategy, backtest.config.first_seed + step)
    finally:
        log.setLevel(level)
    objective = backtest.campaign(
        value.strategy, backtest.config.first_seed
    ).config.objective.objective
    gains = best_so_far(run, objective)
    if not np.isfinite(gains).any():
        raise InputError("no oracle call of the replay gave a label that holds the constraints")
    gains = np.where(np.isfinite(gains), gains, np.nanmin(gains[np.isfinite(gains)]))
    there_is = known_best(study.backtest)
    reference = (study.backtest.config.model_dump_json(), study.backtest.folder, run.seed)
    bar = objective.gain(there_is) if there_is is not None else _baseline_best(*reference)
    regret = float(np.maximum(0.0, bar - gains).mean())
    return _means((*earlier, {"regret": regret, "virtual_seconds": float(run.ends[-1])}))


@cache
def _baseline_best(document: str, folder: Path, seed: int) -> float:
    """The best gain of a backtest's baseline with a seed; ``document`` is the backtest as JSON."""
    from campaign.backtest import config as backtests
    from campaign.backtest.figures import best_so_far
    from campaign.backtest.replay import replay

    backtest = backtests.validate(json.loads(document), folder=folder, source=folder)
    baseline = backtest.config.baseline
    objective = backtest.campaign(baseline, seed).config.objective.objective
    return float(best_so_far(replay(backtest, baseline, seed), objective)[-1])


def _train(
    study: Study,
    value: TrainingValue,
    settings: Mapping[str, Any],
    state: tuple[bytes, float] | None,
) -> Step:
    from campaign import plugins
    from campaign.api import Campaign
    from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes

    spec = study.with_settings(settings)
    assert isinstance(spec, PluginSpec)
    component = plugins.build(spec)
    assert isinstance(component, Trainable)
    campaign = Campaign.open(study.folder / value.campaign)
    labelled = labels_of(study).labelled
    begun, seconds = (
        (checkpoint_from_bytes(state[0]), state[1]) if state is not None else (None, 0.0)
    )
    context = GenerationContext(
        space=campaign.loaded.config.search_space,
        objective=campaign.objective,
        labelled=labelled,
        checkpoint=begun,
    )
    started = time.perf_counter()
    checkpoint = component.train(
        labelled, rng=np.random.default_rng(study.config.seed), context=context
    )
    seconds += time.perf_counter() - started
    return Step(
        {**checkpoint.metrics, "seconds": seconds}, (checkpoint_to_bytes(checkpoint), seconds)
    )


def _predict(
    study: Study,
    value: CrossValidationValue,
    settings: Mapping[str, Any],
    step: int,
    earlier: Sequence[Measured],
) -> Step:
    from campaign import plugins
    from campaign.api import Campaign
    from campaign.decide.calibration import scored
    from campaign.decide.fit import known_noise
    from campaign.seeds import library_seeds

    spec = study.with_settings(settings)
    assert isinstance(spec, PluginSpec)
    quantity = value.quantity or Campaign.open(study.folder / value.campaign).objective.quantity
    labels = labels_of(study)
    (candidates, values), noise = labels.of(quantity), labels.noise_of(quantity)
    if len(candidates) < 2 * value.folds:
        raise InputError(
            f"expected at least {2 * value.folds} labels with {quantity}, got {len(candidates)}"
        )
    fold = np.random.default_rng(study.config.seed).permutation(len(candidates)) % value.folds
    learned, held = np.flatnonzero(fold != step), np.flatnonzero(fold == step)
    started = time.perf_counter()
    with library_seeds(study.config.seed):
        surrogate = plugins.build(spec)
        fitted = surrogate.fit(
            [candidates[row] for row in learned],
            values[learned],
            **known_noise(surrogate, None if noise is None else noise[learned]),
        )
        seconds = time.perf_counter() - started
        posterior = fitted.model.posterior(
            fitted.features([candidates[row] for row in held]), observation_noise=True
        )
    mean, deviation = (
        part.detach().numpy().ravel() for part in (posterior.mean, posterior.variance.sqrt())
    )
    figures = scored(values[held], mean, deviation)
    return _means((*earlier, {**figures, "seconds": seconds}))


def labels_of(study: Study) -> Dataset:
    """The labels of the campaign that a component learns from, of its objective's oracle."""
    from campaign.api import Campaign
    from campaign.config.roles import objective_oracle
    from campaign.ledger.dataset import dataset_before

    value = study.config.value
    assert not isinstance(value, BacktestValue)
    campaign = Campaign.open(study.folder / value.campaign)
    with closing(campaign.reader()) as reader:
        state = reader.fold()
        return dataset_before(reader, state, state.sequence + 1, objective_oracle(campaign.loaded))
