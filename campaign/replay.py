"""Decisions again, from the ledger as it stood before them."""

from __future__ import annotations

from campaign import fit, select
from campaign.api import Campaign
from campaign.dataset import dataset_before
from campaign.errors import InputError
from campaign.ledger import events as ev
from campaign.loop import objective_oracle
from campaign.schema import CampaignConfig
from campaign.seeds import stream_key
from campaign.types import Candidate


def replay(campaign: Campaign, round_index: int) -> tuple[ev.ChoiceRow, ...]:
    """The choices of a round, computed anew from the events before its decision. Raises InputError where it decided nothing."""
    reader = campaign.reader()
    try:
        sequence = next((n for n, _, event in reader.events() if isinstance(event, ev.Decided) and event.round == round_index), None)
        if sequence is None:
            raise InputError(f"round {round_index} of {campaign.folder} holds no decision")
        state = reader.fold(until=sequence)
        record = state.rounds[round_index]
        decided = record.decided
        assert decided is not None
        assert state.config is not None
        before = reader.fold(until=sequence - 1)
        config = CampaignConfig.model_validate(state.config.config)
        objective = config.objective.objective
        dataset = dataset_before(reader, state, record.sequence, objective_oracle(campaign.loaded))
        fitted = None
        if decided.model is not None:
            assert config.surrogate is not None
            last = next((r.fitted for r in reversed(state.rounds[:round_index]) if r.fitted is not None), None)
            previous = last.hyperparameters if last is not None else None
            spec = campaign.loaded.spec("surrogates", config.surrogate)
            fitted = fit.fit(spec, dataset, objective.quantity, previous, stream_key(config.seed, "fit", round_index))
        pool = [Candidate(crystal) for crystal in reader.crystals(before.pool(config.acquisition.pool_size))]
        pending = [Candidate(crystal) for crystal in reader.crystals(decided.pending)]
        oracles = [oracle.label for oracle in config.oracles]
        n = len(decided.choices) // len(oracles)
        selection = select.select(config.acquisition, objective, n, decided.stream, pool, pending, dataset, fitted)
    finally:
        reader.close()
    return tuple(
        ev.ChoiceRow(choice.candidate, oracle, choice.score, choice.mean, choice.deviation)
        for choice in selection.choices
        for oracle in oracles
    )
