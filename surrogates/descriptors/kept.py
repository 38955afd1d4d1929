"""Rows of large pools, kept on disk and mapped into memory, so that a pool is described once.

A segment is one file of rows with the ids of their crystals, in the order of the ids, named by a
hash of these; it is written whole or not at all. Segments lie below
``$XDG_CACHE_HOME/oreloop/features`` (by default ``~/.cache``), by the embedder's version and the
elements. Versions do not tell when code or an engine changed: a segment is believed once one of
its crystals, described anew, has the row that stands there. The oldest make room beyond 10 GB.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from campaign.errors import SurroundingsError
from campaign.files import write_whole
from campaign.types import FloatArray

log = logging.getLogger(__name__)

_LEAST_ROWS = 1024
_MOST_BYTES = 10_000_000_000
_SAME = 1e-6
"""How far a row described anew may be from the one that is kept, relative."""

Rows = Callable[[Sequence[int]], FloatArray]
"""(m, d) of the crystals at m places, described anew."""


class KeptRows:
    """The segments of a folder whose rows have d columns."""

    def __init__(self, folder: Path, width: int) -> None:
        self._folder = folder
        self._type = np.dtype([("id", "S16"), ("row", "<f8", (width,))])
        self._segments = [_Segment(path) for path in sorted(folder.glob("*.npy"), key=_age)]
        self._last = 0

    def rows(self, ids: Sequence[str], describe: Rows) -> FloatArray:
        """(n, d) of the crystals with n ids; those that are not kept are described, and kept where
        they are many.
        """
        wanted = np.array([bytes.fromhex(identity) for identity in ids], dtype="S16")
        found = np.empty((len(ids), *self._type["row"].shape))
        missing = np.arange(len(ids))
        for number in self._in_turn():
            if not len(missing):
                break
            segment = self._segments[number]
            there, at = segment.places(wanted[missing])
            if there.any() and self._is_true(segment, missing[there][0], at[there][0], describe):
                found[missing[there]] = segment.rows(at[there])
                missing, self._last = missing[~there], number
        if len(missing):
            found[missing] = describe(missing.tolist())
            if len(missing) >= _LEAST_ROWS:
                self._keep(wanted[missing], found[missing])
        return found

    def _in_turn(self) -> list[int]:
        """The segment that was of use last, then those behind it: pools keep their order."""
        numbers = range(len(self._segments))
        return [*numbers[self._last :], *numbers[: self._last]]

    def _is_true(self, segment: _Segment, place: int, at: int, describe: Rows) -> bool:
        if segment.is_true is None:
            (anew,) = describe([int(place)])
            segment.is_true = segment.width == len(anew) and np.allclose(
                segment.rows(np.array([at]))[0], anew, rtol=_SAME, atol=_SAME
            )
            if not segment.is_true:
                log.info("features in %s are of another code: made anew", segment.path)
                segment.path.unlink(missing_ok=True)
        return segment.is_true

    def _keep(self, ids: NDArray[np.bytes_], rows: FloatArray) -> None:
        ids, first = np.unique(ids, return_index=True)
        segment = np.empty(len(ids), dtype=self._type)
        segment["id"], segment["row"] = ids, rows[first]
        path = self._folder / f"{hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest()}.npy"
        try:
            _make_room(self._folder.parent, segment.nbytes)
            write_whole(path, partial(np.save, arr=segment))
        except (OSError, SurroundingsError) as error:
            log.warning("features are not kept on disk: %s", error)
            return
        self._segments.append(_Segment(path, is_true=True))


class _Segment:
    """A file of rows; ``is_true`` where it was found so, None where nobody looked."""

    def __init__(self, path: Path, *, is_true: bool | None = None) -> None:
        self.path, self.is_true = path, is_true
        try:
            self._mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self._ids = np.array(self._mapped["id"])
            self.width = self._mapped["row"].shape[1]
        except (OSError, EOFError, ValueError, IndexError):
            self._mapped, self._ids, self.width = np.empty(0), np.empty(0, dtype="S16"), 0

    def places(self, ids: NDArray[np.bytes_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(n,) which of n ids are there, and in which row."""
        if not len(self._ids) or self.is_true is False:
            return np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int64)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._ids[at] == ids, at

    def rows(self, at: NDArray[np.int64]) -> FloatArray:
        return np.asarray(self._mapped["row"][at])


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name


def _make_room(root: Path, size: int) -> None:
    """What is mapped somewhere stays there until it is let go."""
    sizes = {path: path.stat().st_size for path in sorted(root.glob("*/*.npy"), key=_age)}
    excess = sum(sizes.values()) + size - _MOST_BYTES
    for path, held in sizes.items():
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= held


@lru_cache(maxsize=16)
def kept_rows(folder: Path, version: str, elements: tuple[str, ...], width: int) -> KeptRows:
    """Those of an embedder's version for crystals of given elements, below a folder."""
    name = hashlib.blake2b(repr((version, elements, width)).encode(), digest_size=16).hexdigest()
    return KeptRows(folder / name, width)
