"""The report's figures one by one, as plotly objects, for notebooks."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from campaign.decide import ranking
from campaign.errors import InputError
from campaign.report import decisions, figures, structures
from campaign.views import metrics
from campaign.views.view import View

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from campaign.api import Campaign


class Plots:
    """Each method reads the ledger as it stands. Raises InputError where there is nothing to show
    yet.
    """

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._view = View(campaign.loaded, campaign.state())

    def best_so_far(self) -> go.Figure:
        """Each label, and the best up to it."""
        return _there(figures.best_so_far(self._view))

    def parity(self) -> go.Figure:
        """What the models predicted before labelling, against what was found."""
        return _there(figures.parity(self._view))

    def coverage(self) -> go.Figure:
        """The share of labels inside the predicted intervals, by round."""
        return _there(decisions.coverage(self._view))

    def front(self) -> go.Figure:
        """The Pareto front of several objectives."""
        return _there(decisions.front(self._view))

    def shares(self) -> go.Figure:
        """Which generator was asked, and what was labelled of it."""
        return _there(decisions.shares(self._view.state))

    def labels_by_oracle(self) -> go.Figure:
        """Labels by oracle and generator."""
        brought = metrics.contributions(self._view.state, self._view.wanted)
        return _there(figures.labels_by_oracle(brought))

    def workers(self) -> go.Figure:
        """What each worker did, and when."""
        return _there(figures.timeline(self._view.state))

    def structures(self, n: int = 5) -> go.Figure:
        """The ``n`` best crystals in three dimensions."""
        best = ranking.ranked(self._view.state, self._view.wanted, n)
        with closing(self._campaign.reader()) as reader:
            crystals = reader.crystals(
                [item.label.crystal or item.label.candidate for item in best]
            )
        return _there(
            structures.view(
                [
                    (f"{item.rank}. {crystal.formula}", crystal)
                    for item, crystal in zip(best, crystals, strict=True)
                ]
            )
        )


def _there(figure: go.Figure | None) -> go.Figure:
    if figure is None:
        raise InputError(
            "there is nothing to show yet",
            hint="more labels or rounds, or further objectives, are needed",
        )
    return figure
