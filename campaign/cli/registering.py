"""The command ``oreloop register``: weights into MLflow's model registry."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from campaign.cli.base import app, command, console
from campaign.errors import InputError

Registry = Annotated[
    str | None,
    typer.Option(help="MLflow's URI, or a folder; MLFLOW_TRACKING_URI by default."),
]


@app.command()
@command
def register(
    source: Annotated[
        Path,
        typer.Argument(help="Weights that `oreloop train` wrote, or a campaign's folder."),
    ],
    target: Annotated[
        str, typer.Argument(help="NAME@ALIAS, as in pcdvae-nifecr@production; the alias moves.")
    ],
    generator: Annotated[
        str | None,
        typer.Option(help="Campaign: whose last published weights; needed where several learn."),
    ] = None,
    registry: Registry = None,
) -> None:
    """Register trained weights, so that `weights: models:/NAME@ALIAS` finds them."""
    data = _of_campaign(source, generator) if source.is_dir() else _of_file(source)
    registered(data, target, registry)


def registered(data: bytes, target: str, registry: str | None) -> None:
    """Register, and say as what."""
    from campaign.tracking.registry import register, registry_of, target_of

    wanted = target_of(target)
    version = register(registry_of(registry, Path.cwd()), wanted, data, Path.cwd())
    console.print(
        f"{wanted.name} version {version} is {wanted.alias}; "
        f"use it by weights: models:/{wanted.name}@{wanted.alias}"
    )


def _of_file(source: Path) -> bytes:
    if not source.is_file():
        raise InputError(
            f"expected weights or a campaign at {source}, found neither",
            hint="`oreloop train` writes weights",
        )
    return source.read_bytes()


def _of_campaign(folder: Path, generator: str | None) -> bytes:
    """The last weights that a generator of a campaign published."""
    from campaign.api import Campaign
    from campaign.ledger.artifacts import ArtifactStore

    with closing(Campaign.open(folder).reader()) as reader:
        state = reader.fold()
    last = {name: state.published(name) for name in list(state.checkpoints)}
    there = {name: event for name, event in last.items() if event is not None}
    if generator is None and len(there) == 1:
        (generator,) = there
    if generator is None or generator not in there:
        raise InputError(
            f"{folder}: expected a generator with published weights, got {generator or 'none'}; "
            f"there are: {', '.join(sorted(there)) or 'none'}",
            hint="name one by --generator",
        )
    return ArtifactStore(folder).path(there[generator].checkpoint).read_bytes()
