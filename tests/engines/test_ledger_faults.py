"""What happens around a ledger: folders that go away, disks that are full or read-only, locks, stop
requests, rights and passwords.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ledgers import made_ledger, one_event, values
from ruamel.yaml import YAML
from support import SMALL, merged
from typer.testing import CliRunner

from campaign.api import STOP_REQUEST, Campaign
from campaign.cli import app
from campaign.errors import CampaignLockedError, SurroundingsError
from campaign.files import write_whole
from campaign.ledger import Ledger, LedgerReader
from campaign.ledger.engines import DATABASE, JOURNAL
from campaign.ledger.lock import FolderLock, is_held
from campaign.ledger.recover import recover
from campaign.reading.passwords import without_password
from campaign.rounds import imports

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder whose files can be read and not written, below parents that can be passed."""
    changed = [folder, *folder.rglob("*"), *folder.parents[:-2]]
    modes = {path: path.stat().st_mode for path in changed}
    for path in changed:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with as_nobody():
            yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


# --- folders that go away
# ------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "lock removed"])
def test_a_folder_that_goes_away_is_noticed(tmp_path: Path, how: str) -> None:
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    ledger = Ledger(folder)
    one_event(ledger)
    ledger.check()
    if how == "deleted":
        shutil.rmtree(folder)
    elif how == "lock removed":
        (folder / "driver.lock").unlink()
    else:
        folder.rename(elsewhere)
        if how == "replaced":
            shutil.copytree(elsewhere, folder)
    with pytest.raises(SurroundingsError, match="deleted or moved away"):
        ledger.check()
    with pytest.raises(SurroundingsError):
        one_event(ledger)
    ledger.close()
    if how == "moved":
        assert LedgerReader(elsewhere).fold().sequence == 2, (
            "what was finished is recorded where the folder lies now"
        )
        assert not folder.exists()


@pytest.mark.parametrize("how", ["delete", "move"])
def test_a_campaign_whose_folder_goes_away_ends_with_an_error(
    small: Callable[..., Campaign], tmp_path: Path, how: str
) -> None:
    campaign = small()

    def take_away(state: Any) -> None:
        if len(state.labels) == 5 and campaign.folder.exists():
            if how == "delete":
                shutil.rmtree(campaign.folder)
            else:
                campaign.folder.rename(tmp_path / "moved")

    with pytest.raises(SurroundingsError, match="deleted or moved away"):
        campaign.run(on_change=take_away)
    assert not (campaign.folder / DATABASE).exists()
    if how == "move":
        moved = Campaign(tmp_path / "moved", campaign.loaded)
        assert len(moved.state().labels) >= 5
        assert moved.run() == "budget spent: 24 labels"


# --- disks
# ------------------------------------------------------------


def test_a_read_only_folder_is_read_as_it_stands(tmp_path: Path) -> None:
    made_ledger(tmp_path / "closed")
    expected = values(LedgerReader(tmp_path / "closed").fold())
    shutil.copytree(tmp_path / "closed", tmp_path / "open")
    ledger = Ledger(tmp_path / "open")
    one_event(ledger)
    shutil.copytree(tmp_path / "open", tmp_path / "killed")
    (tmp_path / "killed" / f"{DATABASE}-shm").unlink(missing_ok=True)
    ledger.close()
    for name, more in (("closed", 0), ("killed", 1)):
        with read_only(tmp_path / name):
            reader = LedgerReader(tmp_path / name)
            state = reader.fold()
            assert len(reader.crystals(list(state.candidates))) == 12
            reader.close()
            assert not is_held(tmp_path / name)
            with pytest.raises(SurroundingsError, match="cannot be written"):
                Ledger(tmp_path / name)
        assert values(state) == expected
        assert state.sequence == 35 + more


