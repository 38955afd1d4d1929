"""Commands of what is installed: its state, the checks of each port, training, and the commands
that adapters bring.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import typer
from rich.table import Table

from campaign import __version__
from campaign.cli.base import app, command, console


class _TrainsByDefault(typer.core.TyperGroup):
    """`oreloop train GENERATOR` is `oreloop train generator GENERATOR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = ["generator", *args]
        return super().parse_args(ctx, args)


@app.command()
@command
def doctor() -> None:
    """What is installed and works, and what each missing part would give."""
    from campaign.cli.doctor import examine

    table = Table("", "part", "state")
    for finding in examine():
        table.add_row("ok" if finding.is_fine else "-", finding.name, finding.detail)
    console.print(table)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


def _add_commands_of_adapters() -> None:
    """Hang the commands that adapters bring (entry points ``oreloop.commands``; ``train mace`` is
    ``mace`` below ``train``) on the CLI.
    """
    from campaign import plugins

    groups = {"train": _train_app()}
    generators = frozenset(plugins.known("generators"))
    for entry in sorted(entry_points(group="oreloop.commands"), key=lambda entry: entry.name):
        group, _, name = entry.name.rpartition(" ")
        if group == "train" and name in generators:
            continue
        if group and group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, help=f"{group.capitalize()} models.")
            app.add_typer(groups[group], name=group)
        (groups[group] if group else app).command(name)(command(entry.load()))


def _train_app() -> typer.Typer:
    """`oreloop train GENERATOR SOURCE TARGET`; models that are no generators have commands of their
    own.
    """
    from campaign.cli import pretraining

    group = typer.Typer(
        no_args_is_help=True,
        cls=_TrainsByDefault,
        help="Train models: `oreloop train GENERATOR SOURCE TARGET`.",
    )
    group.command("generator")(command(pretraining.train))
    app.add_typer(group, name="train")
    return group


def _add_checks() -> None:
    """``oreloop oracle check`` and those of the other ports."""
    from campaign.cli import checking

    for port, check in checking.COMMANDS.items():
        group = typer.Typer(no_args_is_help=True, help=f"{port.capitalize()}s.")
        group.command("check")(command(check))
        app.add_typer(group, name=port)


_add_checks()
_add_commands_of_adapters()
