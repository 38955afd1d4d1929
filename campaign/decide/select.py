"""The step select: candidates for the next labels, at random or by the models. Runs on the compute
worker.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from msgspec.structs import replace

from campaign.config.schema import CampaignConfig
from campaign.decide.fit import Fit
from campaign.ledger.dataset import Dataset
from campaign.ledger.events import EXPLORATION, ChoiceRow
from campaign.protocols import PluginSpec
from campaign.seeds import content_hash, generator, library_seeds, seed_sequence
from campaign.types import ENERGY_ABOVE_HULL, Candidate, FloatArray

if TYPE_CHECKING:
    from campaign.acquisition import Scores
    from campaign.acquisition.above_hull import FittedAboveHull
    from campaign.decide.question import Question

_TABLE = np.dtype([("id", "S32"), ("score", "<f8"), ("mean", "<f8"), ("deviation", "<f8")])


@dataclass(frozen=True)
class Material:
    """What a question is answered from: the crystals of its pool and of its unseen pairs, labels by
    oracle, models, committee.
    """

    config: CampaignConfig
    pool: Sequence[Candidate]
    unseen: Sequence[Candidate]
    datasets: Mapping[str, Dataset]
    fitted: Fit | None
    committee: tuple[PluginSpec, bytes] | None


@dataclass(frozen=True)
class Selection:
    """The batch in order; ``table`` holds the figures of the whole pool, as stored bytes, where a
    model was asked.

    ``outcomes``: what a committee found of the pool, as counts.
    """

    acquisition: str
    choices: tuple[ChoiceRow, ...]
    table: bytes | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def in_order(asked: Question, material: Material) -> Selection:
    """The first n of the pool."""
    return Selection(
        "all",
        _for_all(
            asked.oracles, [ChoiceRow(candidate.id, "") for candidate in material.pool[: asked.n]]
        ),
    )


def at_random(asked: Question, material: Material) -> Selection:
    """n of the pool, drawn from the question's stream."""
    rows = generator(asked.stream).permutation(len(material.pool))[: asked.n]
    return Selection(
        "random", _for_all(asked.oracles, [ChoiceRow(material.pool[row].id, "") for row in rows])
    )


def by_model(asked: Question, material: Material) -> Selection:
    """n of the pool by the acquisition function, a share of them drawn at random for
    exploration.
    """
    assert material.fitted is not None
    config, pool = material.config, material.pool
    n_explored = _explored(config.acquisition.exploration, asked.n, asked.stream)
    (dataset,) = material.datasets.values()
    score = _scored_by_hull if config.acquisition.use == "hull" else _scored
    scores, stable = score(
        config,
        asked.n - n_explored,
        asked.stream,
        pool,
        material.unseen,
        dataset,
        material.fitted,
        asked.scales,
    )
    left = [
        row
        for row in generator(f"{asked.stream}/explored").permutation(len(pool)).tolist()
        if row not in scores.chosen
    ]
    rows_and_reasons = [(row, "") for row in scores.chosen] + [
        (row, EXPLORATION) for row in left[:n_explored]
    ]
    chosen = [
        ChoiceRow(
            pool[row].id,
            "",
            float(scores.score[row]),
            float(scores.mean[row]),
            float(scores.deviation[row]),
            reason,
            _at(stable, row),
        )
        for row, reason in rows_and_reasons
    ]
    table = encode_table(
        [candidate.id for candidate in pool], scores.score, scores.mean, scores.deviation
    )
    return Selection(config.acquisition.use, _for_all(asked.oracles, chosen), table)


def _for_all(oracles: Sequence[str], chosen: Sequence[ChoiceRow]) -> tuple[ChoiceRow, ...]:
    """Each chosen candidate at each of the oracles."""
    return tuple(replace(row, oracle=oracle) for row in chosen for oracle in oracles)


def _explored(share: float, n: int, stream: str) -> int:
    """How many of n are drawn at random: ``share`` of them on average."""
    return min(n, int(share * n + generator(f"{stream}/exploration").random())) if share else 0


