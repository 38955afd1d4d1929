"""Trackers: views of the ledger that are kept elsewhere."""

from __future__ import annotations

from campaign.config.loaded import LoadedConfig
from campaign.ledger import Ledger
from campaign.protocols import Tracker
from campaign.views.view import OpenView


class Trackers:
    """Several as one."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def start(self) -> None:
        for tracker in self._trackers:
            tracker.start()

    def update(self) -> None:
        for tracker in self._trackers:
            tracker.update()

    def finish(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def make_tracker(loaded: LoadedConfig, ledger: Ledger) -> Tracker:
    """The trackers that a config names. Raises InputError where notifications cannot be sent from
    here.
    """
    config, view = loaded.config, OpenView(loaded, ledger.state, ledger)
    found: list[Tracker] = []
    if config.notifications is not None:
        from campaign.tracking.notifications import Notifier, by_apprise

        found.append(Notifier(view, by_apprise(config.notifications.to)))
    if config.tracking.use != "none":
        from campaign.tracking.mlflow import MlflowTracker

        found.append(MlflowTracker(view, ledger))
    return Trackers(*found)
