"""Requests to the driver, each a small file in the campaign's folder: written whole, read as data,
and gone once the ledger holds it.

The file's name is the key of the event that it becomes, so that a request which a killed driver had
recorded and not removed yet counts once. One that cannot be taken is set aside under the same name,
with the reason.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from campaign.files import write_whole
from campaign.ledger import events as ev

log = logging.getLogger(__name__)

FOLDER = "controls"
_WAITING, _REFUSED = ".json", ".refused"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control that is asked for; what only the driver knows is not in it yet. ``crystals``:
    stored bytes by id.
    """

    control: ev.AnyControl
    crystals: dict[str, bytes] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Request).decode


def leave(folder: Path, request: Request) -> Path:
    """Leave a request for the driver; it is durable when this returns. Raises SurroundingsError
    where the folder cannot be written.
    """
    path = folder / FOLDER / f"{time.time_ns():020d}-{secrets.token_hex(4)}{_WAITING}"
    write_whole(path, _encode(request))
    return path


def key_of(path: Path) -> str:
    """The key of the event that a request becomes."""
    return f"control/{path.stem}"


def waiting(folder: Path) -> Iterator[tuple[Path, Request]]:
    """The requests that wait, the oldest first; what is none is set aside."""
    try:
        names = sorted(
            path
            for path in (folder / FOLDER).iterdir()
            if path.suffix == _WAITING and not path.name.startswith(".")
        )
    except OSError:
        return
    for path in names:
        try:
            yield path, _decode(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            refuse(path, f"it is no request: {error}")


def done(path: Path) -> None:
    """The ledger holds it. A file that stays where it was is harmless: its key is known."""
    with suppress(OSError):
        path.unlink()


def refuse(path: Path, message: str, hint: str = "") -> None:
    log.warning("the request %s cannot be taken: %s", path, message)
    with suppress(OSError):
        write_whole(path.with_suffix(_REFUSED), json.dumps([message, hint]).encode())
        path.unlink()


def refusal(path: Path) -> tuple[str, str] | None:
    """Why a request was set aside, and what to do, for who left it; None where it was not."""
    refused = path.with_suffix(_REFUSED)
    try:
        message, hint = json.loads(refused.read_bytes())
    except (OSError, ValueError):
        return None
    done(refused)
    return str(message), str(hint)
