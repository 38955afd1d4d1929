"""The report's figures, made with plotly from the campaign's state.

Readable in black and white: marks differ in shape, not in colour alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from campaign.decide import calibration, ranking
from campaign.ledger import CampaignState
from campaign.report.thinning import joined, steps, thinned, told
from campaign.views import metrics
from campaign.views.view import View

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagram")
PATTERNS = ("", "/", "x", ".", "-", "|", "+", "\\")
LAYOUT = {
    "template": "simple_white",
    "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
    "height": 420,
    "legend": {"orientation": "h", "y": -0.2},
}


def named(state: CampaignState, candidate: str) -> str:
    """A candidate for a person: formula and id."""
    return f"{state.formula(candidate)}, {candidate}"


def best_so_far(view: View) -> go.Figure:
    """The labels as they came, open marks where they break a constraint, and the best that holds
    them.
    """
    state, wanted = view.state, view.wanted
    series = ranking.best_so_far(state, wanted)
    groups: dict[str, list[tuple[int, float, str, bool]]] = defaultdict(list)
    for i, (label, _) in thinned(list(enumerate(series, start=1))):
        is_held = wanted.holds(label.values, state.counts(label.candidate))
        groups[state.source_of(label.candidate)].append(
            (i, label.values[view.objective.quantity], named(state, label.candidate), is_held)
        )
    figure = go.Figure(layout=LAYOUT)
    for symbol, (name, points) in zip(SYMBOLS * 9, sorted(groups.items()), strict=False):
        x, y, text, holds = zip(*points, strict=True)
        symbols = [symbol if held else f"{symbol}-open" for held in holds]
        figure.add_scatter(
            x=x,
            y=y,
            text=text,
            mode="markers",
            name=name,
            marker={"symbol": symbols, "size": 5, "opacity": 0.6},
        )
    best = [value for _, value in series]
    drawn = steps(best)
    line = {"shape": "hv", "color": "black"}
    figure.add_scatter(
        x=[i + 1 for i in drawn],
        y=[best[i] for i in drawn],
        mode="lines",
        name="best so far",
        line=line,
    )
    figure.update_xaxes(title=f"labels{told(len(series))}").update_yaxes(title=view.axis)
    return figure


def parity(view: View) -> go.Figure | None:
    state, axis = view.state, view.axis
    all_of_them = [
        item
        for record in state.rounds
        for item in calibration.predictions(record, state, view.objective, view.oracle)
    ]
    if not all_of_them:
        return None
    found = thinned(all_of_them)
    figure = go.Figure(layout=LAYOUT)
    figure.add_scatter(
        x=[item.value for item in found],
        y=[item.mean for item in found],
        error_y={
            "array": [1.645 * item.deviation for item in found],
            "thickness": 0.6,
            "color": "#bbb",
        },
        text=[f"round {item.round}, {named(state, item.candidate)}" for item in found],
        mode="markers",
        marker={
            "color": [item.round for item in found],
            "colorscale": "Viridis",
            "colorbar": {"title": "round"},
        },
    )
    ends = [min(item.value for item in found), max(item.value for item in found)]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"dash": "dash", "color": "black"}, showlegend=False
    )
    figure.update_layout(showlegend=False).update_xaxes(
        title=f"found: {axis}{told(len(all_of_them))}"
    ).update_yaxes(title=f"predicted: {axis}")
    return figure


def composition(
    values: Sequence[tuple[Mapping[str, float], float, str]], elements: Sequence[str], axis: str
) -> go.Figure:
    """Labels over composition: a ternary map for three elements, the objective against each
    fraction otherwise.
    """
    figure, n = go.Figure(layout=LAYOUT), len(values)
    values = thinned(values)
    colour = [value for _, value, _ in values]
    text = [candidate for _, _, candidate in values]
    bar = {
        "title": {"text": axis, "side": "bottom"},
        "orientation": "h",
        "y": -0.15,
        "yanchor": "top",
        "thickness": 12,
    }
    marker = {"color": colour, "colorscale": "Viridis", "colorbar": bar, "size": 6}
    if len(elements) == 3:
        a, b, c = (
            [100 * fractions.get(element, 0.0) for fractions, _, _ in values]
            for element in elements
        )
        figure.add_scatterternary(a=a, b=b, c=c, text=text, mode="markers", marker=marker)
        figure.update_ternaries(
            aaxis_title=f"{elements[0]} (at%){told(n)}",
            baxis_title=f"{elements[1]} (at%)",
            caxis_title=f"{elements[2]} (at%)",
            sum=100,
        )
        return figure
    for symbol, element in zip(SYMBOLS * 9, elements, strict=False):
        x = [100 * fractions.get(element, 0.0) for fractions, _, _ in values]
        figure.add_scatter(
            x=x,
            y=colour,
            text=text,
            mode="markers",
            name=element,
            marker={"symbol": symbol, "size": 6},
        )
    figure.update_xaxes(title=f"fraction (at%){told(n)}").update_yaxes(title=axis)
    return figure


def labels_by_oracle(parts: Sequence[metrics.Contribution]) -> go.Figure | None:
    """How many labels each oracle gave, by generator; patterns differ."""
    oracles = list(dict.fromkeys(part.oracle for part in parts if part.labels))
    if len(oracles) < 2:
        return None
    figure = go.Figure(layout={**LAYOUT, "height": 320, "barmode": "stack"})
    for pattern, name in zip(
        PATTERNS * 9, sorted({part.generator for part in parts}), strict=False
    ):
        counts = {part.oracle: part.labels for part in parts if part.generator == name}
        figure.add_bar(
            x=oracles,
            y=[counts.get(oracle, 0) for oracle in oracles],
            name=name,
            marker={"pattern": {"shape": pattern}},
        )
    figure.update_yaxes(title="labels")
    return figure


def funnel(counts: Mapping[str, int]) -> go.Figure:
    figure = go.Figure(layout={**LAYOUT, "height": 320})
    figure.add_funnel(
        y=list(counts),
        x=list(counts.values()),
        marker={"color": "#777"},
        textinfo="value+percent previous",
    )
    return figure


def timeline(state: CampaignState) -> go.Figure:
    """Which worker was busy when; failed attempts hatched."""
    figure = go.Figure(layout={**LAYOUT, "barmode": "overlay"})
    spans = [
        (label.worker, label.started, label.wall_seconds, named(state, label.candidate))
        for label in state.own_labels
    ]
    lost = [
        (event.worker, event.started, event.wall_seconds, named(state, event.candidate))
        for _, _, event in state.failures
    ]
    start = min((span[1] for span in [*spans, *lost]), default=0.0)
    for name, found, pattern in (("labels", joined(spans), ""), ("failures", joined(lost), "/")):
        if found:
            figure.add_bar(
                y=[worker for worker, *_ in found],
                base=[(began - start) / 60 for _, began, _, _ in found],
                x=[seconds / 60 for *_, seconds, _ in found],
                text=[candidate for *_, candidate in found],
                textposition="none",
                orientation="h",
                name=name,
                marker={"pattern": {"shape": pattern}, "line": {"width": 0}},
            )
    figure.update_xaxes(title="time since the first label began (min)")
    return figure
