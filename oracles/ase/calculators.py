"""ASE calculators made from words: ``module:Class`` with arguments, the weights that they read, the
package that they come from.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from operator import attrgetter
from pathlib import Path
from typing import Any

from campaign.errors import InputError

WEIGHTS, DEVICE = "{weights}", "{device}"
"""What stands in arguments for the weights and for the device that they go to."""
CALL = "call"

log = logging.getLogger(__name__)


def attribute(place: str) -> Any:
    """What ``module:Class`` or ``module:Class.method`` names. Raises InputError."""
    module, _, name = place.partition(":")
    try:
        return attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise InputError(
            f"{place} cannot be imported: there is no module {error.name!r} in this interpreter",
            hint="install its package there, or name the interpreter that has it with python: "
            "on the oracle",
        ) from error
    except AttributeError as error:
        raise InputError(
            f"{module} has no {name!r}",
            hint="write the calculator as module:Class or module:Class.method",
        ) from error
    except Exception as error:
        raise InputError(
            f"{place} cannot be imported: {type(error).__name__}: {error}",
            hint=f"try it: python -c 'import {module}'",
        ) from error


def filled(value: Any, weights: str | None, device: str) -> Any:
    """Arguments with weights and device in their places, and each ``{call: module:function,
    arguments: ...}`` as what it returns.
    """
    if value == WEIGHTS:
        if weights is None:
            raise InputError(
                f"the arguments ask for {WEIGHTS}, but there are none",
                hint="give weights: a file, or a name",
            )
        return weights
    if value == DEVICE:
        return device
    if isinstance(value, list | tuple):
        return [filled(item, weights, device) for item in value]
    if isinstance(value, Mapping):
        inside = {key: filled(item, weights, device) for key, item in value.items() if key != CALL}
        return (
            attribute(str(value[CALL]))(**inside.get("arguments", {})) if CALL in value else inside
        )
    return value


def make(place: str, arguments: Mapping[str, Any], weights: str | None, device: str) -> Any:
    """A calculator. Raises InputError where it cannot be made."""
    maker = attribute(place)
    told = io.StringIO()
    try:
        with redirect_stdout(told):
            made = maker(**filled(dict(arguments), weights, device))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the calculator {place} cannot be made: {type(error).__name__}: {error}",
            hint="see its arguments and its weights",
        ) from error
    log.debug("%s: %s", place, told.getvalue())
    if not hasattr(made, "get_potential_energy"):
        raise InputError(f"{place} makes a {type(made).__name__}, which is no ASE calculator")
    return made


def sha256_of(path: Path) -> str:
    """Of a file, or of a folder's files with their names. Raises InputError where it cannot be
    read.
    """
    try:
        if path.is_dir():
            parts = [
                (str(file.relative_to(path)), sha256_of(file))
                for file in sorted(path.rglob("*"))
                if file.is_file()
            ]
            return hashlib.sha256(repr(parts).encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"the weights {path} cannot be read: {error.strerror}",
            hint="give the path of the potential's file",
        ) from error


def package_of(place: str) -> dict[str, str]:
    """The distribution that a calculator comes from with its version; of a module that no
    distribution holds, the hash of its file.
    """
    module = place.partition(":")[0]
    names = packages_distributions().get(module.partition(".")[0], [])
    if names:
        return {"package": names[0], "version": version(names[0])}
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        raise InputError(
            f"the calculator {place} cannot be imported: there is no module {module!r} in this "
            "interpreter",
            hint="install its package there, or name the interpreter that has it with python: "
            "on the oracle",
        )
    return {"code_sha256": sha256_of(Path(found.origin))} if Path(found.origin).is_file() else {}


def version_of(distribution: str) -> str:
    """Empty where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
