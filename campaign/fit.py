"""The step fit: surrogates on the labels that the round sees, one for each quantity. Runs on the compute worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from campaign import plugins
from campaign.dataset import Dataset
from campaign.protocols import Classifier, FittedClassifier, FittedSurrogate, MultiFidelity, MultiQuantity, PluginSpec, Surrogate
from campaign.seeds import content_hash, library_seeds, seed_sequence

_FURTHER, _FEASIBILITY = "further", "feasibility"
_LEAST_FAILURES = 2


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
    """Models by quantity, the objective's first, and of the chance of success where failures have taught it."""

    by_quantity: Mapping[str, FittedSurrogate]
    summary: FitSummary
    feasibility: FittedClassifier | None = field(default=None)

    @property
    def fitted(self) -> FittedSurrogate:
        """The model of the objective's quantity."""
        return next(iter(self.by_quantity.values()))


def fit(
    spec: PluginSpec,
    classifier: PluginSpec | None,
    dataset: Dataset,
    quantities: Sequence[str],
    previous: Mapping[str, Any] | None,
    stream: str,
) -> Fit:
    """``previous`` are the hyperparameters that the last fit recorded."""
    started, cpu = time.perf_counter(), time.process_time()
    before = dict(previous or {})
    further = before.pop(_FURTHER, {})
    before.pop(_FEASIBILITY, None)
    known = {quantities[0]: before or None} | {name: further.get(name) for name in quantities[1:]}
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        surrogate: Surrogate = plugins.build(spec)
        if len(quantities) > 1 and isinstance(surrogate, MultiQuantity):
            models = dict(surrogate.fit_quantities({name: dataset.of(name) for name in quantities}, previous=known[quantities[0]]))
        else:
            models = {name: surrogate.fit(*dataset.of(name), previous=known[name]) for name in quantities}
        feasibility = _feasibility(classifier, dataset)
    hyperparameters = dict(models[quantities[0]].hyperparameters)
    if len(quantities) > 1:
        hyperparameters[_FURTHER] = {name: dict(models[name].hyperparameters) for name in quantities[1:]}
    if feasibility is not None:
        hyperparameters[_FEASIBILITY] = dict(feasibility.hyperparameters)
    model = content_hash([spec.use, dict(spec.params), dataset.key, hyperparameters])[:32]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    n = len(dataset.of(quantities[0])[0])
    return Fit(models, FitSummary(model, n, hyperparameters, seconds, cpu_seconds), feasibility)


def fit_levels(spec: PluginSpec, datasets: Mapping[str, Dataset], quantity: str, previous: Mapping[str, Any] | None, stream: str) -> Fit:
    """One model over all levels that have labels of the quantity, the cheapest first."""
    started, cpu = time.perf_counter(), time.process_time()
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        surrogate: MultiFidelity = plugins.build(spec)
        fitted = surrogate.fit_levels({level: dataset.of(quantity) for level, dataset in datasets.items()}, previous=previous)
    hyperparameters = dict(fitted.hyperparameters)
    keys = {level: dataset.key for level, dataset in datasets.items()}
    model = content_hash([spec.use, dict(spec.params), keys, hyperparameters])[:32]
    labels = sum(len(dataset.of(quantity)[0]) for dataset in datasets.values())
    summary = FitSummary(model, labels, hyperparameters, time.perf_counter() - started, time.process_time() - cpu)
    return Fit({quantity: fitted}, summary)


def _feasibility(classifier: PluginSpec | None, dataset: Dataset) -> FittedClassifier | None:
    if classifier is None or len(dataset.failed) < _LEAST_FAILURES or not dataset.labelled:
        return None
    learner: Classifier = plugins.build(classifier)
    return learner.fit_outcomes([item.candidate for item in dataset.labelled], dataset.failed)


def summary_of(result: Fit) -> FitSummary:
    """The part of a fit that the driver needs; the models stay with the worker."""
    return result.summary
