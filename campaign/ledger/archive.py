"""A campaign's history from its journal alone: what an evidence bundle carries, to be read without
a database.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from campaign.errors import InputError
from campaign.ledger import journal
from campaign.ledger.blobs import is_whole
from campaign.ledger.events import Event
from campaign.ledger.state import CampaignState, fold
from campaign.types import Crystal


class Archive:
    """A whole journal. ``state`` is what it folds to; memory grows with its crystals, 1 KB for each
    of 54 atoms.

    Raises InputError where a line is damaged, an event is missing, or a crystal is not what its id
    says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        events: dict[int, tuple[float, Event]] = {}
        self._blobs: dict[str, bytes] = {}
        for found, _ in journal.scan(path):
            if isinstance(found, journal.Damage):
                raise InputError(
                    f"{path}, line {found.line} is damaged: its checksum does not hold"
                )
            self._take_in(found.transaction(), events)
        missing = sorted(set(range(1, max(events, default=0) + 1)) - events.keys())
        if missing or not events:
            raise InputError(f"{path} holds no event number {missing[0] if missing else 1}")
        self.state: CampaignState = fold(
            (sequence, *events[sequence]) for sequence in sorted(events)
        )

    def _take_in(
        self, transaction: journal.Transaction, events: dict[int, tuple[float, Event]]
    ) -> None:
        for sequence, event in enumerate(transaction.events, start=transaction.first):
            events[sequence] = (transaction.time, event)
        self._blobs |= transaction.blobs

    def crystals(self, identities: Sequence[str]) -> list[Crystal]:
        """By id, in the order asked."""
        return [self.crystal(identity) for identity in identities]

    def crystal(self, identity: str) -> Crystal:
        """By id. Raises InputError where it is not there, or other than its id says."""
        data = self._blobs.get(identity)
        if data is None or not is_whole(identity, data):
            raise InputError(
                f"{self.path} {'misses' if data is None else 'holds other content for'} "
                f"crystal {identity}"
            )
        return Crystal.from_bytes(data)
