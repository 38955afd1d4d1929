"""Budgets and stops: pure functions of state and config."""

from __future__ import annotations

import math
from collections import Counter

from campaign.config.schema import CampaignConfig
from campaign.decide import ranking
from campaign.ledger import CampaignState
from campaign.types import Objective


def labels_limit(state: CampaignState, config: CampaignConfig) -> int | None:
    """Labels that the budget holds: the config's, and what people added since; None without a
    limit.
    """
    return (
        None
        if config.budget.labels is None
        else max(0, config.budget.labels + state.controls.labels)
    )


def labels_left(state: CampaignState, config: CampaignConfig) -> int | None:
    """Labels that may still be selected, pending work counted; None without a limit."""
    limit = labels_limit(state, config)
    return None if limit is None else limit - len(state.own) - state.n_selected_pending


def spent(state: CampaignState, config: CampaignConfig) -> dict[str, float]:
    """What the workers' time cost so far, failures included, by currency."""
    found: dict[str, float] = {}
    for oracle in config.oracles:
        if oracle.cost is not None:
            cost = oracle.cost.per_hour * state.busy_seconds[oracle.label] / 3600
            found[oracle.cost.currency] = found.get(oracle.cost.currency, 0.0) + cost
    return found


def labels_per_candidate(config: CampaignConfig) -> int:
    """Labels that a newly selected candidate takes at once: one on a ladder, one of each oracle
    otherwise.
    """
    return 1 if config.fidelities is not None else len(config.oracles)


def stop_reason(state: CampaignState, config: CampaignConfig, oracle: str) -> str:
    """Why nothing more is to be selected; empty while there is no reason."""
    budget, wanted = config.budget, ranking.wanted_of(config, oracle)
    label = ranking.reached(state, wanted)
    if label is not None:
        aims = [objective for objective in wanted.objectives if objective.target is not None]
        values = state.leaders(wanted).believed(label)
        told = [_reached(objective, values[objective.quantity]) for objective in aims]
        return f"target reached: {'; '.join(told)}"
    left, limit = labels_left(state, config), labels_limit(state, config)
    is_short = left is not None and not state.pending and left < labels_per_candidate(config)
    if is_short or (limit is not None and len(state.own) >= limit):
        return f"budget spent: {len(state.own)} labels"
    if budget.wall_time is not None and state.active_seconds >= budget.wall_time:
        return f"budget spent: {state.active_seconds:.0f} s of running time"
    for name, seconds in budget.oracle_seconds.items():
        if state.busy_seconds[name] >= seconds:
            return f"budget spent: {state.busy_seconds[name]:.0f} s of {name}"
    for currency, cost in spent(state, config).items():
        if cost >= budget.cost.get(currency, math.inf):
            return f"budget spent: {cost:.4g} {currency}"
    is_done = bool(state.rounds) and not state.pending and state.rounds[-1].decided is not None
    if budget.rounds is not None and is_done and len(state.rounds) >= budget.rounds:
        return f"budget spent: {len(state.rounds)} rounds"
    if is_done and empty_rounds(state) >= config.stopping.empty_rounds:
        return (
            f"search space exhausted: {config.stopping.empty_rounds} rounds in a row found "
            f"nothing new to label; {refusals(state)}"
        )
    patience = config.stopping.stagnation_rounds
    if patience is not None and ranking.rounds_without_gain(state, wanted) >= patience:
        return f"stagnation: {patience} rounds without a better label"
    return ""


def refusals(state: CampaignState) -> str:
    """Of the rounds at the end that decided on nothing: which screens refused how much and why, and
    who proposed nothing.
    """
    records = state.rounds[len(state.rounds) - empty_rounds(state) :]
    proposed: Counter[str] = Counter()
    for record in records:
        for event in record.proposed:
            proposed[event.generator] += len(event.proposals)
    silent = ", ".join(f"{name} proposed nothing" for name, count in proposed.items() if not count)
    refused = [
        row
        for record in records
        if record.judged
        for row in record.judged.verdicts
        if not row.is_accepted
    ]
    if not refused:
        return silent or "nothing was proposed, and all that was accepted is labelled or given up"
    told = []
    for screen, count in Counter(row.screen for row in refused).most_common():
        reason = Counter(row.reason for row in refused if row.screen == screen).most_common(1)[0][0]
        told.append(f"{count} by {screen} (such as: {reason})")
    found = f"of {proposed.total()} proposals {len(refused)} were refused: {', '.join(told)}"
    return f"{found}; {silent}" if silent else found


def _reached(objective: Objective, value: float) -> str:
    aim = (
        f"{objective.value:g} within {objective.target:g}"
        if objective.direction == "match"
        else f"{objective.target:g}"
    )
    return f"{objective.quantity} {value:.6g}, wanted {aim}"


def empty_rounds(state: CampaignState) -> int:
    """Rounds at the end that decided on nothing since candidates came from outside."""
    count = 0
    for record in reversed(state.rounds):
        if record.decided is None or record.decided.choices or record.sequence < state.fed:
            break
        count += 1
    return count
