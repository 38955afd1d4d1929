"""Commands that make, run and steer campaigns."""

from __future__ import annotations

import gc
import re
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from campaign.cli.base import (
    INTERRUPTED,
    ConfigOrFolder,
    app,
    campaign_of,
    command,
    config_of,
    console,
    view_of,
)
from campaign.collecting import no_collection
from campaign.errors import InputError, OreloopError

if TYPE_CHECKING:
    from campaign.api import Campaign
    from campaign.views.view import View


def template_folder() -> Path:
    """Where the config templates lie: in the wheel, or beside the sources in a checkout."""
    packaged = Path(str(files("campaign"))) / "templates"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "configs"


@app.command()
@command
def init(
    target: Annotated[Path, typer.Argument(help="File to write.")] = Path("campaign.yaml"),
    template: Annotated[
        str, typer.Option(help="Name of the template; `list` lists them.")
    ] = "nifecr_quickstart",
) -> None:
    """Write a commented config to start from."""
    from campaign.files import write_whole

    known = sorted(path.stem for path in template_folder().glob("*.yaml"))
    if template == "list":
        for name in known:
            console.print(name)
        return
    if template not in known:
        raise InputError(
            f"there is no template {template!r}", hint=f"choose one of: {', '.join(known)}"
        )
    if target.exists():
        raise InputError(f"{target} exists already", hint="name another file")
    files_beside = _files_of(template)
    for name in files_beside:
        beside, data = target.parent / name, (template_folder() / name).read_bytes()
        if beside.exists() and beside.read_bytes() != data:
            raise InputError(
                f"{beside} exists already and differs from the template's",
                hint="write the config into another folder",
            )
    for name in files_beside:
        write_whole(target.parent / name, (template_folder() / name).read_bytes())
    write_whole(target, (template_folder() / f"{template}.yaml").read_bytes())
    console.print(f"wrote {target}; next: oreloop validate {target}, then oreloop run {target}")


def _files_of(template: str) -> list[str]:
    """The files beside the templates that one of them names."""
    from ruamel.yaml import YAML

    folder = template_folder()

    def named(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [name for value in node.values() for name in named(value)]
        if isinstance(node, list):
            return [name for value in node for name in named(value)]
        return (
            [node]
            if isinstance(node, str) and (folder / node).is_file() and not Path(node).is_absolute()
            else []
        )

    return list(
        dict.fromkeys(
            named(YAML(typ="safe", pure=True).load((folder / f"{template}.yaml").read_text()))
        )
    )


@app.command()
@command
def validate(config: Annotated[Path, typer.Argument(help="A campaign's YAML config.")]) -> None:
    """Build every part of a config and read the data that it names, without computing or
    downloading anything.
    """
    from campaign.parameters import without_downloads
    from campaign.protocols import is_costly
    from campaign.rounds.survey import survey

    with without_downloads():
        loaded = config_of(config)
        _ = loaded.parts
    table = Table.grid(padding=(0, 2))
    table.add_row("config", f"{config} is valid")
    for name in loaded.parts.generators:
        table.add_row("generator", name)
    for name, fidelity in loaded.parts.fidelities.items():
        measured = ", ".join(f"{q.name} ({q.unit})" for q in loaded.parts.oracles[name].quantities)
        table.add_row("oracle", f"{name} at {fidelity.key}: {measured}")
    for found in survey(loaded):
        table.add_row(found.purpose, f"{found.path}: {found}")
    has_data = loaded.config.candidate_pools or loaded.config.initial_data
    for part, built in (
        zip(loaded.config.screens.extra, loaded.parts.screens, strict=True) if has_data else ()
    ):
        if is_costly(built):
            table.add_row("screen", f"{part.use} computes and was not asked")
    console.print(table)


@app.command()
@command
def plan(
    config: Annotated[Path, typer.Argument(help="A campaign's YAML config.")],
    structures: Annotated[int, typer.Option(min=1, help="Structures to label for timing.")] = 3,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of each oracle, in place of the config's.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Labels, in place of the config's budget.")
    ] = None,
) -> None:
    """Labels, time, cost and disk to expect, from timings measured on a handful of structures."""
    from campaign.rounds.plan import measure
    from campaign.views.progress import duration

    found = measure(config_of(config), structures, workers=workers, labels=budget)
    table = Table(
        "oracle", "tried", "failed", "s per label", "labels", "time on its workers", "cost"
    )
    for row in found.oracles:
        labels = "unbounded" if row.labels is None else str(row.labels)
        cost = "" if row.cost is None else f"{row.cost:.3g} {row.currency}"
        table.add_row(
            row.oracle,
            str(row.tried),
            str(row.failed),
            f"{row.seconds:.3g}",
            labels,
            duration(row.wall_seconds),
            cost,
        )
    console.print(table)
    if found.candidates is not None and found.disk_bytes is not None:
        console.print(
            f"about {found.candidates} candidates of {found.atoms} atoms, "
            f"{found.disk_bytes / 1e6:.0f} MB of disk"
        )
    if found.deciding is not None and found.rounds is not None:
        parts = (
            f"{duration(found.start_seconds)} for workers to start, {found.rounds} rounds "
            f"that decide in {found.deciding.later:.1f} s each"
        )
        console.print(
            f"about {duration(found.wall_seconds)} in all: {parts} as rehearsed without "
            "training, and the labels"
        )
    elif found.note:
        console.print(
            f"deciding could not be rehearsed, so the time in all is not known: {found.note}"
        )
    console.print("labels are the most that the budget allows; nothing was recorded")


