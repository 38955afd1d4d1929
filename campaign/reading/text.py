"""Text of a file, decoded once: UTF-8 and UTF-16 with or without their marks, and Latin-1 where it
is neither.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from pathlib import Path

from campaign.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSED = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")


def is_there(path: Path) -> bool:
    """Whether a path leads to a file or folder. Raises InputError where it cannot be followed, or
    leads to a pipe or device.
    """
    try:
        found = path.exists()
    except OSError as error:
        raise InputError(
            f"cannot open {path}: {error.strerror}", hint="check the path and the permissions"
        ) from error
    if found and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{path} is neither a file nor a folder",
            hint="a pipe or a device cannot be read twice: save it as a file",
        )
    return found


def read_text(path: Path) -> str:
    """With line ends as ``\\n``; .gz, .bz2 and .xz are unpacked.

    Raises InputError where the file cannot be opened or unpacked, is empty, or holds no text.
    """
    data = unpacked(path)
    text = decode(data, str(path))
    if not text.strip():
        raise InputError(
            f"{path}: the file is empty", hint="give a file with content, or leave it out"
        )
    return text


def unpacked(path: Path) -> bytes:
    """Bytes of a file, those of .gz, .bz2 and .xz unpacked. Raises InputError where it cannot be
    opened or unpacked.
    """
    try:
        data = path.read_bytes()
        return _COMPRESSED.get(path.suffix.lower(), bytes)(data)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"{path}: cannot be read: {reason}",
            hint="check the path, the permissions and whether the file is whole",
        ) from error


def decode(data: bytes, where: str) -> str:
    """Raises InputError where the bytes are no text."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(
                f"{where}: begins like {encoding}, but is not: {error.reason}",
                hint="save the file as UTF-8",
            ) from error
        text = data.decode("latin-1")
    found = _CONTROL.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise InputError(
            f"{where}: line {line} holds the control character {found[0]!r}: no text file",
            hint="save the file as UTF-8 text",
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
