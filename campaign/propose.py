"""The step propose: a generator gives crystals from its own random stream. Runs on the compute worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from campaign import plugins
from campaign.checkpoints import checkpoint_from_bytes
from campaign.crystals.matching import equivalence_key
from campaign.dataset import Dataset
from campaign.fit import Fit
from campaign.ledger.events import ProposalRow
from campaign.protocols import GenerationContext, PluginSpec
from campaign.seeds import generator, library_seeds, seed_sequence
from campaign.types import Candidate, Crystal, Objective, SearchSpace


@dataclass(frozen=True)
class Proposals:
    """Rows for the ledger and the crystals as stored bytes by id."""

    rows: tuple[ProposalRow, ...]
    blobs: Mapping[str, bytes]
    seconds: float = 0.0


def propose(
    spec: PluginSpec,
    n: int,
    stream: str,
    space: SearchSpace,
    objective: Objective,
    checkpoint: bytes | None,
    pending: tuple[Candidate, ...],
    dataset: Dataset,
    fitted: Fit | None,
) -> Proposals:
    started = time.perf_counter()
    context = GenerationContext(
        space=space,
        objective=objective,
        labelled=dataset.labelled,
        pending=pending,
        surrogate=fitted.fitted if fitted is not None else None,
        checkpoint=checkpoint_from_bytes(checkpoint) if checkpoint is not None else None,
    )
    rows: list[ProposalRow] = []
    blobs: dict[str, bytes] = {}
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        for crystal, proposal in plugins.build(spec).generate(n, rng=generator(stream), context=context):
            rows.append(ProposalRow(crystal.id, _key(crystal), tuple(proposal.parents), dict(proposal.condition)))
            blobs[crystal.id] = crystal.to_bytes()
    return Proposals(tuple(rows), blobs, time.perf_counter() - started)


def _key(crystal: Crystal) -> str:
    """The equivalence key; empty for an overlapping or degenerate cell, which the screens refuse."""
    try:
        return equivalence_key(crystal)
    except (ValueError, RuntimeError, FloatingPointError):
        return ""
