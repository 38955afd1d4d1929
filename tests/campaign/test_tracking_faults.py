"""An MLflow server that fails in any way, from the start or midway: the driver never waits for it,
the end waits as long as is promised, nothing is lost, and no password is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import SMALL

from benchmarks.tracking_server import FAULTS, StoredRun, TrackingServer, wait_for
from campaign.api import Campaign
from campaign.reading.passwords import without_passwords
from campaign.tracking import drawings, limits, places
from campaign.tracking import mlflow as tracker
from campaign.tracking.limits import TooLongError

Make = Callable[..., Campaign]
AWAY = "is away"
PASSWORD = "s3cret"
QUICK: dict[str, Any] = {
    "generators": [{"use": "random_alloy", "count": 8, "params": {"repeats": [2, 2, 1]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 4, "batch_size": 4},
}


@pytest.fixture
def server() -> Iterator[TrackingServer]:
    with TrackingServer() as found:
        yield found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in place of minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for where, name, seconds in (
        (places, "_CALL_SECONDS", 1.0),
        (places, "_LONGER_SECONDS", {}),
        (tracker, "_RETRY_SECONDS", 0.1),
        (drawings, "_BEST", 1),
        (tracker, "_FINISH_AWAY_SECONDS", 1.0),
    ):
        monkeypatch.setattr(where, name, seconds)


def tracked(make: Make, uri: str, **changes: Any) -> Campaign:
    return make(tracking={"use": "mlflow", "uri": uri}, **(QUICK | changes))


def begin(server: TrackingServer, fault: str) -> None:
    if fault == AWAY:
        server.leave()
    else:
        server.fault = fault  # type: ignore[assignment]


def end(server: TrackingServer, fault: str) -> None:
    if fault == AWAY:
        server.come_back()
    else:
        server.fault = None


def run_of(server: TrackingServer, campaign: Campaign) -> StoredRun:
    tracking = campaign.state().tracking
    assert tracking is not None
    return server.runs[tracking.run]


def is_whole(run: StoredRun, campaign: Campaign) -> bool:
    """All rounds, trainings beside them, pictures, tables and documents."""
    rounds = {record.index for record in campaign.state().rounds if record.ended is not None}
    files = {"best_so_far.png", "tables/labels.json", "config/revision-0.json", "versions.json"}
    return (
        run.metrics["labels/so_far"].keys() == rounds
        and run.files >= files
        and run.info["status"] == "FINISHED"
    )


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [*FAULTS, AWAY])
def test_a_server_that_fails_from_the_start(
    small: Make, server: TrackingServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin(server, fault)
    campaign = tracked(small, server.url, budget={"labels": 8})
    last = [0.0]

    def seen(state: Any) -> None:
        last[0] = time.monotonic()

    assert campaign.run(on_change=seen) == "budget spent: 8 labels"
    assert time.monotonic() - last[0] < tracker._FINISH_SECONDS / 2
    assert caplog.text.count("cannot be reached") == 1
    assert "oreloop run sends what is missing" in caplog.text
    assert not server.runs
    end(server, fault)
    assert campaign.run() == "budget spent: 8 labels"
    assert is_whole(run_of(server, campaign), campaign)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [*FAULTS, AWAY])
def test_a_server_that_fails_midway_and_is_well_again(
    small: Make, server: TrackingServer, fault: str
) -> None:
    """What the session did not write any more, the next one does."""
    campaign = tracked(small, server.url, budget={"labels": 20})
    told: list[str] = []

    def change(state: Any) -> None:
        labels = len(state.labels)
        if labels >= 4 and not told:
            assert wait_for(lambda: any(run.metrics for run in server.runs.values()))
            begin(server, fault)
            told.append("bad")
        elif labels >= 12 and told == ["bad"]:
            asked = server.asked
            assert fault == AWAY or wait_for(lambda: server.asked > asked - 1)
            end(server, fault)
            told.append("well")

    assert campaign.run(on_change=change) == "budget spent: 20 labels"
    assert told == ["bad", "well"]
    campaign.run()
    assert is_whole(run_of(server, campaign), campaign)


@pytest.mark.usefixtures("hasty")
def test_figures_follow_in_the_same_session(small: Make, server: TrackingServer) -> None:
    """Refused connections midway end neither the campaign nor what writes to MLflow."""
    campaign = tracked(small, server.url, budget={"labels": 20})
    rounds_when_away: list[int] = []

    def metrics() -> dict[int, float]:
        return next((run.metrics["labels/so_far"] for run in server.runs.values()), {})

    def change(state: Any) -> None:
        labels = len(state.labels)
        if labels >= 4 and not rounds_when_away:
            assert wait_for(lambda: len(metrics()) > 0)
            server.leave()
            rounds_when_away.append(len(metrics()))
        elif labels >= 16 and len(rounds_when_away) == 1:
            rounds_when_away.append(len(metrics()))
            server.come_back()
            assert wait_for(lambda: len(metrics()) > rounds_when_away[1])

    campaign.run(on_change=change)
    assert rounds_when_away[0] == rounds_when_away[1]
    assert is_whole(run_of(server, campaign), campaign)


@pytest.mark.usefixtures("hasty")
def test_what_the_server_refuses_alone_holds_nothing_back(
    small: Make, server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.bad_name, server.bad_file = "share/bad", "labels.json"
    generators = [
        {"use": "random_alloy", "name": name, "params": {"repeats": [2, 2, 2]}}
        for name in ("good", "bad")
    ]
    campaign = tracked(small, server.url, budget={"labels": 19}, generators=generators)
    campaign.run()
    run = run_of(server, campaign)
    assert len(run.metrics["share/good"]) == len(run.metrics["labels/so_far"]) > 2
    assert "share/bad" not in run.metrics
    assert {"tables/best.json", "tables/candidates.json", "best_so_far.png"} <= run.files
    assert run.info["status"] == "FINISHED"
    assert caplog.text.count("refuses share/bad") == 1
    assert "does not take tables/labels.json" in caplog.text
    assert "oreloop.trial" not in run.tags
    server.bad_file = ""
    campaign.run()
    assert "tables/labels.json" in run.files


@pytest.mark.usefixtures("hasty")
def test_weights_that_are_refused_hold_back_no_figures(small: Make, server: TrackingServer) -> None:
    """They follow with the next run, once, in a child run of their own."""
    server.bad_file = "weights/"
    learning = {key: SMALL[key] for key in QUICK}
    campaign = tracked(small, server.url, budget={"labels": 24}, **learning)
    campaign.run()
    trained = sum(len(record.trained) for record in campaign.state().rounds)
    published = sum(
        event.is_published for record in campaign.state().rounds for event in record.trained
    )
    assert published > 0
    assert is_whole(run_of(server, campaign), campaign)
    server.bad_file = ""
    campaign.run()
    whole = [run for run in server.runs.values() if "oreloop.training" in run.tags]
    assert len(whole) == trained == len({run.tags["oreloop.training"] for run in whole})


@pytest.mark.usefixtures("hasty")
def test_mlflow_is_never_asked_by_the_driver(
    small: Make, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    askers = set()
    plain = places.client_of

    def watched(uri: str) -> Any:
        askers.add(threading.current_thread().name)
        return plain(uri)

    monkeypatch.setattr(places, "client_of", watched)
    tracked(small, server.url, budget={"labels": 4}).run()
    assert askers == {"mlflow"}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [None, "fails", "denies", AWAY])
def test_no_password_is_told_or_written(
    small: Make,
    server: TrackingServer,
    fault: str | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    uri = server.url.replace("://", f"://me:{PASSWORD}@")
    if fault:
        begin(server, fault)
    campaign = tracked(small, uri, budget={"labels": 4})
    with caplog.at_level("DEBUG"):
        campaign.run()
    told = capfd.readouterr()
    assert PASSWORD not in told.out + told.err + caplog.text
    assert PASSWORD not in str([vars(run) for run in server.runs.values()])
    assert fault or server.runs
    for path in campaign.folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_documents_without_passwords() -> None:
    url, plain = f"https://me:{PASSWORD}@host/a?b=c", "https://me@host/a?b=c"
    given = {"a": [{"url": url}, 1, None], "b": (url, True), "c": "is it so?"}
    assert without_passwords(given) == {
        "a": [{"url": plain}, 1, None],
        "b": (plain, True),
        "c": "is it so?",
    }


def test_a_call_is_broken_off_and_nothing_else() -> None:
    def forever() -> None:
        while True:
            time.sleep(0.01)

    with pytest.raises(TooLongError, match="no whole answer in"), limits.at_most(0.1):
        forever()
    with limits.at_most(60):
        pass
    with pytest.raises(KeyError), limits.at_most(60):
        raise KeyError
    for _ in range(200):
        try:
            with limits.at_most(0.001):
                time.sleep(0.001)
        except TooLongError:
            pass
        sum(range(100))
