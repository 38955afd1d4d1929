"""Events as the state keeps them: what they say again and again is there once.

Each event is read from a text of its own, so that every mention of a candidate, an oracle or a unit
is an object of its own, which takes more than half of what a label takes in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec
from msgspec.structs import replace

from campaign.ledger import events as ev

Name = Callable[[str], str]
"""A candidate's id, as it was first read."""

_CONDITIONS = 1024


def proposed(event: ev.Proposed) -> ev.Proposed:
    """Conditions that many proposals are made under are one."""
    if not any(row.condition for row in event.proposals):
        return event
    return replace(
        event,
        proposals=tuple(
            ev.ProposalRow(row.candidate, row.equivalence, row.parents, _shared(row.condition))
            for row in event.proposals
        ),
    )


def judged(event: ev.Judged, name: Name) -> ev.Judged:
    return replace(
        event,
        verdicts=tuple(
            ev.VerdictRow(name(row.candidate), row.is_accepted, intern(row.screen), row.reason)
            for row in event.verdicts
        ),
    )


def decided(event: ev.Decided, name: Name) -> ev.Decided:
    return replace(event, choices=tuple(_choice(row, name) for row in event.choices))


def _choice(row: ev.ChoiceRow, name: Name) -> ev.ChoiceRow:
    return ev.ChoiceRow(
        name(row.candidate),
        intern(row.oracle),
        row.score,
        row.mean,
        row.deviation,
        intern(row.reason),
        row.stable,
    )


def observations(rows: Iterable[ev.ObservationRow]) -> tuple[ev.ObservationRow, ...]:
    return tuple(
        [
            ev.ObservationRow(intern(row.quantity), row.value, intern(row.unit), row.noise)
            for row in rows
        ]
    )


def _shared(condition: Mapping[str, Any]) -> dict[str, Any]:
    return _condition(msgspec.json.encode(condition))


@lru_cache(maxsize=_CONDITIONS)
def _condition(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text)
    return found
