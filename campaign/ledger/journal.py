"""The journal: an append-only file beside the database, one checksummed line per transaction.

A line is the CRC-32 of its text in eight hexadecimal digits, a space, and the transaction as JSON:
first sequence, time, events, and blobs in base64. Events stand there in the very bytes that the
database holds, so that the two are compared without decoding either. Nothing here ever shortens a
journal: a line that power loss or a full disk tore, or whose bits changed, is passed over, the
lines on both sides of it count, and what it held is written again at the end where the database
knows it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec

from campaign.ledger import events as ev

_BEGIN = re.compile(rb'[0-9a-f]{8} \{"first":')
_SHORTEST = 11


@dataclass(frozen=True)
class Transaction:
    """Events committed together, as text. ``first`` is the sequence of the first one; blobs by
    id.
    """

    first: int
    time: float
    payloads: tuple[bytes, ...]
    blobs: Mapping[str, bytes]

    @cached_property
    def events(self) -> tuple[ev.Event, ...]:
        """Raises ValueError where one cannot be read."""
        return tuple(ev.decode(payload) for payload in self.payloads)

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1


class Line(msgspec.Struct, frozen=True):
    """A whole line, its events and blobs left as they are."""

    first: int
    time: float
    events: tuple[msgspec.Raw, ...]
    blobs: msgspec.Raw

    def transaction(self) -> Transaction:
        return Transaction(
            self.first,
            self.time,
            tuple(bytes(event) for event in self.events),
            _decode_blobs(self.blobs),
        )


@dataclass(frozen=True)
class Damage:
    """A stretch of the file that is no whole line. ``line`` counts from 1; a torn one has no end
    yet.
    """

    line: int
    text: bytes
    is_torn: bool


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(Line).decode
_decode_blobs = msgspec.json.Decoder(dict[str, bytes]).decode


def scan(path: Path) -> Iterator[tuple[Line | Damage, int]]:
    """Each line of a journal, whole or damaged, with the offset of its end."""
    offset = 0
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            whole = _parse(line.removesuffix(b"\n"))
            if whole is not None:
                yield whole, offset
            else:
                for piece in _pieces(line, number):
                    yield piece, offset


def read(path: Path) -> Iterator[tuple[Transaction, int]]:
    """The transactions of all whole lines, each with the offset of its end."""
    for found, offset in scan(path):
        if isinstance(found, Line):
            yield found.transaction(), offset


def _parse(text: bytes) -> Line | None:
    if len(text) < _SHORTEST:
        return None
    transaction = memoryview(text)[9:]
    try:
        return _decode_line(transaction) if int(text[:8], 16) == zlib.crc32(transaction) else None
    except ValueError:
        return None


def _pieces(line: bytes, number: int) -> Iterator[Line | Damage]:
    """What a damaged line holds: where the end of a line was lost, two that ran together are told
    apart.
    """
    begins = [match.start() for match in _BEGIN.finditer(line)]
    for begin, end in zip([0, *begins[1:]], [*begins[1:], len(line)], strict=True):
        piece = line[begin:end]
        whole = _parse(piece) or _parse(piece[:-1])
        yield whole or Damage(number, piece, is_torn=not line.endswith(b"\n"))


@dataclass
class Index:
    """What a journal holds, without its contents: by sequence the time and the checksum of the
    event's text; and how many damaged lines.
    """

    events: dict[int, tuple[float, int]] = field(default_factory=dict)
    damaged: int = 0

    @property
    def last(self) -> int:
        return max(self.events, default=0)


def index(path: Path) -> Index:
    """Reads and checks the whole file: 0.05 s for 10^4 events with a crystal of 54 atoms each, 0.6
    s for 10^5.
    """
    found = Index()
    events, checksum = found.events, zlib.crc32
    for line, _ in scan(path):
        if isinstance(line, Damage):
            found.damaged += not line.is_torn
            continue
        time = line.time
        for sequence, event in enumerate(line.events, start=line.first):
            events[sequence] = time, checksum(event)
    return found


class Journal:
    """Appends transactions to the journal file, which is made when there is something to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def append(self, transaction: Transaction) -> None:
        """Raises OSError where the disk does not take the line; what it took of it is passed over
        later.
        """
        text = _encode(
            {
                "first": transaction.first,
                "time": transaction.time,
                "events": [msgspec.Raw(payload) for payload in transaction.payloads],
                "blobs": dict(transaction.blobs),
            }
        )
        self._write(b"%08x %s\n" % (zlib.crc32(text), text))

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        while line:
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Raises OSError where the disk does not take what was written."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
