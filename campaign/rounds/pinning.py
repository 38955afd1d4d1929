"""Crystals that people want labelled next: read, judged by the built-in screens, and found again
where the campaign knows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from campaign.config.loaded import LoadedConfig
from campaign.crystals.matching import Distinct, key_or_none
from campaign.errors import InputError
from campaign.ledger import CampaignState, Ledger
from campaign.ledger import events as ev
from campaign.ledger.state import Pair
from campaign.reading.structures import read_structures
from campaign.rounds import screen
from campaign.types import Crystal

Found = dict[str, tuple[str, Crystal]]
"""By id: what a crystal is called, and the crystal."""

Given = TypeVar("Given", bound=ev.CrystalsGiven)


def read(path: Path) -> Found:
    """Raises InputError where a file cannot be read, or holds no crystal."""
    found: Found = {}
    for entry in read_structures(path):
        found.setdefault(
            entry.crystal.id,
            (entry.where.removeprefix(str(path)).lstrip(", /") or path.name, entry.crystal),
        )
    if not found:
        raise InputError(f"{path} holds no crystals")
    return found


def rows_of(found: Found) -> tuple[ev.PinnedRow, ...]:
    return tuple(
        ev.PinnedRow(identity, key_or_none(crystal), name)
        for identity, (name, crystal) in found.items()
    )


def judged(
    loaded: LoadedConfig, ledger: Ledger, event: Given, given: Mapping[str, bytes]
) -> tuple[Given, dict[str, bytes]]:
    """What people gave with the verdicts on its crystals, and their bytes; one that equals a
    candidate stands for that candidate.

    Screens that the config adds are not asked: people want these. Raises InputError where none is
    left to be labelled.
    """
    rows = tuple(
        _judged(
            loaded,
            ledger,
            event.rows,
            {row.candidate: _decoded(row.candidate, given) for row in event.rows},
        )
    )
    if all(row.screen for row in rows):
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows[:5])
        raise InputError(
            f"none of the {len(rows)} crystals of {event.source} can be labelled: {reasons}"
        )
    known = [row.candidate for row in rows if row.candidate not in given]
    blobs = {row.candidate: given[row.candidate] for row in rows if row.candidate in given}
    return replace(event, rows=rows), blobs | ledger.blobs(known)


def _decoded(identity: str, given: Mapping[str, bytes]) -> Crystal:
    crystal = Crystal.from_bytes(given.get(identity, b""))
    if crystal.id != identity:
        raise InputError(f"the crystal {identity} has other content than its id says")
    return crystal


def _judged(
    loaded: LoadedConfig,
    ledger: Ledger,
    rows: Sequence[ev.PinnedRow],
    crystals: Mapping[str, Crystal],
) -> Iterator[ev.PinnedRow]:
    config, state = loaded.config.screens, ledger.state
    space = loaded.config.search_space.without(state.controls.banned)
    fresh = {
        row.candidate: key_or_none(crystals[row.candidate])
        for row in rows
        if row.candidate not in state.candidates
    }
    rivals = screen.rivals_of(config, loaded.parts.oracles.values(), state, ledger, fresh)
    same = Distinct(screen.matcher_of(config, rivals.same))
    for identity, (known, data) in rivals.accepted.items():
        same.add(identity, known, Crystal.from_bytes(data))
    seen: set[str] = set()
    for row in rows:
        crystal, candidate = crystals[row.candidate], row.candidate
        verdict = screen.judge_validity(crystal, config, space)
        if verdict.accepted and candidate in fresh:
            candidate = same.find(crystal, fresh[candidate]) or candidate
            if candidate == row.candidate:
                same.add(candidate, fresh[candidate], crystal)
        equivalence = (
            state.candidates[candidate].equivalence
            if candidate in state.candidates
            else fresh[candidate]
        )
        judged = replace(row, candidate=candidate, equivalence=equivalence)
        if not verdict.accepted:
            yield replace(judged, screen=verdict.screen, reason=verdict.reason)
            continue
        reason = "it stands there twice" if candidate in seen else _taken(state, candidate)
        seen.add(candidate)
        yield replace(judged, screen="known" if reason else "", reason=reason)


def _taken(state: CampaignState, candidate: str) -> str:
    """Why a candidate is not labelled next; empty where it may be."""
    if state.is_barred(candidate):
        return f"{candidate} is vetoed"
    known: dict[str, Iterable[Pair]] = {
        "labelled": state.labels,
        "selected": state.pending,
        "given up, for `oreloop retry`,": state.quarantined,
    }
    for why, pairs in known.items():
        if any(name == candidate for name, _ in pairs):
            return f"{candidate} is {why} already"
    return ""
