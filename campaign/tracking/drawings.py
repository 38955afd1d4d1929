"""Figures and tables of a campaign in MLflow: gathered on the driver's thread, drawn and sent on
the tracker's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from campaign.decide import calibration, ranking
from campaign.types import Crystal
from campaign.views import tables
from campaign.views.view import OpenView

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    Send = Callable[[MlflowClient, str], None]
    """Sends one thing to a run."""

_BEST, _ROWS_OF_BEST = 5, 100


@dataclass(frozen=True)
class Drawing:
    """What figures are drawn from: values in order with the best so far, predicted against found,
    and the best crystals; and tables.
    """

    quantity: str
    unit: str
    values: list[float]
    best: list[float]
    predicted: list[tuple[float, float, float]]
    crystals: list[tuple[str, float, Crystal]]
    tables: dict[str, pd.DataFrame]


def gathered(view: OpenView) -> Drawing:
    state, wanted, objective = view.state, view.wanted, view.objective
    series = ranking.best_so_far(state, wanted)
    unit = next(
        (
            o.unit
            for label, _ in series[:1]
            for o in label.observations
            if o.quantity == objective.quantity
        ),
        "",
    )
    found = [
        item
        for record in state.rounds
        for item in calibration.predictions(record, state, objective, view.oracle)
    ]
    best = [item.label for item in ranking.ranked(state, wanted, _BEST)]
    crystals = view.reader.crystals([label.crystal or label.candidate for label in best])
    return Drawing(
        objective.quantity,
        unit,
        [label.values[objective.quantity] for label, _ in series],
        [math.nan if value is None else value for _, value in series],
        [(item.mean, item.deviation, item.value) for item in found],
        [
            (label.candidate, label.values[objective.quantity], crystal)
            for label, crystal in zip(best, crystals, strict=True)
        ],
        {
            "best": tables.best(state, wanted, _ROWS_OF_BEST),
            "candidates": tables.candidates(state),
            "labels": tables.labels(state),
            "failures": tables.failures(state),
            "decisions": tables.decisions(state),
        },
    )


def sendings(drawing: Drawing) -> Iterator[tuple[str, Send]]:
    """What is to be sent, by name, each drawn when it is."""
    from campaign.report import pictures

    quantity, unit = drawing.quantity, drawing.unit
    series = partial(pictures.best_so_far, drawing.values, drawing.best, quantity, unit)
    yield _figure("best_so_far.png", series)
    if drawing.predicted:
        yield _figure("parity.png", partial(pictures.parity, drawing.predicted, quantity, unit))
    for rank, (candidate, value, crystal) in enumerate(drawing.crystals, start=1):
        name = f"best/rank-{rank}"
        title = f"{rank}. {crystal.formula}  {quantity} {value:.5g} {unit}\n{candidate}"
        yield _text(f"{name}.cif", partial(pictures.cif, crystal))
        yield _figure(f"{name}.png", partial(pictures.crystal, crystal, title))
    for name, table in drawing.tables.items():
        yield _text(f"tables/{name}.json", partial(table.to_json, orient="split", index=False))
    shown = [{"path": f"tables/{name}.json", "type": "table"} for name in drawing.tables]
    yield (
        "the list of tables",
        lambda client, run: client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(shown)),
    )


def _figure(name: str, draw: Callable[[], Figure]) -> tuple[str, Send]:
    return name, lambda client, run: client.log_figure(run, draw(), name)


def _text(name: str, write: Callable[[], str]) -> tuple[str, Send]:
    return name, lambda client, run: client.log_text(run, write(), name)
