"""The ledger in PostgreSQL: the same campaign, and the same single driver."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import label_set

from campaign.api import Campaign
from campaign.errors import CampaignLockedError
from campaign.ledger import Ledger


def binaries() -> Path | None:
    """The folder with PostgreSQL's programs."""
    found = shutil.which("initdb")
    places = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = binaries()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip('needs a PostgreSQL server\'s programs and pip install "oreloop[postgresql]"')
    folder = tmp_path_factory.mktemp("postgresql")
    run_as: list[str] = []
    if os.geteuid() == 0:
        run_as = ["runuser", "-u", "postgres", "--"]
        for path in (folder, *folder.parents[:-1]):
            if str(path).startswith("/tmp/"):
                path.chmod(0o755)
        shutil.chown(folder, "postgres")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    data = str(folder / "data")
    subprocess.run([*run_as, str(programs / "initdb"), "-D", data, "-U", "oreloop", "-A", "trust"], check=True, capture_output=True)
    command = [str(programs / "postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    server = subprocess.Popen([*run_as, *command], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if (
                subprocess.run(
                    [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True, check=False
                ).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        yield f"postgresql+psycopg://oreloop@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


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
