"""Budgets and stops: pure functions of state and config."""

from __future__ import annotations

from campaign.ledger import CampaignState
from campaign.schema import CampaignConfig
from campaign.types import Objective


def best_labels(state: CampaignState, objective: Objective, oracle: str, n: int) -> list[tuple[str, float]]:
    """The n best labels of the objective's oracle as (candidate, value), the best first."""
    known = [
        (label.candidate, label.values[objective.quantity])
        for label in state.labels.values()
        if label.oracle == oracle and objective.quantity in label.values
    ]
    return sorted(known, key=lambda pair: (-objective.gain(pair[1]), pair[0]))[:n]


def labels_left(state: CampaignState, config: CampaignConfig) -> int | None:
    """Labels that may still be selected, pending work counted; None without a limit."""
    if config.budget.labels is None:
        return None
    return config.budget.labels - len(state.own) - state.n_selected_pending


def labels_per_candidate(config: CampaignConfig) -> int:
    """Labels that a newly selected candidate takes at once: one on a ladder, one of each oracle otherwise."""
    return 1 if config.fidelities is not None else len(config.oracles)


def stop_reason(state: CampaignState, config: CampaignConfig, oracle: str) -> str:
    """Why nothing more is to be selected; empty while there is no reason."""
    budget, objective = config.budget, config.objective.objective
    best = state.best(oracle, objective)
    if best is not None and objective.is_reached(best.values[objective.quantity]):
        wanted = f"{objective.value:g} within {objective.target:g}" if objective.direction == "match" else f"{objective.target:g}"
        return f"target reached: {objective.quantity} {best.values[objective.quantity]:.6g}, wanted {wanted}"
    left = labels_left(state, config)
    is_short = left is not None and not state.pending and left < labels_per_candidate(config)
    if is_short or (budget.labels is not None and len(state.own) >= budget.labels):
        return f"budget spent: {len(state.own)} labels"
    if budget.wall_time is not None and state.active_seconds >= budget.wall_time:
        return f"budget spent: {state.active_seconds:.0f} s of running time"
    for name, seconds in budget.oracle_seconds.items():
        if state.busy_seconds[name] >= seconds:
            return f"budget spent: {state.busy_seconds[name]:.0f} s of {name}"
    is_done = bool(state.rounds) and not state.pending and state.rounds[-1].decided is not None
    if budget.rounds is not None and is_done and len(state.rounds) >= budget.rounds:
        return f"budget spent: {len(state.rounds)} rounds"
    if is_done and empty_rounds(state) >= config.stopping.empty_rounds:
        return f"search space exhausted: {config.stopping.empty_rounds} rounds in a row found nothing new to label"
    patience = config.stopping.stagnation_rounds
    if patience is not None and rounds_without_gain(state, objective, oracle) >= patience:
        return f"stagnation: {patience} rounds without a better label"
    return ""


def empty_rounds(state: CampaignState) -> int:
    """Rounds at the end that decided on nothing since candidates came from outside."""
    count = 0
    for record in reversed(state.rounds):
        if record.decided is None or record.decided.choices or record.sequence < state.fed:
            break
        count += 1
    return count


def rounds_without_gain(state: CampaignState, objective: Objective, oracle: str) -> int:
    """Finished rounds since the best label came in."""
    best = state.best(oracle, objective)
    if best is None:
        return 0
    return sum(1 for record in state.rounds if record.ended is not None and record.index > best.round)
