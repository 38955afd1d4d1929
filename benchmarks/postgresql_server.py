"""A PostgreSQL server of its own in a folder, for the tests and the measurements of the ledger."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

PASSWORD = "s3cret"


def binaries() -> Path | None:
    """The folder with PostgreSQL's programs."""
    found = shutil.which("initdb")
    places = (
        [Path(found).resolve()]
        if found
        else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    )
    return places[-1].parent if places else None


class Server:
    """A PostgreSQL server of its own in a folder; local sessions need no password, those to
    127.0.0.1 need the user's.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._run_as: list[str] = []
        if os.geteuid() == 0:
            self._run_as = ["runuser", "-u", "postgres", "--"]
            folder.chmod(0o755)
            shutil.chown(folder, "postgres")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        initdb = [
            str(programs / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "oreloop",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        subprocess.run(
            [*self._run_as, *initdb, f"--pwfile={secret}"], check=True, capture_output=True
        )
        self.start()

    def start(self) -> None:
        command = [
            str(self._programs / "postgres"),
            "-D",
            str(self._folder / "data"),
            "-p",
            str(self.port),
        ]
        command += ["-h", "127.0.0.1", "-k", str(self._folder), "-c", "fsync=off"]
        self._process = subprocess.Popen([*self._run_as, *command], stderr=subprocess.DEVNULL)
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(200):
            if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise TimeoutError("PostgreSQL does not start")

    def stop(self) -> None:
        control = [
            str(self._programs / "pg_ctl"),
            "-D",
            str(self._folder / "data"),
            "-m",
            "immediate",
            "-w",
            "stop",
        ]
        stopped = subprocess.run(
            [*self._run_as, *control], capture_output=True, text=True, check=False
        )
        assert stopped.returncode == 0, stopped.stderr
        self._process.wait()

    def url(self, database: str, password: str = "") -> str:
        """Over the socket, or with a password over the loopback."""
        if password:
            return f"postgresql+psycopg://oreloop:{password}@127.0.0.1:{self.port}/{database}"
        return f"postgresql+psycopg://oreloop@/{database}?host={self._folder}&port={self.port}"

    def execute(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(
            host=str(self._folder), port=self.port, user="oreloop", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []
