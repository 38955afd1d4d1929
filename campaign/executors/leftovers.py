"""Folders and processes that nothing may leave behind, whatever killed their owner.

An owned folder holds a file that its owner keeps locked; the system drops the lock when the owner
dies, however it dies, and whoever makes such a folder next removes those without one. What is
started on a folder's behalf carries the folder's path in its surroundings and hands it on to all
that it starts, so that it is found even where its parents are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "ORELOOP_OWNED_FOLDER"
_OWNER, _ALSO = ".owner", ".also-remove"
_KILL_SECONDS, _LOOK_SECONDS = 5.0, 0.005


class OwnedFolder:
    """A temporary folder ``oreloop-<purpose>-*`` that goes with its owner, at the latest when the
    next one is made.
    """

    def __init__(self, purpose: str) -> None:
        sweep()
        self.path, self._lock = _made(purpose)

    @property
    def surroundings(self) -> dict[str, str]:
        """Variables for processes that are to end with the folder."""
        return {MARK: str(self.path)}

    def remove_also(self, pattern: Path) -> None:
        """Let what matches a pattern (shell wildcards) go with the folder, unless a living process
        is at work in it.
        """
        (self.path / _ALSO).write_text(str(pattern))

    def end_processes(self) -> None:
        """Kill every process that carries the folder's mark."""
        _end_marked(self.path)

    def close(self) -> None:
        _remove(self.path)
        os.close(self._lock)


def _made(purpose: str) -> tuple[Path, int]:
    """A new folder with the descriptor of its locked file; a sweep may take it before the lock is
    there, then another one is made.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"oreloop-{purpose}-"))
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path / _OWNER, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if (path / _OWNER).exists():
                return path, descriptor
            os.close(descriptor)


def sweep() -> None:
    """Remove the folders of this user whose owners are dead, with the processes that were
    theirs.
    """
    for owner in Path(tempfile.gettempdir()).glob(f"oreloop-*/{_OWNER}"):
        with contextlib.suppress(OSError):
            if owner.stat().st_uid == os.getuid():
                _remove_unowned(owner)


def _remove_unowned(owner: Path) -> None:
    descriptor = os.open(owner, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(owner.parent)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    _end_marked(folder)
    with contextlib.suppress(OSError):
        pattern = Path((folder / _ALSO).read_text())
        for path in pattern.parent.glob(pattern.name):
            if path.stat().st_uid == os.getuid() and not _is_in_use(path):
                end(_helpers_of_ray(path))
                shutil.rmtree(path, ignore_errors=True)
    for item in folder.iterdir():
        if item.name != _OWNER:
            shutil.rmtree(
                item, ignore_errors=True
            ) if item.is_dir() and not item.is_symlink() else item.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(path: Path) -> bool:
    """Whether a living process names the folder in its command."""
    for process in running():
        with contextlib.suppress(psutil.Error, OSError):
            if any(str(path) in argument for argument in process.cmdline()):
                return True
    return False


def _helpers_of_ray(session: Path) -> list[psutil.Process]:
    """Ray's helpers that write to a session's files: they overwrite their surroundings, and live on
    for a while without their server.
    """
    found = []
    for process in running():
        with contextlib.suppress(psutil.Error, OSError, IndexError):
            if process.cmdline()[0].startswith("ray::") and any(
                file.path.startswith(f"{session}/") for file in process.open_files()
            ):
                found.append(process)
    return found


def _end_marked(folder: Path) -> None:
    """Processes may start others while they are found, so it looks again until there are none."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (found := _marked(folder)) and time.monotonic() < deadline:
        end(found)


def _marked(folder: Path) -> list[psutil.Process]:
    found = []
    for process in running():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.pid != os.getpid()
                and process.environ().get(MARK) == str(folder)
                and is_alive(process)
            ):
                found.append(process)
    return found


def running() -> Iterator[psutil.Process]:
    """All processes, each looked up anew: ``psutil.process_iter`` remembers who had a number
    before, and takes one that has it again for the one that is gone.
    """
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that ended and that nobody asked about yet does not."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def end(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + _KILL_SECONDS
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