@app.command()
@command
def run(
    source: ConfigOrFolder,
    folder: Annotated[
        Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Use changed settings from the next round on.")
    ] = False,
) -> None:
    """Begin a campaign, or go on with it. Ctrl-C ends it in good order, twice at once; both can be
    resumed.
    """
    from campaign.views.progress import display

    campaign = campaign_of(source, folder)
    console.print(f"campaign {campaign.loaded.config.name} in {campaign.folder}")
    with display(console, campaign.loaded) as show:
        reason = campaign.run(accept_changes=accept_changes, on_change=show)
    was_stopped = reason.startswith("interrupted") or reason == "stop was asked for"
    console.print(f"{'stopped' if was_stopped else 'ended'}: {reason}")
    _print_results(campaign)
    if was_stopped:
        console.print(f"to go on: oreloop run {source}")
        raise typer.Exit(INTERRUPTED)


def _print_results(campaign: Campaign) -> None:
    from campaign.report import write_report

    with campaign.view() as view:
        console.print(_best(view))
        page = write_report(view, campaign.folder)
    console.print(f"report: {page}\nCIF files: {campaign.folder / 'best'}", soft_wrap=True)
    if campaign.loaded.config.tracking.use == "mlflow":
        console.print(f"MLflow: oreloop ui {campaign.folder}", soft_wrap=True)


def _best(view: View) -> Table:
    """The best labels, with all that is wanted of them."""
    from campaign.decide import ranking

    wanted = view.wanted
    shown = dict.fromkeys(
        [objective.quantity for objective in wanted.objectives]
        + [bound.quantity for bound in wanted.bounds]
    )
    has_standing = bool(wanted.bounds) or len(wanted.objectives) > 1
    table = Table(
        "rank",
        "formula",
        *(f"{name} ({view.units[name]})" for name in shown),
        "candidate",
        *([""] if has_standing else []),
    )
    for item in ranking.ranked(view.state, wanted, 5):
        values = [
            ranking.value_of(view.state, wanted, item.label)
            if name == wanted.objective.quantity
            else f"{item.label.values[name]:.6g}"
            if name in item.label.values
            else ""
            for name in shown
        ]
        label = item.label
        row = [str(item.rank), view.state.formula(label.candidate), *values, label.candidate]
        table.add_row(*row, *([ranking.standing(item, wanted)] if has_standing else []))
    return table


@app.command()
@command
def status(source: ConfigOrFolder) -> None:
    """Where a campaign stands, also while it runs."""
    with no_collection():
        table = _standing(source)
        gc.freeze()
    console.print(table)


