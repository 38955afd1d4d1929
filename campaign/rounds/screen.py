"""The step screen: drop the invalid, the duplicate and the known, each with its reason. Runs on the
compute worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from campaign import plugins
from campaign.blame import theirs
from campaign.config.schema import ScreensConfig
from campaign.crystals.matching import (
    Distinct,
    Invariants,
    KeyIndex,
    Matcher,
    Sameness,
    equivalence_key,
)
from campaign.crystals.neighbours import SCALED_CUTOFF, is_flat, length_scale, shortest_distance
from campaign.errors import InputError
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.events import VerdictRow
from campaign.protocols import Oracle, PluginSpec, RelaxesVolume, Screen
from campaign.rounds.propose import Proposals
from campaign.types import Candidate, Crystal, SearchSpace, Verdict

_made_anew: dict[str, str] = {}


@dataclass(frozen=True)
class Rivals:
    """What new candidates are compared with. known: ids judged in earlier rounds. accepted: by id,
    key and bytes of what may be equal.
    """

    same: Sameness
    known: frozenset[str]
    accepted: Mapping[str, tuple[str, bytes]]


def sameness(config: ScreensConfig, oracles: Iterable[Oracle]) -> Sameness:
    """As the config says, or as its oracles need it: crystals of all volumes are one only where
    each oracle relaxes the volume.
    """
    if config.same is not None:
        return config.same
    return (
        "shape"
        if all(isinstance(oracle, RelaxesVolume) and oracle.relaxes_volume for oracle in oracles)
        else "structure"
    )


def matcher_of(config: ScreensConfig, same: Sameness) -> Matcher:
    return Matcher(
        config.match_length, config.match_site, config.match_angle, same, config.match_volume
    )


def rivals_of(
    config: ScreensConfig,
    oracles: Iterable[Oracle],
    state: CampaignState,
    ledger: LedgerReader,
    proposed: Mapping[str, str],
    *,
    known: frozenset[str] = frozenset(),
    index: KeyIndex | None = None,
) -> Rivals:
    """``proposed``: key by id of all that is to be judged; ``known``: those of them that were
    judged before, and are not again.

    ``index``: of what was accepted before, to which this adds.
    """
    same = sameness(config, oracles)
    keys = list(
        _keys_of_today(
            {identity: key for identity, key in proposed.items() if identity not in known}, ledger
        ).values()
    )
    index = KeyIndex(matcher_of(config, same)) if index is None else index
    others = [
        identity
        for identity in state.accepted_of(keys)
        if identity not in proposed or identity in known
    ]
    new = {
        identity: state.candidates[identity].equivalence
        for identity in others
        if identity not in index
    }
    for identity, key in _keys_of_today(new, ledger).items():
        index.add(identity, key)
    accepted = {
        identity for near in index.near_each(keys).values() for identity in near
    }.intersection(others)
    rivals = _keys_of_today(
        {identity: state.candidates[identity].equivalence for identity in sorted(accepted)}, ledger
    )
    blobs = ledger.blobs(list(rivals))
    return Rivals(
        same, known, {identity: (key, blobs[identity]) for identity, key in rivals.items()}
    )


def _keys_of_today(keys: Mapping[str, str], ledger: LedgerReader) -> dict[str, str]:
    """Keys by id, those from before keys had neighbours made anew."""
    earlier = [identity for identity, key in keys.items() if key and not Invariants.are_in(key)]
    for identity, data in ledger.blobs(
        [identity for identity in earlier if identity not in _made_anew]
    ).items():
        _made_anew[identity] = equivalence_key(Crystal.from_bytes(data))
    return {**keys, **{identity: _made_anew[identity] for identity in earlier}}


@theirs()
def judge(
    config: ScreensConfig,
    extra: Sequence[PluginSpec],
    space: SearchSpace,
    rivals: Rivals,
    *batches: Proposals,
) -> tuple[VerdictRow, ...]:
    """One verdict for each new candidate of the batches."""
    screens: list[Screen] = [plugins.build(spec) for spec in extra]
    accepted = Distinct(matcher_of(config, rivals.same))
    for identity, (key, data) in rivals.accepted.items():
        accepted.add(identity, key, Crystal.from_bytes(data))
    verdicts: dict[str, VerdictRow] = {}
    for batch in batches:
        for row in batch.rows:
            if row.candidate in verdicts:
                continue
            if row.candidate in rivals.known:
                verdicts[row.candidate] = VerdictRow(
                    row.candidate, False, "known", "proposed and judged in an earlier round"
                )
                continue
            crystal = Crystal.from_bytes(batch.blobs[row.candidate])
            verdict = judge_validity(crystal, config, space)
            key = (
                row.equivalence
                if Invariants.are_in(row.equivalence) or not row.equivalence
                else equivalence_key(crystal)
            )
            if verdict.accepted:
                verdict = _judge_novelty(crystal, key, accepted, config, rivals.same)
            for screen in screens:
                if verdict.accepted:
                    verdict = _verdict(screen, crystal, space)
            if verdict.accepted:
                accepted.add(row.candidate, key, crystal)
            verdicts[row.candidate] = VerdictRow(
                row.candidate, verdict.accepted, verdict.screen, verdict.reason
            )
    return tuple(verdicts.values())


def _verdict(screen: Screen, crystal: Crystal, space: SearchSpace) -> Verdict:
    verdict: object = screen.judge(Candidate(crystal), space)
    if isinstance(verdict, Verdict):
        return verdict
    raise InputError(
        f"the screen {type(screen).__name__} gave {type(verdict).__name__}, expected a Verdict"
    )


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
        return Verdict(
            False, "volume", f"{volume:.2f} angstrom^3 per atom, allowed {low:g} to {high:g}"
        )
    if is_flat(crystal.lattice, SCALED_CUTOFF * length_scale(crystal.lattice, len(crystal))):
        return Verdict(False, "validity", "its cell is too flat or too skewed")
    distance = shortest_distance(crystal)
    if distance < config.min_distance:
        return Verdict(
            False,
            "distance",
            f"two atoms {distance:.2f} angstrom apart, allowed from {config.min_distance:g}",
        )
    return Verdict(True, "")


def _judge_novelty(
    crystal: Crystal, key: str, accepted: Distinct, config: ScreensConfig, same: Sameness
) -> Verdict:
    rival = accepted.find(crystal, key)
    if rival is None:
        return Verdict(True, "")
    volume = f", volume {config.match_volume:g}" if same == "structure" else ""
    tolerances = (
        f"length {config.match_length:g}, site {config.match_site:g}, angle "
        f"{config.match_angle:g} degrees{volume}"
    )
    return Verdict(False, "duplicate", f"the same crystal as {rival} ({same}: {tolerances})")
