"""The step select: which candidates are labelled next. Runs on the compute worker."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from campaign.dataset import Dataset
from campaign.fit import Fit
from campaign.schema import AcquisitionConfig
from campaign.seeds import content_hash, generator, library_seeds, seed_sequence
from campaign.types import Candidate, FloatArray, Objective

_TABLE = np.dtype([("id", "S32"), ("score", "<f8"), ("mean", "<f8"), ("deviation", "<f8")])


@dataclass(frozen=True)
class Choice:
    candidate: str
    score: float | None = None
    mean: float | None = None
    deviation: float | None = None


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
    config: AcquisitionConfig,
    objective: Objective,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    pending: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fit | None,
) -> Selection:
    """Select up to n of the pool: by the model where there is one, otherwise at random from the stream (``all``: in order)."""
    started = time.perf_counter()
    if config.use == "all":
        return Selection("all", tuple(Choice(candidate.id) for candidate in pool[:n]), None, time.perf_counter() - started)
    if fitted is None:
        rows = generator(stream).permutation(len(pool))[:n]
        return Selection("random", tuple(Choice(pool[row].id) for row in rows), None, time.perf_counter() - started)

    import torch

    from campaign import acquisition

    model = fitted.fitted
    labelled, values = dataset.of(objective.quantity)
    seed = int(seed_sequence(stream).generate_state(1)[0])
    with library_seeds(seed):
        scores = acquisition.select(
            model.model,
            model.features(pool),
            n,
            config=config,
            sign=objective.sign,
            labelled=model.features(labelled),
            values=torch.from_numpy(values),
            pending=model.features(pending) if pending else None,
            seed=seed % 2**31,
        )
    choices = tuple(
        Choice(pool[row].id, float(scores.score[row]), float(scores.mean[row]), float(scores.deviation[row])) for row in scores.chosen
    )
    table = encode_table([candidate.id for candidate in pool], scores.score, scores.mean, scores.deviation)
    return Selection(config.use, choices, table, time.perf_counter() - started)


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
