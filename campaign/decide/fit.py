"""The step fit: surrogates on the labels that the round sees, one for each quantity. Runs on the
compute worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from campaign import plugins
from campaign.blame import theirs
from campaign.config.loaded import LoadedConfig
from campaign.config.schema import CampaignConfig
from campaign.crystals import abundance
from campaign.ledger import CampaignState
from campaign.ledger.dataset import Dataset
from campaign.ledger.stability import Diagram, modelled_quantity
from campaign.ledger.state import RoundRecord
from campaign.protocols import (
    Classifier,
    FittedClassifier,
    FittedSurrogate,
    Kept,
    KnowsNoise,
    MultiFidelity,
    MultiQuantity,
    PluginSpec,
    Surrogate,
)
from campaign.seeds import content_hash, library_seeds, seed_sequence, stream_key
from campaign.types import ENERGY_ABOVE_HULL, FloatArray

_FURTHER, _FEASIBILITY = "further", "feasibility"
_MIN_FAILURES = 2
_MIN_LABELS, _ENOUGH_LABELS = 3, 10


@dataclass(frozen=True)
class FitSummary:
    """What the ledger records of a fit. ``model`` is a hash over data and hyperparameters."""

    model: str
    labels: int
    hyperparameters: Mapping[str, Any]
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Fit:
    """Models by quantity, the objective's first, and of the chance of success where failures have
    taught it.
    """

    by_quantity: Mapping[str, FittedSurrogate]
    summary: FitSummary
    feasibility: FittedClassifier | None = field(default=None)

    @property
    def fitted(self) -> FittedSurrogate:
        """The model of the objective's quantity."""
        return next(iter(self.by_quantity.values()))


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """How a round's models are fitted. ``previous`` are the hyperparameters that the last fit
    recorded.
    """

    surrogate: PluginSpec
    classifier: PluginSpec | None
    quantities: tuple[str, ...]
    previous: Mapping[str, Any] | None
    stream: str


def is_due(config: CampaignConfig, datasets: Mapping[str, Dataset]) -> bool:
    """Whether a round asks models: where acquisition does, and each modelled oracle has labels
    enough.
    """
    if not config.asks_model:
        return False
    counts = [len(dataset.of(config.objective.quantity)[0]) for dataset in datasets.values()]
    wanted = max(_MIN_LABELS, min(config.acquisition.initial_labels, _ENOUGH_LABELS))
    return counts[0] >= wanted and min(counts) >= _MIN_LABELS


def request(loaded: LoadedConfig, state: CampaignState, record: RoundRecord) -> FitRequest:
    """The fit of a round: a function of labels and the last fit's hyperparameters, both in the
    ledger.
    """
    config = loaded.config
    assert config.surrogate is not None
    last = next(
        (
            earlier.fitted
            for earlier in reversed(state.rounds[: record.index])
            if earlier.fitted is not None
        ),
        None,
    )
    return FitRequest(
        surrogate=loaded.spec("surrogates", config.surrogate),
        classifier=loaded.spec("classifiers", config.feasibility)
        if config.feasibility is not None
        else None,
        quantities=config.modelled,
        previous=last.hyperparameters if last is not None else None,
        stream=stream_key(config.seed, "fit", record.index),
    )


@theirs()
def fit(asked: FitRequest, datasets: Mapping[str, Dataset]) -> Kept:
    """A ``Fit``, which tells its summary: one model for each quantity of one oracle's labels, or
    one of the objective over several levels, the cheapest first.
    """
    started, cpu = time.perf_counter(), time.process_time()
    with library_seeds(int(seed_sequence(asked.stream).generate_state(1)[0])):
        surrogate = plugins.build(asked.surrogate)
        found = (
            _fit_levels(surrogate, asked, datasets)
            if len(datasets) > 1
            else _fit_quantities(surrogate, asked, *datasets.values())
        )
    models, feasibility, hyperparameters = found
    models = _seen_from_the_hull(models, asked.quantities, datasets)
    keys = [dataset.key for dataset in datasets.values()]
    model = content_hash(
        [asked.surrogate.use, dict(asked.surrogate.params), keys, hyperparameters]
    )[:32]
    labels = sum(len(dataset.of(asked.quantities[0])[0]) for dataset in datasets.values())
    summary = FitSummary(
        model, labels, hyperparameters, time.perf_counter() - started, time.process_time() - cpu
    )
    return Kept(Fit(models, summary, feasibility), told=summary)


