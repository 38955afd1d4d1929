"""What a level's hull lacks: competing phases that the campaign knows of and has no label of."""

from __future__ import annotations

from dataclasses import dataclass

from campaign.ledger import CampaignState
from campaign.ledger.events import KNOWN_PHASE, PHASE

PURPOSES = (PHASE, KNOWN_PHASE)


@dataclass(frozen=True)
class Debt:
    """A competing phase without a label at a level, and why."""

    oracle: str
    name: str
    formula: str
    reason: str


def debts(state: CampaignState) -> list[Debt]:
    """Known competing phases that a level's hull lacks: not labelled yet, or given up."""
    found = []
    for pair, purpose in state.requested.items():
        if purpose not in PURPOSES or pair in state.labels:
            continue
        failed = state.quarantined.get(pair)
        reason = f"{failed.kind}: {failed.message}" if failed is not None else "not labelled yet"
        found.append(
            Debt(pair[1], state.candidates[pair[0]].name or pair[0], state.formula(pair[0]), reason)
        )
    return found
