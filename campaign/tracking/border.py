"""What reaches MLflow: names in the characters that it takes, finite numbers, texts in its lengths,
in batches of its size.

A name from a plug-in may hold anything. What MLflow refuses is written as ``_xHEX_``, so that two
names never become one; what it refuses all the same is left out alone, with a warning, and holds
nothing else back.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from campaign.reading.passwords import without_password
from campaign.text import storable

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_REFUSED = re.compile(r"[^A-Za-z0-9_./:\- ]|_(?=x[0-9a-f]*_)")
_NOWHERE = {"": "_x_", ".": "_x2e_", "..": "_x2e__x2e_"}
_LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG, _LONGEST_RUN_NAME = 250, 6000, 5000, 250
_TRIAL = "oreloop.trial"
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100


def name_of(text: str) -> str:
    """The name of a metric, parameter or tag, one to one: other characters as ``_xHEX_``, parts of
    a path that mean another place too.
    """
    name = _REFUSED.sub(lambda match: _escaped(match[0]), text)
    name = "/".join(_NOWHERE.get(part, part) for part in name.split("/"))
    if len(name) > _LONGEST_NAME:
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        name = f"{name[: _LONGEST_NAME - len(digest) - 1].rstrip('/')}_{digest}"
    return name


def _escaped(characters: str) -> str:
    return "".join(f"_x{ord(character):x}_" for character in characters)


def value_of(text: object, longest: int = _LONGEST_TAG) -> str:
    """The value of a tag, whole or its beginning."""
    plain: str = storable(without_password(str(text))).replace("\0", "\\x00")
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."


def param_of(value: object) -> str:
    """The value of a parameter, whole or its beginning."""
    return value_of(value, _LONGEST_PARAM)


def log_values(
    client: MlflowClient,
    run: str,
    figures: Mapping[str, float],
    *,
    time: int,
    step: int,
    params: Mapping[str, object] | None = None,
    refused: set[str] | None = None,
) -> None:
    """Log the finite of some figures, and parameters. ``time`` in ms since the epoch; names in
    ``refused`` were told of already, and new ones are added.
    """
    told = set() if refused is None else refused
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    metrics = [
        Metric(name_of(name), float(value), time, step)
        for name, value in figures.items()
        if math.isfinite(value)
    ]
    settings = [Param(name_of(name), param_of(value)) for name, value in (params or {}).items()]
    batches: list[tuple[list[Metric], list[Param]]] = [
        (metrics[i : i + _METRICS_AT_ONCE], []) for i in range(0, len(metrics), _METRICS_AT_ONCE)
    ]
    batches += [
        ([], settings[i : i + _PARAMS_AT_ONCE]) for i in range(0, len(settings), _PARAMS_AT_ONCE)
    ]
    for some, others in batches:
        try:
            client.log_batch(run, metrics=some, params=others)
        except MlflowException:
            if not takes(client, run):
                raise
            for item in (*some, *others):
                _log_alone(client, run, item, told)


def takes(client: MlflowClient, run: str) -> bool:
    """Whether the server takes anything for a run now, so that what it refused is itself to
    blame.
    """
    try:
        client.set_tag(run, _TRIAL, "true")
        client.delete_tag(run, _TRIAL)
    except Exception:
        return False
    return True


def _log_alone(client: MlflowClient, run: str, item: Any, told: set[str]) -> None:
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    try:
        client.log_batch(run, **{"metrics" if isinstance(item, Metric) else "params": [item]})
    except MlflowException as error:
        if not takes(client, run):
            raise
        if item.key not in told:
            told.add(item.key)
            log.warning(
                "MLflow refuses %s, which is left out: %s",
                item.key,
                without_password(str(error).splitlines()[0]),
            )


def tags_of(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as MLflow takes them."""
    return {name_of(name): value_of(value) for name, value in tags.items()}


def begin(
    client: MlflowClient,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    start: int | None = None,
) -> str:
    """A new run's id. ``start`` in ms since the epoch."""
    made = client.create_run(
        experiment, start_time=start, tags=tags_of(tags), run_name=value_of(name, _LONGEST_RUN_NAME)
    )
    return str(made.info.run_id)
