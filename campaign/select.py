"""The step select: which candidates are labelled next. Runs on the compute worker."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from campaign.dataset import Dataset
from campaign.fit import Fit
from campaign.ledger.events import EXPLORATION
from campaign.schema import CampaignConfig
from campaign.seeds import content_hash, generator, library_seeds, seed_sequence
from campaign.types import Candidate, FloatArray

if TYPE_CHECKING:
    from campaign.acquisition import Scores

_TABLE = np.dtype([("id", "S32"), ("score", "<f8"), ("mean", "<f8"), ("deviation", "<f8")])


@dataclass(frozen=True)
class Choice:
    """A chosen candidate with what the model said of it; ``reason`` as in the ledger's rows."""

    candidate: str
    score: float | None = None
    mean: float | None = None
    deviation: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Selection:
    """The batch in order; ``table`` holds the figures of the whole pool, as stored bytes, where a model was asked.

    ``outcomes``: what a committee found of the pool, as counts.
    """

    acquisition: str
    choices: tuple[Choice, ...]
    table: bytes | None
    seconds: float
    outcomes: Mapping[str, int] = field(default_factory=dict)


def select(
    config: CampaignConfig,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    pending: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fit | None,
    scales: Mapping[str, float],
) -> Selection:
    """Select up to n of the pool: by the model where there is one, otherwise at random from the stream (``all``: in order).

    ``scales`` of the models' standard deviations by quantity.
    """
    started = time.perf_counter()
    acquisition = config.acquisition
    if acquisition.use == "all":
        return Selection("all", tuple(Choice(candidate.id) for candidate in pool[:n]), None, time.perf_counter() - started)
    if fitted is None:
        rows = generator(stream).permutation(len(pool))[:n]
        return Selection("random", tuple(Choice(pool[row].id) for row in rows), None, time.perf_counter() - started)
    n_explored = _explored(acquisition.exploration, n, stream)
    scores = _by_model(config, n - n_explored, stream, pool, pending, dataset, fitted, scales)
    left = [row for row in generator(f"{stream}/explored").permutation(len(pool)).tolist() if row not in scores.chosen]
    rows_and_reasons = [(row, "") for row in scores.chosen] + [(row, EXPLORATION) for row in left[:n_explored]]
    choices = tuple(
        Choice(pool[row].id, float(scores.score[row]), float(scores.mean[row]), float(scores.deviation[row]), reason)
        for row, reason in rows_and_reasons
    )
    table = encode_table([candidate.id for candidate in pool], scores.score, scores.mean, scores.deviation)
    return Selection(acquisition.use, choices, table, time.perf_counter() - started)


def _explored(share: float, n: int, stream: str) -> int:
    """How many of n are drawn at random: ``share`` of them on average."""
    return min(n, int(share * n + generator(f"{stream}/exploration").random())) if share else 0


def _by_model(
    config: CampaignConfig,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    pending: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fit,
    scales: Mapping[str, float],
) -> Scores:
    import torch

    from campaign import acquisition

    quantities = config.modelled
    labelled, _ = dataset.of(config.objective.quantity)
    outputs = []
    for name in quantities:
        model = fitted.by_quantity[name]
        waiting = model.features(pending) if pending else None
        values = torch.from_numpy(dataset.values_of(labelled, name))
        outputs.append(
            acquisition.Output(model.model, model.features(pool), model.features(labelled), values, waiting, scales.get(name, 1.0))
        )
    bounds = [acquisition.Bound(quantities.index(item.quantity), *item.bound) for item in config.constraints]
    known = [output.values[~output.values.isnan()] for output in outputs]
    aims = acquisition.Aims.of(config.objectives, known, bounds, config.acquisition.weights)
    weights = None
    if fitted.feasibility is not None:
        weights = np.log(np.clip(fitted.feasibility.probability(pool), 1e-6, 1.0))
    seed = int(seed_sequence(stream).generate_state(1)[0])
    with library_seeds(seed):
        return acquisition.select(outputs, aims, n, config=config.acquisition, seed=seed % 2**31, log_weights=weights)


def encode_table(ids: Sequence[str], score: FloatArray, mean: FloatArray, deviation: FloatArray) -> bytes:
    """Candidate ids with score, mean and standard deviation (n,) as stored bytes."""
    rows = np.empty(len(ids), dtype=_TABLE)
    rows["id"], rows["score"], rows["mean"], rows["deviation"] = ids, score, mean, deviation
    return zlib.compress(rows.tobytes(), 1)


def decode_table(data: bytes) -> dict[str, tuple[float, float, float]]:
    """By candidate id: score, mean, standard deviation."""
    rows = np.frombuffer(zlib.decompress(data), dtype=_TABLE)
    return {row["id"].decode(): (float(row["score"]), float(row["mean"]), float(row["deviation"])) for row in rows}


def pool_hash(ids: Sequence[str]) -> str:
    return content_hash(list(ids))[:32]
