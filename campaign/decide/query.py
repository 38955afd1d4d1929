"""Query by committee: label what the members of a committee disagree on. Runs on the compute
worker.

Each crystal of the pool has one of three outcomes: accurate (the members agree already), worth
labelling, or too strange (they disagree so much that its label would teach little about crystals of
interest). The largest disagreement on an atom decides which. Of those worth a label the ones with
the largest disagreement over the whole crystal are chosen: a label costs the same whatever part of
it is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from campaign import plugins
from campaign.checkpoints import checkpoint_from_bytes
from campaign.config.schema import AcquisitionConfig
from campaign.decide.select import Material, Selection, encode_table
from campaign.ledger.events import ChoiceRow

if TYPE_CHECKING:
    from campaign.decide.question import Question

OUTCOMES = ("accurate", "worth labelling", "too strange")


def outcome_of(disagreement: float, config: AcquisitionConfig) -> str:
    """One of the three outcomes; a disagreement that is no number is too strange."""
    if disagreement < config.trust_min:
        return OUTCOMES[0]
    return OUTCOMES[1] if disagreement <= config.trust_max else OUTCOMES[2]


def by_committee(asked: Question, material: Material) -> Selection:
    """Up to n of those worth labelling, the most disputed first; the table holds total disagreement
    as score, the largest as deviation.
    """
    assert material.committee is not None
    spec, weights = material.committee
    pool, acquisition = material.pool, material.config.acquisition
    largest, total = plugins.build(spec).disagreement(
        [candidate.crystal for candidate in pool], checkpoint_from_bytes(weights)
    )
    outcomes = [outcome_of(float(value), acquisition) for value in largest]
    worth = [row for row in np.argsort(-total, kind="stable") if outcomes[row] == OUTCOMES[1]][
        : asked.n
    ]
    choices = tuple(
        ChoiceRow(pool[row].id, oracle, float(total[row]), deviation=float(largest[row]))
        for row in worth
        for oracle in asked.oracles
    )
    table = encode_table(
        [candidate.id for candidate in pool], total, np.full(len(pool), np.nan), largest
    )
    return Selection(
        acquisition.use, choices, table, {name: outcomes.count(name) for name in OUTCOMES}
    )
