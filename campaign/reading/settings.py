"""Configs as they come from editors on any system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from campaign.errors import InputError

_MOST_VALUES = 200_000
_DEEPEST = 200


def yaml_of(text: str, path: Path, *, typ: Literal["rt", "safe"]) -> Any:
    """A YAML document; ``rt`` keeps the lines of its keys. Raises InputError where it is none, or
    far too deep or large for settings.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from campaign.reading.passwords import without_password

    if (
        max(
            accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text)),
            default=0,
        )
        > _DEEPEST
    ):
        raise _too_deep(path)
    try:
        document = YAML(typ=typ, pure=True).load(text)
    except RecursionError:
        raise _too_deep(path) from None
    except (YAMLError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no valid YAML: {without_password(str(error))}") from error
    _count(document, path, {}, 0)
    return document


def _too_deep(path: Path) -> InputError:
    return InputError(
        f"{path}: its values lie more than {_DEEPEST} levels deep",
        hint="close the brackets; an alias that refers to itself has no end either",
    )


def _count(node: Any, path: Path, known: dict[int, int], depth: int) -> int:
    """How many values a document holds once its aliases are written out."""
    if not isinstance(node, Mapping | list | set):
        return 1
    if depth > _DEEPEST:
        raise _too_deep(path)
    if id(node) not in known:
        items = node.values() if isinstance(node, Mapping) else node
        known[id(node)] = 1 + sum(_count(item, path, known, depth + 1) for item in items)
    if known[id(node)] > _MOST_VALUES:
        raise InputError(
            f"{path} holds more than {_MOST_VALUES} values",
            hint="aliases of aliases multiply: write out what is meant",
        )
    return known[id(node)]


def text_of(path: Path, what: str) -> str:
    """The text of a UTF-8 file, a byte order mark taken off. Raises InputError, which calls the
    file ``what`` it should be.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the {what} {path}: {error.strerror}",
            hint="`oreloop init` writes one to start from",
        ) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8, found UTF-16", hint="save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise InputError(
            f"{path}, line {line}: expected UTF-8, found the byte 0x{content[error.start]:02X} "
            f"at column {column}",
            hint="save the file as UTF-8; in Latin-1 this byte is "
            f"{content[error.start : error.start + 1].decode('latin-1')!r}",
        ) from error
    if "\x00" in text:
        raise InputError(f"{path}: expected text, found NUL bytes", hint="save the file as UTF-8")
    return text
