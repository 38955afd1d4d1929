"""Trackers: views of the ledger that are kept elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from campaign.ledger import Ledger
from campaign.protocols import Tracker
from campaign.schema import CampaignConfig


class NullTracker:
    """Logs nothing."""

    def start(self) -> None: ...

    def update(self) -> None: ...

    def finish(self) -> None: ...


def make_tracker(config: CampaignConfig, ledger: Ledger, oracle: str, units: Mapping[str, str]) -> Tracker:
    """The tracker that a config names; ``oracle`` is the one that measures the objective, ``units`` by quantity."""
    if config.tracking.use == "none":
        return NullTracker()
    from campaign.tracking.mlflow import MlflowTracker

    return MlflowTracker(config, ledger, oracle, units)