def _standing(source: Path) -> Table:
    from campaign.ledger.lock import is_held
    from campaign.views.metrics import busy_fraction
    from campaign.views.progress import facts
    from campaign.views.view import View

    campaign = view_of(source)
    loaded, state = campaign.loaded, campaign.state()
    ended = (
        state.session_ended.reason
        if state.session_ended
        else "without notice; run it again to go on"
    )
    table = Table.grid(padding=(0, 2))
    table.add_row("campaign", f"{loaded.config.name} in {campaign.folder}")
    table.add_row(
        "driver", "running" if is_held(campaign.folder) else f"not running; it ended: {ended}"
    )
    for name, text in facts(View(loaded, state)).items():
        table.add_row(name, text)
    for config in loaded.config.oracles:
        recent = state.time - 300
        busy = busy_fraction(state, config.label, config.at_once, start=recent, end=state.time)
        table.add_row(
            f"workers of {config.label}",
            f"{config.at_once}, busy {100 * min(1.0, busy):.0f} % of the last minutes",
        )
    return table


@app.command()
@command
def stop(source: ConfigOrFolder) -> None:
    """Ask a running campaign to end in good order."""
    from campaign.ledger.lock import STOP_REQUEST, cannot_write, is_held

    campaign = view_of(source)
    if not is_held(campaign.folder):
        console.print("no driver runs this campaign")
        return
    try:
        (campaign.folder / STOP_REQUEST).touch()
    except OSError as error:
        raise cannot_write(campaign.folder / STOP_REQUEST, error) from error
    console.print("asked; the driver waits for the work under way and stops")


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    VETO = "veto"
    APPROVE = "approve"
    BAN = "ban"
    UNBAN = "unban"
    PIN = "pin"
    INJECT = "inject"
    BUDGET = "budget"


@app.command(context_settings={"ignore_unknown_options": True})
@command
def control(
    source: ConfigOrFolder,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="veto, approve: candidates' ids or first digits. ban, unban: elements. pin, "
            "inject: files of structures. "
            "budget: labels, as +100 or -20."
        ),
    ] = None,
) -> None:
    """Change a campaign's course while it runs or not: pause, resume, veto, approve, ban, unban,
    pin, inject, more or fewer labels.
    """
    from campaign.ledger.controls import told

    campaign = view_of(source)
    live, given = campaign.control, what or []
    if action in (Action.PAUSE, Action.RESUME) and given:
        raise InputError(f"{action} takes nothing more, found {' '.join(given)}")
    if action not in (Action.PAUSE, Action.RESUME) and not given:
        raise InputError(f"{action}: of what?", hint="see `oreloop control --help`")
    for argument in given or [""]:
        match action:
            case Action.PAUSE:
                event = live.pause()
            case Action.RESUME:
                event = live.resume()
            case Action.VETO:
                event = live.veto(argument)
            case Action.APPROVE:
                event = live.approve(argument)
            case Action.BAN:
                event = live.ban(argument)
            case Action.UNBAN:
                event = live.unban(argument)
            case Action.PIN:
                event = live.pin(argument)
            case Action.INJECT:
                event = live.inject(argument)
            case Action.BUDGET:
                event = live.budget(_change(argument))
        console.print(
            told(event)
            if event is not None
            else "asked; the driver takes it up as soon as it is free"
        )


def _change(text: str) -> int:
    """A signed whole number."""
    if not re.fullmatch(r"[+-]\d{1,9}", text):
        raise InputError(f"expected a change of the budget such as +100 or -20, found {text!r}")
    return int(text)


