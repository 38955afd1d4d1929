"""Notifications: what a campaign tells people who are elsewhere, by apprise. A view of the ledger
that never slows or stops a campaign.

What happens is gathered for up to a minute and told in one message, of each kind the latest; the
end is told at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from campaign.config.schema import Occasion
from campaign.decide import ranking
from campaign.errors import InputError
from campaign.rounds import sentinels
from campaign.views.view import View

log = logging.getLogger(__name__)

Send = Callable[[str, str], bool]
"""Title and text; whether all addresses took them."""

_GATHER_SECONDS, _FINISH_SECONDS = 60.0, 20.0
_NO_NEWS = "asked"
"""The end of the short sessions of ask."""


def by_apprise(names: Sequence[str]) -> Send:
    """To the addresses that environment variables hold. Raises InputError where apprise or a
    variable is missing or holds no address.
    """
    try:
        import apprise
    except ImportError:
        raise InputError(
            "notifications are sent by apprise, which is not installed",
            hint='pip install "oreloop[notifications]"',
        ) from None
    sender = apprise.Apprise()
    for name in names:
        address = os.environ.get(name, "")
        if not address or not sender.add(address):
            found = "holds no address that apprise knows" if address else "is not set"
            raise InputError(
                f"notifications: the environment variable {name} {found}",
                hint=f"export {name}='mailto://...'",
            )
    return lambda title, text: bool(sender.notify(title=title, body=text))


class Notifier:
    def __init__(self, view: View, send: Send) -> None:
        """The view's state is the ledger's own, which goes on."""
        assert view.config.notifications is not None
        self._view, self._send = view, send
        self._on = view.config.notifications.on
        self._best, self._pauses = self._best_now(), self._pauses_now()
        self._told: dict[Occasion, str] = {}
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def update(self) -> None:
        """Note what happened since the last time."""
        pauses, best = self._pauses_now(), self._best_now()
        for name in pauses.keys() - self._pauses.keys():
            self._tell("pause", pauses[name])
        if best and best != self._best:
            self._tell("new best", best)
        self._pauses, self._best = pauses, best

    def finish(self) -> None:
        self.update()
        ended = self._view.state.session_ended
        if ended is not None and ended.reason != _NO_NEWS:
            self._tell(
                "drift" if sentinels.is_drift(ended.reason) else "end", f"ended: {ended.reason}"
            )
        self._closing = True
        self._wake.set()
        self._thread.join(_FINISH_SECONDS)

    def _pauses_now(self) -> dict[str, str]:
        state = self._view.state
        found = {
            name: f"oracle {name} is paused: {reason}" for name, reason in state.paused.items()
        }
        return found | (
            {"": f"paused {state.controls.pause}"} if state.controls.paused is not None else {}
        )

    def _best_now(self) -> str:
        state = self._view.state
        best = state.leaders(self._view.wanted).best
        if best is None:
            return ""
        quantity = self._view.objective.quantity
        return (
            f"new best: {state.formula(best.candidate)}, {quantity} "
            f"{ranking.value_of(state, self._view.wanted, best)} {self._view.unit}  "
            f"({best.candidate})"
        )

    def _tell(self, occasion: Occasion, text: str) -> None:
        if occasion in self._on:
            with self._lock:
                self._told[occasion] = text
            self._wake.set()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            until = time.monotonic() + _GATHER_SECONDS
            while not self._closing and time.monotonic() < until:
                time.sleep(0.05)
            self._wake.clear()
            with self._lock:
                text, self._told = "\n".join(self._told.values()), {}
            if text:
                self._sent(text)
            if self._closing:
                return

    def _sent(self, text: str) -> None:
        try:
            has_arrived = self._send(f"oreloop: {self._view.config.name}", text)
        except Exception as error:
            log.warning("a notification was not sent: %s", error)
            return
        if not has_arrived:
            log.warning("a notification was not taken by all addresses: %s", text)
