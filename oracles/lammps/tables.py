"""Potential files before LAMMPS sees them: their encoding, and whether tabulated ones are whole and
of the kind that they are called.

LAMMPS reads numbers one after another, so a file that was cut off, saved by a word processor, or
renamed from eam/fs to eam/alloy may give an error far from its cause, or another energy. Numbers
follow each other in setfl files (eam/alloy, eam/fs, adp): for each of N elements the embedding
function and one density (eam/fs: N densities), then a pair function for each of N (N + 1) / 2 pairs
(adp: three of them).
"""

from __future__ import annotations

import math

from campaign.errors import InputError

KINDS = ("eam.alloy", "eam.fs", "adp", "eam")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_COMMENT_LINES = 3
_STYLES = {"eam.alloy": "eam/alloy", "eam.fs": "eam/fs"}


def plain_bytes(content: bytes, file: str) -> bytes:
    """The content without a byte order mark and with line ends of one kind. Raises InputError for
    UTF-16 and for what is no text.
    """
    if content.startswith(_WIDE) or b"\x00" in content[:4096]:
        raise InputError(
            f"{file} is no plain text that LAMMPS reads", hint="save it as UTF-8 or ASCII"
        )
    return content.removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def file_text(content: bytes, file: str) -> str:
    """The text, in which only comments may hold letters beyond ASCII. Raises InputError with the
    line of another.
    """
    text = content.decode("utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.isascii() or number <= _COMMENT_LINES:
            continue
        foreign = next((mark for mark in line.partition("#")[0] if not mark.isascii()), "")
        if foreign:
            raise InputError(
                f"{file}, line {number}: expected plain ASCII, found {foreign!r} "
                f"(U+{ord(foreign):04X}) in {line.strip()[:60]!r}",
                hint="a minus sign, blank or quotation mark was replaced by a look-alike: take "
                "the file from its source again",
            )
    return text


def check(text: str, kind: str, file: str) -> None:
    """Raises InputError where a table is cut off, is of the other kind of embedded atoms, or holds
    a word that is no number.
    """
    lines = text.split("\n")
    if kind == "eam":
        words = [word for line in lines[2:] for word in line.split()]
        n_density, n_distance = int(words[0]), int(words[2])
        _check_words(words[5:], n_density + 2 * n_distance, file)
        return
    n = int(lines[3].split()[0])
    words = [word for line in lines[4:] for word in line.split()]
    n_density, n_distance = int(words[0]), int(words[2])
    pairs = n * (n + 1) // 2
    sizes = {
        "eam.alloy": n * (4 + n_density + n_distance) + pairs * n_distance,
        "eam.fs": n * (4 + n_density + n * n_distance) + pairs * n_distance,
        "adp": n * (4 + n_density + n_distance) + 3 * pairs * n_distance,
    }
    values = words[5:]
    other = {"eam.alloy": "eam.fs", "eam.fs": "eam.alloy"}.get(kind, "")
    if other and len(values) == sizes[other] != sizes[kind]:
        raise InputError(
            f"{file} is called {_STYLES[kind]}, but holds the {len(values)} numbers of an "
            f"{_STYLES[other]} file of {n} elements",
            hint=f"set style: {_STYLES[other]}, or rename it to end in .{other}",
        )
    _check_words([word for word in values if word[0] in "+-.0123456789"], sizes[kind] - n, file)


def _check_words(words: list[str], expected: int, file: str) -> None:
    if len(words) < expected:
        raise InputError(
            f"{file} is cut off: expected {expected} numbers, found {len(words)}",
            hint="take the file from its source again",
        )
    for word in words[:expected]:
        try:
            is_number = math.isfinite(float(word))
        except ValueError:
            is_number = False
        if not is_number:
            raise InputError(
                f"{file}: expected a number, found {word!r}",
                hint="take the file from its source again",
            )
