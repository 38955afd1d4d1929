"""One step of a trial, run by a worker: a replay of one seed, or a training that goes on from the last."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from campaign.errors import InputError
from campaign.protocols import GenerationContext, PluginSpec, Trainable
from campaign.study.config import Study, TrainingValue


@dataclass(frozen=True)
class Step:
    """value: of the trial so far. state: what the next step goes on from."""

    value: float
    state: Any


@dataclass(frozen=True)
class TrialRecord:
    """What is told of a trial: its state in a word, its settings, its value after each step, and its value where it has one."""

    number: int
    state: str
    settings: Mapping[str, Any]
    values: Mapping[int, float]
    value: float | None


def n_steps(study: Study) -> int:
    value = study.config.value
    return value.steps if isinstance(value, TrainingValue) else study.backtest.config.seeds


def run_step(study: Study, settings: Mapping[str, Any], step: int, state: Any) -> Step:
    """The value after a step, counted from 0, of a trial with these settings. Raises InputError where there is no such metric."""
    value = study.config.value
    return _train(study, value, settings, state) if isinstance(value, TrainingValue) else _replay(study, settings, step, state or ())


def _replay(study: Study, settings: Mapping[str, Any], step: int, regrets: tuple[float, ...]) -> Step:
    """Regret of a seed: how far the best so far stays below the table's best, or below the target, or 0, in the mean over the calls."""
    from campaign.backtest.figures import best_so_far
    from campaign.backtest.replay import known_best, replay

    backtest = study.with_settings(settings)
    assert not isinstance(backtest, PluginSpec)
    strategy = study.config.value.strategy  # type: ignore[union-attr]
    log = logging.getLogger("campaign")
    level = log.level
    log.setLevel(logging.CRITICAL)  # failures in replays are data, not news
    try:
        run = replay(backtest, strategy, backtest.config.first_seed + step)
    finally:
        log.setLevel(level)
    objective = backtest.campaign(strategy, backtest.config.first_seed).config.objective.objective
    best = known_best(backtest)
    gains = best_so_far(run, objective)
    if not np.isfinite(gains).any():
        raise InputError("no oracle call of the replay gave a label")
    gains = np.where(np.isfinite(gains), gains, np.nanmin(gains[np.isfinite(gains)]))
    regret = float((objective.gain(best) if best is not None else 0.0) - gains.mean())
    return Step(float(np.mean([*regrets, regret])), (*regrets, regret))


def _train(study: Study, value: TrainingValue, settings: Mapping[str, Any], state: Any) -> Step:
    from campaign import plugins
    from campaign.api import Campaign
    from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
    from campaign.dataset import dataset_before
    from campaign.roles import objective_oracle

    spec = study.with_settings(settings)
    assert isinstance(spec, PluginSpec)
    component = plugins.build(spec)
    assert isinstance(component, Trainable)
    campaign = Campaign.open(study.folder / value.campaign)
    reader = campaign.reader()
    try:
        folded = reader.fold()
        labelled = dataset_before(reader, folded, folded.sequence + 1, objective_oracle(campaign.loaded)).labelled
    finally:
        reader.close()
    begun = checkpoint_from_bytes(state) if state is not None else None
    context = GenerationContext(
        space=campaign.loaded.config.space.space, objective=campaign.objective, labelled=tuple(labelled), checkpoint=begun
    )
    checkpoint = component.train(labelled, rng=np.random.default_rng(study.config.seed), context=context)
    if value.metric not in checkpoint.metrics:
        raise InputError(f"{value.component} has no metric {value.metric!r}", hint=f"there are {', '.join(checkpoint.metrics)}")
    return Step(float(checkpoint.metrics[value.metric]), checkpoint_to_bytes(checkpoint))
