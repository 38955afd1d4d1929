"""The pages under docs/reference, from the code: ``python docs/generate.py``. A test holds them against the code."""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

import oreloop
from campaign.backtest.config import BacktestConfig
from campaign.cli import app
from campaign.schema import CampaignConfig
from campaign.study.config import StudyConfig

REFERENCE = Path(__file__).parent / "reference"
GROUPS = ("generators", "oracles", "surrogates", "classifiers", "committees", "screens", "embedders")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings models that a type holds, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def rows(model: type[BaseModel], prefix: str = "", seen: tuple[type[BaseModel], ...] = ()) -> Iterator[tuple[str, str, str]]:
    """Dotted key, default and description of every setting, those of inner models below their key."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = [found for found in models_in(field.annotation) if found not in seen]
        about = inner[0].__doc__ or "" if inner else ""
        yield key, "" if inner and field.default is not None else default_of(field), field.description or about
        for found in inner:
            many = "[]" if "tuple" in str(field.annotation) and found in models_in(field.annotation) else ""
            of = f"{word_of(found)}: " if len(inner) > 1 else ""
            yield from ((below, value, f"{of}{told}") for below, value, told in rows(found, f"{key}{many}.", (*seen, found)))


def word_of(model: type[BaseModel]) -> str:
    """The ``use`` that chooses a model among several, or its name."""
    field = model.model_fields.get("use")
    words = get_args(field.annotation) if field is not None else ()
    return f"`{words[0]}`" if words else model.__name__


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[call-arg, misc]
    return "" if value is None or value in ((), {}) else f"`{value}`"


def table(model: type[BaseModel]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, text in rows(model):
        told = " ".join(text.split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {default.replace('|', chr(92) + '|')} | {told} |")
    return "\n".join(lines)


def config_page() -> str:
    return f"# Every key of a campaign's YAML\n\nUnits stand in the meaning. `[]` marks a list.\n\n{table(CampaignConfig)}\n"


def studies_page() -> str:
    return (
        "# Every key of a study's and of a backtest's YAML\n\nUnits stand in the meaning. `[]` marks a list.\n\n"
        f"## A study\n\n{table(StudyConfig)}\n\n## A backtest\n\n{table(BacktestConfig)}\n"
    )


def plugins_page() -> str:
    parts = ["# Settings of the plug-ins that ship\n\nWhat goes under `params:` of each `use:`."]
    for group in GROUPS:
        entries: list[EntryPoint] = sorted(entry_points(group=f"oreloop.{group}"), key=lambda entry: entry.name)
        if not entries:
            continue
        parts.append(f"## {group.capitalize()}")
        for entry in entries:
            plugin = entry.load()
            config = getattr(plugin, "Config", None)
            parts.append(f"### `{entry.name}`\n\n{table(config) if config is not None and config.model_fields else 'No settings.'}")
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
                    name = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
                    default = "required" if parameter.required else "" if parameter.default in (None, ()) else f"`{parameter.default}`"
                    lines.append(f"| `{name}` | {default} | {' '.join((parameter.help or '').split())} |")
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
            parts += [f"### `{name}.{member}{_call(value)}`\n\n{inspect.getdoc(value)}" for member, value in _members(found)]
    return "\n\n".join(parts).replace("``", "`") + "\n"


def _call(found: Any) -> str:
    """The signature without types, as they are long; empty where there is none to be called."""
    if isinstance(found, property) or not callable(found) or getattr(found, "_is_protocol", False) or _is_enum(found):
        return ""
    try:
        parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in inspect.signature(found).parameters.values()]
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
        if not name.startswith("_") and (callable(inner) or isinstance(value, property)) and inspect.getdoc(value):
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
