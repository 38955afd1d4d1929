"""Commands that show what campaigns hold, and write it to files."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from campaign.cli.base import ConfigOrFolder, app, campaign_of, command, console, view_of
from campaign.errors import InputError


@app.command()
@command
def report(source: ConfigOrFolder) -> None:
    """Write the report: one HTML file that opens offline."""
    from campaign.report import write_report

    campaign = view_of(source)
    with campaign.view() as view:
        console.print(str(write_report(view, campaign.folder)), soft_wrap=True)


@app.command()
@command
def compare(
    sources: Annotated[
        list[Path], typer.Argument(help="Configs or campaign folders, two or more.")
    ],
    target: Annotated[Path, typer.Option(help="The page.")] = Path("comparison.html"),
) -> None:
    """Two or more campaigns of one objective in one report."""
    from campaign.report.compare import write_comparison

    console.print(str(write_comparison([view_of(source) for source in sources], target)))


@app.command()
@command
def explain(
    source: ConfigOrFolder,
    candidate: Annotated[str, typer.Argument(help="A candidate's id or its first digits.")],
) -> None:
    """The whole story of one candidate."""
    from campaign.views.explain import resolve, story

    campaign = view_of(source)
    with campaign.view() as view:
        table = Table.grid(padding=(0, 2))
        for heading, line in story(view, resolve(view.state, candidate)):
            table.add_row(console.styled(heading, "bold"), line)
        console.print(table)


@app.command()
@command
def export(
    source: ConfigOrFolder,
    target: Annotated[
        Path | None, typer.Option(help="Folder to write to; <campaign>/export by default.")
    ] = None,
    formats: Annotated[
        str, typer.Option(help="Comma-separated: extxyz, cif, ase, parquet.")
    ] = "extxyz,cif,ase,parquet",
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle", help="Write an evidence bundle, for `oreloop verify`, in place of these."
        ),
    ] = False,
) -> None:
    """Write all labels with their units as extxyz, CIF, ASE database and parquet; or an evidence
    bundle.
    """
    from campaign.bundle import write_bundle
    from campaign.views.export import export as write_export

    campaign = view_of(source)
    with campaign.view() as view:
        if bundle:
            place = target or campaign.folder / "bundle"
            fingerprint = write_bundle(view, place)
            console.print(f"{place}\nfingerprint {fingerprint}")
            return
        wanted = tuple(name.strip() for name in formats.split(",") if name.strip())
        for path in write_export(
            view.state, view.reader, target or campaign.folder / "export", wanted, view.wanted
        ):
            console.print(str(path))


@app.command()
@command
def verify(
    bundle: Annotated[Path, typer.Argument(help="A folder that `oreloop export --bundle` wrote.")],
    sample: Annotated[
        int, typer.Option(min=0, help="How many of the best labels are made again.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, help="Maximum relative change (1), beside three times the stated noise."
        ),
    ] = 1e-3,
    fingerprint: Annotated[str, typer.Option(help="The bundle's fingerprint, as published.")] = "",
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run oracles whose code came with the bundle.")
    ] = False,
) -> None:
    """Check an evidence bundle: files, tables against the history, and some of the best labels made
    again.
    """
    from campaign.bundle import verify as checks

    table = Table("check", "result", "what was found", title=str(bundle))
    has_failed = False
    for check in checks(
        bundle,
        sample=sample,
        seed=seed,
        tolerance=tolerance,
        fingerprint=fingerprint,
        runs_code=run_code,
    ):
        colour = {"passed": "green", "failed": "bold red", "skipped": "yellow"}[check.status]
        table.add_row(check.name, console.styled(check.status, colour), check.detail)
        has_failed |= check.status == "failed"
    console.print(table)
    if has_failed:
        raise typer.Exit(InputError.exit_code)


@app.command()
@command
def recover(
    source: ConfigOrFolder,
    folder: Annotated[
        Path | None,
        typer.Option(help="Campaign folder beside a config; campaigns/<name> here by default."),
    ] = None,
) -> None:
    """Rebuild a damaged, emptied or older ledger from its journal and what can be read of its
    database; where `ledger.url` changed, name the config.
    """
    from campaign.ledger import recover as recovering

    if source.is_dir():
        found = recovering.recover(source)
    else:
        campaign = campaign_of(source, folder)
        found = recovering.rebuild(campaign.folder, campaign.loaded.config.ledger.url)
    for line in found.lines():
        console.print(line)
    for path in found.set_aside:
        console.print(f"the old file is kept as {path}")


@app.command()
@command
def ui(
    source: ConfigOrFolder,
    port: Annotated[
        int | None,
        typer.Option(help="Port on loopback; 5000 by default, another where that is taken."),
    ] = None,
) -> None:
    """Open the campaign's MLflow pages on this machine; where its tracking is a server's, tell the
    link.
    """
    from campaign.tracking import ui as pages
    from campaign.tracking.places import tracking_uri

    campaign = view_of(source)
    uri = tracking_uri(campaign.loaded.config.tracking.uri, campaign.folder)
    tracking = campaign.state().tracking
    run = tracking.run if tracking is not None else None
    if pages.is_served(uri):
        console.print(pages.link(uri, uri, run), soft_wrap=True)
        return
    number = pages.free_port(port)
    if port is None and number != pages.USUAL_PORT:
        console.print(f"port {pages.USUAL_PORT} is taken, MLflow starts on {number}")
    with suppress(KeyboardInterrupt), pages.served(uri, number) as server:
        console.print(
            f"{pages.link(uri, f'http://127.0.0.1:{number}', run)}\nCtrl-C ends it", soft_wrap=True
        )
        server.wait()


@app.command()
@command
def schema() -> None:
    """Print the JSON Schema of configs: every key with its unit and default."""
    from campaign.config.schema import CampaignConfig

    sys.stdout.write(json.dumps(CampaignConfig.model_json_schema(), indent=2) + "\n")
