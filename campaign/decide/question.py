"""A decision as a value: the question, its answer, and the event that the ledger keeps.

A question is a function of config and ledger up to one event. The loop asks it of the state as it
stands, a replay of the state folded up to that event; both get the same answer. Labels that came in
since the round began are unknown to the round's model: their candidates are taken for work under
way, so that nothing is chosen twice however long a decision takes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from campaign.blame import theirs
from campaign.config.loaded import LoadedConfig
from campaign.config.roles import objective_oracle, waiting_for_committee
from campaign.config.schema import CampaignConfig
from campaign.decide import budget, calibration, fit, ladder, levels, query, select
from campaign.decide.fit import Fit
from campaign.decide.select import Selection
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.ledger.dataset import Dataset
from campaign.ledger.state import COMMITTEE, Pair, RoundRecord
from campaign.protocols import PluginSpec, Stored
from campaign.seeds import content_hash, stream_key
from campaign.types import Candidate, Crystal


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which candidates are labelled next, and by whom.

    ``as_of``: the last event that it knows. ``way``: how it is answered, a key of ``WAYS``.
    ``oracles``: each candidate that the way chooses goes to all of them; where it chooses the
    level, the levels, the cheapest first. ``n``: how many the way chooses; ``limit``: labels that
    the budget allows them (None: any number). ``ruled``: choices that gates and audits made
    already; ``held``: those that wait for people, as all at the ``closed`` levels do whom they have
    not ``approved``.

    ``unseen``: pairs under way, or labelled since the round began. ``given_up``: pairs that get no
    label. ``costs``: seconds a label by oracle. ``scales`` of the models' standard deviations by
    quantity. ``rooms``: labels that a level may still be given; ``eligible``: of the levels that
    not every candidate may go to, those that may. ``committee``: the checkpoint that is asked.
    """

    round: int
    as_of: int
    way: str
    stream: str
    oracles: tuple[str, ...]
    n: int
    limit: int | None
    pool: tuple[str, ...]
    ruled: tuple[ev.ChoiceRow, ...] = ()
    held: tuple[ev.ChoiceRow, ...] = ()
    closed: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    unseen: tuple[Pair, ...] = ()
    given_up: frozenset[Pair] = frozenset()
    costs: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    rooms: Mapping[str, int | None] = field(default_factory=dict)
    eligible: Mapping[str, frozenset[str]] = field(default_factory=dict)
    committee: str | None = None


def modelled_oracles(loaded: LoadedConfig) -> tuple[str, ...]:
    """The oracles whose labels the models learn from: the one that is searched; where levels are
    chosen all, the cheapest first.
    """
    config = loaded.config
    if chooses_levels(config):
        assert config.fidelities is not None
        return tuple(level.oracle for level in config.fidelities.levels)
    return (ladder.search_level(config, objective_oracle(loaded)),)


def chooses_levels(config: CampaignConfig) -> bool:
    """Whether a model chooses candidate and level together."""
    return config.fidelities is not None and config.fidelities.mode == "acquisition"


