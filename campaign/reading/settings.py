"""Configs as they come from editors on any system."""

from __future__ import annotations

from pathlib import Path

from campaign.errors import InputError


def text_of(path: Path, what: str) -> str:
    """The text of a UTF-8 file, a byte order mark taken off. Raises InputError, which calls the file ``what`` it should be."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}", hint="`oreloop init` writes one to start from") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8, found UTF-16", hint="save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise InputError(
            f"{path}, line {line}: expected UTF-8, found the byte 0x{content[error.start]:02X} at column {column}",
            hint=f"save the file as UTF-8; in Latin-1 this byte is {content[error.start : error.start + 1].decode('latin-1')!r}",
        ) from error
    if "\x00" in text:
        raise InputError(f"{path}: expected text, found NUL bytes", hint="save the file as UTF-8")
    return text
