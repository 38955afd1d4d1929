"""The step select where a model chooses candidate and level of theory together. Runs on the compute worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from campaign.dataset import Dataset
from campaign.fit import Fit
from campaign.schema import CampaignConfig
from campaign.seeds import generator, library_seeds, seed_sequence
from campaign.select import Choice, encode_table
from campaign.types import Candidate, FloatArray

if TYPE_CHECKING:
    from campaign.acquisition import Aims
    from campaign.protocols import FittedLevels

_LEAST_AT_LEVEL = 3
_LABELLED_RIVALS = 20
"""Candidates with labels of all levels that count when the best value is guessed."""


@dataclass(frozen=True)
class LevelChoice:
    """A chosen candidate and the level, as an oracle's name, that it goes to."""

    oracle: str
    choice: Choice


@dataclass(frozen=True)
class LevelSelection:
    acquisition: str
    choices: tuple[LevelChoice, ...]
    table: bytes | None
    seconds: float


def select(
    config: CampaignConfig,
    n: int,
    stream: str,
    pool: Sequence[Candidate],
    pending: Sequence[tuple[str, Candidate]],
    datasets: Mapping[str, Dataset],
    fitted: Fit | None,
    costs: Mapping[str, float],
    room: Mapping[str, int | None],
    eligible: Mapping[str, frozenset[str]],
) -> LevelSelection:
    """Select up to n pairs of candidate and level: new candidates, and known ones at levels that they have no label of.

    ``datasets``, ``costs`` (s a label; 1 where unknown) and ``room`` (labels that a level may still be given) by oracle, the cheapest
    first; ``eligible``: of the levels that not every candidate may go to, those that may. Without a model: at random, as many at each
    dearer level as the same money buys there, at least three.
    """
    started = time.perf_counter()
    names = list(datasets)
    price = [costs.get(name, 1.0) for name in names]
    quantity = config.objective.quantity
    taken = {(name, candidate.id) for name, dataset in datasets.items() for candidate in (*dataset.of(quantity)[0], *dataset.failed)}
    taken |= {(name, candidate.id) for name, candidate in pending}

    def may(name: str, candidate: str) -> bool:
        return (name, candidate) not in taken and (name not in eligible or candidate in eligible[name])

    if fitted is None:
        ids = list(dict.fromkeys([*(candidate.id for candidate in pool), *sorted(frozenset().union(*eligible.values()))]))
        drawn = [ids[row] for row in generator(stream).permutation(len(ids))]
        choices = []
        for level, name in enumerate(names):
            most = n if level == 0 else max(_LEAST_AT_LEVEL, round(n * price[0] / price[level]))
            limit = room.get(name)
            open_to_it = [candidate for candidate in drawn if may(name, candidate)]
            choices += [LevelChoice(name, Choice(candidate)) for candidate in open_to_it[: most if limit is None else min(most, limit)]]
        return LevelSelection("random", tuple(choices), None, time.perf_counter() - started)

    import torch

    from campaign import acquisition
    from campaign.acquisition.levels import select_levels

    model = cast("FittedLevels", fitted.fitted)
    top = datasets[names[-1]]
    known = {candidate.id: candidate for dataset in datasets.values() for candidate in dataset.of(quantity)[0]}
    everything = list({candidate.id: candidate for candidate in (*pool, *known.values())}.values())
    aims = acquisition.Aims.of(config.objectives[:1], [torch.from_numpy(top.of(quantity)[1])], [], ())
    ranked = [everything[row] for row in np.argsort(-_promise(model, everything, aims), kind="stable")]
    is_open = [any(may(name, candidate.id) for name in names) for candidate in ranked]
    some = [candidate for candidate, still in zip(ranked, is_open, strict=True) if still][: config.acquisition.shortlist]
    done = [candidate for candidate, still in zip(ranked, is_open, strict=True) if not still][:_LABELLED_RIVALS]
    shortlist = some + done
    allowed = np.array([[may(name, candidate.id) for candidate in shortlist] for name in names])
    waiting = [model.features_at([candidate], names.index(name)) for name, candidate in pending]
    seed = int(seed_sequence(stream).generate_state(1)[0])
    with library_seeds(seed):
        scores = select_levels(
            model.model,
            [model.features_at(shortlist, level) for level in range(len(names))],
            torch.cat(waiting) if waiting else None,
            aims,
            n,
            price,
            allowed,
            [room.get(name) for name in names],
        )
    choices = []
    for level, row in scores.chosen:
        score, mean, deviation = (float(part[level, row]) for part in (scores.score, scores.mean, scores.deviation))
        choices.append(LevelChoice(names[level], Choice(shortlist[row].id, score, mean, deviation)))
    table = encode_table([candidate.id for candidate in shortlist], scores.score[-1], scores.mean[-1], scores.deviation[-1])
    return LevelSelection("multi_fidelity_max_value_entropy", tuple(choices), table, time.perf_counter() - started)


def _promise(model: FittedLevels, candidates: Sequence[Candidate], aims: Aims) -> FloatArray:
    """(n,) the upper confidence bound at the highest level, in standard deviations of its labels."""
    from campaign.acquisition.rows import marginal_of

    mean, variance = marginal_of(model.model, model.features(candidates))
    found: FloatArray = (aims.factor * mean + 2 * aims.factor.abs() * variance.sqrt()).numpy()
    return found
