"""Figures of a campaign as functions of its state, for trackers, reports and tables. Times in seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from campaign.ledger import CampaignState
from campaign.ledger.state import LabelRecord, RoundRecord
from campaign.types import Objective

_Z90 = 1.6448536269514722


@dataclass(frozen=True)
class Prediction:
    """A label that the deciding model had not seen, beside what it predicted."""

    round: int
    candidate: str
    mean: float
    deviation: float
    value: float


def predictions(record: RoundRecord, state: CampaignState, objective: Objective, oracle: str) -> list[Prediction]:
    """Of the candidates that a round selected by a model: those that are labelled, at the level that the model is of."""
    found = []
    choices = record.decided.choices if record.decided else ()
    chosen = {(choice.candidate, choice.oracle) for choice in choices}
    for choice in choices:
        label = state.labels.get((choice.candidate, choice.oracle))
        if choice.oracle != oracle and (choice.candidate, oracle) in chosen:
            continue
        if label is None or choice.mean is None or choice.deviation is None:
            continue
        if objective.quantity in label.values:
            value = label.values[objective.quantity]
            found.append(Prediction(record.index, choice.candidate, choice.mean, choice.deviation, value))
    return found


def calibration(found: Sequence[Prediction]) -> dict[str, float]:
    """Root mean square error, share of labels inside the central 90 % interval, mean negative log likelihood."""
    if not found:
        return {}
    error = np.array([item.value - item.mean for item in found])
    deviation = np.maximum([item.deviation for item in found], 1e-12)
    z = error / deviation
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "coverage_90": float(np.mean(np.abs(z) <= _Z90)),
        "negative_log_likelihood": float(np.mean(0.5 * z**2 + np.log(deviation) + 0.5 * math.log(2 * math.pi))),
    }


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


def busy_fraction(state: CampaignState, oracle: str, workers: int, *, start: float = 0.0, end: float = math.inf) -> float:
    """Share of the workers' time, between the first start and the last end of an attempt, that they spent on attempts."""
    spans = [(label.started, label.started + label.wall_seconds) for label in state.own_labels if label.oracle == oracle]
    spans += [(event.started, event.started + event.wall_seconds) for _, _, event in state.failures if event.oracle == oracle]
    spans = [(max(a, start), min(b, end)) for a, b in spans if b > start and a < end]
    if not spans:
        return 0.0
    duration = max(b for _, b in spans) - min(a for a, _ in spans)
    return sum(b - a for a, b in spans) / (workers * duration) if duration > 0 else 0.0


def round_figures(state: CampaignState, record: RoundRecord, objective: Objective, oracle: str) -> dict[str, float]:
    """Of one round: counts from proposed to labelled, times, the model on labels that it had not seen, and the best so far."""
    judged = record.judged.verdicts if record.judged else ()
    chosen = {(choice.candidate, choice.oracle) for choice in (record.decided.choices if record.decided else ())}
    own = [label for pair in chosen if (label := state.labels.get(pair)) is not None]
    failures = [event for _, _, event in state.failures if (event.candidate, event.oracle) in chosen]
    figures: dict[str, float] = {
        "proposed": sum(len(event.proposals) for event in record.proposed),
        "accepted": sum(verdict.is_accepted for verdict in judged),
        "selected": len(chosen),
        "labels": len(own),
        "failures": len(failures),
        "seconds/proposing": sum(event.seconds for event in record.proposed),
        "seconds/fitting": record.fitted.seconds if record.fitted else 0.0,
        "seconds/training": sum(event.seconds for event in record.trained),
        "seconds/selecting": record.decided.seconds if record.decided else 0.0,
    }
    figures |= {f"failures/{kind}": count for kind, count in Counter(event.kind for event in failures).items()}
    if judged:
        figures["acceptance"] = figures["accepted"] / len(judged)
    for name in sorted({label.oracle for label in own}):
        figures[f"seconds_per_label/{name}"] = float(np.mean([label.wall_seconds for label in own if label.oracle == name]))
    attempts: list[tuple[str, float]] = [(item.oracle, item.wall_seconds) for item in own]
    attempts += [(item.oracle, item.wall_seconds) for item in failures]
    for name in sorted({oracle for oracle, _ in attempts}):
        figures[f"worker_seconds/{name}"] = sum(seconds for oracle, seconds in attempts if oracle == name)
    values = [label.values[objective.quantity] for label in own if label.oracle == oracle and objective.quantity in label.values]
    if values:
        figures["best_of_round"] = max(values) if objective.sign > 0 else min(values)
    if record.decided is not None:
        figures["labels_unseen_by_model"] = record.decided.labels_at_decision - record.decided.model_labels
        figures |= {f"committee/{name.replace(' ', '_')}": count for name, count in record.decided.outcomes.items()}
        climbing = Counter(f"{choice.reason}/{choice.oracle}" for choice in record.decided.choices if choice.reason)
        figures |= {f"climbed/{name}": count for name, count in climbing.items()}
    for event in record.trained:
        figures |= {f"training/{event.generator}/{name}": value for name, value in event.metrics.items()}
    figures |= {f"model/{name}": value for name, value in calibration(predictions(record, state, objective, oracle)).items()}
    ended = record.ended or math.inf
    so_far = [label for label in state.labels.values() if label.oracle == oracle and label.finished <= ended]
    known = [label.values[objective.quantity] for label in so_far if objective.quantity in label.values]
    if known:
        figures["best_so_far"] = max(known) if objective.sign > 0 else min(known)
    figures["labels_so_far"] = sum(1 for label in so_far if not label.source)
    return figures
