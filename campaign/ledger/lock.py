"""One driver per campaign or study: an advisory lock on the folder (SQLite), and the refusal of network file systems for it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from campaign.errors import CampaignLockedError, SurroundingsError

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs", "afs", "9p"})


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds ``path``; empty where the system does not tell."""
    if not mounts.exists():
        return ""
    resolved, best, kind = str(path.resolve()), "", ""
    for line in mounts.read_text().splitlines():
        point, found = line.split()[1:3]
        point = point.encode().decode("unicode_escape")
        is_parent = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if is_parent and len(point) >= len(best):
            best, kind = point, found
    return kind


def refuse_network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raises SurroundingsError where SQLite's locks cannot be trusted."""
    kind = file_system(path, mounts)
    if kind in _NETWORK:
        raise SurroundingsError(
            f"the campaign folder {path} lies on a network file system ({kind}), where SQLite can lose data",
            hint="put the folder on a local disk with --folder, or set ledger.url in the config to a PostgreSQL database",
        )


class FolderLock:
    """Holds ``driver.lock`` in a folder while it lives; the file names the holder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "driver.lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            holder = read_holder(folder) or {}
            raise CampaignLockedError(
                f"another driver works in {folder} (process {holder.get('process', '?')} on {holder.get('host', '?')})",
                hint=f"wait for it, or end it; of a campaign `oreloop status {folder}` shows it and `oreloop stop {folder}` ends it",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def read_holder(folder: Path) -> dict[str, object] | None:
    """Process and host of the last holder that did not release the lock; None where there is none."""
    try:
        text = (folder / "driver.lock").read_text()
    except FileNotFoundError:
        return None
    return json.loads(text) if text else None


def is_held(folder: Path) -> bool:
    """Whether a driver on this machine holds the folder right now."""
    path = folder / "driver.lock"
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
