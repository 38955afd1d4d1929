"""A backtest's outcome for people: a table, curves as PNG and as a page that can be zoomed, and an
MLflow experiment.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from campaign.backtest.config import Backtest
from campaign.backtest.figures import Summary, curve, discovered
from campaign.backtest.replay import Outcome
from campaign.files import write_whole
from campaign.report.plotted import html
from campaign.text import cell, drawn

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b")


def table(backtest: Backtest, outcome: Outcome) -> Table:
    objective = outcome.objective
    title = (
        f"{backtest.config.name}: {objective.quantity}, target {outcome.target:.6g}, "
        f"{backtest.config.seeds} seeds, medians"
    )
    found = Table(
        "strategy",
        "best",
        "regret",
        "calls",
        "seconds",
        "acceleration",
        "enhancement",
        "discovery",
        title=title,
    )
    found.caption = (
        "calls and (virtual) seconds to the target; acceleration in calls, with quartiles"
    )
    for item in outcome.summaries:
        low, high = item.acceleration_quartiles
        found.add_row(
            item.strategy,
            f"{item.best:.6g}",
            f"{item.regret:.4g}",
            _number(item.calls_to_target),
            _number(item.time_to_target),
            f"{item.acceleration:.2f} ({low:.2f} to {high:.2f})",
            f"{item.enhancement:.2f}",
            f"{item.discovery:.3f}",
        )
    return found


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "missed"


def write(backtest: Backtest, outcome: Outcome, folder: Path) -> list[Path]:
    """summary.csv, summary.json, curves.html and curves.png. Returns what was written."""
    rows = [_flat(item) for item in outcome.summaries]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {name: cell(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    )
    facts = {
        "target": outcome.target,
        "best": outcome.best,
        "n_best": outcome.n_best,
        "strategies": rows,
    }
    files = {
        "summary.csv": text.getvalue().encode(),
        "summary.json": json.dumps(facts, indent=1, default=str).encode(),
        "curves.html": _page(backtest, outcome).encode(),
        "curves.png": _picture(backtest, outcome),
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def _flat(item: Summary) -> dict[str, object]:
    row = asdict(item)
    row["acceleration_low"], row["acceleration_high"] = row.pop("acceleration_quartiles")
    return {
        name: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in row.items()
    }


def numbers(item: Summary) -> dict[str, float]:
    """A summary's figures by name."""
    return {
        name: float(value) for name, value in _flat(item).items() if isinstance(value, int | float)
    }


def _page(backtest: Backtest, outcome: Outcome) -> str:
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        1,
        2,
        subplot_titles=(
            "best label so far, median and 10 to 90 %",
            "share of the best rows found, mean",
        ),
    )
    for i, name in enumerate(backtest.config.strategies):
        runs, colour = outcome.of(name), _COLOURS[i % len(_COLOURS)]
        middle, low, high = curve(runs, outcome.objective)
        calls = np.arange(1, len(middle) + 1)
        known = np.isfinite(middle) & np.isfinite(low) & np.isfinite(high)
        band = {
            "x": np.concatenate([calls[known], calls[known][::-1]]),
            "y": np.concatenate([low[known], high[known][::-1]]),
        }
        figure.add_trace(
            go.Scatter(
                **band,
                fill="toself",
                line_width=0,
                opacity=0.2,
                fillcolor=colour,
                showlegend=False,
                hoverinfo="skip",
            ),
            1,
            1,
        )
        figure.add_trace(go.Scatter(x=calls, y=middle, name=name, line_color=colour), 1, 1)
        share = np.mean(
            [
                discovered(run, outcome.objective, outcome.target, outcome.n_best)[: len(middle)]
                for run in runs
            ],
            axis=0,
        )
        figure.add_trace(go.Scatter(x=calls, y=share, line_color=colour, showlegend=False), 1, 2)
    figure.update_xaxes(title_text="oracle calls")
    figure.update_yaxes(title_text=outcome.objective.quantity, row=1, col=1)
    figure.update_layout(title=backtest.config.name, template="plotly_white")
    return html(figure, whole=True)


def _picture(backtest: Backtest, outcome: Outcome) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=130)
    axis = figure.add_subplot()
    for i, name in enumerate(backtest.config.strategies):
        middle, low, high = curve(outcome.of(name), outcome.objective)
        calls = np.arange(1, len(middle) + 1)
        axis.plot(calls, middle, color=_COLOURS[i % len(_COLOURS)], label=drawn(name))
        axis.fill_between(
            calls,
            low,
            high,
            color=_COLOURS[i % len(_COLOURS)],
            alpha=0.2,
            linewidth=0,
            where=np.isfinite(low),
        )
    axis.set(
        xlabel="oracle calls",
        ylabel=drawn(f"best {outcome.objective.quantity}"),
        title=backtest.config.name,
    )
    axis.legend()
    figure.tight_layout()
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
