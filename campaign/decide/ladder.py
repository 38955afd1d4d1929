"""The ladder of fidelities: who climbs, what levels cost, and how far levels agree. Pure functions
of state and config.

Labels of different levels are never mixed: a round's model sees the first level alone, and every
label names its level.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from campaign.config.schema import CampaignConfig, GateConfig, LevelConfig
from campaign.decide import ranking
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.ledger.leaders import Bound
from campaign.ledger.state import Pair
from campaign.seeds import generator
from campaign.types import Objective


def search_level(config: CampaignConfig, objective_oracle: str) -> str:
    """The oracle that new candidates go to and that models learn from: the first level of a ladder,
    else the objective's oracle.
    """
    return config.fidelities.levels[0].oracle if config.fidelities is not None else objective_oracle


def climbers(
    state: CampaignState,
    config: CampaignConfig,
    *,
    before: int,
    stream: str,
    closed: Collection[str] = (),
) -> list[ev.ChoiceRow]:
    """Candidates that climb a level in a round that sees the labels before an event: a random
    sample for the audit, then by the gates.

    ``closed``: levels that label nothing yet.
    """
    if config.fidelities is None or config.fidelities.mode != "gates":
        return []
    found: list[ev.ChoiceRow] = []
    for lower, level in itertools.pairwise(config.fidelities.levels):
        assert level.gate is not None
        ranked = ranking.at_level(
            state, config, lower.oracle, level.gate.quantity or config.objective.quantity, before
        )
        passed = _passing(
            ranked,
            level.gate,
            ranking.objective_of(config, level.gate.quantity or config.objective.quantity),
        )
        bounds = ranking.bounds_of(level.gate.constraints)
        chosen = [
            row
            for row in passed
            if _is_new(state, row[0], level.oracle) and _holds(state, row[0], lower.oracle, bounds)
        ]
        gated = [
            ev.ChoiceRow(candidate, level.oracle, value, reason="gate")
            for candidate, value in chosen
        ]
        climbing = {row.candidate for row in gated}
        rows = (
            _audited(
                state, config, level, [name for name, *_ in ranked if name not in climbing], stream
            )
            + gated
        )
        found += rows[: _room_for_new(state, config, level, closed)]
    return found


def audits(
    state: CampaignState,
    config: CampaignConfig,
    *,
    before: int,
    stream: str,
    closed: Collection[str] = (),
) -> list[ev.ChoiceRow]:
    """The audit's random samples of a round where a model chooses the level.

    At each level of those with a label at the level below; at the first of all that the screens
    accepted.
    """
    if config.fidelities is None or config.fidelities.mode != "acquisition":
        return []
    labelled: dict[str, list[str]] = defaultdict(list)
    for label in state.labels.values():
        if label.sequence < before and not label.purpose:
            labelled[label.oracle].append(label.candidate)
    accepted = {
        *state.pool(config.acquisition.pool_size),
        *itertools.chain.from_iterable(labelled.values()),
    }
    levels = config.fidelities.levels
    found: list[ev.ChoiceRow] = []
    for level, below in zip(
        levels, [accepted, *(labelled[level.oracle] for level in levels)], strict=False
    ):
        found += _audited(state, config, level, below, stream)[
            : _room_for_new(state, config, level, closed)
        ]
    return found


def _audited(
    state: CampaignState,
    config: CampaignConfig,
    level: LevelConfig,
    below: Iterable[str],
    stream: str,
) -> list[ev.ChoiceRow]:
    """A random sample of those below that are new to a level, in a round with an audit: of all, or
    of what each generator proposed.
    """
    audit = config.fidelities.audit if config.fidelities is not None else None
    if audit is None or len(state.rounds) % audit.every:
        return []
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(below):
        if _is_new(state, name, level.oracle):
            groups[state.source_of(name) if audit.each_generator else ""].append(name)
    drawn = generator(stream)
    return [
        ev.ChoiceRow(names[row], level.oracle, reason="audit")
        for _, names in sorted(groups.items())
        for row in drawn.permutation(len(names))[: audit.sample]
    ]


def _passing(
    ranked: Sequence[tuple[str, float, bool]], gate: GateConfig, objective: Objective
) -> list[tuple[str, float]]:
    """Candidates with their values that pass: of all labels the best share, of these those that may
    be wanted and reach the threshold.
    """
    n = (
        math.ceil(gate.best_fraction * len(ranked))
        if gate.best_fraction is not None
        else len(ranked)
    )
    return [
        (candidate, value)
        for candidate, value, may_be_wanted in ranked[:n]
        if may_be_wanted
        and (gate.threshold is None or objective.gain(value) >= objective.gain(gate.threshold))
    ]


def _holds(state: CampaignState, candidate: str, oracle: str, bounds: Sequence[Bound]) -> bool:
    """Whether an oracle's label of a candidate has every quantity that is bounded, and inside its
    bounds.
    """
    values = state.labels[candidate, oracle].values
    return all(bound.shortfall(values) == 0 for bound in bounds)


def _is_new(state: CampaignState, candidate: str, oracle: str) -> bool:
    pair = candidate, oracle
    return pair not in state.controls.held and _may_begin(state, pair)


def _may_begin(state: CampaignState, pair: Pair) -> bool:
    return not (
        pair in state.labels
        or pair in state.pending
        or pair in state.quarantined
        or state.is_barred(pair[0])
    )


def waits_for_approval(state: CampaignState, config: CampaignConfig) -> list[ev.ChoiceRow]:
    """What decisions chose and people have not approved yet, the longest waiting first."""
    return [row for row in _held(state) if needs_approval(state, config, row)]


def approved(state: CampaignState, config: CampaignConfig) -> list[ev.ChoiceRow]:
    """What decisions held back and may climb now."""
    return [row for row in _held(state) if not needs_approval(state, config, row)]


def _held(state: CampaignState) -> Iterator[ev.ChoiceRow]:
    return (row for pair, row in state.controls.held.items() if _may_begin(state, pair))


def needs_approval(state: CampaignState, config: CampaignConfig, row: ev.ChoiceRow) -> bool:
    closed = config.fidelities.approved if config.fidelities is not None else ()
    return row.oracle in closed and row.candidate not in state.controls.approved


def within_rooms(
    state: CampaignState,
    config: CampaignConfig,
    rows: Iterable[ev.ChoiceRow],
    closed: Collection[str],
) -> Iterator[ev.ChoiceRow]:
    """The first rows of each level, as many as it may still be given; all of oracles that are no
    levels.
    """
    left = {
        level.oracle: room_at(state, level, closed)
        for level in (config.fidelities.levels if config.fidelities is not None else ())
    }
    for row in rows:
        room = left.get(row.oracle)
        if room is None or room > 0:
            left[row.oracle] = None if room is None else room - 1
            yield row


def relaxed_below(
    state: CampaignState, config: CampaignConfig, candidate: str, oracle: str
) -> str | None:
    """The crystal of a candidate as the nearest level below an oracle relaxed it; None where none
    did, or where the level asks for none.
    """
    levels = config.fidelities.levels if config.fidelities is not None else ()
    names = [level.oracle for level in levels]
    if oracle not in names or levels[names.index(oracle)].start != "relaxed":
        return None
    found = (state.labels.get((candidate, name)) for name in reversed(names[: names.index(oracle)]))
    return next(
        (label.crystal for label in found if label is not None and label.crystal is not None), None
    )


def eligible(
    state: CampaignState, config: CampaignConfig, before: int
) -> dict[str, frozenset[str]]:
    """By level that begins from a relaxed crystal: the candidates that have one, from labels before
    an event.
    """
    levels = config.fidelities.levels if config.fidelities is not None else ()
    known = {
        label.candidate
        for label in state.labels.values()
        if label.sequence < before and not label.purpose
    }
    return {
        level.oracle: frozenset(
            name for name in known if relaxed_below(state, config, name, level.oracle) is not None
        )
        for level in levels
        if level.start == "relaxed"
    }


def rooms(
    state: CampaignState,
    config: CampaignConfig,
    closed: Collection[str],
    chosen: Sequence[ev.ChoiceRow],
) -> dict[str, int | None]:
    """Labels that each level may still be given, less those chosen already and those that wait for
    approval, at most a batch of them.
    """
    if config.fidelities is None:
        return {}
    waiting = Counter(row.oracle for row in waits_for_approval(state, config))
    taken = Counter(row.oracle for row in chosen) + waiting
    found: dict[str, int | None] = {}
    for level in config.fidelities.levels:
        name, room = level.oracle, room_at(state, level, closed)
        limits = [] if room is None else [room - taken[name]]
        if name in config.fidelities.approved:
            limits.append(config.acquisition.batch_size - waiting[name])
        found[name] = max(0, min(limits)) if limits else None
    return found


def room_at(state: CampaignState, level: LevelConfig, closed: Collection[str] = ()) -> int | None:
    """Labels that a level may still be given; none where it is closed, None without a limit."""
    if level.oracle in closed:
        return 0
    if level.labels is None:
        return None
    return max(
        0,
        level.labels
        - state.n_labels[level.oracle]
        - sum(oracle == level.oracle for _, oracle in state.selected_pending),
    )


def _room_for_new(
    state: CampaignState, config: CampaignConfig, level: LevelConfig, closed: Collection[str]
) -> int | None:
    """``room_at`` a level, less what waits there for approval."""
    room = room_at(state, level, closed)
    return (
        None
        if room is None
        else max(
            0, room - sum(row.oracle == level.oracle for row in waits_for_approval(state, config))
        )
    )


def costs(state: CampaignState, config: CampaignConfig) -> dict[str, float]:
    """Seconds of worker time per label by oracle: as declared, or the median of the last labels;
    unknown ones are absent.
    """
    declared = (
        {level.oracle: level.cost for level in config.fidelities.levels}
        if config.fidelities
        else {}
    )
    found = {name: float(median(seconds)) for name, seconds in state.last_seconds.items()}
    return found | {name: cost for name, cost in declared.items() if cost is not None}


@dataclass(frozen=True)
class Agreement:
    """Of pairs of labels of one quantity at two levels: number, mean of upper less lower, its
    spread, and Spearman's rank correlation.
    """

    lower: str
    upper: str
    chemistry: str
    n: int
    bias: float
    spread: float
    rank_correlation: float


def agreement(state: CampaignState, config: CampaignConfig) -> list[Agreement]:
    """Bias and rank correlation between neighbouring levels, over all chemistries and by chemistry.

    From the audits' random samples where there are two or more, which the gates do not bias; from
    all candidates at both levels elsewhere.
    """
    if config.fidelities is None:
        return []
    from scipy.stats import spearmanr

    audited = {
        (choice.candidate, choice.oracle)
        for record in state.rounds
        if record.decided is not None
        for choice in record.decided.choices
        if choice.reason == "audit"
    }
    found = []
    for lower, level in zip(config.fidelities.levels, config.fidelities.levels[1:], strict=False):
        quantity = (level.gate.quantity if level.gate else None) or config.objective.quantity
        pairs = [
            (
                label.candidate,
                state.labels[label.candidate, lower.oracle].values.get(quantity),
                label.values.get(quantity),
            )
            for label in state.labels.values()
            if label.oracle == level.oracle
            and not label.purpose
            and (label.candidate, lower.oracle) in state.labels
        ]
        known = [
            (candidate, low, high)
            for candidate, low, high in pairs
            if low is not None and high is not None
        ]
        random = [row for row in known if (row[0], level.oracle) in audited]
        groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for candidate, low, high in random if len(random) > 1 else known:
            groups["all"].append((low, high))
            groups["-".join(sorted(state.composition(candidate)))].append((low, high))
        for chemistry, values in groups.items():
            low_high = np.array(values)
            difference = low_high[:, 1] - low_high[:, 0]
            varies = len(values) > 2 and np.ptp(low_high[:, 0]) > 0 and np.ptp(low_high[:, 1]) > 0
            rank = (
                float(spearmanr(low_high[:, 0], low_high[:, 1]).statistic) if varies else math.nan
            )
            spread = float(difference.std(ddof=1)) if len(values) > 1 else math.nan
            found.append(
                Agreement(
                    lower.oracle,
                    level.oracle,
                    chemistry,
                    len(values),
                    float(difference.mean()),
                    spread,
                    rank,
                )
            )
    return found


def figures(state: CampaignState, config: CampaignConfig) -> dict[str, float]:
    """The agreement of levels as numbers by name."""
    found: dict[str, float] = {}
    for pair in agreement(state, config):
        for name, value in (
            ("pairs", pair.n),
            ("bias", pair.bias),
            ("rank_correlation", pair.rank_correlation),
        ):
            if math.isfinite(value):
                found[f"audit/{pair.lower}-{pair.upper}/{pair.chemistry}/{name}"] = value
    return found