def test_status_and_list_of_a_read_only_campaign(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    before = sorted(path.name for path in campaign.folder.rglob("*"))
    with read_only(campaign.folder):
        status = CliRunner().invoke(app, ["status", str(campaign.folder)])
        listed = CliRunner().invoke(app, ["list", str(tmp_path)])
        run = CliRunner().invoke(app, ["run", str(campaign.folder)])
    assert (status.exit_code, listed.exit_code, run.exit_code) == (0, 0, 4), (
        status.output,
        listed.output,
        run.output,
    )
    assert "9 of 9" in status.output
    assert "cannot be written" in run.output
    assert run.exception is None or isinstance(run.exception, SystemExit)
    assert sorted(path.name for path in campaign.folder.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SurroundingsError, match="cannot be written"):
            Ledger(folder)
    with pytest.raises(SurroundingsError, match="cannot write"):
        write_whole(tmp_path / "file" / "below" / "x", b"")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """As where a disk is full: no file grows beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_journal_on_a_full_disk_stops_the_driver_and_is_written_later(tmp_path: Path) -> None:
    made_ledger(tmp_path, rounds=40)
    ledger = Ledger(tmp_path)
    with (
        file_size_limit((tmp_path / JOURNAL).stat().st_size + 50),
        pytest.raises(SurroundingsError, match=r"journal\.jsonl cannot be written"),
    ):
        one_event(ledger)
    ledger.close()
    expected = ledger.state.sequence
    Ledger(tmp_path).close()
    for file in tmp_path.glob(f"{DATABASE}*"):
        file.unlink()
    found = recover(tmp_path)
    assert (found.events, found.missing) == (expected, ())


def test_a_lock_on_a_full_disk_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "driver.lock").symlink_to("/dev/full")
    with pytest.raises(SurroundingsError, match=r"driver\.lock cannot be written"):
        Ledger(tmp_path)


# --- the lock and the request to stop
# ------------------------------------------------------------


def test_looking_never_takes_the_lock(tmp_path: Path) -> None:
    """A driver that comes while many look is never turned away; before, one look in fifty stood in
    its way.
    """
    FolderLock(tmp_path).release()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            is_held(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(300):
            lock = FolderLock(tmp_path)
            assert is_held(tmp_path)
            lock.release()
    finally:
        is_over.set()
        for watcher in watchers:
            watcher.join()
    assert not is_held(tmp_path)


def test_looking_in_the_drivers_own_process_does_not_let_go_of_the_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert is_held(tmp_path)
    code = (
        "import sys; from pathlib import Path; from campaign.ledger.lock import FolderLock; "
        "FolderLock(Path(sys.argv[1]))"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "CampaignLockedError" in second.stderr
    assert f"process {os.getpid()}" in second.stderr
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b'{"process": 1', b"[1]", b"\xff"])
def test_a_lock_file_that_says_nothing_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    lock = FolderLock(tmp_path)
    (tmp_path / "driver.lock").write_bytes(content)
    with pytest.raises(CampaignLockedError, match=r"process \? on \?"):
        FolderLock(tmp_path)
    lock.release()


def test_a_stop_asked_for_before_the_driver_listens_is_not_lost(
    small: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = small()
    taking_in = imports.take_in

    def asked(*arguments: Any) -> None:
        taking_in(*arguments)
        result = CliRunner().invoke(app, ["stop", str(campaign.folder)])
        assert "asked" in result.output

    monkeypatch.setattr(imports, "take_in", asked)
    assert campaign.run() == "stop was asked for"
    assert not (campaign.folder / STOP_REQUEST).exists()


def test_a_request_left_for_an_earlier_driver_does_not_stop_the_next(
    small: Callable[..., Campaign],
) -> None:
    campaign = small(budget={"labels": 9})
    campaign.folder.mkdir()
    (campaign.folder / "driver.lock").touch()
    (campaign.folder / STOP_REQUEST).touch()
    Ledger(campaign.folder).close()
    assert campaign.run() == "budget spent: 9 labels"


# --- rights and passwords
# ------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        made_ledger(tmp_path / "ledger", rounds=1)
        write_whole(tmp_path / "ledger" / "config.json", b"{}")
    finally:
        os.umask(before)
    for path in (tmp_path / "ledger").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://me:s3cret@host:5432/db", "postgresql+psycopg://me@host:5432/db"),
        (
            "postgresql://me:s3%2Fcr%40et@host/db?sslmode=require",
            "postgresql://me@host/db?sslmode=require",
        ),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db?user=me"),
        ("postgresql://host/db?password=s3cret&user=me", "postgresql://host/db?user=me"),
        ("postgresql://host/db?password=s3cret", "postgresql://host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
        ("https://me:s3cret@mlflow.example/x", "https://me@mlflow.example/x"),
    ],
)
def test_urls_without_their_passwords(url: str, told: str) -> None:
    assert without_password(url) == told
    assert without_password(f"cannot reach {url} now").startswith(f"cannot reach {told}")


def write_config(path: Path, **changes: Any) -> Path:
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    return path


def test_a_password_is_in_nothing_that_is_written_or_told(tmp_path: Path) -> None:
    """Of the ledger, which does not answer, and of MLflow, which does not either; nor of a config
    that is none.
    """
    ledger = {"url": "postgresql+psycopg://me:s3cret@127.0.0.1:9/db"}
    config = write_config(tmp_path / "small.yaml", ledger=ledger)
    result = CliRunner().invoke(app, ["run", str(config), "--folder", str(tmp_path / "ledger")])
    assert result.exit_code == 4
    assert "s3cret" not in result.output
    campaign = Campaign.from_config(config)
    assert campaign.loaded.config.ledger.url == ledger["url"]
    assert "s3cret" not in json.dumps(campaign.loaded.resolved()) + repr(campaign.loaded.config)
    for bad in ("postgresql://me:s3cr@et@host/db", "postgresql://me:s3/cr@host/db"):
        result = CliRunner().invoke(
            app, ["run", str(write_config(tmp_path / "bad.yaml", ledger={"url": bad}))]
        )
        assert result.exit_code == 2
        assert "%40" in result.output
        assert "s3" not in result.output
    (tmp_path / "broken.yaml").write_text('ledger: {url: "postgresql://me:s3cret@host/db\n')
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "broken.yaml")])
    assert result.exit_code == 2
    assert "s3cret" not in result.output


def test_mlflow_passwords_are_kept_out_and_resume_compares_without_them(
    small: Callable[..., Campaign], caplog: Any
) -> None:
    uri = "http://me:s3cret@127.0.0.1:9"
    campaign = small(tracking={"use": "mlflow", "uri": uri}, budget={"labels": 9})
    campaign.run()
    revisions = len(campaign.state().revisions)
    small(
        tracking={"use": "mlflow", "uri": uri.replace("s3cret", "other")}, budget={"labels": 9}
    ).run()
    assert len(campaign.state().revisions) == revisions
    assert "s3cret" not in caplog.text
    for path in campaign.folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path
