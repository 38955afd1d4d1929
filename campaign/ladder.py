"""The ladder of fidelities: who climbs, what levels cost, and how far levels agree. Pure functions of state and config.

Labels of different levels are never mixed: a round's model sees the first level alone, and every label names its level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.schema import CampaignConfig, GateConfig, LevelConfig
from campaign.seeds import generator
from campaign.types import Objective

_RECENT = 50


def search_level(config: CampaignConfig, objective_oracle: str) -> str:
    """The oracle that new candidates go to and that models learn from: the first level of a ladder, else the objective's oracle."""
    return config.fidelities.levels[0].oracle if config.fidelities is not None else objective_oracle


def climbers(state: CampaignState, config: CampaignConfig, *, before: int, stream: str) -> list[ev.ChoiceRow]:
    """Candidates that climb a level in a round that sees the labels before an event: by their gates, then a random sample for the audit."""
    if config.fidelities is None or config.fidelities.mode != "gates":
        return []
    found: list[ev.ChoiceRow] = []
    audit = config.fidelities.audit
    is_audit = audit is not None and len(state.rounds) % audit.every == 0
    for lower, level in zip(config.fidelities.levels, config.fidelities.levels[1:], strict=False):
        assert level.gate is not None
        ranked = ranking(state, lower.oracle, level.gate, config.objective.objective, before)
        passed = _passing(ranked, level.gate, config.objective.objective)
        chosen = [row for row in passed if _is_new(state, row[0], level.oracle)]
        rows = [ev.ChoiceRow(candidate, level.oracle, value, reason="gate") for candidate, value in chosen]
        if is_audit and audit is not None:
            climbing = {row.candidate for row in rows}
            rest = sorted(name for name, _ in ranked if name not in climbing and _is_new(state, name, level.oracle))
            drawn = generator(stream).permutation(len(rest))[: audit.sample]
            rows = [ev.ChoiceRow(rest[i], level.oracle, reason="audit") for i in drawn] + rows
        room = room_at(state, level)
        found += rows if room is None else rows[: max(0, room)]
    return found


def ranking(state: CampaignState, oracle: str, gate: GateConfig, objective: Objective, before: int) -> list[tuple[str, float]]:
    """Candidates with their labels at a level that stand before an event, the best first."""
    quantity = gate.quantity or objective.quantity
    known = [
        (label.candidate, label.values[quantity])
        for label in state.labels.values()
        if label.oracle == oracle and label.sequence < before and quantity in label.values and label.purpose != "reference"
    ]
    return sorted(known, key=lambda pair: (-objective.gain(pair[1]), pair[0]))


def _passing(ranked: Sequence[tuple[str, float]], gate: GateConfig, objective: Objective) -> list[tuple[str, float]]:
    n = math.ceil(gate.best_fraction * len(ranked)) if gate.best_fraction is not None else len(ranked)
    if gate.threshold is None:
        return list(ranked[:n])
    return [pair for pair in ranked[:n] if objective.gain(pair[1]) >= objective.gain(gate.threshold)]


def _is_new(state: CampaignState, candidate: str, oracle: str) -> bool:
    pair = candidate, oracle
    return pair not in state.labels and pair not in state.pending and pair not in state.quarantined


def room_at(state: CampaignState, level: LevelConfig) -> int | None:
    """Labels that a level may still be given; None without a limit."""
    if level.labels is None:
        return None
    taken = sum(label.oracle == level.oracle for label in state.own_labels)
    return level.labels - taken - sum(oracle == level.oracle for _, oracle in state.selected_pending)


def costs(state: CampaignState, config: CampaignConfig) -> dict[str, float]:
    """Seconds of worker time per label by oracle: as declared, or the median of the last labels and failures; unknown ones are absent."""
    declared = {level.oracle: level.cost for level in config.fidelities.levels} if config.fidelities else {}
    spent: dict[str, list[float]] = defaultdict(list)
    for label in state.labels.values():
        if label.wall_seconds > 0:
            spent[label.oracle].append(label.wall_seconds)
    found = {name: float(median(seconds[-_RECENT:])) for name, seconds in spent.items()}
    return found | {name: cost for name, cost in declared.items() if cost is not None}


@dataclass(frozen=True)
class Agreement:
    """Of pairs of labels of one quantity at two levels: number, mean of upper less lower, its spread, and Spearman's rank correlation."""

    lower: str
    upper: str
    chemistry: str
    n: int
    bias: float
    spread: float
    rank_correlation: float


def agreement(state: CampaignState, config: CampaignConfig) -> list[Agreement]:
    """Bias and rank correlation between neighbouring levels, over all chemistries and by chemistry.

    From the audits' random samples where there are two or more, which the gates do not bias; from all candidates at both levels elsewhere.
    """
    from scipy.stats import spearmanr

    if config.fidelities is None:
        return []
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
            (label.candidate, state.labels[label.candidate, lower.oracle].values.get(quantity), label.values.get(quantity))
            for label in state.labels.values()
            if label.oracle == level.oracle and label.purpose != "reference" and (label.candidate, lower.oracle) in state.labels
        ]
        known = [(candidate, low, high) for candidate, low, high in pairs if low is not None and high is not None]
        random = [row for row in known if (row[0], level.oracle) in audited]
        groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for candidate, low, high in random if len(random) > 1 else known:
            groups["all"].append((low, high))
            groups["-".join(sorted(state.composition(candidate)))].append((low, high))
        for chemistry, values in groups.items():
            low_high = np.array(values)
            difference = low_high[:, 1] - low_high[:, 0]
            varies = len(values) > 2 and np.ptp(low_high[:, 0]) > 0 and np.ptp(low_high[:, 1]) > 0
            rank = float(spearmanr(low_high[:, 0], low_high[:, 1]).statistic) if varies else math.nan
            spread = float(difference.std(ddof=1)) if len(values) > 1 else math.nan
            found.append(Agreement(lower.oracle, level.oracle, chemistry, len(values), float(difference.mean()), spread, rank))
    return found


def figures(state: CampaignState, config: CampaignConfig) -> dict[str, float]:
    """The agreement of levels as numbers by name."""
    found: dict[str, float] = {}
    for pair in agreement(state, config):
        for name, value in (("pairs", pair.n), ("bias", pair.bias), ("rank_correlation", pair.rank_correlation)):
            if math.isfinite(value):
                found[f"audit/{pair.lower}-{pair.upper}/{pair.chemistry}/{name}"] = value
    return found
