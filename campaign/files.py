"""Files that are there whole or not at all, and where oreloop keeps what serves all campaigns."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from campaign.errors import SurroundingsError


def write_whole(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is either there whole or not there, with the rights that the umask
    leaves. ``data``: its content, or what writes it into the open file.

    Raises SurroundingsError where the disk refuses.
    """
    begun = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with begun.open("xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    data(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(begun, path)
        except BaseException:
            with suppress(OSError):
                begun.unlink()
            raise
    except OSError as error:
        raise SurroundingsError(
            f"cannot write {path}: {error}", hint="free disk space, then run the same command again"
        ) from error


def cache_folder(name: str) -> Path:
    """Below ``$XDG_CACHE_HOME/oreloop``, by default ``~/.cache/oreloop``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "oreloop" / name
