"""Competing phases: read from files or a provider, screened, and asked of the campaign's own
oracles before all else.

Their energies are those oracles' alone: what a source says of them is another scale. A label that
another campaign paid for at the same level is taken from the cache.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from campaign.code import modules
from campaign.config.loaded import LoadedConfig
from campaign.config.roles import reference_oracles, waiting_for_committee
from campaign.config.schema import PhasesConfig, SourceConfig
from campaign.crystals.matching import Distinct, equivalence_key
from campaign.errors import InputError
from campaign.executors import sanity
from campaign.files import cache_folder
from campaign.ledger import CampaignState, Ledger
from campaign.ledger import events as ev
from campaign.ledger.debts import PURPOSES
from campaign.protocols import asks_committee
from campaign.reading import optimade
from campaign.rounds import screen, sources
from campaign.rounds.label import observation_rows, work_key
from campaign.rounds.label_cache import LabelCache
from campaign.seeds import content_hash
from campaign.types import Crystal, SearchSpace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Competing:
    """A crystal with what its source calls it."""

    name: str
    crystal: Crystal


def wanted(loaded: LoadedConfig, state: CampaignState) -> list[Competing]:
    """What the config's sources of phases hold that passes the screens; a provider is asked in the
    first session alone.

    Raises InputError where a source cannot be read or reached, or holds no phase of the space's
    elements.
    """
    config = loaded.config.phases
    if config is None:
        return []
    found = list(_of_path(loaded, config))
    if config.optimade is not None and _fetch_key(config) not in state.keys:
        found += _of_provider(loaded, config, config.optimade)
    kept, refused = _screened(loaded, config, found)
    if refused:
        log.info(
            "phases: %s left out",
            ", ".join(f"{n} by {reason}" for reason, n in refused.most_common()),
        )
    if found and not kept:
        reasons = ", ".join(f"{n} by {reason}" for reason, n in refused.most_common())
        raise InputError(
            f"phases: none of {len(found)} crystals can compete: {reasons}",
            hint="give crystals of the space's elements",
        )
    return kept


def _of_path(loaded: LoadedConfig, config: PhasesConfig) -> Iterator[Competing]:
    if config.path is None:
        return
    path = (loaded.folder / config.path).resolve()
    if not path.exists():
        raise InputError(
            f"phases: there is no {path}", hint="relative paths start at the config's folder"
        )
    for entry in sources.read(
        path, SourceConfig(path=config.path, structure_column=config.structure_column)
    ):
        identity = next(
            (
                str(value)
                for key, value in entry.facts.items()
                if key.lower().endswith(("id", "name"))
            ),
            "",
        )
        yield Competing(identity or f"{path.name} {entry.name}", entry.crystal)


def _of_provider(loaded: LoadedConfig, config: PhasesConfig, url: str) -> list[Competing]:
    elements = ", ".join(f'"{element}"' for element in loaded.config.space.elements)
    try:
        found = optimade.crystals(
            url, config.filter or f"elements HAS ONLY {elements}", config.max_structures
        )
        return [Competing(name, crystal) for name, crystal in found]
    except InputError as error:
        raise InputError(
            f"phases: {error.message}",
            hint="check address, filter and network, or give the phases as files: phases: "
            "{path: FOLDER}",
        ) from error


def _screened(
    loaded: LoadedConfig, config: PhasesConfig, found: Sequence[Competing]
) -> tuple[list[Competing], Counter[str]]:
    """Valid and distinct crystals of the space's elements, whatever their composition: phases
    outside its bounds compete too.
    """
    space = SearchSpace(loaded.config.space.elements)
    same = screen.sameness(loaded.config.screens, loaded.parts.oracles.values())
    distinct = Distinct(screen.matcher_of(loaded.config.screens, same))
    kept: list[Competing] = []
    refused: Counter[str] = Counter()
    for item in found:
        verdict = screen.judge_validity(item.crystal, loaded.config.screens, space)
        if not verdict.accepted:
            refused[verdict.screen] += 1
        elif len(item.crystal) > config.max_atoms:
            refused["max_atoms"] += 1
        elif distinct.find(item.crystal, key := equivalence_key(item.crystal)) is not None:
            refused["duplicate"] += 1
        else:
            distinct.add(item.crystal.id, key, item.crystal)
            kept.append(item)
    return kept, refused


def request(loaded: LoadedConfig, ledger: Ledger, found: Sequence[Competing]) -> None:
    """Ask for the labels that are not asked for yet, and take those that the cache holds."""
    config, state = loaded.config.phases, ledger.state
    if config is None:
        return
    waiting = waiting_for_committee(loaded, state)
    oracles = [name for name in config.oracles or reference_oracles(loaded) if name not in waiting]
    rows = [
        ev.RequestRow(item.crystal.id, equivalence_key(item.crystal), oracle, item.name)
        for oracle in oracles
        for item in found
        if (item.crystal.id, oracle) not in state.requested
    ]
    key = (
        _fetch_key(config)
        if config.optimade is not None and _fetch_key(config) not in state.keys
        else None
    )
    if rows or key:
        event = ev.Requested(
            key=key, purpose=ev.KNOWN_PHASE if config.known else ev.PHASE, rows=tuple(rows)
        )
        ledger.append([event], {item.crystal.id: item.crystal.to_bytes() for item in found})
    _take_from_cache(loaded, ledger)


def _take_from_cache(loaded: LoadedConfig, ledger: Ledger) -> None:
    events: list[ev.Event] = []
    blobs: dict[str, bytes] = {}
    cache, state = cache_of(), ledger.state
    for candidate, name in [
        pair for pair in state.pending if state.requested.get(pair) in PURPOSES
    ]:
        oracle = next((oracle for oracle in loaded.config.oracles if oracle.label == name), None)
        if oracle is None or not is_cacheable(loaded, name):
            continue
        fidelity = loaded.fidelity_keys[name]
        evaluation = cache.find(candidate, fidelity)
        if (
            evaluation is None
            or sanity.check(
                evaluation, ledger.crystal(candidate), loaded.measured[name], oracle.sanity
            )
            is not None
        ):
            continue
        if evaluation.crystal is not None:
            blobs[evaluation.crystal.id] = evaluation.crystal.to_bytes()
        events.append(
            ev.Labelled(
                key=work_key(candidate, name, fidelity, 0),
                candidate=candidate,
                oracle=name,
                fidelity=fidelity,
                attempt=0,
                observations=observation_rows(evaluation.observations),
                crystal=evaluation.crystal.id if evaluation.crystal is not None else None,
                artifacts={},
                wall_seconds=0.0,
                cpu_seconds=0.0,
                started=0.0,
                worker="cache",
            )
        )
    if events:
        log.info(
            "phases: %d labels of other campaigns are taken from %s", len(events), cache.folder
        )
        ledger.append(events, blobs)


def is_cacheable(loaded: LoadedConfig, oracle: str) -> bool:
    """Whether a fidelity says all that a label means: not of the user's own code, nor of a model
    that the campaign trains.
    """
    component = next((item for item in loaded.config.oracles if item.label == oracle), None)
    if component is None or ":" in component.use:
        return False
    return not modules(loaded.spec("oracles", component)) and not asks_committee(
        loaded.parts.oracles[oracle]
    )


def cache_of() -> LabelCache:
    return LabelCache(cache_folder("labels"))


def _fetch_key(config: PhasesConfig) -> str:
    return f"phases/{content_hash([config.optimade, config.filter, config.max_structures])[:32]}"
