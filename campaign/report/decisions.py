"""The report's figures of decisions: who was asked and what it brought, how well the model knew,
and the Pareto front.
"""

from __future__ import annotations

from collections import Counter

import plotly.graph_objects as go

from campaign.decide import calibration, ranking
from campaign.ledger import CampaignState
from campaign.report.figures import LAYOUT, SYMBOLS, named
from campaign.report.thinning import thinned
from campaign.views.view import View

_MOST_ROUNDS = 200


def shares(state: CampaignState) -> go.Figure | None:
    """By round the share of the proposals that each generator was asked for, and its share of the
    labels (dotted).
    """
    names = sorted({event.generator for record in state.rounds for event in record.proposed})
    if len(names) < 2:
        return None
    rounds = [record.index for record in state.rounds]
    asked = [
        {event.generator: event.asked or len(event.proposals) for event in record.proposed}
        for record in state.rounds
    ]
    labelled = [Counter[str]() for _ in rounds]
    for label in state.own_labels:
        labelled[label.round][state.source_of(label.candidate)] += 1
    figure = go.Figure(layout=LAYOUT)
    for symbol, name in zip(SYMBOLS * 9, names, strict=False):
        for counts, dash, what in ((asked, "solid", "asked"), (labelled, "dot", "labelled")):
            share = [row.get(name, 0) / max(1, sum(row.values())) for row in counts]
            figure.add_scatter(
                x=rounds,
                y=share,
                name=f"{name}: {what}",
                mode="lines+markers",
                line={"dash": dash},
                marker={"symbol": symbol},
            )
    figure.update_xaxes(title="round").update_yaxes(title="share (1)", range=[0, 1])
    return figure


def coverage(view: View) -> go.Figure | None:
    """By round the share of all labels so far that lay inside the intervals predicted for them."""
    figure = go.Figure(layout=LAYOUT)
    seen: list[calibration.Prediction] = []
    rounds: list[int] = []
    curves: dict[str, list[float]] = {}
    all_of_them = [
        (record, new)
        for record in view.state.rounds
        if (new := calibration.predictions(record, view.state, view.objective, view.oracle))
    ]
    drawn = {record.index for record, _ in thinned(all_of_them, _MOST_ROUNDS)}
    for record, new in all_of_them:
        seen += new
        if record.index not in drawn:
            continue
        rounds.append(record.index)
        for name, value in calibration.calibration(seen).items():
            if name.startswith("coverage_"):
                curves.setdefault(name, []).append(value)
    if len(rounds) < 2:
        return None
    for symbol, (name, values) in zip(SYMBOLS * 9, curves.items(), strict=False):
        level = name.removeprefix("coverage_")
        figure.add_scatter(
            x=rounds,
            y=values,
            name=f"inside {level} %",
            mode="lines+markers",
            marker={"symbol": symbol},
        )
        figure.add_hline(y=int(level) / 100, line={"dash": "dot", "width": 1})
    figure.update_xaxes(title="round").update_yaxes(title="share of labels (1)", range=[0, 1.02])
    return figure


def front(view: View) -> go.Figure | None:
    """The first two objectives of all labels, who is on the Pareto front, and who breaks a
    constraint.
    """
    state, wanted = view.state, view.wanted
    ranked = ranking.ranked(state, wanted)
    if len(wanted.objectives) < 2 or not ranked:
        return None
    names = [objective.quantity for objective in wanted.objectives]
    figure = go.Figure(layout=LAYOUT)
    groups = (
        ("break a constraint", "x-thin-open", [item for item in ranked if not item.holds]),
        ("other labels", "circle-open", [item for item in ranked if item.holds and item.front > 1]),
        ("Pareto front", "diamond", [item for item in ranked if item.holds and item.front == 1]),
    )
    for name, symbol, items in groups:
        if items or symbol == "diamond":
            items = items if symbol == "diamond" else thinned(items)
            x, y = ([item.label.values[quantity] for item in items] for quantity in names[:2])
            text = [named(state, item.label.candidate) for item in items]
            figure.add_scatter(
                x=x, y=y, text=text, mode="markers", name=name, marker={"symbol": symbol, "size": 7}
            )
    first, second = (f"{name} ({view.units[name]})" for name in names[:2])
    figure.update_xaxes(title=first).update_yaxes(title=second)
    return figure
