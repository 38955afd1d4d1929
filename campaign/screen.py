"""The step screen: drop the invalid, the duplicate and the known, each with its reason. Runs on the compute worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from campaign import plugins
from campaign.crystals.matching import Matcher
from campaign.crystals.neighbours import shortest_distance
from campaign.ledger.events import VerdictRow
from campaign.propose import Proposals
from campaign.protocols import PluginSpec, Screen
from campaign.schema import ScreensConfig
from campaign.types import Candidate, Crystal, SearchSpace, Verdict


def judge(
    config: ScreensConfig,
    extra: Sequence[PluginSpec],
    space: SearchSpace,
    rivals: Mapping[str, Sequence[tuple[str, bytes]]],
    known: frozenset[str],
    *batches: Proposals,
) -> tuple[VerdictRow, ...]:
    """One verdict for each new candidate of the batches.

    ``rivals``: by equivalence key, id and bytes of accepted candidates of earlier rounds. ``known``: ids judged in earlier rounds.
    """
    screens: list[Screen] = [plugins.build(spec) for spec in extra]
    matcher = Matcher(config.match_length, config.match_site, config.match_angle)
    accepted: defaultdict[str, list[tuple[str, Crystal]]] = defaultdict(list)
    for key, entries in rivals.items():
        accepted[key] = [(identity, Crystal.from_bytes(data)) for identity, data in entries]
    verdicts: dict[str, VerdictRow] = {}
    for batch in batches:
        for row in batch.rows:
            if row.candidate in verdicts:
                continue
            if row.candidate in known:
                verdicts[row.candidate] = VerdictRow(row.candidate, False, "known", "proposed and judged in an earlier round")
                continue
            crystal = Crystal.from_bytes(batch.blobs[row.candidate])
            verdict = judge_validity(crystal, config, space)
            if verdict.accepted:
                verdict = _judge_novelty(crystal, accepted[row.equivalence], matcher, config)
            for screen in screens:
                if verdict.accepted:
                    verdict = screen.judge(Candidate(crystal), space)
            if verdict.accepted:
                accepted[row.equivalence].append((row.candidate, crystal))
            verdicts[row.candidate] = VerdictRow(row.candidate, verdict.accepted, verdict.screen, verdict.reason)
    return tuple(verdicts.values())


def judge_validity(crystal: Crystal, config: ScreensConfig, space: SearchSpace) -> Verdict:
    """Composition inside the space, volume per atom and shortest distance inside the bounds."""
    if len(crystal) == 0:
        return Verdict(False, "validity", "holds no atoms")
    violation = space.violation(crystal.symbols)
    if violation:
        return Verdict(False, "composition", violation)
    volume = crystal.volume / len(crystal)
    low, high = config.volume_per_atom
    if not low <= volume <= high:
        return Verdict(False, "volume", f"{volume:.2f} angstrom^3 per atom, allowed {low:g} to {high:g}")
    distance = shortest_distance(crystal)
    if distance < config.min_distance:
        return Verdict(False, "distance", f"two atoms {distance:.2f} angstrom apart, allowed from {config.min_distance:g}")
    return Verdict(True, "")


def _judge_novelty(crystal: Crystal, rivals: Sequence[tuple[str, Crystal]], matcher: Matcher, config: ScreensConfig) -> Verdict:
    for identity, rival in rivals:
        if matcher.is_same(crystal, rival):
            tolerances = f"length {config.match_length:g}, site {config.match_site:g}, angle {config.match_angle:g} degrees"
            return Verdict(False, "duplicate", f"the same crystal as {identity} ({tolerances})")
    return Verdict(True, "")
