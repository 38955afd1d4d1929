"""Strategies of the yardstick for which a cheaper level looks at proposals first. Queries are
labels of the highest level alone; what the cheaper level took is told beside them.

    hull, levels       candidate and level by what a label moves of the hull, per second
    hull, gate         every proposal roughly relaxed; the lowest above their hull go up first
    formation, gate    the same, by the lowest formation energy there
    hull, static gate  as ``hull, gate``, by the energies of proposals as they come
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from campaign.config.schema import CampaignConfig
from campaign.crystals.hull import lower_hull
from campaign.decide import fit, levels
from campaign.decide.question import Question
from campaign.decide.select import Material
from campaign.ledger.dataset import Dataset
from campaign.ledger.stability import fractions_of
from campaign.protocols import PluginSpec
from campaign.types import (
    ENERGY_ABOVE_HULL,
    FORMATION_ENERGY,
    Candidate,
    Crystal,
    LabelledCandidate,
)

LEVELS = ("cheaper", "made")
PAIRS, FIRST_PAIRS = 6, 10

Energies = Mapping[str, float]


def config_of(system: Sequence[str], tolerance: float) -> CampaignConfig:
    """What a campaign over the two levels would be."""
    return CampaignConfig.model_validate(
        {
            "name": "made",
            "space": {"elements": list(system)},
            "objective": {"quantity": ENERGY_ABOVE_HULL.name, "direction": "minimize"},
            "budget": {"labels": 1000},
            "generators": [{"use": "prototypes"}],
            "oracles": [{"use": "lennard_jones", "name": name} for name in LEVELS],
            "fidelities": {"mode": "acquisition", "levels": [{"oracle": name} for name in LEVELS]},
            "surrogate": {"use": "multi_task_gp"},
            "acquisition": {"use": "hull", "tolerance": tolerance},
        }
    )


def behind_a_gate(
    pool: Sequence[Crystal], elements: Sequence[Crystal], cheaper: Energies, *, by_hull: bool
) -> Iterator[Crystal]:
    """Those that the cheaper level labelled, the lowest above its hull first, or of the lowest
    formation energy there; then the others.
    """
    known = [crystal for crystal in (*elements, *pool) if crystal.id in cheaper]
    candidates = [Candidate(crystal) for crystal in known]
    energies = np.array([cheaper[crystal.id] for crystal in known])
    kinds = np.unique(np.concatenate([crystal.numbers for crystal in elements]))
    fractions = fractions_of(candidates, kinds)
    values = lower_hull(fractions, energies).above(fractions, energies) if by_hull else energies
    value_of = dict(zip((crystal.id for crystal in known), values.tolist(), strict=True))
    yield from sorted(pool, key=lambda crystal: (value_of.get(crystal.id, np.inf), crystal.id))


def by_gain_per_cost(
    pool: Sequence[Crystal],
    elements: Sequence[Crystal],
    energies: Sequence[Energies],
    costs: Sequence[float],
    config: CampaignConfig,
    *,
    queries: int,
    stream: str,
) -> Iterator[tuple[Crystal, str]]:
    """Pairs of a crystal and the level that labels it, until the highest had its queries.

    ``energies``: formation energies (eV/atom) by level, the cheapest first; ``costs``: seconds a
    label.
    """
    assert config.surrogate is not None
    surrogate = PluginSpec(
        group="surrogates",
        use=config.surrogate.use,
        params=config.surrogate.params,
        elements=config.space.elements,
    )
    by_id = {crystal.id: crystal for crystal in pool}
    asked: dict[str, list[str]] = {name: [] for name in LEVELS}
    previous: Mapping[str, object] | None = None
    while len(asked[LEVELS[-1]]) < min(queries, len(pool)):
        number = sum(map(len, asked.values()))
        datasets = {
            name: dataset_of([*elements, *(by_id[i] for i in asked[name])], known)
            for name, known in zip(LEVELS, energies, strict=True)
        }
        failed = frozenset(
            (i, name)
            for name, known in zip(LEVELS, energies, strict=True)
            for i in asked[name]
            if i not in known
        )
        labelled = {*asked[LEVELS[0]], *asked[LEVELS[1]]}
        left = [Candidate(crystal) for crystal in pool if crystal.id not in labelled]
        question = Question(
            round=0,
            as_of=0,
            way="levels",
            stream=f"{stream}/{number}",
            oracles=LEVELS,
            n=PAIRS if number else FIRST_PAIRS,
            limit=None,
            pool=tuple(candidate.id for candidate in left),
            costs=dict(zip(LEVELS, costs, strict=True)),
            given_up=failed,
            rooms={LEVELS[-1]: queries - len(asked[LEVELS[-1]])},
        )
        if number:
            request = fit.FitRequest(
                surrogate=surrogate,
                classifier=None,
                quantities=config.modelled,
                previous=previous,
                stream=f"{stream}/{number}/fit",
            )
            fitted = fit.fit(request, datasets).value
            previous = fitted.summary.hyperparameters
            material = Material(config, left, (), datasets, fitted, None)
            selection = levels.by_gain_per_cost(question, material)
        else:
            material = Material(config, left, (), datasets, None, None)
            selection = levels.at_random(question, material)
        if not selection.choices:
            return
        for choice in selection.choices:
            asked[choice.oracle].append(choice.candidate)
            yield by_id[choice.candidate], choice.oracle


def dataset_of(crystals: Sequence[Crystal], energies: Energies) -> Dataset:
    """Those with a formation energy (eV/atom), by id, and how far each lies above the hull of
    all.
    """
    known = sorted((c for c in dict.fromkeys(crystals) if c.id in energies), key=lambda c: c.id)
    candidates = [Candidate(crystal) for crystal in known]
    formation = np.array([energies[crystal.id] for crystal in known])
    kinds = np.unique(np.concatenate([crystal.numbers for crystal in known]))
    fractions = fractions_of(candidates, kinds)
    above = lower_hull(fractions, formation).above(fractions, formation)
    return Dataset(
        tuple(
            LabelledCandidate(
                candidate=candidate,
                values={FORMATION_ENERGY.name: energy, ENERGY_ABOVE_HULL.name: height},
            )
            for candidate, energy, height in zip(
                candidates, formation.tolist(), above.tolist(), strict=True
            )
        )
    )
