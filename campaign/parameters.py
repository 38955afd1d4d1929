"""What plug-ins' parameters need to know: where the config lies, and whether what they lack may be downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from campaign.protocols import PluginSpec


def _from_config_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path.expanduser()


ConfigPath = Annotated[Path, AfterValidator(_from_config_folder)]
"""A file or folder; a relative path starts at the config's folder."""


def _ordered(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] <= window[1]:
        raise ValueError(f"expected the least value and then the largest, found {window[0]:g} and {window[1]:g}")
    return window


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Open = Annotated[float, Field(allow_inf_nan=True)]
Window = Annotated[tuple[_Finite, _Finite], AfterValidator(_ordered)]
"""The least and the largest value, in this order."""
OpenWindow = Annotated[tuple[_Open, _Open], AfterValidator(_ordered)]
"""The same, where either may be infinite."""


class PlacedSettings(BaseModel):
    """Settings that know the config's folder, from which what they name by text alone is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def truths_for_numbers(given: Any, taken: Any, location: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where truth values were given and numbers taken: nobody means 1 by true."""
    if isinstance(given, bool):
        if isinstance(taken, int | float) and not isinstance(taken, bool):
            yield location
    elif isinstance(given, Mapping):
        for name, value in given.items():
            part = taken.get(name) if isinstance(taken, Mapping) else getattr(taken, str(name), None)
            yield from truths_for_numbers(value, part, (*location, name))
    elif isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        for place, (value, part) in enumerate(zip(given, taken, strict=False)):
            yield from truths_for_numbers(value, part, (*location, place))


_may_download: ContextVar[bool] = ContextVar("may_download", default=True)


def may_download() -> bool:
    """Whether a component may fetch what it lacks, such as a model's weights, when it is built."""
    return _may_download.get()


@contextmanager
def without_downloads() -> Iterator[None]:
    """Components that are built in this block fetch nothing; what they lack is told and counts as unknown."""
    token = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(token)
