"""What plug-ins' parameters need to know: where the config lies, and whether what they lack may be
downloaded.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from campaign.protocols import PluginSpec

log = logging.getLogger(__name__)


def _from_config_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path.expanduser()


ConfigPath = Annotated[Path, AfterValidator(_from_config_folder)]
"""A file or folder; a relative path starts at the config's folder."""


MODEL = re.compile(
    r"models:/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)"
    r"(?:@(?P<alias>[A-Za-z0-9][A-Za-z0-9._-]*)|/(?P<version>\d+))"
)
"""A model of MLflow's registry, by alias or version."""


def registered_file(folder: Path, name: str, version: str) -> Path:
    """Where a registered version's weights lie beside a config."""
    return folder / "registered_models" / name / f"{version}.safetensors"


def _weights(path: Path, info: ValidationInfo) -> Path:
    found = MODEL.fullmatch(str(path))
    if found is None:
        return _from_config_folder(path, info)
    if found["version"] is None:
        raise ValueError(
            f"{path} is a model by its alias, which a campaign's config may name; name a version "
            "here, as in models:/NAME/3"
        )
    folder = Path((info.context or {}).get("folder") or ".")
    return registered_file(folder, found["name"], found["version"])


WeightsPath = Annotated[Path, AfterValidator(_weights)]
"""A file of weights, or ``models:/NAME/VERSION`` of MLflow's registry; a campaign's config may name
``models:/NAME@ALIAS``.
"""


def _ordered(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] <= window[1]:
        raise ValueError(
            f"expected the least value and then the largest, found {window[0]:g} and {window[1]:g}"
        )
    return window


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Open = Annotated[float, Field(allow_inf_nan=True)]
Window = Annotated[tuple[_Finite, _Finite], AfterValidator(_ordered)]
"""The least and the largest value, in this order."""
OpenWindow = Annotated[tuple[_Open, _Open], AfterValidator(_ordered)]
"""The same, where either may be infinite."""


@dataclass(frozen=True)
class Former:
    """What a setting was called before, and its values where those have other names now too."""

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)


Formers = Mapping[str, Former]


class Parameters(BaseModel):
    """Settings of a plug-in or a part of the config: unknown ones are refused.

    ``former``: earlier names by those of today; ``gone``: settings that are no more, and the values
    that stood for nothing. Both are accepted for one version, with a warning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    former: ClassVar[Formers] = {}
    gone: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        taken = dict(values)
        for name, former in cls._all("former"):
            if former.name not in taken:
                continue
            if name in taken:
                raise ValueError(
                    f"{name} and {former.name} are one setting: leave {former.name} out"
                )
            value = taken.pop(former.name)
            taken[name] = former.values.get(value, value) if isinstance(value, str) else value
            if _tells.get():
                _tell_of(former.name, name)
        for name, nothing in cls._all("gone"):
            if name in taken and taken.pop(name) != nothing and _tells.get():
                log.warning("the setting %s is no more and does nothing: leave it out", name)
        return taken

    @classmethod
    def _all(cls, table: str) -> Iterator[tuple[str, Any]]:
        """Entries of a table, those of the classes that it extends too."""
        for base in cls.__mro__:
            yield from vars(base).get(table, {}).items()


_tells: ContextVar[bool] = ContextVar("tells", default=True)


@contextmanager
def as_recorded() -> Iterator[None]:
    """Earlier names are taken without a word in this block: nobody writes a ledger by hand."""
    token = _tells.set(False)
    try:
        yield
    finally:
        _tells.reset(token)


@cache
def _tell_of(former: str, name: str) -> None:
    log.warning(
        "the setting %s is called %s now; the old name goes with the next version", former, name
    )


class PlacedSettings(Parameters):
    """Settings that know the config's folder, from which what they name by text alone is found."""

    _folder: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _remember_folder(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder")
        return self


class PluginParameter(PlacedSettings):
    """A plug-in that another plug-in's parameters name, such as the descriptors of a surrogate."""

    use: str = Field(description="Name of an installed plug-in, or my_package.module:MyClass.")
    params: dict[str, Any] = Field(default_factory=dict, description="The plug-in's own settings.")

    def spec(self, group: str) -> PluginSpec:
        return PluginSpec(group=group, use=self.use, params=self.params, module_folder=self._folder)


def truths_for_numbers(
    given: Any, taken: Any, location: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    """Where truth values were given and numbers taken: nobody means 1 by true."""
    if isinstance(given, bool):
        if isinstance(taken, int | float) and not isinstance(taken, bool):
            yield location
    elif isinstance(given, Mapping):
        for name, value in given.items():
            part = (
                taken.get(name)
                if isinstance(taken, Mapping)
                else getattr(taken, _name_of_today(taken, str(name)), None)
            )
            yield from truths_for_numbers(value, part, (*location, name))
    elif isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        for place, (value, part) in enumerate(zip(given, taken, strict=False)):
            yield from truths_for_numbers(value, part, (*location, place))


def _name_of_today(settings: Any, name: str) -> str:
    """Of a setting that may have been given under an earlier one."""
    if not isinstance(settings, Parameters):
        return name
    former = settings._all("former")
    return next((today for today, before in former if before.name == name), name)


_may_download: ContextVar[bool] = ContextVar("may_download", default=True)


def may_download() -> bool:
    """Whether a component may fetch what it lacks, such as a model's weights, when it is built."""
    return _may_download.get()


@contextmanager
def without_downloads() -> Iterator[None]:
    """Components that are built in this block fetch nothing; what they lack is told and counts as
    unknown.
    """
    token = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(token)
