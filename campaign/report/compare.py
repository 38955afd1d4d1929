"""Two or more campaigns in one report: the same summaries side by side, and their best values over
each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from campaign.api import Campaign
from campaign.decide import ranking
from campaign.errors import InputError
from campaign.files import write_whole
from campaign.report.figures import LAYOUT
from campaign.report.page import render, summary
from campaign.report.plotted import html
from campaign.views import metrics
from campaign.views.view import View

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class _Side:
    """One of the campaigns under a name of its own."""

    name: str
    view: View


def write_comparison(campaigns: Sequence[Campaign], path: Path) -> Path:
    """Write the page. Raises InputError for fewer than two campaigns, or where they do not have one
    objective.
    """
    if len(campaigns) < 2:
        raise InputError(
            f"expected at least two campaigns to compare, got {len(campaigns)}",
            hint="oreloop compare FOLDER FOLDER ...",
        )
    names = _names(campaigns)
    objectives = [campaign.loaded.config.objective.objective for campaign in campaigns]
    if len({(one.quantity, one.direction) for one in objectives}) > 1:
        told = ", ".join(
            f"{name}: {one.direction} {one.quantity}"
            for name, one in zip(names, objectives, strict=True)
        )
        raise InputError(
            f"expected campaigns of one objective, got {told}",
            hint="compare those that look for the same",
        )
    sides = [
        _Side(name, View(campaign.loaded, campaign.state()))
        for name, campaign in zip(names, campaigns, strict=True)
    ]
    axis = sides[0].view.axis
    summaries = [summary(side.view) for side in sides]
    keys = list(dict.fromkeys(key for found in summaries for key in found))
    fidelities = {side.name: side.view.loaded.fidelity_keys[side.view.oracle] for side in sides}
    page = render(
        "compare.html.j2",
        name=" and ".join(side.name for side in sides),
        names=[side.name for side in sides],
        rows=[(key, [found.get(key, "") for found in summaries]) for key in keys],
        fidelities=fidelities,
        is_one_level=len(set(fidelities.values())) == 1,
        axis=axis,
        pictures=[
            ("Best so far by labels", html(_best(sides, axis, over="labels"))),
            ("Best so far by worker time", html(_best(sides, axis, over="seconds"))),
        ],
        contributions=[
            (side.name, metrics.contributions(side.view.state, side.view.wanted)) for side in sides
        ],
    )
    write_whole(path, page.encode())
    return path


def _names(campaigns: Sequence[Campaign]) -> list[str]:
    """Names of the campaigns, with their folder where two have one name."""
    names = [campaign.loaded.config.name for campaign in campaigns]
    return [
        name if names.count(name) == 1 else f"{name} ({campaign.folder})"
        for name, campaign in zip(names, campaigns, strict=True)
    ]


def _best(sides: Sequence[_Side], axis: str, *, over: str) -> go.Figure:
    """Over the labels of the objective's oracle, or over the worker time of all labels until
    then.
    """
    figure = go.Figure(layout=LAYOUT)
    for dash, side in zip(itertools.cycle(_DASHES), sides, strict=False):
        series = ranking.best_so_far(side.view.state, side.view.wanted)
        if over == "labels":
            x: list[float] = list(range(1, len(series) + 1))
        else:
            seconds = itertools.accumulate(
                label.wall_seconds for label in side.view.state.labels.values()
            )
            spent = dict(zip(side.view.state.labels, seconds, strict=True))
            x = [spent[label.candidate, label.oracle] / 60 for label, _ in series]
        text = [label.candidate for label, _ in series]
        line = {"shape": "hv", "dash": dash}
        figure.add_scatter(
            x=x, y=[best for _, best in series], text=text, mode="lines", name=side.name, line=line
        )
    figure.update_xaxes(
        title="labels" if over == "labels" else "worker time of all oracles (min)"
    ).update_yaxes(title=axis)
    return figure
