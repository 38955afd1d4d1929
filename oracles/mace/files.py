"""Which model a file holds, told without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from campaign.errors import InputError


def sha256_of(path: Path) -> str:
    """Of a model file. Raises InputError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot read the MACE model {path}: {error.strerror}",
            hint="give the path of a MACE file",
        ) from error
