"""The report's figures of decisions: who was asked and what it brought, how well the model knew, and the Pareto front."""

from __future__ import annotations

from collections import Counter

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from campaign import calibration
from campaign.ledger import CampaignState
from campaign.report.figures import LAYOUT, SYMBOLS
from campaign.types import FloatArray, Objective


def shares(state: CampaignState) -> go.Figure | None:
    """By round the share of the proposals that each generator was asked for, and its share of the labels (dotted)."""
    names = sorted({event.generator for record in state.rounds for event in record.proposed})
    if len(names) < 2:
        return None
    rounds = [record.index for record in state.rounds]
    asked = [{event.generator: event.asked or len(event.proposals) for event in record.proposed} for record in state.rounds]
    labelled = [Counter[str]() for _ in rounds]
    for label in state.own_labels:
        labelled[label.round][state.source_of(label.candidate)] += 1
    figure = go.Figure(layout=LAYOUT)
    for symbol, name in zip(SYMBOLS * 9, names, strict=False):
        for counts, dash, what in ((asked, "solid", "asked"), (labelled, "dot", "labelled")):
            share = [row.get(name, 0) / max(1, sum(row.values())) for row in counts]
            figure.add_scatter(
                x=rounds, y=share, name=f"{name}: {what}", mode="lines+markers", line={"dash": dash}, marker={"symbol": symbol}
            )
    figure.update_xaxes(title="round").update_yaxes(title="share (1)", range=[0, 1])
    return figure


def coverage(state: CampaignState, objective: Objective, oracle: str) -> go.Figure | None:
    """By round the share of all labels so far that lay inside the intervals predicted for them."""
    figure = go.Figure(layout=LAYOUT)
    seen: list[calibration.Prediction] = []
    rounds: list[int] = []
    curves: dict[str, list[float]] = {}
    for record in state.rounds:
        new = calibration.predictions(record, state, objective, oracle)
        if not new:
            continue
        seen += new
        rounds.append(record.index)
        for name, value in calibration.calibration(seen).items():
            if name.startswith("coverage_"):
                curves.setdefault(name, []).append(value)
    if len(rounds) < 2:
        return None
    for symbol, (name, values) in zip(SYMBOLS * 9, curves.items(), strict=False):
        level = name.removeprefix("coverage_")
        figure.add_scatter(x=rounds, y=values, name=f"inside {level} %", mode="lines+markers", marker={"symbol": symbol})
        figure.add_hline(y=int(level) / 100, line={"dash": "dot", "width": 1})
    figure.update_xaxes(title="round").update_yaxes(title="share of labels (1)", range=[0, 1.02])
    return figure


def is_on_front(gains: FloatArray) -> NDArray[np.bool_]:
    """(n,) which of n points (n, k), larger is better in each, no other point beats in all."""
    as_good = np.all(gains[None] >= gains[:, None], axis=-1)
    better = np.any(gains[None] > gains[:, None], axis=-1)
    return np.asarray(np.logical_not(np.any(as_good & better, axis=1)))


def front(state: CampaignState, objectives: tuple[Objective, ...], oracle: str) -> go.Figure | None:
    """The first two objectives of all labels, and which of them are on the Pareto front of all objectives."""
    names = [objective.quantity for objective in objectives]
    found = [label for label in state.labels.values() if label.oracle == oracle and all(name in label.values for name in names)]
    if len(objectives) < 2 or not found:
        return None
    values = np.array([[label.values[name] for name in names] for label in found])
    best = is_on_front(np.stack([objective.gain(values[:, i]) for i, objective in enumerate(objectives)], axis=1))
    figure = go.Figure(layout=LAYOUT)
    for mask, name, symbol in ((~best, "other labels", "circle-open"), (best, "Pareto front", "diamond")):
        text = [label.candidate for label, is_in in zip(found, mask, strict=True) if is_in]
        figure.add_scatter(x=values[mask, 0], y=values[mask, 1], text=text, mode="markers", name=name, marker={"symbol": symbol, "size": 7})
    figure.update_xaxes(title=names[0]).update_yaxes(title=names[1])
    return figure
