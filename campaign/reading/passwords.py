"""Passwords in URLs: used to connect, kept out of whatever is written or told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_IN_AUTHORITY = re.compile(r"(?<=://)([^\s:/?#@]*):[^\s/?#]*@")
_IN_QUERY = re.compile(r"(?<=[?&])(?:ssl)?password=[^\s&#'\"]*&?")


def without_password(text: str) -> str:
    """A URL, or a text with URLs in it, without their passwords."""
    if "://" not in text:
        return text
    return _IN_QUERY.sub("", _IN_AUTHORITY.sub(r"\1@", text)).removesuffix("?").removesuffix("&")


def without_passwords(document: Any) -> Any:
    """A document of mappings and lists with the passwords of all URLs in its texts left out."""
    if isinstance(document, Mapping):
        return {key: without_passwords(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return type(document)(without_passwords(value) for value in document)
    return without_password(document) if isinstance(document, str) else document


def check_password(url: str) -> str:
    """The URL itself. Raises ValueError where it cannot be told where its password ends."""
    authority, _, rest = re.sub(r"^[^/]*://", "", url).partition("/")
    if authority.count("@") > 1 or "@" in rest:
        raise ValueError("characters such as @ and / are written as %40 and %2F in a password")
    return url
