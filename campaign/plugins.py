"""Components by name: installed plug-ins through entry points, the user's own as ``module:Class``
beside the config.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from campaign.blame import PACKAGES, theirs, told
from campaign.errors import InputError, SurroundingsError
from campaign.parameters import truths_for_numbers
from campaign.protocols import HasFidelity, Oracle, PluginSpec
from campaign.reading.wording import mistakes
from campaign.types import Fidelity

_HARMLESS = frozenset({"__init__", "conftest", "docs", "examples", "setup", "test", "tests"})
"""Names that folders of code have beside the modules that are imported from them."""


class ParameterError(InputError):
    """The ``params`` of a component are wrong; ``problems`` are places in them with what is wrong
    there, ``known`` what they may hold.
    """

    def __init__(
        self, use: str, problems: list[tuple[tuple[str | int, ...], str]], known: tuple[str, ...]
    ) -> None:
        self.problems, self.known = problems, known
        lines = "; ".join(
            f"{'.'.join(map(str, where)) or 'params'}: {what}" for where, what in problems
        )
        super().__init__(f"{use}: {lines}", hint=f"its settings are: {', '.join(known) or 'none'}")


_GROUPS = ("oracles", "embedders")
"""Those that an oracle in an interpreter of its own may name."""
_told: dict[str, dict[str, str]] = {}


@cache
def _installed(group: str) -> dict[str, EntryPoint]:
    """By name, as they were when first asked for: reading what is installed takes 10 ms."""
    told = {
        name: EntryPoint(name, where, f"oreloop.{group}")
        for name, where in _told.get(group, {}).items()
    }
    return {
        entry.name: entry for entry in reversed(list(entry_points(group=f"oreloop.{group}")))
    } | told


def names_to_tell() -> dict[str, dict[str, str]]:
    """Where the plug-ins are that are known by name, by group: for an interpreter in which we are
    not installed.
    """
    return {
        group: {name: entry.value for name, entry in _installed(group).items()} for group in _GROUPS
    }


def learn_names(told: Mapping[str, Mapping[str, str]]) -> None:
    """Know the plug-ins of the interpreter that started this one by their names too."""
    _told.update({group: dict(names) for group, names in told.items()})
    _installed.cache_clear()


def known(group: str) -> list[str]:
    """Names of the installed plug-ins of a group (generators, surrogates, oracles, screens)."""
    return sorted(_installed(group))


def load(spec: PluginSpec) -> type[Any]:
    """The class of a component. Raises InputError for a name, module or class that is not there."""
    if ":" in spec.use:
        return _load_user_class(spec)
    entry = _installed(spec.group).get(spec.use)
    if entry is not None:
        loaded: type[Any] = entry.load()
        return loaded
    names = known(spec.group)
    nearest = difflib.get_close_matches(spec.use, names, n=1)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise InputError(
        f"there is no {spec.group.removesuffix('s')} called {spec.use!r}",
        hint=f"{suggestion}installed are {', '.join(names) or 'none'}; one of your own is "
        "written my_module:MyClass",
    )


def _load_user_class(spec: PluginSpec) -> type[Any]:
    module_name, _, class_name = spec.use.partition(":")
    _refuse_taken_names(spec)
    if spec.module_folder and spec.module_folder not in sys.path:
        sys.path.insert(0, spec.module_folder)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != module_name.partition(".")[0]:
            raise InputError(
                f"the module {module_name!r} of {spec.use} cannot be imported: {told(error)}",
                hint=f"install what holds {error.name!r}, or mend the import",
            ) from error
        raise InputError(
            f"cannot import {module_name!r} for {spec.use}: {error}",
            hint=f"put {module_name.replace('.', '/')}.py beside the config "
            f"({spec.module_folder}) or install its package",
        ) from error
    except Exception as error:
        raise InputError(
            f"the module {module_name!r} of {spec.use} cannot be imported: {told(error)}",
            hint=f"try it: python -c 'import {module_name}' in {spec.module_folder}",
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        nearest = difflib.get_close_matches(class_name, classes, n=1)
        raise InputError(
            f"{module_name} has no class {class_name!r}",
            hint=f"did you mean {nearest[0]!r}?" if nearest else "check the name",
        )
    return found


def _refuse_taken_names(spec: PluginSpec) -> None:
    """Raises InputError where a module beside the config has the name of one of Python's, or of an
    installed package.

    Which of the two is imported would depend on what was imported before, and who means the package
    would get the module.
    """
    home = Path(spec.module_folder).resolve() if spec.module_folder else None
    if home is None or home == Path(__file__).resolve().parent.parent:
        return
    for path in (*home.glob("*.py"), *(found.parent for found in home.glob("*/__init__.py"))):
        name = path.stem
        if name not in _HARMLESS and (whose := _owner(name, home)):
            raise InputError(
                f"{path} has the name of {whose}, {name!r}, which it would shadow",
                hint=f"rename it, as in my_{path.name}, and where it is used",
            )


@cache
def _owner(name: str, home: Path) -> str:
    """Whose name a module's is, beside that of the one in a folder; empty where it is free."""
    if name in sys.stdlib_module_names:
        return "a module of Python's own"
    elsewhere = [folder for folder in sys.path if folder and Path(folder).resolve() != home]
    found = importlib.machinery.PathFinder.find_spec(name, elsewhere)
    is_installed = (
        found is not None
        and found.origin is not None
        and "site-packages" in Path(found.origin).parts
    )
    return "an installed package" if name in PACKAGES or is_installed else ""