def _scored(
    config: CampaignConfig,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    unseen: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fit,
    scales: Mapping[str, float],
) -> tuple[Scores, None]:
    import torch

    from campaign import acquisition

    quantities = config.modelled
    labelled, _ = dataset.of(config.objective.quantity)
    outputs = []
    for name in quantities:
        model = fitted.by_quantity[name]
        waiting = model.features(unseen) if unseen else None
        values = torch.from_numpy(dataset.values_of(labelled, name))
        stated = dataset.noises_of(labelled, name)
        outputs.append(
            acquisition.Output(
                model.model,
                model.features(pool),
                model.features(labelled),
                values,
                waiting,
                scales.get(name, 1.0),
                None if stated is None else torch.from_numpy(stated),
            )
        )
    bounds = [
        acquisition.Bound(quantities.index(item.quantity), *item.bound)
        for item in config.modelled_constraints
    ]
    is_known = [~output.values.isnan() for output in outputs]
    aims = acquisition.Aims.of(
        config.objectives,
        [output.values[rows] for output, rows in zip(outputs, is_known, strict=True)],
        bounds,
        config.acquisition.weights,
        [
            None if output.noise is None else output.noise[rows]
            for output, rows in zip(outputs, is_known, strict=True)
        ],
    )
    weights = None
    if fitted.feasibility is not None:
        weights = np.log(np.clip(fitted.feasibility.probability(pool), 1e-6, 1.0))
    seed = int(seed_sequence(stream).generate_state(1)[0])
    with library_seeds(seed):
        scores = acquisition.select(
            outputs, aims, n, config=config.acquisition, seed=seed % 2**31, log_weights=weights
        )
    if config.objective.quantity == ENERGY_ABOVE_HULL.name:
        hull = cast("FittedAboveHull", fitted.fitted).diagram.formation_at(pool)
        scores = dataclasses.replace(scores, mean=scores.mean + hull)
    return scores, None


def _scored_by_hull(
    config: CampaignConfig,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    unseen: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fit,
    scales: Mapping[str, float],
) -> tuple[Scores, FloatArray]:
    """Scores with the chance (n,) of each of the pool to be stable; means and deviations are of the
    formation energy.
    """
    from campaign.acquisition import hull

    above = cast("FittedAboveHull", fitted.fitted)
    weights = None
    if fitted.feasibility is not None:
        weights = np.log(np.clip(fitted.feasibility.probability(pool), 1e-6, 1.0))
    seed = int(seed_sequence(stream).generate_state(1)[0])
    with library_seeds(seed):
        scores = hull.select(
            above.formation.model,
            above.diagram,
            above.points(pool),
            above.points(unseen) if unseen else None,
            n,
            config=config.acquisition,
            seed=seed % 2**31,
            scale=scales.get(config.objective.quantity, 1.0),
            log_weights=weights,
        )
    return scores, scores.stable


def _at(values: FloatArray | None, row: int) -> float | None:
    return None if values is None else float(values[row])


def encode_table(
    ids: Sequence[str], score: FloatArray, mean: FloatArray, deviation: FloatArray
) -> bytes:
    """Candidate ids with score, mean and standard deviation (n,) as stored bytes."""
    rows = np.empty(len(ids), dtype=_TABLE)
    rows["id"], rows["score"], rows["mean"], rows["deviation"] = ids, score, mean, deviation
    return zlib.compress(rows.tobytes(), 1)


def decode_table(data: bytes) -> dict[str, tuple[float, float, float]]:
    """By candidate id: score, mean, standard deviation."""
    rows = np.frombuffer(zlib.decompress(data), dtype=_TABLE)
    return {
        row["id"].decode(): (float(row["score"]), float(row["mean"]), float(row["deviation"]))
        for row in rows
    }


def pool_hash(ids: Sequence[str]) -> str:
    return content_hash(list(ids))[:32]
