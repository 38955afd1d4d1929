"""Text from outside, made harmless for where it goes: the ledger, a terminal, one line of a file, a
spreadsheet, a drawing, a file's name.

Outside is whatever an oracle, a generator, a library, a file or a path says. What a border cannot
take is written as its escape (``\\udc80``, ``\\x1b``), so that nothing is lost and nothing is run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, turn the text's direction, or are no
characters.
"""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LONGEST_FILE_NAME = 120


def storable(value: Any) -> Any:
    """A string without lone surrogates, which no encoding holds; of mappings, lists and tuples all
    strings in them.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(storable(item) for item in value) if type(value) in (list, tuple) else value
        )
    return value


def shown(text: str) -> str:
    """For a person's eyes: control characters, but for the end of a line, and surrogates as their
    escapes.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _UNSEEN else _escape(c) for c in text
    )


def one_line(text: str) -> str:
    """As ``shown``, the ends of lines too."""
    return shown(text).replace("\n", "\\n")


def cell(text: str) -> str:
    """For a spreadsheet, which would run what begins like a formula: such text begins with an
    apostrophe, numbers stay as they are.
    """
    plain = storable(text)
    return f"'{plain}" if plain.startswith(_FORMULA) and not _is_number(plain) else plain


def drawn(text: str) -> str:
    """For matplotlib, which reads what stands between two ``$`` as a formula."""
    return shown(text).replace("$", r"\$")


def file_name(text: str) -> str:
    """A part of a file's name: letters, digits and ``._+-``, the rest as ``_``, never hidden and
    never another folder.
    """
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".")[:_LONGEST_FILE_NAME]
    return name or "_"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
