"""Figures of a campaign as functions of its state, for trackers, reports and tables. Times in
seconds.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from campaign.decide.calibration import calibration, predictions
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.ledger.leaders import Wanted
from campaign.ledger.state import LabelRecord, RoundRecord

_CLOCKS_APART = 60.0
"""How far (s) a worker's clock may be behind the driver's."""


def busy_fraction(
    state: CampaignState, oracle: str, workers: int, *, start: float = 0.0, end: float = math.inf
) -> float:
    """Share of the workers' time, between the first start and the last end of an attempt, that they
    spent on attempts.
    """
    since = itertools.takewhile(
        lambda label: label.finished >= start - _CLOCKS_APART, reversed(state.arrivals)
    )
    labels = (label for label in since if state.own.get((label.candidate, oracle)) is label)
    spans = [(label.started, label.started + label.wall_seconds) for label in labels]
    spans += [
        (event.started, event.started + event.wall_seconds)
        for _, _, event in state.failures
        if event.oracle == oracle
    ]
    spans = [(max(a, start), min(b, end)) for a, b in spans if b > start and a < end]
    if not spans:
        return 0.0
    duration = max(b for _, b in spans) - min(a for a, _ in spans)
    return sum(b - a for a, b in spans) / (workers * duration) if duration > 0 else 0.0


def round_figures(
    state: CampaignState, record: RoundRecord, wanted: Wanted, so_far: SoFar | None = None
) -> dict[str, float]:
    """Of one round: counts from proposed to labelled, times, the model on labels that it had not
    seen, and the best so far.

    Best are labels that hold the constraints; without one there is no such figure. ``so_far`` is
    for whoever asks of many rounds.
    """
    objective, oracle = wanted.objective, wanted.oracle
    judged = record.judged.verdicts if record.judged else ()
    chosen = {
        (choice.candidate, choice.oracle)
        for choice in (record.decided.choices if record.decided else ())
    }
    own = [label for pair in chosen if (label := state.labels.get(pair)) is not None]
    failures = [
        event for _, _, event in state.failures if (event.candidate, event.oracle) in chosen
    ]
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
    figures |= {
        f"failures/{kind}": count
        for kind, count in Counter(event.kind for event in failures).items()
    }
    if judged:
        figures["acceptance"] = figures["accepted"] / len(judged)
    for name in sorted({label.oracle for label in own}):
        figures[f"seconds_per_label/{name}"] = float(
            np.mean([label.wall_seconds for label in own if label.oracle == name])
        )
    attempts: list[tuple[str, float]] = [(item.oracle, item.wall_seconds) for item in own]
    attempts += [(item.oracle, item.wall_seconds) for item in failures]
    for name in sorted({oracle for oracle, _ in attempts}):
        figures[f"worker_seconds/{name}"] = sum(
            seconds for oracle, seconds in attempts if oracle == name
        )
    values = _held(state, wanted, own)
    if values:
        figures["best_of_round"] = max(values, key=objective.gain)
    if record.decided is not None:
        figures["labels_unseen_by_model"] = (
            record.decided.labels_at_decision - record.decided.model_labels
        )
        figures |= {
            f"committee/{name.replace(' ', '_')}": count
            for name, count in record.decided.outcomes.items()
        }
        climbing = Counter(
            f"{choice.reason}/{choice.oracle}"
            for choice in record.decided.choices
            if choice.reason in ev.CLIMBING
        )
        figures |= {f"climbed/{name}": count for name, count in climbing.items()}
        figures |= {f"model/scale/{name}": value for name, value in record.decided.scales.items()}
    figures |= {f"share/{event.generator}": event.asked for event in record.proposed if event.asked}
    for event in record.trained:
        figures |= {
            f"training/{event.generator}/{name}": value for name, value in event.metrics.items()
        }
    figures |= {
        f"model/{name}": value
        for name, value in calibration(predictions(record, state, objective, oracle)).items()
    }
    ended = record.ended or math.inf
    if so_far is None and state.arrivals and state.arrivals[-1].finished <= ended:
        return figures | _so_far_now(state, wanted)
    return figures | (so_far or SoFar(state, wanted)).figures(ended)


def _so_far_now(state: CampaignState, wanted: Wanted) -> dict[str, float]:
    leaders = state.leaders(wanted)
    asked = (state.labels.get(pair) for pair in state.requested if pair[1] == wanted.oracle)
    n = state.n_labels[wanted.oracle] + sum(
        label is not None and not label.source for label in asked
    )
    return _told(
        wanted,
        leaders.believed(leaders.best)[wanted.objective.quantity] if leaders.best else None,
        leaders.n_holding,
        n,
    )


def _told(wanted: Wanted, best: float | None, holding: int, n: int) -> dict[str, float]:
    figures: dict[str, float] = {} if best is None else {"best_so_far": best}
    if wanted.bounds:
        figures["labels_holding_constraints"] = holding
    return figures | {"labels_so_far": n}


class SoFar:
    """The best label, and how many there were, at any time: one look at all labels for all
    times.
    """

    def __init__(self, state: CampaignState, wanted: Wanted) -> None:
        self._wanted = wanted
        self._times: list[float] = []
        self._found: list[tuple[float | None, int, int]] = []
        best, holding, n = None, 0, 0
        labels = (label for label in state.labels.values() if label.oracle == wanted.oracle)
        for label in sorted(labels, key=lambda label: label.finished):
            held = _held(state, wanted, [label])
            best = max(
                [*held, *([] if best is None else [best])], key=wanted.objective.gain, default=None
            )
            holding, n = holding + len(held), n + (not label.source)
            self._times.append(label.finished)
            self._found.append((best, holding, n))

    def figures(self, ended: float) -> dict[str, float]:
        """As of a time in seconds since the epoch."""
        row = bisect.bisect_right(self._times, ended)
        return _told(self._wanted, *(self._found[row - 1] if row else (None, 0, 0)))


def _held(state: CampaignState, wanted: Wanted, labels: Iterable[LabelRecord]) -> list[float]:
    """Values of the first objective of the labels that are wanted, of noisy ones what is
    believed.
    """
    leaders = state.leaders(wanted)
    return [
        leaders.believed(label)[wanted.objective.quantity]
        for label in labels
        if wanted.takes(label)
        and wanted.gains(label.values) is not None
        and wanted.holds(label.values, state.counts(label.candidate))
    ]


@dataclass(frozen=True)
class Contribution:
    """What one oracle's labels of one generator's crystals brought.

    seconds: of worker time, failed attempts with them. best, mean: of the objective's quantity,
    best of the labels that hold the constraints; None where there is none.
    """

    generator: str
    oracle: str
    labels: int
    failures: int
    seconds: float
    best: float | None
    mean: float | None


def contributions(state: CampaignState, wanted: Wanted) -> list[Contribution]:
    """By generator and oracle, references left out; generators in alphabetical order, oracles as
    they first labelled.
    """
    objective = wanted.objective
    labels: dict[tuple[str, str], list[LabelRecord]] = defaultdict(list)
    failures: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for label in state.own_labels:
        pair = state.source_of(label.candidate), label.oracle
        labels[pair].append(label)
        seconds[pair] += label.wall_seconds
    for _, _, event in state.failures:
        if event.candidate in state.candidates and state.candidates[event.candidate].proposals:
            pair = state.source_of(event.candidate), event.oracle
            failures[pair] += 1
            seconds[pair] += event.wall_seconds
    order = {
        name: row
        for row, name in enumerate(dict.fromkeys(label.oracle for label in state.own_labels))
    }
    found = []
    for generator, oracle in sorted(
        {*labels, *failures}, key=lambda pair: (pair[0], order.get(pair[1], len(order)))
    ):
        mine = labels[generator, oracle]
        values = [
            label.values[objective.quantity] for label in mine if objective.quantity in label.values
        ]
        held = _held(state, replace(wanted, oracle=oracle), mine)
        found.append(
            Contribution(
                generator,
                oracle,
                len(mine),
                failures[generator, oracle],
                seconds[generator, oracle],
                max(held, key=objective.gain) if held else None,
                float(np.mean(values)) if values else None,
            )
        )
    return found
