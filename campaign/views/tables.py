"""The ledger as tables, with units in the column names where they have one."""

from __future__ import annotations

from typing import Any

import pandas as pd

from campaign.crystals import abundance
from campaign.decide import ranking
from campaign.ledger import CampaignState
from campaign.ledger.leaders import Wanted
from campaign.types import DERIVED
from campaign.views import metrics

_DERIVED_UNITS = {
    quantity.name: quantity.unit for quantity in (*DERIVED, *abundance.KNOWN.values())
}


def labels(state: CampaignState) -> pd.DataFrame:
    """One row per label, in the order in which they came; quantities as ``name (unit)``."""
    rows = []
    for label in state.labels.values():
        row: dict[str, Any] = {
            "candidate": label.candidate,
            "formula": state.formula(label.candidate),
            "oracle": label.oracle,
            "fidelity": label.fidelity,
            "round": label.round,
            "source": label.source or label.purpose or "campaign",
            "worker": label.worker,
            "attempt": label.attempt + 1,
            "started": label.started,
            "wall (s)": label.wall_seconds,
            "cpu (s)": label.cpu_seconds,
            "relaxed": label.crystal,
        }
        for observation in label.observations:
            row[f"{observation.quantity} ({observation.unit})"] = observation.value
        rows.append(row)
    return _with_facts(rows, state)


def _with_facts(rows: list[dict[str, Any]], state: CampaignState) -> pd.DataFrame:
    """What sources call their candidates (``name``) and what else they say of them, under their own
    columns' names where those are free.
    """
    table = pd.DataFrame(rows)
    if not rows:
        return table
    records = [state.candidates[row["candidate"]] for row in rows]
    if any(record.name for record in records):
        table["name"] = [record.name for record in records]
    for key in dict.fromkeys(key for record in records for key in record.facts):
        found = [record.facts.get(key) for record in records]
        if len({type(value) for value in found if value is not None}) > 1:
            found = [None if value is None else str(value) for value in found]
        table[f"{key} (source)" if key in table.columns else key] = found
    return table


def candidates(state: CampaignState) -> pd.DataFrame:
    """One row per candidate: who proposed it first, its verdict, and how far it came."""
    groups = (
        ("failed", {candidate for candidate, _ in state.quarantined}),
        ("selected", {candidate for candidate, _ in state.pending}),
        ("labelled", {candidate for candidate, _ in state.labels}),
    )
    rows = []
    for identity, record in state.candidates.items():
        first = record.proposals[0] if record.proposals else None
        verdict = record.verdict
        status = "proposed" if verdict is None else "accepted" if verdict.is_accepted else "refused"
        status = next((name for name, group in reversed(groups) if identity in group), status)
        rows.append(
            {
                "candidate": identity,
                "formula": state.formula(identity),
                "generator": first[0].generator if first else record.source,
                "round": first[0].round if first else 0,
                "parents": ",".join(first[1].parents) if first else "",
                "proposals": len(record.proposals),
                "status": status,
                "screen": verdict.screen if verdict else "",
                "reason": verdict.reason if verdict else "",
            }
        )
    return _with_facts(rows, state)


def failures(state: CampaignState) -> pd.DataFrame:
    """One row per failed attempt, in the order in which they came."""
    rows = [
        {
            "candidate": event.candidate,
            "oracle": event.oracle,
            "kind": event.kind,
            "attempt": event.attempt + 1,
            "given up": event.is_quarantined,
            "wall (s)": event.wall_seconds,
            "worker": event.worker,
            "message": event.message,
        }
        for _, _, event in state.failures
    ]
    return pd.DataFrame(rows)


def decisions(state: CampaignState) -> pd.DataFrame:
    """One row per choice of a candidate for an oracle; mean and standard deviation as the model
    predicted them.
    """
    rows = [
        {
            "round": record.index,
            "candidate": choice.candidate,
            "oracle": choice.oracle,
            "acquisition": record.decided.acquisition,
            "reason": choice.reason,
            "score": choice.score,
            "mean": choice.mean,
            "standard deviation": choice.deviation,
        }
        for record in state.rounds
        if record.decided is not None
        for choice in record.decided.choices
    ]
    return pd.DataFrame(rows)


def rounds(state: CampaignState, wanted: Wanted) -> pd.DataFrame:
    """One row per round with its figures; times in s, the objective in its quantity's unit."""
    so_far = metrics.SoFar(state, wanted)
    return pd.DataFrame(
        [
            {"round": record.index, **metrics.round_figures(state, record, wanted, so_far)}
            for record in state.rounds
        ]
    )


def best(state: CampaignState, wanted: Wanted, n: int | None = None) -> pd.DataFrame:
    """One row per label of the objective's oracle, or the n best, in the order of the ranking;
    quantities as ``name (unit)``. Of labels whose oracle states noise of the objective also what is
    believed of it, and the standard error.

    ``front``: 1 for the Pareto front of several objectives; ``holds constraints``: those that do
    not come last.
    """
    rows = []
    leaders, quantity = state.leaders(wanted), wanted.objective.quantity
    for item in ranking.ranked(state, wanted, n):
        row: dict[str, Any] = {
            "rank": item.rank,
            "front": item.front,
            "holds constraints": item.holds,
            "candidate": item.label.candidate,
            "formula": state.formula(item.label.candidate),
        }
        units = _DERIVED_UNITS | {
            observation.quantity: observation.unit for observation in item.label.observations
        }
        for name, value in item.label.values.items():
            row[f"{name} ({units[name]})"] = value
        belief = leaders.belief(item.label)
        if belief is not None:
            row[f"{quantity} believed ({units[quantity]})"] = belief.mean
            row[f"{quantity} standard error ({units[quantity]})"] = belief.deviation
        rows.append(
            {**row, "source": state.source_of(item.label.candidate), "round": item.label.round}
        )
    return pd.DataFrame(rows)
