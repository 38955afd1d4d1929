"""The step fit: a surrogate on the labels that the round sees. Runs on the compute worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from campaign import plugins
from campaign.dataset import Dataset
from campaign.protocols import FittedSurrogate, PluginSpec
from campaign.seeds import content_hash, library_seeds, seed_sequence


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
    fitted: FittedSurrogate
    summary: FitSummary


def fit(spec: PluginSpec, dataset: Dataset, quantity: str, previous: Mapping[str, Any] | None, stream: str) -> Fit:
    started, cpu = time.perf_counter(), time.process_time()
    candidates, values = dataset.of(quantity)
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        fitted = plugins.build(spec).fit(candidates, values, previous=previous)
    hyperparameters = dict(fitted.hyperparameters)
    model = content_hash([spec.use, dict(spec.params), dataset.key, hyperparameters])[:32]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return Fit(fitted, FitSummary(model, len(values), hyperparameters, seconds, cpu_seconds))


def summary_of(result: Fit) -> FitSummary:
    """The part of a fit that the driver needs; the model stays with the worker."""
    return result.summary