def question(
    loaded: LoadedConfig, state: CampaignState, record: RoundRecord, datasets: Mapping[str, Dataset]
) -> Question:
    """What a round asks of the state as it stands; ``datasets``: the labels that its model sees, by
    modelled oracle.
    """
    config, acquisition = loaded.config, loaded.config.acquisition
    modelled = modelled_oracles(loaded)
    stream = stream_key(config.seed, "select", record.index)
    closed = waiting_for_committee(loaded, state)
    pool = tuple(
        candidate
        for candidate in state.pool(acquisition.pool_size)
        if candidate not in state.controls.pinned
    )
    way, committee = _way(config, state, fit.is_due(config, datasets))

    budgeted = budget.labels_left(state, config)
    left = None if budgeted is None else max(0, budgeted)
    ruled, held = _ruled(state, config, record, left, closed)
    limit = None if left is None else left - len(ruled)

    first = record.index == 0 or chooses_levels(config)
    usual = (
        acquisition.initial_labels if way in _WITHOUT_A_MODEL and first else acquisition.batch_size
    )
    n = usual if record.asked is None else record.asked
    n = max(0, n - len({row.candidate for row in ruled if row.reason == ev.PINNED}))
    asked = Question(
        round=record.index,
        as_of=state.sequence,
        way=way,
        stream=stream,
        oracles=modelled
        if config.fidelities is not None
        else tuple(oracle.label for oracle in config.oracles),
        n=n,
        limit=limit,
        pool=pool,
        ruled=ruled,
        held=held,
        closed=frozenset() if config.fidelities is None else config.fidelities.approved,
        approved=frozenset(state.controls.approved),
        unseen=_unseen(state, record, modelled),
        costs=ladder.costs(state, config),
        scales=calibration.scales(state, config, modelled[0], record.sequence)
        if way == "model"
        else {},
        committee=committee,
    )
    if chooses_levels(config):
        return replace(
            asked,
            unseen=(*asked.unseen, *((row.candidate, row.oracle) for row in ruled)),
            given_up=_given_up(state, modelled),
            rooms=ladder.rooms(state, config, closed, ruled),
            eligible=ladder.eligible(state, config, record.sequence),
        )
    asked = replace(
        asked,
        unseen=(
            *asked.unseen,
            *((row.candidate, row.oracle) for row in ruled if row.oracle in modelled),
        ),
    )
    room = (
        ladder.rooms(state, config, (), ruled)[modelled[0]]
        if config.fidelities is not None
        else None
    )
    limits = [len(pool), limit // len(asked.oracles) if limit is not None else None, room]
    return replace(
        asked,
        n=min(limit for limit in (len(pool) if way == "all" else n, *limits) if limit is not None),
    )


def crystals(asked: Question, reader: LedgerReader) -> tuple[Stored, Stored]:
    """Of the pool and of the unseen pairs, in the question's order."""
    return Stored(asked.pool, reader), Stored(
        tuple(candidate for candidate, _ in asked.unseen), reader
    )


def committee_of(
    asked: Question, loaded: LoadedConfig, artifacts: ArtifactStore
) -> tuple[PluginSpec, bytes] | None:
    """The committee that a question asks: how to build it, and its weights."""
    if asked.committee is None or loaded.config.committee is None:
        return None
    return loaded.spec("committees", loaded.config.committee), artifacts.read(asked.committee)


_WITHOUT_A_MODEL = ("random", "levels at random")


def _way(config: CampaignConfig, state: CampaignState, has_model: bool) -> tuple[str, str | None]:
    """The way that a decision is made, and the committee's checkpoint where one is asked."""
    if config.acquisition.use == "all":
        return "all", None
    if config.acquisition.use == "query_by_committee":
        published = state.published(COMMITTEE)
        return ("committee", published.checkpoint) if published is not None else ("random", None)
    if chooses_levels(config):
        return "levels" if has_model else "levels at random", None
    return "model" if has_model else "random", None


def _ruled(
    state: CampaignState,
    config: CampaignConfig,
    record: RoundRecord,
    left: int | None,
    closed: Collection[str],
) -> tuple[tuple[ev.ChoiceRow, ...], tuple[ev.ChoiceRow, ...]]:
    """What needs no model: whom people pinned and approved, then gates and audits. The first as the
    budget and the levels have room, and those who have to be approved.
    """
    rule, purpose = (
        (ladder.audits, "audit") if chooses_levels(config) else (ladder.climbers, "climb")
    )
    stream = f"{stream_key(config.seed, 'select', record.index)}/{purpose}"
    by_rule = rule(state, config, before=record.sequence, stream=stream, closed=closed)
    rows = [*_pinned(state, config, record, left), *ladder.approved(state, config), *by_rule]
    wanted: dict[Pair, ev.ChoiceRow] = {}
    for row in rows:
        wanted.setdefault((row.candidate, row.oracle), row)
    held = tuple(row for row in wanted.values() if ladder.needs_approval(state, config, row))
    chosen = ladder.within_rooms(
        state, config, (row for row in wanted.values() if row not in held), closed
    )
    return tuple(itertools.islice(chosen, left)), held


def _pinned(
    state: CampaignState, config: CampaignConfig, record: RoundRecord, left: int | None
) -> list[ev.ChoiceRow]:
    """Whom people want labelled next: at the first level, or by all oracles, whole candidates as
    the budget allows.
    """
    oracles = (
        [level.oracle for level in config.fidelities.levels[:1]]
        if config.fidelities
        else [item.label for item in config.oracles]
    )
    most = [
        limit
        for limit in (record.asked, None if left is None else left // len(oracles))
        if limit is not None
    ]
    return [
        ev.ChoiceRow(name, oracle, reason=ev.PINNED)
        for name in state.pinned[: min(most, default=None)]
        for oracle in oracles
    ]


def _unseen(state: CampaignState, record: RoundRecord, modelled: Sequence[str]) -> tuple[Pair, ...]:
    since = itertools.takewhile(
        lambda label: label.sequence >= record.sequence, reversed(state.arrivals)
    )
    arrived = (
        pair
        for label in since
        if state.labels.get(pair := (label.candidate, label.oracle)) is label
    )
    return tuple(sorted(pair for pair in {*state.pending, *arrived} if pair[1] in modelled))


def _given_up(state: CampaignState, modelled: Sequence[str]) -> frozenset[Pair]:
    """Pairs that get no label: those that failed for good, those that wait for approval, and all of
    candidates that people barred.
    """
    barred = {candidate for candidate, _ in state.labels if state.is_barred(candidate)}
    failed = (pair for pair in state.quarantined if pair[1] in modelled)
    return frozenset({*failed, *state.controls.held, *itertools.product(barred, modelled)})


WAYS: Mapping[str, Callable[..., Selection]] = {
    "random": select.at_random,
    "all": select.in_order,
    "model": select.by_model,
    "committee": query.by_committee,
    "levels": levels.by_gain_per_cost,
    "levels at random": levels.at_random,
}


@theirs()
def answer(
    asked: Question,
    config: CampaignConfig,
    pool: Sequence[Crystal],
    unseen: Sequence[Crystal],
    datasets: Mapping[str, Dataset],
    fitted: Fit | None,
    committee: tuple[PluginSpec, bytes] | None,
) -> Selection:
    """The choices that the question's way makes; the crystals of pool and unseen in the question's
    order. Runs on the compute worker.

    ``fitted``: the round's models. ``committee``: how to build it, and its weights.
    """
    started = time.perf_counter()
    material = select.Material(
        config, [*map(Candidate, pool)], [*map(Candidate, unseen)], datasets, fitted, committee
    )
    selection = WAYS[asked.way](asked, material)
    return replace(selection, seconds=time.perf_counter() - started)


def choices(
    asked: Question, selection: Selection
) -> tuple[tuple[ev.ChoiceRow, ...], tuple[ev.ChoiceRow, ...]]:
    """Who is labelled next, and who waits until people approve."""
    waits = [
        row
        for row in selection.choices
        if row.oracle in asked.closed and row.candidate not in asked.approved
    ]
    chosen = (row for row in selection.choices if row not in waits)
    return (*asked.ruled, *chosen), (*asked.held, *waits)


def event(
    asked: Question, selection: Selection, state: CampaignState
) -> tuple[ev.Decided, dict[str, bytes]]:
    """What the ledger keeps of a decision, with the pool's figures as a blob."""
    record = state.rounds[asked.round]
    model, labels = None, 0
    if asked.committee is not None:
        model = asked.committee
        labels = next(
            trained.labels
            for trained in state.checkpoints[COMMITTEE]
            if trained.checkpoint == asked.committee
        )
    elif asked.way in ("model", "levels") and record.fitted is not None:
        model, labels = record.fitted.model, record.fitted.labels
    blobs = (
        {f"table-{content_hash(selection.table.hex())[:32]}": selection.table}
        if selection.table is not None
        else {}
    )
    chosen, held = choices(asked, selection)
    decided = ev.Decided(
        key=f"round/{asked.round}/decided",
        round=asked.round,
        as_of=asked.as_of,
        acquisition=selection.acquisition,
        model=model,
        model_labels=labels,
        stream=asked.stream,
        pool=select.pool_hash(asked.pool),
        pool_size=len(asked.pool),
        table=next(iter(blobs), None),
        pending=tuple(candidate for candidate, _ in asked.unseen),
        choices=chosen,
        seconds=selection.seconds,
        labels_at_decision=len(state.labels),
        outcomes=dict(selection.outcomes),
        costs=dict(asked.costs),
        scales=dict(asked.scales),
        held=held,
    )
    return decided, blobs
