"""The journal: an append-only file beside the database, one checksummed line per transaction.

A line is the CRC-32 of its text in eight hexadecimal digits, a space, and the transaction as JSON:
first sequence, time, events, and blobs in base64. A torn last line (power loss, ``kill -9``) is cut off when the file is opened.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from campaign.ledger import events as ev


class Transaction(msgspec.Struct, frozen=True):
    """Events committed together. ``first`` is the sequence of the first one; blobs by id."""

    first: int
    time: float
    events: tuple[ev.AnyEvent, ...]
    blobs: dict[str, bytes]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Transaction).decode


def read(path: Path) -> Iterator[tuple[Transaction, int]]:
    """The transactions of a journal, each with the offset of its end, up to the first line that is not whole."""
    offset = 0
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or len(line) < 11:
                return
            text = line[9:-1]
            try:
                if int(line[:8], 16) != zlib.crc32(text):
                    return
                transaction = _decode(text)
            except (ValueError, msgspec.DecodeError):
                return
            offset += len(line)
            yield transaction, offset


class Journal:
    """Appends transactions to the journal file and knows the last sequence that it holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.last = 0
        end = 0
        for transaction, end in read(path):  # noqa: B007 - the last offset is wanted
            self.last = transaction.first + len(transaction.events) - 1
        self._file: BinaryIO = path.open("ab")
        self.lost_bytes = self._file.seek(0, os.SEEK_END) - end
        if self.lost_bytes:
            self._file.truncate(end)

    def append(self, transaction: Transaction) -> None:
        text = _encode(transaction)
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()
        self.last = transaction.first + len(transaction.events) - 1

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
