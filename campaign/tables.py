"""The ledger as tables, with units in the column names where they have one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from campaign.ledger import CampaignState
from campaign.ledger.state import LabelRecord, RoundRecord
from campaign.types import Objective


def labels(state: CampaignState) -> pd.DataFrame:
    """One row per label, in the order in which they came; scalar quantities as ``name (unit)``."""
    rows = []
    for label in state.labels.values():
        row: dict[str, Any] = {
            "candidate": label.candidate,
            "oracle": label.oracle,
            "fidelity": label.fidelity,
            "round": label.round,
            "source": label.source or "campaign",
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
    return pd.DataFrame(rows)


def candidates(state: CampaignState) -> pd.DataFrame:
    """One row per candidate: who proposed it first, its verdict, and how far it came."""
    rows = []
    labelled = {candidate for candidate, _ in state.labels}
    pending = {candidate for candidate, _ in state.pending}
    failed = {candidate for candidate, _ in state.quarantined}
    for identity, record in state.candidates.items():
        first = record.proposals[0] if record.proposals else None
        status = "proposed"
        if record.verdict is not None:
            status = "accepted" if record.verdict.is_accepted else "refused"
        for name, group in (("failed", failed), ("selected", pending), ("labelled", labelled)):
            if identity in group:
                status = name
        rows.append(
            {
                "candidate": identity,
                "formula": record.equivalence.partition(":")[0],
                "generator": first[0].generator if first else record.source,
                "round": first[0].round if first else 0,
                "parents": ",".join(first[1].parents) if first else "",
                "proposals": len(record.proposals),
                "status": status,
                "screen": record.verdict.screen if record.verdict else "",
                "reason": record.verdict.reason if record.verdict else "",
            }
        )
    return pd.DataFrame(rows)


def predictions(state: CampaignState, objective: Objective, oracle: str) -> pd.DataFrame:
    """Labels that the deciding model had not seen: round, candidate, predicted mean and deviation, and the value that came."""
    rows = []
    for record in state.rounds:
        for choice in record.decided.choices if record.decided else ():
            label = state.labels.get((choice.candidate, oracle))
            if choice.oracle == oracle and choice.mean is not None and label is not None and objective.quantity in label.values:
                rows.append((record.index, choice.candidate, choice.mean, choice.deviation, label.values[objective.quantity]))
    return pd.DataFrame(rows, columns=["round", "candidate", "mean", "deviation", "value"])


def calibration(table: pd.DataFrame) -> dict[str, float]:
    """Of predictions: root mean square error, share inside the central 90 % interval, and mean negative log likelihood."""
    if table.empty:
        return {}
    error = table["value"].to_numpy(dtype=float) - table["mean"].to_numpy(dtype=float)
    deviation = np.maximum(table["deviation"].to_numpy(dtype=float), 1e-12)
    z = error / deviation
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "coverage_90": float(np.mean(np.abs(z) <= 1.6448536)),
        "negative_log_likelihood": float(np.mean(0.5 * z**2 + np.log(deviation) + 0.5 * math.log(2 * math.pi))),
    }


def round_figures(state: CampaignState, record: RoundRecord, objective: Objective, oracle: str) -> dict[str, float]:
    """The figures of a round: counts, times, and the best so far when it ended."""
    judged = record.judged.verdicts if record.judged else ()
    own = [label for label in state.own_labels if label.round == record.index]
    seconds = [label.wall_seconds for label in own]
    figures: dict[str, float] = {
        "proposed": sum(len(event.proposals) for event in record.proposed),
        "accepted": sum(verdict.is_accepted for verdict in judged),
        "selected": len(record.decided.choices) if record.decided else 0,
        "labels": len(own),
        "seconds_proposing": sum(event.seconds for event in record.proposed),
        "seconds_fitting": record.fitted.seconds if record.fitted else 0.0,
        "seconds_training": sum(event.seconds for event in record.trained),
        "seconds_selecting": record.decided.seconds if record.decided else 0.0,
    }
    if judged:
        figures["acceptance"] = figures["accepted"] / len(judged)
    if seconds:
        figures["seconds_per_label"] = float(np.mean(seconds))
    values = [label.values[objective.quantity] for label in own if objective.quantity in label.values]
    if values:
        figures["best_of_round"] = max(values) if objective.sign > 0 else min(values)
    return figures


def best_so_far(state: CampaignState, objective: Objective, oracle: str) -> list[tuple[LabelRecord, float]]:
    """Each label of the objective's oracle, in the order in which they came, with the best value up to it."""
    found: list[tuple[LabelRecord, float]] = []
    best: float | None = None
    for label in state.labels.values():
        value = label.values.get(objective.quantity)
        if label.oracle != oracle or value is None:
            continue
        if best is None or objective.is_better(value, best):
            best = value
        found.append((label, best))
    return found


def rounds(state: CampaignState, objective: Objective, oracle: str) -> pd.DataFrame:
    """One row per round."""
    table = predictions(state, objective, oracle)
    by_round = {index: calibration(group) for index, group in table.groupby("round")}
    best: dict[int, float] = {}
    for label, value in best_so_far(state, objective, oracle):
        best[label.round] = value
    rows = []
    for record in state.rounds:
        row = {"round": record.index, **round_figures(state, record, objective, oracle), **by_round.get(record.index, {})}
        row["best_so_far"] = best.get(record.index, math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def busy_fraction(state: CampaignState, oracle: str, workers: int, *, start: float = 0.0, end: float = float("inf")) -> float:
    """Share of the workers' time between the first start and the last end of a label that they spent on attempts."""
    spans = [(label.started, label.started + label.wall_seconds) for label in state.own_labels if label.oracle == oracle]
    spans += [(event.started, event.started + event.wall_seconds) for _, _, event in state.failures if event.oracle == oracle]
    spans = [(max(a, start), min(b, end)) for a, b in spans if b > start and a < end]
    if not spans:
        return 0.0
    duration = max(b for _, b in spans) - min(a for a, _ in spans)
    return sum(b - a for a, b in spans) / (workers * duration) if duration > 0 else 0.0
