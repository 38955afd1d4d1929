"""The command ``oreloop potentials``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from campaign.terminal import PlainConsole


def potentials(
    elements: Annotated[list[str] | None, typer.Argument(help="Only potentials that hold all of these elements.")] = None,
) -> None:
    """The interatomic potentials that LAMMPS oracles know by name, with their elements and references."""
    from oracles.lammps.meam import builtin, builtin_names
    from oracles.lammps.potentials import Potential, shipped

    known: dict[str, Potential] = {name: builtin(name) for name in builtin_names()}
    known |= shipped()
    table = Table("potential", "pair style", "elements", "reference")
    for name, potential in known.items():
        if set(elements or ()) <= set(potential.elements):
            table.add_row(name, potential.style, " ".join(potential.elements), potential.reference)
    PlainConsole().print(table if table.row_count else f"no potential holds {', '.join(elements or ())}")
