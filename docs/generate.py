"""The pages under docs/reference, from the code: ``python docs/generate.py``. A test holds them
against the code.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

import oreloop
from campaign.backtest.config import BacktestConfig
from campaign.cli import app
from campaign.config.schema import CampaignConfig
from campaign.study.config import StudyConfig

REFERENCE = Path(__file__).parent / "reference"
GROUPS = (
    "generators",
    "oracles",
    "surrogates",
    "classifiers",
    "committees",
    "screens",
    "embedders",
)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings models that a type holds, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def rows(
    model: type[BaseModel], prefix: str = "", seen: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, str, str, str]]:
    """Dotted key, allowed values, default and description of every setting, those of inner models
    below their key.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = [found for found in models_in(field.annotation) if found not in seen]
        about = inner[0].__doc__ or "" if inner else ""
        default = "" if inner and field.default is not None else default_of(field)
        yield key, allowed(field.annotation, bounds(field)), default, field.description or about
        for found in inner:
            many = (
                "[]"
                if "tuple" in str(field.annotation) and found in models_in(field.annotation)
                else ""
            )
            of = f"{word_of(found)}: " if len(inner) > 1 else ""
            yield from (
                (below, *facts, f"{of}{told}")
                for below, *facts, told in rows(found, f"{key}{many}.", (*seen, found))
            )


