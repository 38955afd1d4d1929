"""Files named by the SHA-256 of their content, written whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from campaign.errors import LedgerDamagedError
from campaign.files import write_whole


class ArtifactStore:
    """The folder ``artifacts`` of a campaign."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "artifacts"

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def write(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.path(sha256).exists():
            write_whole(self.path(sha256), data)
        return sha256

    def read(self, sha256: str) -> bytes:
        """Raises LedgerDamagedError where the file is missing or not what its name says."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError as error:
            raise LedgerDamagedError(
                f"the artifact {self.path(sha256)} cannot be read: {error}",
                hint="restore it from a backup",
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise LedgerDamagedError(
                f"the artifact {self.path(sha256)} is damaged", hint="restore it from a backup"
            )
        return data

    def discard(self, hashes: set[str]) -> None:
        for sha256 in hashes:
            self.path(sha256).unlink(missing_ok=True)