def build(spec: PluginSpec) -> Any:
    """An instance of a component.

    Raises ParameterError for wrong params, InterpreterError where its interpreter is no good,
    OwnCodeError where code of the user's fails.
    """
    if spec.python:
        from campaign.interpreters import elsewhere

        return elsewhere(spec)
    component = load(spec)
    config = getattr(component, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        with theirs():
            try:
                return component(**spec.params)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                    raise
                raise InputError(
                    f"{spec.use} cannot be made with params {dict(spec.params)}: {error}"
                ) from error
    try:
        settings = config.model_validate(
            dict(spec.params), context={"folder": spec.module_folder, "elements": spec.elements}
        )
    except ValidationError as error:
        problems = [
            (mistake.location, mistake.text) for mistake in mistakes(error, config, spec.params)
        ]
        raise ParameterError(spec.use, problems, tuple(config.model_fields)) from error
    if truths := list(truths_for_numbers(spec.params, settings)):
        problems = [(place, "expected a number, found true or false") for place in truths]
        raise ParameterError(spec.use, problems, tuple(config.model_fields))
    with theirs():
        return component(settings)


def known_settings(spec: PluginSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that a component has; all where it does not say which it has."""
    if spec.python:
        from campaign.interpreters import describe

        names = describe(spec).settings
        return (
            dict(settings)
            if names is None
            else {name: value for name, value in settings.items() if name in names}
        )
    config = getattr(load(spec), "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        return dict(settings)
    return {name: value for name, value in settings.items() if name in config.model_fields}


def fidelity_of(oracle: Oracle, spec: PluginSpec) -> Fidelity:
    """The oracle's own statement, or its name with all its parameters where it makes none."""
    if isinstance(oracle, HasFidelity):
        return oracle.fidelity
    return Fidelity(spec.use.rpartition(":")[2], dict(spec.params))


def unavailable(spec: PluginSpec) -> str:
    """Why a component's engine cannot run here, in one line; empty where it can, and where it runs
    in another interpreter.
    """
    if spec.python:
        return ""
    check = getattr(load(spec), "unavailable", None)
    return str(check()) if check is not None else ""


def check_installation() -> None:
    """Raises SurroundingsError where one of our packages is shadowed by another of the same
    name.
    """
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        folders = (
            [Path(folder).resolve().parent for folder in (found.submodule_search_locations or [])]
            if found
            else []
        )
        if home not in folders[:1]:
            raise SurroundingsError(
                f"the package {package!r} is found in {folders[0] if folders else 'no place'}, "
                f"not in oreloop's installation {home}",
                hint="rename or remove the folder or package of the same name that shadows it "
                "(see sys.path)",
            )
