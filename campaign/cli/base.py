"""What all commands of ``oreloop`` share: the program, its consoles, and how errors are told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from campaign import __version__
from campaign.errors import OreloopError
from campaign.views.terminal import PlainConsole, PlainHandler

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Active-learning campaigns for materials discovery.",
)
console = PlainConsole()
errors = PlainConsole(stderr=True)

INTERRUPTED = 130
ConfigOrFolder = Annotated[Path, typer.Argument(help="A campaign's YAML config or its folder.")]
Folder = Annotated[Path, typer.Argument(help="A campaign's folder.")]


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one clear message and their exit code."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OreloopError as error:
            whole = not errors.is_terminal
            errors.print(errors.styled("error:", "bold red"), error.message, soft_wrap=whole)
            if error.hint:
                errors.print(errors.styled("what to do:", "bold"), error.hint, soft_wrap=whole)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            errors.print("stopped at once; run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from error

    return wrapped


def campaign_of(path: Path, folder: Path | None = None) -> Any:
    from campaign.api import Campaign

    return Campaign.open(path) if path.is_dir() else Campaign.from_config(path, folder)


def config_of(path: Path) -> Any:
    """A config, with the versions that its registered models mean now."""
    from campaign.config import loaded as configs
    from campaign.tracking.registry import pinned

    return pinned(configs.read(path))


def view_of(path: Path) -> Any:
    """A campaign to look at: as it was last run, so that nothing but its folder is needed."""
    from campaign.api import CONFIG_COPY, Campaign

    campaign = campaign_of(path)
    return Campaign.open(campaign.folder) if (campaign.folder / CONFIG_COPY).exists() else campaign


def _print_version(is_asked: bool) -> None:
    if is_asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[PlainHandler(errors)],
    )
    for name in ("alembic", "matplotlib", "urllib3", "git", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


def main() -> None:
    app()
