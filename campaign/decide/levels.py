"""The step select where candidate and level of theory are chosen together. Runs on the compute
worker.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from campaign.decide.select import Material, Selection, encode_table
from campaign.ledger.events import ChoiceRow
from campaign.seeds import generator, library_seeds, seed_sequence
from campaign.types import Candidate, FloatArray

if TYPE_CHECKING:
    from campaign.acquisition import Aims
    from campaign.acquisition.above_hull import FittedAboveHull
    from campaign.decide.question import Question
    from campaign.protocols import FittedLevels

_LEAST_AT_LEVEL = 3
_LABELLED_RIVALS = 20
"""Candidates with labels of all levels that count when the best value is guessed."""


def at_random(asked: Question, material: Material) -> Selection:
    """n at the cheapest level; at each costlier one as many of them as the same money buys there,
    at least three.
    """
    price = _prices(asked)
    may = _open_pairs(asked, material)
    known = sorted(frozenset().union(*asked.eligible.values()))
    ids = list(dict.fromkeys([*asked.pool, *known]))
    drawn = [ids[row] for row in generator(asked.stream).permutation(len(ids))]
    pairs: list[tuple[int, int, str]] = []
    for level, name in enumerate(asked.oracles):
        wanted = (
            asked.n
            if level == 0
            else max(_LEAST_AT_LEVEL, round(asked.n * price[0] / price[level]))
        )
        room = asked.rooms.get(name)
        open_to_it = [candidate for candidate in drawn if may(name, candidate)]
        pairs += [
            (place, level, one)
            for place, one in enumerate(open_to_it[: wanted if room is None else min(wanted, room)])
        ]
    if asked.limit is not None:
        pairs = sorted(pairs)[: asked.limit]
    return Selection(
        "random",
        tuple(
            ChoiceRow(one, asked.oracles[level])
            for _, level, one in sorted(pairs, key=lambda pair: pair[1])
        ),
    )


def by_gain_per_cost(asked: Question, material: Material) -> Selection:
    """n pairs of candidate and level: new candidates, and known ones at levels that they have no
    label of.
    """
    import torch

    from campaign import acquisition
    from campaign.acquisition import hull
    from campaign.acquisition.levels import select_levels

    assert material.fitted is not None
    names, config, datasets = asked.oracles, material.config, material.datasets
    quantity = config.objective.quantity
    may = _open_pairs(asked, material)
    model = cast("FittedLevels", material.fitted.fitted)
    top = datasets[names[-1]]
    known = {
        candidate.id: candidate
        for dataset in datasets.values()
        for candidate in dataset.of(quantity)[0]
    }
    everything = list(
        {candidate.id: candidate for candidate in (*material.pool, *known.values())}.values()
    )
    stated = top.noise_of(quantity)
    aims = acquisition.Aims.of(
        config.objectives[:1],
        [torch.from_numpy(top.of(quantity)[1])],
        [],
        (),
        [None if stated is None else torch.from_numpy(stated)],
    )
    ranked = [
        everything[row] for row in np.argsort(-_promise(model, everything, aims), kind="stable")
    ]
    is_open = [any(may(name, candidate.id) for name in names) for candidate in ranked]
    some = [candidate for candidate, still in zip(ranked, is_open, strict=True) if still][
        : config.acquisition.shortlist
    ]
    done = [candidate for candidate, still in zip(ranked, is_open, strict=True) if not still][
        :_LABELLED_RIVALS
    ]
    shortlist = some + done
    allowed = np.array([[may(name, candidate.id) for candidate in shortlist] for name in names])
    waiting = [
        model.features_at([candidate], names.index(name))
        for (_, name), candidate in zip(asked.unseen, material.unseen, strict=True)
    ]
    seed = int(seed_sequence(asked.stream).generate_state(1)[0])
    n = asked.n if asked.limit is None else min(asked.n, asked.limit)
    room = [asked.rooms.get(name) for name in names]
    by_hull = config.acquisition.use == "hull"
    stable: FloatArray | None = None
    with library_seeds(seed):
        if by_hull:
            above = cast("FittedAboveHull", model)
            pairs = zip(material.unseen, asked.unseen, strict=True)
            pending = [
                above.points_at([candidate], names.index(name)) for candidate, (_, name) in pairs
            ]
            scores, stable = hull.select_levels(
                above.formation.model,
                above.diagram,
                [above.points_at(shortlist, level) for level in range(len(names))],
                functools.reduce(operator.add, pending) if pending else None,
                n,
                _prices(asked),
                allowed,
                room,
                config=config.acquisition,
                seed=seed % 2**31,
            )
        else:
            features = [model.features_at(shortlist, level) for level in range(len(names))]
            scores = select_levels(
                model.model,
                features,
                torch.cat(waiting) if waiting else None,
                aims,
                n,
                _prices(asked),
                allowed,
                room,
            )
    choices = []
    for level, row in scores.chosen:
        score, mean, deviation = (
            float(part[level, row]) for part in (scores.score, scores.mean, scores.deviation)
        )
        choices.append(
            ChoiceRow(
                shortlist[row].id,
                names[level],
                score,
                mean,
                deviation,
                "",
                None if stable is None else float(stable[row]),
            )
        )
    table = encode_table(
        [candidate.id for candidate in shortlist],
        scores.score[-1],
        scores.mean[-1],
        scores.deviation[-1],
    )
    return Selection(
        "hull_per_cost" if by_hull else "multi_fidelity_max_value_entropy", tuple(choices), table
    )


def _prices(asked: Question) -> list[float]:
    """Seconds a label by level; 1 where unknown."""
    return [asked.costs.get(name, 1.0) for name in asked.oracles]


def _open_pairs(asked: Question, material: Material) -> Callable[[str, str], bool]:
    """Whether a level may still be given a candidate."""
    taken = {
        (item.candidate.id, name)
        for name, dataset in material.datasets.items()
        for item in dataset.labelled
    }
    taken |= {*asked.unseen, *asked.given_up}

    def may(name: str, candidate: str) -> bool:
        return (candidate, name) not in taken and (
            name not in asked.eligible or candidate in asked.eligible[name]
        )

    return may


def _promise(model: FittedLevels, candidates: Sequence[Candidate], aims: Aims) -> FloatArray:
    """(n,) the upper confidence bound at the highest level, in standard deviations of its
    labels.
    """
    from campaign.acquisition.rows import marginal_of

    mean, variance = marginal_of(model.model, model.features(candidates))
    found: FloatArray = (aims.factor * mean + 2 * aims.factor.abs() * variance.sqrt()).numpy()
    return found
