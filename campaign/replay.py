"""Decisions again, from the ledger as it stood before them."""

from __future__ import annotations

from contextlib import closing

from campaign import config as configs
from campaign import fit
from campaign.api import Campaign
from campaign.artifacts import ArtifactStore
from campaign.dataset import datasets_before
from campaign.errors import InputError
from campaign.ledger import events as ev
from campaign.question import answer, choices, committee_of, crystals, modelled_oracles, question


def replay(campaign: Campaign, round_index: int) -> tuple[ev.ChoiceRow, ...]:
    """The choices of a round, asked anew of the events that the decision knew.

    Raises InputError where the round decided nothing, or where an older ledger does not say what it knew.
    """
    with closing(campaign.reader()) as reader:
        decided = next((event for _, _, event in reader.events() if isinstance(event, ev.Decided) and event.round == round_index), None)
        if decided is None:
            raise InputError(f"round {round_index} of {campaign.folder} holds no decision")
        if not decided.as_of:
            raise InputError(
                f"round {round_index} of {campaign.folder} was decided by an older oreloop or put back after a loss: what it knew is lost",
                hint="rounds that are decided from now on can be replayed",
            )
        state = reader.fold(until=decided.as_of)
        assert state.config is not None
        loaded = configs.validate(state.config.config, folder=campaign.loaded.folder, source=campaign.loaded.source)
        record = state.rounds[round_index]
        datasets = datasets_before(reader, reader.fold(until=record.sequence), record.sequence, modelled_oracles(loaded))
        fitted = fit.fit(fit.request(loaded, state, record), datasets).value if fit.is_due(loaded.config, datasets) else None
        asked = question(loaded, state, record, datasets)
        committee = committee_of(asked, loaded, ArtifactStore(campaign.folder))
        pool, unseen = (reader.crystals(stored.ids) for stored in crystals(asked, reader))
        selection = answer(asked, loaded.config, pool, unseen, datasets, fitted, committee)
        return choices(asked, selection)[0]
