"""The command ``oreloop potentials``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from campaign.errors import InputError
from campaign.interpreters import surroundings
from campaign.views.terminal import PlainConsole

_OWN = Path(".venv-sevennet/bin/python")
_LOOK = (
    "import importlib.util, json, sys; found = {name: importlib.util.find_spec(name) for name "
    "in sys.argv[1:]}; "
    "print('\\n' + json.dumps({name: list(spec.submodule_search_locations or []) for name, "
    "spec in found.items() if spec}))"
)


def potentials(
    elements: Annotated[
        list[str] | None, typer.Argument(help="Only potentials that hold all of these elements.")
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="Interpreter that is looked into too; .venv-sevennet's by default."),
    ] = None,
) -> None:
    """Universal potentials, and the interatomic potentials that LAMMPS oracles know by name, with
    their elements and references.
    """
    wanted = set(elements or ())
    tables = [_universal(wanted, python), _interatomic(wanted)]
    console = PlainConsole()
    for table in tables:
        if table.row_count:
            console.print(table)
    if not any(table.row_count for table in tables):
        console.print(f"no potential holds {', '.join(sorted(wanted))}")


def _universal(wanted: Collection[str], python: Path | None) -> Table:
    from oracles.ase.potentials import POTENTIALS, home_of

    there = _homes([potential.module for potential in POTENTIALS.values()], python)
    table = Table(
        "use",
        "checkpoint",
        "level of theory",
        "elements",
        "licence",
        "package",
        "weights",
        title="universal potentials",
    )
    for name, potential in POTENTIALS.items():
        home = home_of(potential.module) or there.get(potential.module)
        place = (
            "here"
            if home_of(potential.module)
            else "in another interpreter"
            if home
            else "not here"
        )
        for checkpoint, about in potential.checkpoints.items():
            if about.elements is not None and not set(wanted) <= about.elements:
                continue
            file = potential.file_of(checkpoint, home)
            weights = "with the package" if about.path else "yours to bring"
            known = (
                f"{len(about.elements)}: all to Pu but Po At Rn Fr Ra"
                if about.elements
                else "see its package"
            )
            table.add_row(
                *(name, checkpoint, about.theory, known, potential.licence, place),
                "here" if file is not None and file.exists() else weights,
            )
    if not wanted:
        table.add_row(
            "mace",
            "foundation: NAME",
            "of the model",
            "of the model",
            "of the model",
            "here",
            "downloaded, or model: FILE",
        )
    return table


def _homes(modules: Collection[str], python: Path | None) -> dict[str, Path]:
    """The folders of modules in another interpreter. Raises InputError where one was named that
    does not answer.
    """
    asked = python or _OWN
    if python is None and not _OWN.exists():
        return {}
    try:
        command = [str(asked.expanduser()), "-c", _LOOK, *modules]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=surroundings((str(asked),)),
        )
        found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise InputError(
            f"{asked} gives no answer as a Python interpreter: {type(error).__name__}"
        ) from error
    return {name: Path(places[0]) for name, places in found.items() if places}


def _interatomic(wanted: Collection[str]) -> Table:
    from oracles.lammps.meam import builtin, builtin_names
    from oracles.lammps.potentials import Potential, shipped

    known: dict[str, Potential] = {name: builtin(name) for name in builtin_names()}
    known |= shipped()
    table = Table(
        "potential", "pair style", "elements", "reference", title="interatomic potentials of LAMMPS"
    )
    for name, potential in known.items():
        if set(wanted) <= set(potential.elements):
            table.add_row(name, potential.style, " ".join(potential.elements), potential.reference)
    return table
