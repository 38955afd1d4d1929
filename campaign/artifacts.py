"""Files named by the SHA-256 of their content, written whole or not at all; and checkpoints in safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from campaign.errors import LedgerDamagedError, SurroundingsError
from campaign.types import Checkpoint


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is either there whole or not there. Raises SurroundingsError where the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SurroundingsError(f"cannot write {path}: {error}", hint="free disk space, then run the same command again") from error


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
                f"the artifact {self.path(sha256)} cannot be read: {error}", hint="restore it from a backup"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise LedgerDamagedError(f"the artifact {self.path(sha256)} is damaged", hint="restore it from a backup")
        return data

    def discard(self, hashes: set[str]) -> None:
        for sha256 in hashes:
            self.path(sha256).unlink(missing_ok=True)


def checkpoint_to_bytes(checkpoint: Checkpoint) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in checkpoint.tensors.items()}
    metadata = {
        "metrics": json.dumps(dict(checkpoint.metrics), sort_keys=True),
        "facts": json.dumps(dict(checkpoint.facts), sort_keys=True),
    }
    return bytes(save(tensors, metadata=metadata))


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    from safetensors.numpy import load

    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return Checkpoint(tensors=load(data), metrics=json.loads(metadata.get("metrics", "{}")), facts=json.loads(metadata.get("facts", "{}")))
