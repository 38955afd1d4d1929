"""What a campaign's components are made of: the files and folders that their settings name, and the
user's own modules.

A setting names a file where one of that name lies there, and the name has a slash or an ending, or
its key is that of a path. Programs stay where they are, as do pseudopotentials that their owners
license to each group (POTCAR), and what is larger than the limit: their hashes stand in the bundle
in their place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from campaign.code import modules
from campaign.config.loaded import LoadedConfig
from campaign.text import file_name

INPUTS = "inputs"
_KEYS_OF_PATHS = ("path", "folder", "source", "known", "weights")
LARGEST = 200_000_000
"""Bytes of one file that is copied at most."""


@dataclass
class Inputs:
    """By place in the bundle the files to copy; by name the SHA-256 of those that are only named,
    with the reason.
    """

    copied: dict[str, Path] = field(default_factory=dict)
    named: dict[str, tuple[str, str]] = field(default_factory=dict)


def portable(loaded: LoadedConfig) -> tuple[dict[str, Any], Inputs]:
    """The resolved config with its files' places in the bundle, and the files; what lies below the
    config keeps its place.
    """
    found = Inputs()
    kept = {
        key: value for key, value in loaded.resolved().items() if key not in ("tracking", "ledger")
    }
    document: dict[str, Any] = _moved("", kept, loaded.folder, found)
    for spec in loaded.user_components():
        for name, path in modules(spec).items():
            if path.is_relative_to(loaded.folder):
                found.copied[path.relative_to(loaded.folder).as_posix()] = path
            else:
                found.named[name] = digest(path), "an installed module"
    return document, found


def _moved(key: str, value: Any, folder: Path, found: Inputs) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(str(name), item, folder, found) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(key, item, folder, found) for item in value]
    path = _file(key, value, folder) if isinstance(value, str) and key != "use" else None
    return value if path is None else _taken(value, path, folder, found)


def _file(key: str, text: str, folder: Path) -> Path | None:
    """What a text names below a folder or by its whole path; None where that is nothing, or the
    text is a word.
    """
    if not text.strip("./ ") or not (key in _KEYS_OF_PATHS or "/" in text or "." in text):
        return None
    try:
        path = folder / Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _taken(text: str, path: Path, folder: Path, found: Inputs) -> str:
    for file in files_of(path):
        reason = _kept_back(file)
        if reason:
            found.named[
                text if path.is_file() else f"{text}/{file.relative_to(path).as_posix()}"
            ] = digest(file), reason
    if path.is_file() and _kept_back(path):
        return text
    is_inside = not Path(text).expanduser().is_absolute() and path.resolve().is_relative_to(
        folder.resolve()
    )
    place = (
        PurePosixPath(text).as_posix()
        if is_inside
        else f"{INPUTS}/{hashlib.sha256(text.encode()).hexdigest()[:8]}-{file_name(path.name)}"
    )
    for file in files_of(path):
        if not _kept_back(file):
            inside = (
                PurePosixPath(place) / file.relative_to(path)
                if path.is_dir()
                else PurePosixPath(place)
            )
            found.copied[str(inside)] = file
    return place


def files_of(path: Path) -> Iterator[Path]:
    """A file itself, or all files below a folder, in order."""
    yield from (
        [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    )


def _kept_back(file: Path) -> str:
    if "POTCAR" in file.name:
        return "licensed to each group by its owner"
    if os.access(file, os.X_OK):
        return "a program"
    return f"larger than {LARGEST // 1_000_000} MB" if file.stat().st_size > LARGEST else ""


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
