"""Figures of stability: how the hull came down, and whether chances to be stable came true."""

from __future__ import annotations

import itertools

import plotly.graph_objects as go

from campaign.decide import calibration
from campaign.report.figures import LAYOUT
from campaign.views.view import View


def moves(view: View) -> go.Figure | None:
    """Each label that moved the hull of the oracle's labels: how far below the hull before it lay,
    and their sum.
    """
    state, oracle = view.state, view.oracle
    hull = state.hull(oracle)
    found = hull.moves() if hull is not None else []
    if not found:
        return None
    order = {
        label.candidate: i
        for i, label in enumerate(
            (label for label in state.labels.values() if label.oracle == oracle), start=1
        )
    }
    x = [order[move.candidate] for move in found]
    text = [
        f"{state.formula(move.candidate)} {move.candidate}<br>{move.n_stable} phases on the hull"
        for move in found
    ]
    figure = go.Figure(layout=LAYOUT)
    figure.add_bar(
        x=x,
        y=[move.fall for move in found],
        text=text,
        textposition="none",
        name="below the hull before it",
        marker_color="gray",
    )
    total = list(itertools.accumulate(move.fall for move in found))
    figure.add_scatter(
        x=x, y=total, mode="lines", line={"shape": "hv", "color": "black"}, name="sum"
    )
    figure.update_xaxes(title=f"label of {oracle}").update_yaxes(title="fall of the hull (eV/atom)")
    return figure


def reliability(view: View) -> go.Figure | None:
    """Chances to be stable, as told when candidates were chosen, against the share that is, by the
    labels that came afterwards.
    """
    tolerance = view.config.acquisition.tolerance
    found = calibration.reliability(calibration.stability(view.state, view.oracle, tolerance))
    if not found:
        return None
    figure = go.Figure(layout=LAYOUT)
    text = [f"{item.n} candidates" for item in found]
    figure.add_scatter(
        x=[item.chance for item in found],
        y=[item.share for item in found],
        text=text,
        mode="markers+lines",
        name="found",
        marker_color="black",
    )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "gray"}, name="as told"
    )
    figure.update_xaxes(title="chance to be stable, when chosen (1)", range=[-0.02, 1.02])
    figure.update_yaxes(
        title=f"share at most {tolerance:g} eV/atom above the hull (1)", range=[-0.02, 1.02]
    )
    return figure
