"""What is said between a driver and a worker in another process, maybe of another interpreter:
plain data, nothing that is run.

A message is a JSON text, then the bytes of its arrays, each with its length before it. The words of
the house, their arrays and our errors come out as they went in. An error whose class is not known
where it is read becomes the nearest known one above it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any

import numpy as np

from campaign.errors import OreloopError
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.types import (
    Candidate,
    Cost,
    Crystal,
    Evaluation,
    Failure,
    FailureKind,
    Fidelity,
    Observation,
    Quantity,
)

_WORDS = {
    kind.__name__: kind
    for kind in (
        Candidate,
        Cost,
        Evaluation,
        EvaluationJob,
        Failure,
        Fidelity,
        Observation,
        OracleSpec,
        PluginSpec,
        Quantity,
    )
}
_LENGTH = struct.Struct(">Q")


def pack(value: Any) -> bytes:
    """A message. Raises TypeError for what is no plain data."""
    chunks = [b""]
    chunks[0] = json.dumps(_plain(value, chunks)).encode()
    return b"".join(_LENGTH.pack(len(chunk)) + chunk for chunk in chunks)


def unpack(data: bytes) -> Any:
    """The value of a message. Raises ValueError for anything else."""
    try:
        chunks = list(_chunks(data))
        return _read(json.loads(chunks[0]), chunks)
    except (LookupError, TypeError, struct.error) as error:
        raise ValueError(f"these {len(data)} bytes are no message: {error}") from error


def _chunks(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size + length
        if place > len(data):
            raise ValueError("the message is cut off")
        yield data[place - length : place]


def _plain(value: Any, chunks: list[bytes]) -> Any:
    def kept(data: bytes) -> int:
        chunks.append(data)
        return len(chunks) - 1

    def array(found: Any) -> Any:
        if found.dtype.kind not in "biufc":
            raise TypeError(f"an array of {found.dtype} is no plain data")
        return {
            "array": [
                kept(np.ascontiguousarray(found).tobytes()),
                found.dtype.str,
                list(found.shape),
            ]
        }

    match value:
        case FailureKind():
            return {"failure": value.value}
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case list():
            return [_plain(item, chunks) for item in value]
        case tuple():
            return {"tuple": [_plain(item, chunks) for item in value]}
        case Mapping():
            return {
                "map": [[_plain(key, chunks), _plain(item, chunks)] for key, item in value.items()]
            }
        case bytes() | bytearray() | memoryview():
            return {"bytes": kept(bytes(value))}
        case PurePath():
            return {"path": str(value)}
        case Crystal():
            return {"crystal": kept(value.to_bytes(compress=False))}
        case OreloopError():
            kinds = [
                kind.__name__ for kind in type(value).__mro__ if issubclass(kind, OreloopError)
            ]
            told = [
                [name, _plain(item, chunks)]
                for name, item in vars(value).items()
                if not name.startswith("__")
            ]
            return {"error": [kinds, _plain(value.args, chunks), told]}
    for kind in type(value).__mro__:
        if kind in _WORDS.values():
            held = {
                field.name: _plain(getattr(value, field.name), chunks) for field in fields(kind)
            }
            return {"word": [kind.__name__, held]}
    if hasattr(value, "__array__"):
        return array(np.asarray(value))
    raise TypeError(f"{type(value).__name__} is no plain data")


def _read(node: Any, chunks: list[bytes]) -> Any:
    if isinstance(node, list):
        return [_read(item, chunks) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, held),) = node.items()
    return _READERS[kind](held, chunks)


def _read_array(held: Any, chunks: list[bytes]) -> Any:
    place, dtype, shape = held
    found = np.frombuffer(chunks[place], dtype=np.dtype(dtype)).reshape(shape)
    return found.copy() if shape else found[()]


def _read_word(held: Any, chunks: list[bytes]) -> Any:
    name, values = held
    return _WORDS[name](**{field: _read(item, chunks) for field, item in values.items()})


def _read_error(held: Any, chunks: list[bytes]) -> OreloopError:
    kinds, arguments, told = held
    known = {kind.__name__: kind for kind in _descendants(OreloopError)}
    kind = next(known[name] for name in kinds if name in known)
    error = kind.__new__(kind)
    error.args = _read(arguments, chunks)
    vars(error).update({name: _read(item, chunks) for name, item in told})
    return error


def _descendants(kind: type[OreloopError]) -> Iterator[type[OreloopError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _descendants(below)


_READERS: dict[str, Callable[[Any, list[bytes]], Any]] = {
    "failure": lambda held, chunks: FailureKind(held),
    "tuple": lambda held, chunks: tuple(_read(item, chunks) for item in held),
    "map": lambda held, chunks: {_read(key, chunks): _read(item, chunks) for key, item in held},
    "bytes": lambda held, chunks: chunks[held],
    "path": lambda held, chunks: PurePath(held),
    "crystal": lambda held, chunks: Crystal.from_bytes(chunks[held]),
    "array": _read_array,
    "word": _read_word,
    "error": _read_error,
}
