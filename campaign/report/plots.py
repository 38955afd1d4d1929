"""The report's figures one by one, as plotly objects, for notebooks."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from campaign import metrics, ranking
from campaign.crystals import abundance
from campaign.errors import InputError
from campaign.report import decisions, figures, structures
from campaign.roles import objective_oracle

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from campaign.api import Campaign


class Plots:
    """Each method reads the ledger as it stands. Raises InputError where there is nothing to show yet."""

    def __init__(self, campaign: Campaign) -> None:
        loaded = campaign.loaded
        self._campaign, self._oracle = campaign, objective_oracle(loaded)
        self._objective = loaded.config.objective.objective
        self._wanted = ranking.wanted_of(loaded.config, self._oracle)
        self._axis = f"{self._objective.quantity} ({loaded.quantities()[self._objective.quantity].unit})"
        self._state = campaign.state()

    def best_so_far(self) -> go.Figure:
        """Each label, and the best up to it."""
        return _there(figures.best_so_far(self._state, self._wanted, self._axis))

    def parity(self) -> go.Figure:
        """What the models predicted before labelling, against what was found."""
        return _there(figures.parity(self._state, self._objective, self._oracle, self._axis))

    def coverage(self) -> go.Figure:
        """The share of labels inside the predicted intervals, by round."""
        return _there(decisions.coverage(self._state, self._objective, self._oracle))

    def front(self) -> go.Figure:
        """The Pareto front of several objectives."""
        units = {quantity.name: quantity.unit for quantity in self._campaign.loaded.quantities().values()}
        return _there(decisions.front(self._state, self._wanted, units | {name: known.unit for name, known in abundance.KNOWN.items()}))

    def shares(self) -> go.Figure:
        """Which generator was asked, and what was labelled of it."""
        return _there(decisions.shares(self._state))

    def labels_by_oracle(self) -> go.Figure:
        """Labels by oracle and generator."""
        return _there(figures.labels_by_oracle(metrics.contributions(self._state, self._wanted)))

    def workers(self) -> go.Figure:
        """What each worker did, and when."""
        return _there(figures.timeline(self._state))

    def structures(self, n: int = 5) -> go.Figure:
        """The ``n`` best crystals in three dimensions."""
        best = ranking.ranked(self._state, self._wanted, n)
        with closing(self._campaign.reader()) as reader:
            crystals = reader.crystals([item.label.crystal or item.label.candidate for item in best])
        return _there(structures.view([(f"{item.rank}. {crystal.formula}", crystal) for item, crystal in zip(best, crystals, strict=True)]))


def _there(figure: go.Figure | None) -> go.Figure:
    if figure is None:
        raise InputError("there is nothing to show yet", hint="more labels or rounds, or further objectives, are needed")
    return figure
