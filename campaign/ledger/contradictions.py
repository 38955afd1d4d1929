"""What an event may not say of what the ledger holds already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from campaign.errors import ContradictionError
from campaign.ledger import events as ev
from campaign.ledger.state import CampaignState


def refuse(state: CampaignState, events: Iterable[ev.Event]) -> None:
    """Raises ContradictionError for a decision that chooses a pair twice, or one that is labelled,
    under way or given up.
    """
    for event in events:
        if isinstance(event, ev.Decided):
            pairs = [(choice.candidate, choice.oracle) for choice in event.choices]
            doubled = [pair for pair, count in Counter(pairs).items() if count > 1]
            known = (
                ("labelled", state.labels),
                ("under way", state.pending),
                ("given up", state.quarantined),
                ("chosen twice", doubled),
            )
            for why, taken in known:
                for candidate, oracle in pairs:
                    if (candidate, oracle) in taken:
                        raise ContradictionError(
                            f"round {event.round} chose {candidate} for oracle {oracle}, which "
                            f"is {why} already; nothing was recorded",
                            hint="run the same command again; if it stops here again, it is a "
                            "fault worth a report with the ledger",
                        )
