"""Notifications: what is told of a campaign, when, and that nothing of it stops one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import load

from campaign.api import Campaign
from campaign.errors import InputError
from campaign.tracking import notifications

Make = Callable[..., Campaign]
QUICK: dict[str, Any] = {
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 4},
    "budget": {"labels": 8},
}


class Service:
    """Takes messages as apprise does."""

    def __init__(self, how: str = "") -> None:
        self.how, self.addresses, self.sent = how, list[str](), list[tuple[str, str]]()

    def add(self, address: str) -> bool:
        self.addresses.append(address)
        return address.startswith("ntfy://")

    def notify(self, title: str, body: str) -> bool:
        if self.how == "raises":
            raise OSError("no route to host")
        self.sent.append((title, body))
        return self.how != "refuses"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Service:
    found = Service(getattr(request, "param", ""))
    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=lambda: found))
    monkeypatch.setenv("LAB", "ntfy://lab")
    return found


def test_the_end_and_the_best_are_told_in_one_message(small: Make, service: Service) -> None:
    campaign = small(**QUICK, notifications={"to": ["LAB"]})
    campaign.run()
    best = campaign.best.iloc[0]
    ((title, body),) = service.sent
    assert (title, service.addresses) == ("oreloop: small", ["ntfy://lab"])
    assert body.splitlines()[-1] == "ended: budget spent: 8 labels"
    assert f"({best['candidate']})" in body.splitlines()[0]
    assert "new best: " in body


def test_only_what_is_asked_for_is_told_and_a_pause_is_as_it_comes(
    small: Make, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_GATHER_SECONDS", 0.0)
    campaign = small(**QUICK, notifications={"to": ["LAB"], "on": ["pause"]})
    campaign.ask(1)
    assert not service.sent, "asking is no news"
    monkeypatch.setattr("campaign.api.StopRequests.reason", lambda self: _pause_then_stop(campaign))
    campaign.run()
    ((_, body),) = service.sent
    assert body.startswith("paused since ")


def _pause_then_stop(campaign: Campaign) -> str:
    if campaign.state().controls.paused is not None:
        return "enough"
    campaign.control.pause()
    return ""


@pytest.mark.parametrize("service", ["raises", "refuses"], indirect=True)
def test_a_service_that_is_away_stops_nothing(
    small: Make, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    assert small(**QUICK, notifications={"to": ["LAB"]}).run() == "budget spent: 8 labels"
    assert "a notification was not" in caplog.text


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "LAB is not set"), ("lab", "LAB holds no address that apprise knows")],
)
def test_addresses_come_from_the_environment(
    small: Make,
    service: Service,
    address: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LAB")
    if address is not None:
        monkeypatch.setenv("LAB", address)
    with pytest.raises(InputError, match=message):
        small(**QUICK, notifications={"to": ["LAB"]}).run()


def test_without_apprise_the_remedy_is_told(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(InputError, match="not installed"):
        small(**QUICK, notifications={"to": ["LAB"]}).run()


def test_nothing_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lunch"):
        load(tmp_path, notifications={"to": ["LAB"], "on": ["lunch"]})