@app.command()
@command
def ask(
    source: ConfigOrFolder,
    n: Annotated[
        int, typer.Argument(min=0, help="How many candidates more; 0 shows what is open.")
    ] = 1,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder for questions.csv and CIF files; <campaign>/questions by default."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Use changed settings from now on.")
    ] = False,
) -> None:
    """Decide who is to be labelled next, for labels that are made by hand or elsewhere; answer with
    `oreloop tell`.
    """
    from campaign.rounds.asking import write_questions

    campaign = campaign_of(source, folder)
    new = {
        (item.candidate, item.oracle)
        for item in (campaign.ask(n, accept_changes=accept_changes) if n else ())
    }
    questions = campaign.pending
    table = Table(
        "formula",
        "oracle",
        "expected",
        "candidate",
        "",
        title=f"{len(questions)} open, {len(new)} of them new",
    )
    for item in questions:
        expected = "" if item.mean is None else f"{item.mean:.4g} +- {item.deviation or 0:.2g}"
        table.add_row(
            item.formula,
            item.oracle,
            expected,
            item.candidate,
            "new" if (item.candidate, item.oracle) in new else "",
        )
    console.print(table)
    path = write_questions(questions, to or campaign.folder / "questions")
    console.print(
        f"crystals and a table to fill in: {path}\nthen: oreloop tell {campaign.folder} {path}",
        soft_wrap=True,
    )


@app.command()
@command
def tell(
    source: ConfigOrFolder,
    answers: Annotated[
        Path,
        typer.Argument(
            help="CSV: id, a column for each quantity such as `hardness (GPa)`, or failure."
        ),
    ],
    folder: Annotated[
        Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")
    ] = None,
) -> None:
    """Take answers to open questions from a table; rows without values stay open. With an error in
    any row none is taken in.
    """
    from campaign.types import Failure

    campaign = campaign_of(source, folder)
    told = campaign.tell_table(answers)
    failed = [item for item in told if isinstance(item, Failure)]
    for item in failed:
        console.print(f"failed: {item.kind}: {item.message}")
    console.print(
        f"{len(told) - len(failed)} labels and {len(failed)} failures recorded; "
        f"{len(campaign.pending)} questions are open"
    )


@app.command()
@command
def retry(
    source: ConfigOrFolder,
    candidates: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, or their first digits; all that was given up by default."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only what failed in this way, such as crash or timeout.")
    ] = None,
) -> None:
    """Give candidates that were given up another chance at the next run."""
    rows = campaign_of(source).retry(candidates or (), kind)
    for row in rows:
        console.print(f"{row.candidate} at {row.oracle}")
    console.print(
        f"{len(rows)} will be tried again: oreloop run {source}" if rows else "nothing was given up"
    )


@app.command()
@command
def found(
    source: ConfigOrFolder,
    known: Annotated[
        Path | None,
        typer.Option(help="Known crystals: structure files, a folder, or a CSV with CIF texts."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Maximum energy above the hull (eV/atom) that counts as stable."),
    ] = 0.0,
    oracle: Annotated[
        str | None, typer.Option(help="Whose labels; by default those of the objective.")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="CSV file for all hits.")] = None,
) -> None:
    """What a campaign found: stable, unique and novel crystals, by generator and by round."""
    from campaign.report import finds

    campaign = view_of(source)
    for table in finds.tables(
        campaign, known=known, tolerance=tolerance, oracle=oracle, target=target
    ):
        console.print(table)


@app.command(name="list")
@command
def list_(
    root: Annotated[Path, typer.Argument(help="Folder that holds campaigns.")] = Path("campaigns"),
) -> None:
    """The campaigns below a folder."""
    from campaign.api import Campaign
    from campaign.ledger.engines import CONFIG_COPY
    from campaign.ledger.lock import is_held

    table = Table("folder", "driver", "rounds", "labels", "failures", "ended")
    for path in sorted(root.glob(f"*/{CONFIG_COPY}")):
        try:
            state = Campaign.open(path.parent).state()
        except OreloopError as error:
            table.add_row(str(path.parent), "", "", "", "", error.message)
            continue
        ended = state.session_ended.reason if state.session_ended else ""
        running = "running" if is_held(path.parent) else ""
        running = ", ".join(
            word for word in (running, "paused" if state.controls.paused else "") if word
        )
        table.add_row(
            str(path.parent),
            running,
            str(len(state.rounds)),
            str(len(state.own_labels)),
            str(len(state.failures)),
            ended,
        )
    console.print(table if table.row_count else f"no campaigns in {root}")
