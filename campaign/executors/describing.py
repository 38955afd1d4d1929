"""What an oracle says of itself, told from inside its interpreter (the other side of
``campaign.interpreters``).
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import nullcontext
from importlib.metadata import distributions
from typing import Any

from pydantic import BaseModel

from campaign import plugins
from campaign.errors import InputError, OreloopError
from campaign.executors import wire
from campaign.parameters import without_downloads
from campaign.protocols import EvaluatesMany, HasTrial, Oracle, PluginSpec

_STATED = ("elements", "relaxes_volume", "asks_committee", "energy_zero")


def describe(reader: int, writer: int) -> None:
    """Answer the one request that comes in."""
    with os.fdopen(reader, "rb") as asked:
        request = wire.unpack(asked.read())
    sys.path += [folder for folder in request["search_path"] if folder not in sys.path]
    plugins.learn_names(request["names"])
    answer: Any
    with nullcontext() if request["may_download"] else without_downloads():
        try:
            answer = _description(request["plugin"])
        except OreloopError as error:
            answer = error
        except Exception as error:
            answer = InputError(
                f"{request['plugin'].use} cannot be made: {type(error).__name__}: {error}"
            )
    with os.fdopen(writer, "wb") as answers:
        answers.write(wire.pack(answer))


def _description(spec: PluginSpec) -> dict[str, Any]:
    reason = plugins.unavailable(spec)
    if reason:
        raise InputError(reason)
    oracle = plugins.build(spec)
    if not isinstance(oracle, Oracle):
        raise InputError(f"{spec.use} is no oracle: it needs `quantities` and `evaluate(crystal)`")
    if isinstance(oracle, HasTrial):
        oracle.trial(spec.elements)
    config = getattr(plugins.load(spec), "Config", None)
    has_settings = isinstance(config, type) and issubclass(config, BaseModel)
    return {
        "quantities": tuple(oracle.quantities),
        "fidelity": plugins.fidelity_of(oracle, spec),
        "stated": {
            name: _plain(getattr(oracle, name)) for name in _STATED if hasattr(oracle, name)
        },
        "evaluates_many": isinstance(oracle, EvaluatesMany),
        "settings": tuple(config.model_fields) if has_settings and config is not None else None,
        "versions": {
            "python": platform.python_version(),
            **{item.name: item.version for item in distributions()},
        },
    }


def _plain(value: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, frozenset | set) else value
