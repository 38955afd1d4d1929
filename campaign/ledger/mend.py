"""Make a ledger with gaps whole: nothing that was found is thrown away, and what was lost is named.

Each lost event leaves a `Lost` in its place, so that later ones keep their sequence. What follows
from later events is put back there: the beginning of a round that went on, the proposal of a
candidate whose crystal is known, the choice of a pair that was labelled. An event that cannot stand
(its candidate's crystal is lost) becomes a `Lost` that keeps its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from campaign.crystals.matching import key_or_none
from campaign.ledger import events as ev
from campaign.ledger.state import CampaignState, Pair
from campaign.types import Crystal

PUT_BACK = "recovered"
"""The generator and the acquisition of what was put back."""

Timed = tuple[float, ev.Event]
Named = TypeVar(
    "Named",
    ev.ImportedRow,
    ev.ProposalRow,
    ev.VerdictRow,
    ev.ChoiceRow,
    ev.RequestRow,
    ev.PinnedRow,
)


@dataclass
class _Gap:
    """Consecutive lost events: the round that stood before them, and what later events say was
    among them.
    """

    slots: list[int]
    time: float
    round: int
    rounds: list[int] = field(default_factory=list)
    candidates: dict[str, None] = field(default_factory=dict)
    pairs: dict[Pair, None] = field(default_factory=dict)

    def put_back(self, blobs: Mapping[str, bytes]) -> Iterator[ev.Event]:
        latest = max([self.round, *self.rounds])
        for index in self.rounds:
            yield ev.RoundStarted(round=index, key=f"round/{index}/started")
        if self.candidates:
            crystals = {
                identity: Crystal.from_bytes(blobs[identity]) for identity in self.candidates
            }
            rows = tuple(
                ev.ProposalRow(identity, key_or_none(crystal))
                for identity, crystal in crystals.items()
            )
            yield ev.Proposed(
                round=latest,
                generator=PUT_BACK,
                checkpoint=None,
                stream="",
                seconds=0.0,
                proposals=rows,
            )
        if self.pairs:
            yield ev.Decided(
                key=f"round/{latest}/decided",
                round=latest,
                acquisition=PUT_BACK,
                model=None,
                model_labels=0,
                stream="",
                pool="",
                pool_size=0,
                table=None,
                pending=(),
                choices=tuple(ev.ChoiceRow(candidate, oracle) for candidate, oracle in self.pairs),
                seconds=0.0,
                labels_at_decision=0,
            )


class _Mending:
    """Goes through the events that were found and gathers, gap by gap, what they need and do not
    have.
    """

    def __init__(self, blobs: Mapping[str, bytes]) -> None:
        self._blobs = blobs
        self.gaps: list[_Gap] = []
        self._candidates: set[str] = set()
        self._pending: set[Pair] = set()
        self._rounds = 0

    def lost(self, sequence: int, time: float) -> None:
        if self.gaps and self.gaps[-1].slots[-1] == sequence - 1:
            self.gaps[-1].slots.append(sequence)
        else:
            self.gaps.append(_Gap([sequence], time, self._rounds - 1))

    def kept(self, event: ev.Event) -> ev.Event:
        """An event without what it names and nobody has any more; what it needs is noted at the gap
        before it.
        """
        match event:
            case ev.RoundStarted():
                self._need_round(event.round - 1)
                self._rounds = max(self._rounds, event.round + 1)
            case ev.Trained() | ev.Fitted() | ev.RoundEnded():
                self._need_round(event.round)
            case ev.Imported():
                event = msgspec.structs.replace(event, rows=self._with_crystals(event.rows))
                self._candidates.update(row.candidate for row in event.rows)
            case ev.Proposed():
                self._need_round(event.round)
                event = msgspec.structs.replace(
                    event, proposals=self._with_crystals(event.proposals)
                )
                self._candidates.update(row.candidate for row in event.proposals)
            case ev.Judged():
                self._need_round(event.round)
                event = msgspec.structs.replace(event, verdicts=self._needed(event.verdicts))
            case ev.Decided():
                self._need_round(event.round)
                table = event.table if event.table in self._blobs else None
                choices, held = self._needed(event.choices), self._needed(event.held)
                event = msgspec.structs.replace(event, choices=choices, held=held, table=table)
                self._pending.update((choice.candidate, choice.oracle) for choice in event.choices)
            case ev.Requested():
                event = msgspec.structs.replace(event, rows=self._with_crystals(event.rows))
                self._candidates.update(row.candidate for row in event.rows)
                self._pending.update((row.candidate, row.oracle) for row in event.rows)
            case ev.CrystalsGiven():
                event = msgspec.structs.replace(event, rows=self._with_crystals(event.rows))
                self._candidates.update(row.candidate for row in event.rows)
            case ev.Labelled() | ev.Failed():
                if not self._need_candidate(event.candidate):
                    return ev.Lost(
                        reason="the crystal of its candidate is lost",
                        remains=ev.encode(event).decode(),
                    )
                if (
                    isinstance(event, ev.Labelled)
                    and event.crystal is not None
                    and event.crystal not in self._blobs
                ):
                    event = msgspec.structs.replace(event, crystal=None)
                if isinstance(event, ev.Labelled) or event.is_quarantined:
                    self._need_pair((event.candidate, event.oracle))
        return event

    def _with_crystals(self, rows: tuple[Named, ...]) -> tuple[Named, ...]:
        return tuple(row for row in rows if row.candidate in self._blobs)

    def _needed(self, rows: tuple[Named, ...]) -> tuple[Named, ...]:
        return tuple(row for row in rows if self._need_candidate(row.candidate))

    def _need_round(self, index: int) -> None:
        if self.gaps:
            self.gaps[-1].rounds += range(self._rounds, index + 1)
        self._rounds = max(self._rounds, index + 1)

    def _need_candidate(self, identity: str) -> bool:
        """Whether a candidate is known, or can be put back."""
        if identity not in self._candidates:
            if identity not in self._blobs or not self.gaps:
                return False
            self.gaps[-1].candidates[identity] = None
            self._candidates.add(identity)
        return True

    def _need_pair(self, pair: Pair) -> None:
        if pair not in self._pending and self.gaps:
            self.gaps[-1].pairs[pair] = None
        self._pending.discard(pair)


def mended(found: Mapping[int, Timed], blobs: Mapping[str, bytes]) -> list[Timed]:
    """The events from the first to the last sequence found, such that they can be folded; ``blobs``
    are those that are whole.
    """
    mending = _Mending(blobs)
    events: list[Timed] = []
    time = min((time for time, _ in found.values()), default=0.0)
    for sequence in range(1, max(found, default=0) + 1):
        if sequence in found:
            time, event = found[sequence]
            events.append((time, mending.kept(event)))
        else:
            mending.lost(sequence, time)
            events.append((time, ev.Lost(reason="no whole line holds it, nor does the database")))
    for gap in mending.gaps:
        for slot, event in zip(gap.slots, gap.put_back(blobs), strict=False):
            events[slot - 1] = gap.time, event
    while (orphan := _first_orphan(events)) is not None:
        time, event = events[orphan]
        remains = ev.encode(event).decode()
        events[orphan] = (
            time,
            ev.Lost(reason="it cannot stand without events that are lost", remains=remains),
        )
    return events


def _first_orphan(events: list[Timed]) -> int | None:
    state = CampaignState()
    for index, (time, event) in enumerate(events):
        try:
            state.apply(index + 1, time, event)
        except (LookupError, TypeError, ValueError):
            return index
    return None
