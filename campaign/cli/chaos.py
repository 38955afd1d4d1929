"""The command ``oreloop chaos``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from campaign.cli.base import app, command, config_of, console, errors
from campaign.errors import InputError
from campaign.views.terminal import progress

if TYPE_CHECKING:
    from campaign.testing.outcome import Row


@app.command()
@command
def chaos(
    config: Annotated[Path, typer.Argument(help="A campaign's YAML config.")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Faults whose names hold this; may be given several times."),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="serial or ray; the config's own by default.")
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Seconds after which a session that has not ended is called stuck; 240 serial, "
            "360 on Ray by default.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for what the sessions of faults with problems printed."),
    ] = None,
) -> None:
    """Break a small copy of a campaign on purpose, with stand-ins for its oracles: kill, stop, fill
    and flip, and see what held.
    """
    from campaign.files import write_whole
    from campaign.testing.chaos import broken, executor_of, faults_of
    from campaign.text import file_name

    if executor not in (None, "serial", "ray"):
        raise InputError(f"expected --executor serial or ray, got {executor}")
    loaded = config_of(config)
    used: Any = executor or executor_of(loaded)
    faults = faults_of(used, only or ())
    rows: list[Row] = []
    with progress(errors) as bar:
        task = bar.add_task("chaos", total=len(faults))
        for row in broken(
            loaded,
            faults,
            used,
            limit_seconds=limit,
            on_fault=lambda name: bar.update(task, description=name),
        ):
            rows.append(row)
            bar.advance(task)
            if output is not None and row["problems"]:
                output.mkdir(parents=True, exist_ok=True)
                path = output / f"{file_name(row['fault'])}.txt"
                write_whole(path, row["output"].encode(errors="backslashreplace"))
    console.print(_table(rows, f"{loaded.config.name} on {used}"))
    n_broken = sum(bool(row["problems"]) for row in rows)
    if n_broken:
        console.print(console.styled(f"{n_broken} of {len(rows)} faults did harm", "bold red"))
        raise typer.Exit(1)
    console.print(f"all {len(rows)} faults held: nothing lost, nothing stuck")


def _table(rows: list[Row], title: str) -> Table:
    table = Table(
        "fault",
        "held",
        "labels",
        "lost",
        "paid twice",
        "under way",
        "exit",
        "s until told",
        "message",
        title=title,
    )
    for row in rows:
        held = (
            console.styled("; ".join(row["problems"]), "bold red")
            if row["problems"]
            else console.styled("not run" if row["not_run"] else "yes", "green")
        )
        told, code = row["seconds_until_told"], row["exit_code"]
        table.add_row(
            row["fault"],
            held,
            *(str(row.get(key, "")) for key in ("labels", "labels_lost", "paid_twice", "at_risk")),
            "" if code is None else str(code),
            "" if told is None else f"{told:.1f}",
            row["not_run"] or row["why_stuck"] or row["cannot_be_read"] or row["message"],
        )
    return table