_KINDS: dict[Any, str] = {
    bool: "`true`, `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}


def allowed(annotation: Any, limits: str = "") -> str:
    """The values that a type allows, in words; ``limits`` of its numbers."""
    if annotation in (int, float):
        return f"{_KINDS[annotation]}{limits}"
    if annotation in _KINDS:
        return _KINDS[annotation]
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "settings"
    if _is_enum(annotation):
        return ", ".join(f"`{member.value}`" for member in annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" if value != "" else "empty text" for value in inner)
    if origin is Annotated:
        limits = limits or _limits(
            [part for item in inner[1:] for part in (item, *getattr(item, "metadata", ()))]
        )
        return allowed(inner[0], limits)
    if origin in (Union, UnionType):
        return " or ".join(
            dict.fromkeys(allowed(item, limits) for item in inner if item is not type(None))
        )
    if origin in (tuple, list, frozenset) and (len(inner) == 1 or inner[1:] == (Ellipsis,)):
        return f"list of {allowed(inner[0], limits).replace('list of', 'lists of')}"
    if origin is tuple:
        return (
            f"list of {len(inner)} "
            f"({', '.join(dict.fromkeys(allowed(item, limits) for item in inner))})"
        )
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return (
            f"settings by name: {allowed(inner[1], limits)}"
            if inner[1] is not Any
            else "settings by name"
        )
    return "any"


_SIGNS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _limits(metadata: Iterable[Any]) -> str:
    """Bounds among the annotations of a type, in words."""
    found = [
        f"{word} {value:,}"
        for item in metadata
        for name, word in _SIGNS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def bounds(field: FieldInfo) -> str:
    """Bounds of a setting's numbers, in words."""
    return _limits(field.metadata)


def word_of(model: type[BaseModel]) -> str:
    """The ``use`` that chooses a model among several, or its name."""
    field = model.model_fields.get("use")
    words = get_args(field.annotation) if field is not None else ()
    return f"`{words[0]}`" if words else model.__name__


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[call-arg, misc]
    return "" if value is None or value in ((), {}, "") else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """A value as a config would hold it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | frozenset | set):
        return f"[{', '.join(_yaml(item) for item in (sorted(value) if isinstance(value, frozenset | set) else value))}]"  # noqa: E501
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_yaml(key)}: {_yaml(item)}' for key, item in value.items())}}}"
    return str(value)


def table(model: type[BaseModel]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, values, default, text in rows(model):
        told = " ".join(text.split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {values} | {default.replace('|', chr(92) + '|')} | {told} |")
    return "\n".join(lines)


def config_page() -> str:
    return (
        "# Every key of a campaign's YAML\n\nUnits stand in the meaning. `[]` marks a "
        f"list.\n\n{table(CampaignConfig)}\n"
    )


def studies_page() -> str:
    return (
        "# Every key of a study's and of a backtest's YAML\n\nUnits stand in the meaning. `[]` "
        "marks a list.\n\n"
        f"## A study\n\n{table(StudyConfig)}\n\n## A backtest\n\n{table(BacktestConfig)}\n"
    )


def plugins_page() -> str:
    parts = ["# Settings of the plug-ins that ship\n\nWhat goes under `params:` of each `use:`."]
    for group in GROUPS:
        entries: list[EntryPoint] = sorted(
            entry_points(group=f"oreloop.{group}"), key=lambda entry: entry.name
        )
        if not entries:
            continue
        parts.append(f"## {group.capitalize()}")
        for entry in entries:
            plugin = entry.load()
            config = getattr(plugin, "Config", None)
            parts.append(
                f"### `{entry.name}`\n\n{table(config) if config is not None and config.model_fields else 'No settings.'}"  # noqa: E501
            )
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    parts = ["# Every command"]

    def add(command: Any, path: str) -> None:
        children = getattr(command, "commands", None)
        if path != "oreloop":
            parts.append(f"## `{path}`\n\n{' '.join((command.help or '').split())}")
            shown = [parameter for parameter in command.params if parameter.name != "help"]
            if shown:
                lines = ["| argument | default | meaning |", "|---|---|---|"]
                for parameter in shown:
                    name = (
                        ", ".join(parameter.opts)
                        if parameter.param_type_name == "option"
                        else parameter.name.upper()
                    )
                    default = (
                        "required"
                        if parameter.required
                        else ""
                        if parameter.default in (None, ())
                        else f"`{parameter.default}`"
                    )
                    lines.append(
                        f"| `{name}` | {default} | {' '.join((parameter.help or '').split())} |"
                    )
                parts.append("\n".join(lines))
        for name, child in (children or {}).items():
            add(child, f"{path} {name}")

    add(get_command(app), "oreloop")
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    parts = ["# Every name of `import oreloop`"]
    for name in (name for name in oreloop.__all__ if not name.startswith("_")):
        found = getattr(oreloop, name)
        parts.append(f"## `{name}{_call(found)}`\n\n{inspect.getdoc(found) or ''}")
        if inspect.isclass(found):
            parts += [
                f"### `{name}.{member}{_call(value)}`\n\n{inspect.getdoc(value)}"
                for member, value in _members(found)
            ]
    return "\n\n".join(parts).replace("``", "`") + "\n"


def _call(found: Any) -> str:
    """The signature without types, as they are long; empty where there is none to be called."""
    if (
        isinstance(found, property)
        or not callable(found)
        or getattr(found, "_is_protocol", False)
        or _is_enum(found)
    ):
        return ""
    try:
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in inspect.signature(found).parameters.values()
        ]
    except ValueError:
        return ""
    kept = [parameter for parameter in parameters if parameter.name != "self"]
    return str(inspect.Signature([_shown(parameter) for parameter in kept]))


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    is_long = "object at" in repr(parameter.default) or "<factory>" in repr(parameter.default)
    return parameter.replace(default=Ellipsis) if is_long else parameter


def _is_enum(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, enum.Enum)


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties of its own that are told of."""
    for name, value in vars(found).items():
        inner = getattr(value, "__func__", value)
        if (
            not name.startswith("_")
            and (callable(inner) or isinstance(value, property))
            and inspect.getdoc(value)
        ):
            yield name, value if isinstance(value, property) else inner


def pages() -> dict[str, str]:
    return {
        "config.md": config_page(),
        "studies.md": studies_page(),
        "plugins.md": plugins_page(),
        "commands.md": commands_page(),
        "python.md": python_page(),
    }


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
    sys.stdout.write(f"wrote {', '.join(pages())} in {REFERENCE}\n")


if __name__ == "__main__":
    main()
