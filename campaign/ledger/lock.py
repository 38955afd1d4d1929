"""One driver per campaign or study: an advisory lock on the folder (SQLite), and the refusal of
network file systems for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
from pathlib import Path

from campaign.errors import CampaignLockedError, SurroundingsError

_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "afs",
        "9p",
    }
)
LOCK, STOP_REQUEST = "driver.lock", "stop-requested"
_FLOCK = "hhqqi4x"


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
            f"the campaign folder {path} lies on a network file system ({kind}), where SQLite "
            "can lose data",
            hint="put the folder on a local disk with --folder, or set ledger.url in the "
            "config to a PostgreSQL database",
        )


class FolderLock:
    """Holds ``driver.lock`` in a folder while it lives; the file names the holder.

    A lock of the open file (not of the process), so that whoever looks asks who holds it without
    taking it. A request to stop that was left for an earlier holder ends here, before the file
    names the new one: whoever sees that one run can ask it to stop. Raises CampaignLockedError
    where another holds it, SurroundingsError where the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            self._take(folder)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, folder: Path) -> None:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise SurroundingsError(
                    f"the folder {folder} cannot be locked ({error})", hint="put it on a local disk"
                ) from error
            holder = read_holder(folder) or {}
            raise CampaignLockedError(
                f"another driver works in {folder} (process {holder.get('process', '?')} on "
                f"{holder.get('host', '?')})",
                hint=f"wait for it, or end it; of a campaign `oreloop status {folder}` shows "
                f"it and `oreloop stop {folder}` ends it",
            ) from error
        try:
            (folder / STOP_REQUEST).unlink(missing_ok=True)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(
                self._descriptor,
                json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(),
                0,
            )
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def check(self) -> None:
        """Raises SurroundingsError where the folder or the lock's file is not where it was."""
        own = os.fstat(self._descriptor)
        try:
            there = self.path.stat()
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise SurroundingsError(
                f"the folder {self.path.parent} was deleted or moved away while its driver ran",
                hint="where it was moved, run the campaign again with its new place; what was "
                "recorded before lies there",
            )

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def cannot_write(path: Path, error: OSError) -> SurroundingsError:
    """The error of a file that the disk does not take, for people."""
    return SurroundingsError(
        f"{path} cannot be written ({error.strerror or error})",
        hint="free disk space, or make the folder writable, then run the same command again; "
        "everything recorded so far is kept",
    )


def _whole_file(kind: int) -> bytes:
    """The C struct flock: kind, from the file's start, offset 0, to its end, nobody's process."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def read_holder(folder: Path) -> dict[str, object] | None:
    """Process and host of the last holder that did not release the lock; None where there is none
    or it cannot be told.
    """
    try:
        found = json.loads((folder / LOCK).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_held(folder: Path) -> bool:
    """Whether a driver on this machine holds the folder right now. Looks without taking the lock,
    also where nothing can be written.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
