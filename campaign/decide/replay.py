"""Decisions again, from the ledger as it stood before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from campaign.config import loaded as configs
from campaign.decide import fit
from campaign.decide.question import (
    answer,
    choices,
    committee_of,
    crystals,
    modelled_oracles,
    question,
)
from campaign.errors import InputError
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.ledger.dataset import datasets_before

if TYPE_CHECKING:
    from campaign.api import Campaign


def replay(campaign: Campaign, round_index: int) -> tuple[ev.ChoiceRow, ...]:
    """The choices of a round, asked anew of the events that the decision knew.

    Raises InputError where the round decided nothing, or where an older ledger does not say what it
    knew.
    """
    with closing(campaign.reader()) as reader:
        decided = next(
            (
                event
                for _, _, event in reader.events()
                if isinstance(event, ev.Decided) and event.round == round_index
            ),
            None,
        )
        if decided is None:
            raise InputError(f"round {round_index} of {campaign.folder} holds no decision")
        if not decided.as_of:
            raise InputError(
                f"round {round_index} of {campaign.folder} was decided by an older oreloop or "
                "put back after a loss: what it knew is lost",
                hint="rounds that are decided from now on can be replayed",
            )
        state = reader.fold(until=decided.as_of)
        assert state.config is not None
        loaded = configs.validate(
            state.config.config, folder=campaign.loaded.folder, source=campaign.loaded.source
        )
        record = state.rounds[round_index]
        with _threads(loaded.config.executor.threads):
            datasets = datasets_before(
                reader,
                reader.fold(until=record.sequence),
                record.sequence,
                modelled_oracles(loaded),
            )
            fitted = (
                fit.fit(fit.request(loaded, state, record), datasets).value
                if fit.is_due(loaded.config, datasets)
                else None
            )
            asked = question(loaded, state, record, datasets)
            committee = committee_of(asked, loaded, ArtifactStore(campaign.folder))
            pool, unseen = (reader.crystals(stored.ids) for stored in crystals(asked, reader))
            selection = answer(asked, loaded.config, pool, unseen, datasets, fitted, committee)
            return choices(asked, selection)[0]


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """As many as the campaign gives the numerics: by others sums differ in their last digits, and
    choices with them.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
