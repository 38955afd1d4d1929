"""Settings of all models of a tree and options of its commands: run in the tree by
`benchmarks.house`, with the packages as arguments.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import typer
from pydantic import BaseModel


def load(packages: list[str]) -> None:
    """Every module; those whose libraries are missing are left out."""
    for package in packages:
        for module in pkgutil.walk_packages([package], f"{package}."):
            try:
                importlib.import_module(module.name)
            except Exception as error:
                print(f"{module.name}: {error}", file=sys.stderr)


def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in model.__subclasses__():
        yield child
        yield from below(child)


def settings(packages: list[str]) -> int:
    """Own fields of each model."""
    models = {m for m in below(BaseModel) if m.__module__.partition(".")[0] in packages}
    own = [set(inspect.get_annotations(m)) & set(m.model_fields) for m in models]
    return sum(map(len, own))


def options(command: Any, context: Any) -> int:
    """Of a command and all below it, without --help."""
    own = sum(p.param_type_name == "option" and p.name != "help" for p in command.params)
    children = command.list_commands(context) if hasattr(command, "list_commands") else ()
    return int(own) + sum(options(command.get_command(context, name), context) for name in children)


if __name__ == "__main__":
    sys.path.insert(0, ".")
    load(sys.argv[1:])
    from campaign.cli import app

    command = typer.main.get_command(app)
    context = command.context_class(command)
    print(json.dumps({"settings": settings(sys.argv[1:]), "options": options(command, context)}))
