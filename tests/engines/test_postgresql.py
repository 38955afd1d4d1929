"""The ledger in PostgreSQL: the same campaign, the same single driver, and a server that ends
sessions, restarts or loses its tables.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledgers import made_crystals, made_ledger, one_event
from ruamel.yaml import YAML
from support import HELPERS, SMALL, label_set, load, merged
from typer.testing import CliRunner

from benchmarks.distance import distance
from benchmarks.postgresql_server import PASSWORD, Server, binaries
from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import CampaignLockedError, InputError, LedgerDamagedError, SurroundingsError
from campaign.ledger import Ledger, LedgerReader, recover
from campaign.ledger import events as ev
from campaign.ledger.engines import DATABASE, JOURNAL
from campaign.ledger.recover import rebuild


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its folder lies beside pytest's own, which only their owner may enter."""
    programs = binaries()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(
            "needs a PostgreSQL server (apt-get install -y postgresql) and pip install "
            '"oreloop[postgresql]"'
        )
    with tempfile.TemporaryDirectory(prefix="oreloop-postgresql-") as name:
        found = Server(programs, Path(name))
        try:
            yield found
        finally:
            found.stop()


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> str:
    """The name of a fresh database."""
    name = f"d{abs(hash(request.node.name)):x}"
    server.execute("postgres", f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def url(server: Server, database: str) -> str:
    return server.url(database)


def sessions(server: Server, database: str) -> list[tuple[Any, ...]]:
    """(process, state) of each session in a database, without the one that asks."""
    query = (
        "SELECT pid, state FROM pg_stat_activity WHERE datname = '{}' AND pid <> "
        "pg_backend_pid() AND backend_type = 'client backend'"
    )
    return server.execute(database, query.format(database))


def test_a_campaign_in_postgresql(small: Callable[..., Campaign], tmp_path: Path, url: str) -> None:
    reference = small("reference")
    reference.run()
    campaign = small(ledger={"url": url}, budget={"labels": 14})
    campaign.run()
    holder = Ledger(tmp_path / "elsewhere", url)
    with pytest.raises(CampaignLockedError):
        Ledger(tmp_path / "a-third-place", url)
    holder.close()
    again = small(ledger={"url": url})
    assert again.run() == "budget spent: 24 labels"
    assert label_set(again) == label_set(reference)


def test_the_lock_is_held_by_a_session_that_is_in_no_transaction(
    tmp_path: Path, server: Server, database: str, url: str
) -> None:
    made_ledger(tmp_path, url, rounds=1)
    ledger = Ledger(tmp_path, url)
    steps: list[Callable[[], None]] = [lambda: None, lambda: one_event(ledger), ledger.check]
    for step in steps:
        step()
        assert "idle in transaction" not in [state for _, state in sessions(server, database)]
        ((held,),) = server.execute(
            database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        )
        assert held == 1
    ledger.close()


def test_who_lost_the_lock_cannot_write(
    tmp_path: Path, server: Server, database: str, url: str
) -> None:
    """The server ends the session; the next driver is let in, the first one stops at its next look
    and records nothing.
    """
    made_ledger(tmp_path / "one", url, rounds=1)
    first = Ledger(tmp_path / "one", url)
    server.execute(
        database,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' "
        "AND pid <> pg_backend_pid()",
    )
    second = Ledger(tmp_path / "two", url)
    for _ in range(2):
        with pytest.raises(SurroundingsError, match="ended the connection"):
            one_event(first)
    first._checked = 0.0
    with pytest.raises(SurroundingsError, match="ended the connection"):
        first.check()
    one_event(second)
    first.close()
    second.close()
    assert LedgerReader(tmp_path / "two", url).fold().sequence == second.state.sequence


def test_a_restart_of_the_server_ends_the_driver_with_an_error(
    small: Callable[..., Campaign], server: Server, url: str
) -> None:
    campaign = small(ledger={"url": url})

    def restart(state: Any) -> None:
        if len(state.labels) == 12:
            server.stop()
            server.start()

    with pytest.raises(SurroundingsError, match="ended the connection"):
        campaign.run(on_change=restart)
    before = label_set(campaign)
    assert len(before) >= 12
    assert campaign.run() == "budget spent: 24 labels"
    assert before.items() <= label_set(campaign).items()


def test_a_server_that_is_away_is_told(
    small: Callable[..., Campaign], server: Server, url: str
) -> None:
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    server.stop()
    try:
        for arguments in (
            ["run", str(campaign.folder)],
            ["status", str(campaign.folder)],
            ["recover", str(campaign.folder)],
        ):
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == SurroundingsError.exit_code, result.output
            assert "ended the connection or does not answer" in " ".join(result.output.split())
    finally:
        server.start()


@pytest.mark.parametrize(
    "damage",
    [
        "TRUNCATE oreloop_events, oreloop_blobs, oreloop_meta",
        "DROP TABLE oreloop_events, oreloop_blobs, oreloop_meta",
        "DELETE FROM oreloop_events WHERE sequence BETWEEN 5 AND 9",
        "UPDATE oreloop_events SET payload = replace(encode(payload, 'escape'), '\"eV/atom\"', "
        "'\"eV\"')::bytea WHERE kind = 'Labelled'",
    ],
)
def test_an_emptied_or_changed_database_is_recovered_where_it_is(
    small: Callable[..., Campaign], server: Server, database: str, url: str, damage: str
) -> None:
    campaign = small(ledger={"url": url}, budget={"labels": 14})
    campaign.run()
    before = label_set(campaign)
    server.execute(database, damage)
    for command in ("run", "status"):
        result = CliRunner().invoke(app, [command, str(campaign.folder)])
        assert result.exit_code == SurroundingsError.exit_code, result.output
        assert "oreloop recover" in " ".join(result.output.split())
    assert CliRunner().invoke(app, ["recover", str(campaign.folder)]).exit_code == 0
    assert not (campaign.folder / DATABASE).exists()
    assert label_set(campaign) == before
    assert small(ledger={"url": url}).run() == "budget spent: 24 labels"


def test_a_campaign_moves_between_sqlite_and_postgresql(
    small: Callable[..., Campaign], url: str
) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    before = label_set(campaign)
    moved = small(ledger={"url": url}, budget={"labels": 9})
    with pytest.raises(LedgerDamagedError, match="the database only 0"):
        moved.run()
    rebuild(moved.folder, url)
    assert moved.run() == "budget spent: 9 labels"
    rebuild(moved.folder)
    assert label_set(campaign) == label_set(moved) == before


def test_a_second_campaign_on_one_database_is_refused_and_takes_nothing(
    small: Callable[..., Campaign], url: str
) -> None:
    first = small("first", ledger={"url": url}, budget={"labels": 9})
    first.run()
    length = first.state().sequence
    for change in ({"name": "other"}, {"seed": 8}):
        second = Campaign(
            first.folder.with_name("second"), load(HELPERS, ledger={"url": url}, **change)
        )
        with pytest.raises(InputError):
            second.run()
        assert {path.name for path in second.folder.iterdir()} <= {"driver.lock"}
    own = small("own", budget={"labels": 9})
    own.run()
    with pytest.raises(InputError, match="the folder of another one"):
        small("own", ledger={"url": url}, budget={"labels": 9}).run()
    with pytest.raises(InputError, match=r"the journal in .* is of another one"):
        rebuild(own.folder, url)
    assert first.state().sequence == length


def test_a_password_opens_the_database_and_is_written_nowhere(
    small: Callable[..., Campaign], server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    campaign = small(ledger={"url": server.url(database, PASSWORD)}, budget={"labels": 9})
    campaign.run()
    for path in campaign.folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in str(
        server.execute(database, "SELECT encode(payload, 'escape') FROM oreloop_events")
    )
    without = CliRunner().invoke(app, ["status", str(campaign.folder)])
    assert without.exit_code == SurroundingsError.exit_code
    assert "PGPASSWORD" in without.output
    wrong = small(ledger={"url": server.url(database, "wr0ng")})
    with pytest.raises(SurroundingsError, match="without its password") as refused:
        wrong.run()
    assert "wr0ng" not in str(refused.value)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    revisions = len(campaign.state().revisions)
    for arguments in (["status"], ["run"], ["recover"]):
        result = CliRunner().invoke(app, [*arguments, str(campaign.folder)])
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.output
    assert len(campaign.state().revisions) == revisions


def test_whatever_text_comes_is_stored(tmp_path: Path, url: str) -> None:
    ledger = Ledger(tmp_path, url)
    ledger.append([ev.SessionEnded(reason="a\udc80\x00b", key="k\udc80\x00")])
    ledger.close()
    state = LedgerReader(tmp_path, url).fold()
    assert state.session_ended == ledger.state.session_ended
    assert state.keys == {"k\\udc80\x00"}


def test_an_append_is_one_turn_however_far_the_server_is(
    tmp_path: Path, server: Server, database: str
) -> None:
    with distance(server.port, 0.01) as way:
        url = server.url(database, PASSWORD).replace(f":{server.port}/", f":{way.port}/")
        made_ledger(tmp_path, url, rounds=1)
        ledger = Ledger(tmp_path, url)
        one_event(ledger)
        crystals = {crystal.id: crystal.to_bytes() for crystal in made_crystals(3)}
        before = way.turns
        rows = tuple(ev.PinnedRow(identity, "Ni8Fe8:0") for identity in crystals)
        ledger.append(
            [
                ev.CrystalsPinned(by="a", asked=0.0, source="b", rows=rows),
                ev.CampaignPaused(by="a", asked=0.0),
            ],
            crystals,
        )
        assert way.turns - before == 1
        assert ledger.blobs(list(crystals)) == crystals
        state, events = ledger.state, ledger.state.sequence
        way.close()
        with pytest.raises(SurroundingsError):
            ledger.append([ev.CampaignResumed(by="a", asked=0.0)])
        with pytest.raises(SurroundingsError):
            ledger.append([ev.CampaignResumed(by="a", asked=0.0)])
        assert state.sequence == events
        ledger.close()
    assert LedgerReader(tmp_path, server.url(database)).fold().sequence == events


def copied(server: Server, database: str) -> str:
    """A database that holds what another one does now, as a backup does."""
    server.execute("postgres", f"CREATE DATABASE {database}_backup TEMPLATE {database}")
    return f"{database}_backup"


def restored(server: Server, database: str, backup: str) -> None:
    server.execute("postgres", f"DROP DATABASE {database} WITH (FORCE)")
    server.execute("postgres", f"ALTER DATABASE {backup} RENAME TO {database}")


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_an_older_database_is_brought_up_to_the_journal(
    small: Callable[..., Campaign], server: Server, database: str, url: str
) -> None:
    """One that an administrator restored from a backup: the labels since then are in the journal
    alone.
    """
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    backup = copied(server, database)
    early = campaign.state().sequence
    small(ledger={"url": url}, budget={"labels": 19}).run()
    before, late = label_set(campaign), campaign.state().sequence
    restored(server, database, backup)
    for command in ("run", "status"):
        result = CliRunner().invoke(app, [command, str(campaign.folder)])
        assert result.exit_code == LedgerDamagedError.exit_code
        assert "oreloop recover" in " ".join(result.output.split())
    output = told("recover", str(campaign.folder))
    assert f"events {early + 1}-{late}: missing from the database, taken from the journal" in output
    assert label_set(campaign) == before
    assert not (campaign.folder / DATABASE).exists()
    assert small(ledger={"url": url}).run() == "budget spent: 24 labels"


def test_an_older_journal_is_brought_up_to_the_database(
    small: Callable[..., Campaign], url: str
) -> None:
    """The folder alone came back from a backup, or was lost but for its config."""
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    journal = campaign.folder / JOURNAL
    old = journal.read_bytes()
    small(ledger={"url": url}, budget={"labels": 19}).run()
    before = label_set(campaign)
    for text in (old, b""):
        journal.write_bytes(text)
        told("recover", str(campaign.folder))
        assert label_set(campaign) == before
        assert small(ledger={"url": url}, budget={"labels": 19}).run() == "budget spent: 19 labels"


def test_a_new_server_takes_the_campaign_from_its_folder(
    small: Callable[..., Campaign], server: Server, database: str, url: str, tmp_path: Path
) -> None:
    """The server is lost with all that it held; the config names another one, and so the recovery
    is of the config.
    """
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    before = label_set(campaign)
    server.execute("postgres", f"DROP DATABASE {database} WITH (FORCE)")
    result = CliRunner().invoke(app, ["recover", str(campaign.folder)])
    assert result.exit_code == SurroundingsError.exit_code
    assert not (campaign.folder / DATABASE).exists()
    server.execute("postgres", f"CREATE DATABASE {database}_new")
    document = merged(SMALL, {"ledger": {"url": server.url(f"{database}_new")}})
    document = merged(document, {"budget": {"labels": 14}})
    config = tmp_path / "moved.yaml"
    with config.open("w") as file:
        YAML().dump(document, file)
    told("recover", str(config), "--folder", str(campaign.folder))
    moved = Campaign.from_config(config, campaign.folder)
    assert label_set(moved) == before
    assert moved.run() == "budget spent: 14 labels"
    assert not (campaign.folder / DATABASE).exists()


@pytest.mark.parametrize("moment", ["_link", "_replace_tables", "_fill"])
def test_a_recovery_that_was_broken_off_is_given_again(
    small: Callable[..., Campaign],
    server: Server,
    database: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """Killed before the journal is in place, before the tables are written, and while they are."""
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    before = label_set(campaign)
    server.execute(database, "TRUNCATE oreloop_events, oreloop_blobs, oreloop_meta")

    def killed(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recover, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            rebuild(campaign.folder, url)
    told("recover", str(campaign.folder))
    assert label_set(campaign) == before
    assert not (campaign.folder / DATABASE).exists()
    assert small(ledger={"url": url}, budget={"labels": 14}).run() == "budget spent: 14 labels"


def test_a_recovery_beside_a_driver_at_work_is_refused(
    small: Callable[..., Campaign], url: str
) -> None:
    campaign = small(ledger={"url": url}, budget={"labels": 9})
    campaign.run()
    with closing(Ledger(campaign.folder, url)), pytest.raises(CampaignLockedError):
        rebuild(campaign.folder, url)
