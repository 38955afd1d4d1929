"""Passwords in URLs: used to connect, kept out of whatever is written or told."""

from __future__ import annotations

import re

_IN_AUTHORITY = re.compile(r"(?<=://)([^\s:/?#@]*):[^\s/?#]*@")
_IN_QUERY = re.compile(r"(?<=[?&])(?:ssl)?password=[^\s&#'\"]*&?")


def without_password(text: str) -> str:
    """A URL, or a text with URLs in it, without their passwords."""
    return _IN_QUERY.sub("", _IN_AUTHORITY.sub(r"\1@", text)).removesuffix("?").removesuffix("&")


def check_password(url: str) -> str:
    """The URL itself. Raises ValueError where it cannot be told where its password ends."""
    authority, _, rest = re.sub(r"^[^/]*://", "", url).partition("/")
    if authority.count("@") > 1 or "@" in rest:
        raise ValueError("characters such as @ and / are written as %40 and %2F in a password")
    return url
