"""Decisions again, from the ledger as it stood before them."""

from __future__ import annotations

from campaign import fit, ladder, levels, query, select
from campaign.api import Campaign
from campaign.artifacts import ArtifactStore
from campaign.dataset import dataset_before
from campaign.errors import InputError
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.state import RoundRecord
from campaign.roles import objective_oracle, waiting_for_committee
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
        search = ladder.search_level(config, objective_oracle(campaign.loaded))
        known = reader.fold(until=record.sequence)
        dataset = dataset_before(reader, known, record.sequence, search)
        if config.fidelities is not None and config.fidelities.mode == "acquisition":
            return _levels(campaign, config, reader, before, record, decided)
        fitted = None
        if decided.model is not None and decided.acquisition != "query_by_committee":
            assert config.surrogate is not None
            last = next((r.fitted for r in reversed(state.rounds[:round_index]) if r.fitted is not None), None)
            previous = last.hyperparameters if last is not None else None
            spec = campaign.loaded.spec("surrogates", config.surrogate)
            classifier = campaign.loaded.spec("classifiers", config.feasibility) if config.feasibility is not None else None
            fitted = fit.fit(spec, classifier, dataset, config.modelled, previous, stream_key(config.seed, "fit", round_index))
        pool = [Candidate(crystal) for crystal in reader.crystals(before.pool(config.acquisition.pool_size))]
        pending = [Candidate(crystal) for crystal in reader.crystals(decided.pending)]
        closed = waiting_for_committee(campaign.loaded, before)
        climbing = ladder.climbers(before, config, before=record.sequence, stream=f"{decided.stream}/climb", closed=closed)[
            : sum(choice.reason in ev.CLIMBING for choice in decided.choices)
        ]
        oracles = [search] if config.fidelities is not None else [oracle.label for oracle in config.oracles]
        n = (len(decided.choices) - len(climbing)) // len(oracles)
        if decided.acquisition == "query_by_committee":
            assert config.committee is not None
            assert decided.model is not None
            spec = campaign.loaded.spec("committees", config.committee)
            selection = query.query(spec, ArtifactStore(campaign.folder).read(decided.model), config.acquisition, n, pool)
        else:
            selection = select.select(config, n, decided.stream, pool, pending, dataset, fitted, decided.scales)
    finally:
        reader.close()
    return *climbing, *(
        ev.ChoiceRow(choice.candidate, oracle, choice.score, choice.mean, choice.deviation, choice.reason)
        for choice in selection.choices
        for oracle in oracles
    )


def _levels(
    campaign: Campaign, config: CampaignConfig, reader: LedgerReader, before: CampaignState, record: RoundRecord, decided: ev.Decided
) -> tuple[ev.ChoiceRow, ...]:
    """The choices of a round that chose levels too."""
    assert config.fidelities is not None
    known = reader.fold(until=record.sequence)
    by_level = {level.oracle: dataset_before(reader, known, record.sequence, level.oracle) for level in config.fidelities.levels}
    fitted = None
    if decided.model is not None:
        assert config.surrogate is not None
        last = next((r.fitted for r in reversed(before.rounds[: record.index]) if r.fitted is not None), None)
        previous = last.hyperparameters if last is not None else None
        spec = campaign.loaded.spec("surrogates", config.surrogate)
        fitted = fit.fit_levels(spec, by_level, config.objective.quantity, previous, stream_key(config.seed, "fit", record.index))
    pool = [Candidate(crystal) for crystal in reader.crystals(before.pool(config.acquisition.pool_size))]
    closed = waiting_for_committee(campaign.loaded, before)
    most = sum(choice.reason == "audit" for choice in decided.choices)
    audited = ladder.audits(before, config, before=record.sequence, stream=f"{decided.stream}/audit", closed=closed)[:most]
    pairs = sorted(pair for pair in before.pending if pair[1] in by_level) + [(row.candidate, row.oracle) for row in audited]
    pending = [(oracle, Candidate(reader.crystal(candidate))) for candidate, oracle in pairs]
    room = ladder.rooms(before, config, closed, audited)
    eligible = ladder.eligible(before, config, record.sequence)
    n = len(decided.choices) - len(audited) if fitted is not None else config.acquisition.initial_labels
    selection = levels.select(config, n, decided.stream, pool, pending, by_level, fitted, decided.costs, room, eligible)
    rows = [(item.choice, item.oracle) for item in selection.choices]
    return *audited, *(ev.ChoiceRow(one.candidate, oracle, one.score, one.mean, one.deviation) for one, oracle in rows)
