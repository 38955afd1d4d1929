"""The step propose: a generator gives crystals from its own random stream. Runs on the compute
worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from campaign import plugins
from campaign.blame import theirs
from campaign.checkpoints import checkpoint_from_bytes
from campaign.config.schema import CampaignConfig
from campaign.crystals.matching import key_or_none
from campaign.decide.fit import Fit
from campaign.errors import InputError
from campaign.ledger.dataset import Dataset
from campaign.ledger.events import ProposalRow
from campaign.protocols import GenerationContext, ModelledBound, PluginSpec
from campaign.seeds import generator, library_seeds, seed_sequence
from campaign.types import Candidate, Crystal, Proposal


@dataclass(frozen=True)
class Proposals:
    """Rows for the ledger and the crystals as stored bytes by id."""

    rows: tuple[ProposalRow, ...]
    blobs: Mapping[str, bytes]
    seconds: float = 0.0


@theirs()
def propose(
    spec: PluginSpec,
    n: int,
    stream: str,
    config: CampaignConfig,
    checkpoint: bytes | None,
    pending: tuple[Candidate, ...],
    dataset: Dataset,
    fitted: Fit | None,
    banned: tuple[str, ...] = (),
    asked: int = 0,
) -> Proposals:
    """``banned``: elements that people allow no more. ``asked``: for how many it was asked
    before.
    """
    started = time.perf_counter()
    models = fitted.by_quantity if fitted is not None else {}
    context = GenerationContext(
        space=config.search_space.without(banned),
        objective=config.objective.objective,
        labelled=dataset.labelled,
        pending=pending,
        surrogate=fitted.fitted if fitted is not None else None,
        further=tuple(
            (objective, models[objective.quantity]) for objective in config.objectives[1:] if models
        ),
        bounds=tuple(
            ModelledBound(models[item.quantity], *item.bound)
            for item in config.modelled_constraints
            if models
        ),
        feasibility=fitted.feasibility if fitted is not None else None,
        checkpoint=checkpoint_from_bytes(checkpoint) if checkpoint is not None else None,
        asked=asked,
    )
    rows: list[ProposalRow] = []
    blobs: dict[str, bytes] = {}
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        made = plugins.build(spec).generate(n, rng=generator(stream), context=context)
        for crystal, proposal in [_drawn(spec, item) for item in made]:
            rows.append(
                ProposalRow(
                    crystal.id,
                    key_or_none(crystal),
                    tuple(proposal.parents),
                    dict(proposal.condition),
                )
            )
            blobs[crystal.id] = crystal.to_bytes()
    return Proposals(tuple(rows), blobs, time.perf_counter() - started)


def _drawn(spec: PluginSpec, item: Any) -> tuple[Crystal, Proposal]:
    if (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], Crystal)
        and isinstance(item[1], Proposal)
    ):
        return item
    raise InputError(
        f"the generator {spec.use} gave {type(item).__name__}, expected pairs of a Crystal and "
        "a Proposal"
    )