def _seen_from_the_hull(
    models: Mapping[str, FittedSurrogate],
    quantities: Sequence[str],
    datasets: Mapping[str, Dataset],
) -> dict[str, FittedSurrogate]:
    """Models by the quantities that are wanted; energies above the hull by that of formation
    energies, and the highest level's hull.
    """
    if ENERGY_ABOVE_HULL.name not in quantities:
        return dict(models)
    from campaign.acquisition.above_hull import FittedAboveHull

    above = FittedAboveHull(
        models[modelled_quantity(ENERGY_ABOVE_HULL.name)], Diagram.of(list(datasets.values())[-1])
    )
    return {name: above if name == ENERGY_ABOVE_HULL.name else models[name] for name in quantities}


_Fitted = tuple[Mapping[str, FittedSurrogate], FittedClassifier | None, dict[str, Any]]


def _fit_quantities(surrogate: Surrogate, asked: FitRequest, dataset: Dataset) -> _Fitted:
    quantities = tuple(dict.fromkeys(map(modelled_quantity, asked.quantities)))
    before = dict(asked.previous or {})
    further = before.pop(_FURTHER, {})
    before.pop(_FEASIBILITY, None)
    known = {quantities[0]: before or None} | {name: further.get(name) for name in quantities[1:]}
    learned = [name for name in quantities if name not in abundance.KNOWN]
    if len(learned) > 1 and isinstance(surrogate, MultiQuantity):
        models = dict(
            surrogate.fit_quantities(
                {name: dataset.of(name) for name in learned},
                previous=known[quantities[0]],
                **_noise(surrogate, {name: dataset.noise_of(name) for name in learned}),
            )
        )
    else:
        models = {
            name: surrogate.fit(
                *dataset.of(name),
                previous=known[name],
                **known_noise(surrogate, dataset.noise_of(name)),
            )
            for name in learned
        }
    if len(learned) < len(quantities):
        from campaign.acquisition.known import KnownQuantity

        models |= {
            name: KnownQuantity(name, dataset.of(name)[1])
            for name in quantities
            if name not in learned
        }
        models = {name: models[name] for name in quantities}
    feasibility = _feasibility(asked.classifier, dataset)
    hyperparameters = dict(models[quantities[0]].hyperparameters)
    if len(learned) > 1:
        hyperparameters[_FURTHER] = {
            name: dict(models[name].hyperparameters) for name in learned[1:]
        }
    if feasibility is not None:
        hyperparameters[_FEASIBILITY] = dict(feasibility.hyperparameters)
    return models, feasibility, hyperparameters


def _fit_levels(
    surrogate: MultiFidelity, asked: FitRequest, datasets: Mapping[str, Dataset]
) -> _Fitted:
    quantity = modelled_quantity(asked.quantities[0])
    fitted = surrogate.fit_levels(
        {level: dataset.of(quantity) for level, dataset in datasets.items()},
        previous=asked.previous,
        **_noise(
            surrogate, {level: dataset.noise_of(quantity) for level, dataset in datasets.items()}
        ),
    )
    return {quantity: fitted}, None, dict(fitted.hyperparameters)


def known_noise(surrogate: object, noise: FloatArray | None) -> dict[str, Any]:
    """What a surrogate's ``fit`` takes beside its labels: their noise where it is stated and the
    surrogate knows what to do with it.
    """
    return {"noise": noise} if noise is not None and isinstance(surrogate, KnowsNoise) else {}


def _noise(surrogate: object, by_name: Mapping[str, FloatArray | None]) -> dict[str, Any]:
    stated = {name: noise for name, noise in by_name.items() if noise is not None}
    return {"noise": stated} if stated and isinstance(surrogate, KnowsNoise) else {}


def _feasibility(classifier: PluginSpec | None, dataset: Dataset) -> FittedClassifier | None:
    if classifier is None or len(dataset.failed) < _MIN_FAILURES or not dataset.labelled:
        return None
    learner: Classifier = plugins.build(classifier)
    return learner.fit_outcomes([item.candidate for item in dataset.labelled], dataset.failed)
