"""The step train: a generator learns from the labels, and a gate decides whether what it learned is
used. Runs on the compute worker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from campaign import plugins
from campaign.blame import theirs
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.config.schema import CampaignConfig
from campaign.ledger import CampaignState
from campaign.ledger.dataset import Dataset
from campaign.parameters import as_recorded
from campaign.protocols import GenerationContext, PluginSpec
from campaign.seeds import generator, library_seeds, seed_sequence
from campaign.types import Objective, SearchSpace


@dataclass(frozen=True)
class Training:
    """The new state as bytes, whether the gate lets it be used, and the figures of both."""

    checkpoint: bytes
    is_published: bool
    metrics: Mapping[str, float]
    seconds: float


@theirs()
def train(
    spec: PluginSpec,
    stream: str,
    space: SearchSpace,
    objective: Objective,
    checkpoint: bytes | None,
    dataset: Dataset,
) -> Training:
    started = time.perf_counter()
    old = checkpoint_from_bytes(checkpoint) if checkpoint is not None else None
    context = GenerationContext(
        space=space, objective=objective, labelled=dataset.labelled, checkpoint=old
    )
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])):
        component = plugins.build(spec)
        new = component.train(dataset.labelled, rng=generator(stream), context=context)
        is_better, figures = component.is_improvement(new, old, dataset.labelled, context=context)
    metrics = {
        name: value for name, value in {**new.metrics, **figures}.items() if math.isfinite(value)
    }
    return Training(checkpoint_to_bytes(new), is_better, metrics, time.perf_counter() - started)


def checkpoints_to_drop(state: CampaignState) -> set[str]:
    """Hashes of checkpoints that nothing needs.

    Needed are the last two of each learner, its last two published, every ancestor of a label or of
    what may still be selected, what a decision was made with, and the committee that oracles ask.
    """
    events = [event for trained in state.checkpoints.values() for event in trained]
    wanted: set[str] = set()
    for trained in state.checkpoints.values():
        wanted.update(event.checkpoint for event in trained[-2:])
        wanted.update([event.checkpoint for event in trained if event.is_published][-2:])
    if state.committee_of_oracles is not None:
        wanted.add(state.committee_of_oracles.checkpoint)
    wanted.update(
        record.decided.model
        for record in state.rounds
        if record.decided is not None and record.decided.model is not None
    )
    parents = {event.checkpoint: event.parent for event in events}
    with as_recorded():
        kept = state.config and CampaignConfig.model_validate(state.config.config)
    selectable = state.pool(kept.acquisition.pool_size) if kept else []
    for candidate in {
        *selectable,
        *(candidate for candidate, _ in (*state.labels, *state.pending)),
    }:
        for proposed, _row in state.candidates[candidate].proposals:
            ancestor = proposed.checkpoint
            while ancestor is not None and ancestor not in wanted:
                wanted.add(ancestor)
                ancestor = parents.get(ancestor)
    return {event.checkpoint for event in events} - wanted
