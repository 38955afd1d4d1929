"""The command ``oreloop``."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import wraps
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.table import Table

from campaign import __version__
from campaign.errors import InputError, OreloopError, SurroundingsError
from campaign.terminal import PlainConsole, PlainHandler, progress

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Active-learning campaigns for materials discovery."
)


class _RunsByDefault(typer.core.TyperGroup):
    """`oreloop study FILE` is `oreloop study run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


class _TrainsByDefault(typer.core.TyperGroup):
    """`oreloop train GENERATOR` is `oreloop train generator GENERATOR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = ["generator", *args]
        return super().parse_args(ctx, args)


study_app = typer.Typer(no_args_is_help=True, cls=_RunsByDefault, help="Tune settings with Optuna: `oreloop study FILE` runs a study.")
app.add_typer(study_app, name="study")
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


def _campaign(path: Path, folder: Path | None = None) -> Any:
    from campaign.api import Campaign

    return Campaign.open(path) if path.is_dir() else Campaign.from_config(path, folder)


def _view(path: Path) -> Any:
    """A campaign to look at: as it was last run, so that nothing but its folder is needed."""
    from campaign.api import CONFIG_COPY, Campaign

    campaign = _campaign(path)
    return Campaign.open(campaign.folder) if (campaign.folder / CONFIG_COPY).exists() else campaign


def template_folder() -> Path:
    """Where the config templates lie: in the wheel, or beside the sources in a checkout."""
    packaged = Path(str(files("campaign"))) / "templates"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent / "configs"


def _print_version(is_asked: bool) -> None:
    if is_asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[PlainHandler(errors)],
    )
    for name in ("alembic", "matplotlib", "urllib3", "git", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


@app.command()
@command
def init(
    target: Annotated[Path, typer.Argument(help="File to write.")] = Path("campaign.yaml"),
    template: Annotated[str, typer.Option(help="Name of the template; `list` lists them.")] = "nifecr_quickstart",
) -> None:
    """Write a commented config to start from."""
    from campaign.artifacts import write_whole

    known = sorted(path.stem for path in template_folder().glob("*.yaml"))
    if template == "list":
        for name in known:
            console.print(name)
        return
    if template not in known:
        raise InputError(f"there is no template {template!r}", hint=f"choose one of: {', '.join(known)}")
    if target.exists():
        raise InputError(f"{target} exists already", hint="name another file")
    files_beside = _files_of(template)
    for name in files_beside:
        beside, data = target.parent / name, (template_folder() / name).read_bytes()
        if beside.exists() and beside.read_bytes() != data:
            raise InputError(f"{beside} exists already and differs from the template's", hint="write the config into another folder")
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
        return [node] if isinstance(node, str) and (folder / node).is_file() and not Path(node).is_absolute() else []

    return list(dict.fromkeys(named(YAML(typ="safe", pure=True).load((folder / f"{template}.yaml").read_text()))))


@app.command()
@command
def validate(config: Annotated[Path, typer.Argument(help="A campaign's YAML config.")]) -> None:
    """Build every part of a config and read the data that it names, without computing or downloading anything."""
    from campaign import config as configs
    from campaign.parameters import without_downloads
    from campaign.protocols import is_costly
    from campaign.survey import survey

    with without_downloads():
        loaded = configs.read(config)
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
    for part, built in zip(loaded.config.screens.extra, loaded.parts.screens, strict=True) if has_data else ():
        if is_costly(built):
            table.add_row("screen", f"{part.use} computes and was not asked")
    console.print(table)


@app.command()
@command
def plan(
    config: Annotated[Path, typer.Argument(help="A campaign's YAML config.")],
    structures: Annotated[int, typer.Option(min=1, help="Structures to label for timing.")] = 3,
) -> None:
    """Labels, time and disk to expect, from timings measured on a handful of structures."""
    from campaign import config as configs
    from campaign.plan import measure
    from campaign.progress import duration

    found = measure(configs.read(config), structures)
    table = Table("oracle", "tried", "failed", "s per label", "labels", "time on its workers")
    for row in found.oracles:
        labels = "unbounded" if row.labels is None else str(row.labels)
        table.add_row(row.oracle, str(row.tried), str(row.failed), f"{row.seconds:.3g}", labels, duration(row.wall_seconds))
    console.print(table)
    if found.candidates is not None and found.disk_bytes is not None:
        console.print(f"about {found.candidates} candidates of {found.atoms} atoms, {found.disk_bytes / 1e6:.0f} MB of disk")
    if found.deciding is not None and found.rounds is not None:
        parts = (
            f"{duration(found.start_seconds)} for workers to start, {found.rounds} rounds that decide in {found.deciding.later:.1f} s each"
        )
        console.print(f"about {duration(found.wall_seconds)} in all: {parts} as rehearsed without training, and the labels")
    elif found.note:
        console.print(f"deciding could not be rehearsed, so the time in all is not known: {found.note}")
    console.print("labels are the most that the budget allows; nothing was recorded")


@app.command()
@command
def run(
    source: ConfigOrFolder,
    folder: Annotated[Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")] = None,
    accept_changes: Annotated[bool, typer.Option("--accept-changes", help="Use changed settings from the next round on.")] = False,
) -> None:
    """Begin a campaign, or go on with it. Ctrl-C ends it in good order, twice at once; both can be resumed."""
    from campaign.progress import display
    from campaign.roles import objective_oracle

    campaign = _campaign(source, folder)
    loaded = campaign.loaded
    oracle = objective_oracle(loaded)
    unit = loaded.quantities()[loaded.config.objective.quantity].unit
    console.print(f"campaign {loaded.config.name} in {campaign.folder}")
    with display(console, loaded.config, oracle, unit) as show:
        reason = campaign.run(accept_changes=accept_changes, on_change=show)
    was_stopped = reason.startswith("interrupted") or reason == "stop was asked for"
    console.print(f"{'stopped' if was_stopped else 'ended'}: {reason}")
    _print_results(campaign, oracle, unit)
    if was_stopped:
        console.print(f"to go on: oreloop run {source}")
        raise typer.Exit(INTERRUPTED)


def _print_results(campaign: Any, oracle: str, unit: str) -> None:
    from campaign import ranking
    from campaign.crystals import abundance
    from campaign.report import write_report

    loaded, reader = campaign.loaded, campaign.reader()
    state = reader.fold()
    wanted = ranking.wanted_of(loaded.config, oracle)
    shown = dict.fromkeys([objective.quantity for objective in wanted.objectives] + [bound.quantity for bound in wanted.bounds])
    units = loaded.parts.quantities() | abundance.KNOWN
    has_standing = bool(wanted.bounds) or len(wanted.objectives) > 1
    table = Table("rank", "formula", *(f"{name} ({units[name].unit})" for name in shown), "candidate", *([""] if has_standing else []))
    for item in ranking.ranked(state, wanted, 5):
        values = [f"{item.label.values[name]:.6g}" if name in item.label.values else "" for name in shown]
        row = [str(item.rank), state.formula(item.label.candidate), *values, item.label.candidate]
        table.add_row(*row, *([ranking.standing(item, wanted)] if has_standing else []))
    console.print(table)
    page = write_report(loaded, state, reader, campaign.folder)
    reader.close()
    console.print(f"report: {page}\nCIF files: {campaign.folder / 'best'}", soft_wrap=True)
    if loaded.config.tracking.use == "mlflow":
        console.print(f"MLflow: oreloop ui {campaign.folder}", soft_wrap=True)


@app.command()
@command
def status(source: ConfigOrFolder) -> None:
    """Where a campaign stands, also while it runs."""
    from campaign.ledger.lock import is_held
    from campaign.metrics import busy_fraction
    from campaign.progress import facts
    from campaign.roles import objective_oracle

    campaign = _view(source)
    loaded, state = campaign.loaded, campaign.state()
    oracle = objective_oracle(loaded)
    unit = loaded.quantities()[loaded.config.objective.quantity].unit
    ended = state.session_ended.reason if state.session_ended else "without notice; run it again to go on"
    table = Table.grid(padding=(0, 2))
    table.add_row("campaign", f"{loaded.config.name} in {campaign.folder}")
    table.add_row("driver", "running" if is_held(campaign.folder) else f"not running; it ended: {ended}")
    for name, text in facts(state, loaded.config, oracle, unit).items():
        table.add_row(name, text)
    for config in loaded.config.oracles:
        recent = state.time - 300
        busy = busy_fraction(state, config.label, config.workers, start=recent, end=state.time)
        table.add_row(f"workers of {config.label}", f"{config.workers}, busy {100 * min(1.0, busy):.0f} % of the last minutes")
    console.print(table)


@app.command()
@command
def stop(source: ConfigOrFolder) -> None:
    """Ask a running campaign to end in good order."""
    from campaign.ledger.lock import STOP_REQUEST, cannot_write, is_held

    campaign = _view(source)
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
    PIN = "pin"
    BUDGET = "budget"


@app.command(context_settings={"ignore_unknown_options": True})
@command
def control(
    source: ConfigOrFolder,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="veto, approve: candidates' ids or first digits. ban: elements. pin: files of structures. budget: labels, as +100 or -20."
        ),
    ] = None,
) -> None:
    """Change a campaign's course while it runs, or while it does not: pause, resume, veto, approve, ban, pin, more or fewer labels."""
    from campaign.ledger.controls import told

    campaign = _view(source)
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
            case Action.PIN:
                event = live.pin(argument)
            case Action.BUDGET:
                event = live.budget(_change(argument))
        console.print(told(event) if event is not None else "asked; the driver takes it up as soon as it is free")


def _change(text: str) -> int:
    """A signed whole number."""
    if not re.fullmatch(r"[+-]\d{1,9}", text):
        raise InputError(f"expected a change of the budget such as +100 or -20, found {text!r}")
    return int(text)


@app.command()
@command
def ask(
    source: ConfigOrFolder,
    n: Annotated[int, typer.Argument(min=0, help="How many candidates more; 0 shows what is open.")] = 1,
    to: Annotated[Path | None, typer.Option(help="Folder for questions.csv and CIF files; <campaign>/questions by default.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")] = None,
    accept_changes: Annotated[bool, typer.Option("--accept-changes", help="Use changed settings from now on.")] = False,
) -> None:
    """Decide who is to be labelled next, for labels that are made by hand or elsewhere; answer with `oreloop tell`."""
    from campaign.asking import write_questions

    campaign = _campaign(source, folder)
    new = {(item.candidate, item.oracle) for item in (campaign.ask(n, accept_changes=accept_changes) if n else ())}
    questions = campaign.pending
    table = Table("formula", "oracle", "expected", "candidate", "", title=f"{len(questions)} open, {len(new)} of them new")
    for item in questions:
        expected = "" if item.mean is None else f"{item.mean:.4g} +- {item.deviation or 0:.2g}"
        table.add_row(item.formula, item.oracle, expected, item.candidate, "new" if (item.candidate, item.oracle) in new else "")
    console.print(table)
    path = write_questions(questions, to or campaign.folder / "questions")
    console.print(f"crystals and a table to fill in: {path}\nthen: oreloop tell {campaign.folder} {path}", soft_wrap=True)


@app.command()
@command
def tell(
    source: ConfigOrFolder,
    answers: Annotated[Path, typer.Argument(help="CSV: id, a column for each quantity such as `hardness (GPa)`, or failure.")],
    folder: Annotated[Path | None, typer.Option(help="Campaign folder; campaigns/<name> here by default.")] = None,
) -> None:
    """Take answers to open questions from a table; rows without values stay open. With an error in any row none is taken in."""
    from campaign.types import Failure

    campaign = _campaign(source, folder)
    told = campaign.tell_table(answers)
    failed = [item for item in told if isinstance(item, Failure)]
    for item in failed:
        console.print(f"failed: {item.kind}: {item.message}")
    console.print(f"{len(told) - len(failed)} labels and {len(failed)} failures recorded; {len(campaign.pending)} questions are open")


@app.command()
@command
def retry(
    source: ConfigOrFolder,
    candidates: Annotated[list[str] | None, typer.Argument(help="Ids, or their first digits; all that was given up by default.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only what failed in this way, such as crash or timeout.")] = None,
) -> None:
    """Give candidates that were given up another chance at the next run."""
    rows = _campaign(source).retry(candidates or (), kind)
    for row in rows:
        console.print(f"{row.candidate} at {row.oracle}")
    console.print(f"{len(rows)} will be tried again: oreloop run {source}" if rows else "nothing was given up")


@app.command()
@command
def found(
    source: ConfigOrFolder,
    known: Annotated[Path | None, typer.Option(help="Known crystals: structure files, a folder, or a CSV with CIF texts.")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest energy above the hull (eV/atom) that counts as stable.")] = 0.0,
    oracle: Annotated[str | None, typer.Option(help="Whose labels; by default those of the objective.")] = None,
    target: Annotated[Path | None, typer.Option(help="CSV file for all hits.")] = None,
) -> None:
    """What a campaign found: stable, unique and novel crystals, by generator and by round."""
    from campaign import finds

    campaign = _view(source)
    for table in finds.tables(campaign, known=known, tolerance=tolerance, oracle=oracle, target=target):
        console.print(table)


@app.command(name="list")
@command
def list_(root: Annotated[Path, typer.Argument(help="Folder that holds campaigns.")] = Path("campaigns")) -> None:
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
        running = ", ".join(word for word in (running, "paused" if state.controls.paused else "") if word)
        table.add_row(str(path.parent), running, str(len(state.rounds)), str(len(state.own_labels)), str(len(state.failures)), ended)
    console.print(table if table.row_count else f"no campaigns in {root}")


@app.command()
@command
def report(source: ConfigOrFolder) -> None:
    """Write the report: one HTML file that opens offline."""
    from campaign.report import write_report

    campaign = _view(source)
    reader = campaign.reader()
    console.print(str(write_report(campaign.loaded, reader.fold(), reader, campaign.folder)), soft_wrap=True)
    reader.close()


@app.command()
@command
def compare(
    sources: Annotated[list[Path], typer.Argument(help="Configs or campaign folders, two or more.")],
    target: Annotated[Path, typer.Option(help="The page.")] = Path("comparison.html"),
) -> None:
    """Two or more campaigns of one objective in one report."""
    from campaign.report.compare import write_comparison

    console.print(str(write_comparison([_view(source) for source in sources], target)))


@app.command()
@command
def explain(source: ConfigOrFolder, candidate: Annotated[str, typer.Argument(help="A candidate's id or its first digits.")]) -> None:
    """The whole story of one candidate."""
    from campaign.explain import resolve, story

    campaign = _view(source)
    reader = campaign.reader()
    state = reader.fold()
    table = Table.grid(padding=(0, 2))
    for heading, line in story(state, reader, resolve(state, candidate)):
        table.add_row(console.styled(heading, "bold"), line)
    console.print(table)
    reader.close()


@app.command()
@command
def export(
    source: ConfigOrFolder,
    target: Annotated[Path | None, typer.Option(help="Folder to write to; <campaign>/export by default.")] = None,
    formats: Annotated[str, typer.Option(help="Comma-separated: extxyz, cif, ase, parquet.")] = "extxyz,cif,ase,parquet",
    bundle: Annotated[bool, typer.Option("--bundle", help="Write an evidence bundle, for `oreloop verify`, in place of these.")] = False,
) -> None:
    """Write all labels with their units as extxyz, CIF, ASE database and parquet; or an evidence bundle."""
    from campaign.bundle import write_bundle
    from campaign.export import export as write_export

    campaign = _view(source)
    reader = campaign.reader()
    if bundle:
        place = target or campaign.folder / "bundle"
        fingerprint = write_bundle(campaign.loaded, reader.fold(), reader, place)
        console.print(f"{place}\nfingerprint {fingerprint}")
        reader.close()
        return
    wanted = tuple(name.strip() for name in formats.split(",") if name.strip())
    for path in write_export(reader.fold(), reader, target or campaign.folder / "export", wanted, campaign.wanted):
        console.print(str(path))
    reader.close()


@app.command()
@command
def verify(
    bundle: Annotated[Path, typer.Argument(help="A folder that `oreloop export --bundle` wrote.")],
    sample: Annotated[int, typer.Option(min=0, help="How many of the best labels are made again.")] = 5,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest relative change (1), beside three times the stated noise.")] = 1e-3,
    fingerprint: Annotated[str, typer.Option(help="The bundle's fingerprint, as published.")] = "",
    run_code: Annotated[bool, typer.Option("--run-code", help="Run oracles whose code came with the bundle.")] = False,
) -> None:
    """Check an evidence bundle: files, tables against the history, and some of the best labels made again."""
    from campaign.bundle import verify as checks

    table = Table("check", "result", "what was found", title=str(bundle))
    has_failed = False
    for check in checks(bundle, sample=sample, seed=seed, tolerance=tolerance, fingerprint=fingerprint, runs_code=run_code):
        colour = {"passed": "green", "failed": "bold red", "skipped": "yellow"}[check.status]
        table.add_row(check.name, console.styled(check.status, colour), check.detail)
        has_failed |= check.status == "failed"
    console.print(table)
    if has_failed:
        raise typer.Exit(InputError.exit_code)


@app.command()
@command
def recover(source: ConfigOrFolder) -> None:
    """Rebuild a damaged ledger from its journal and what can be read of its database; where `ledger.url` changed, name the config."""
    from campaign.ledger import recover as recovering

    if source.is_dir():
        found = recovering.recover(source)
    else:
        campaign = _campaign(source)
        found = recovering.rebuild(campaign.folder, campaign.loaded.config.ledger.url)
    for line in found.lines():
        console.print(line)
    for path in found.set_aside:
        console.print(f"the old file is kept as {path}")


@app.command()
@command
def ui(
    source: ConfigOrFolder,
    port: Annotated[int | None, typer.Option(help="Port on loopback; 5000 by default, another where that is taken.")] = None,
) -> None:
    """Open the campaign's MLflow pages on this machine; where its tracking is a server's, tell the link."""
    from campaign.tracking import ui as pages
    from campaign.tracking.mlflow import default_uri

    campaign = _view(source)
    uri = campaign.loaded.config.tracking.uri or default_uri(campaign.folder)
    tracking = campaign.state().tracking
    run = tracking.run if tracking is not None else None
    if pages.is_served(uri):
        console.print(pages.link(uri, uri, run), soft_wrap=True)
        return
    number = pages.free_port(port)
    if port is None and number != pages.USUAL_PORT:
        console.print(f"port {pages.USUAL_PORT} is taken, MLflow starts on {number}")
    with suppress(KeyboardInterrupt), pages.served(uri, number) as server:
        console.print(f"{pages.link(uri, f'http://127.0.0.1:{number}', run)}\nCtrl-C ends it", soft_wrap=True)
        server.wait()


@app.command()
@command
def schema() -> None:
    """Print the JSON Schema of configs: every key with its unit and default."""
    from campaign.schema import CampaignConfig

    sys.stdout.write(json.dumps(CampaignConfig.model_json_schema(), indent=2) + "\n")


@app.command()
@command
def backtest(
    config: Annotated[Path, typer.Argument(help="The backtest's YAML.")],
    folder: Annotated[Path | None, typer.Option(help="Where runs and figures go; backtests/NAME by default.")] = None,
    tracking: Annotated[str | None, typer.Option(help="MLflow tracking URI; a SQLite file in the folder by default; `none`.")] = None,
) -> None:
    """Replay strategies on a table of labels or a cheap oracle, in virtual time; again after an interruption: it goes on."""
    from campaign.backtest import config as backtests
    from campaign.backtest import replay, show
    from campaign.tracking import backtest as tracker
    from campaign.tracking.mlflow import default_uri

    found = backtests.read(config)
    place = folder or Path("backtests") / found.config.name
    with progress(errors) as bar:
        task = bar.add_task(found.config.name, total=len(found.runs))

        def on_done(strategy: str, seed: int) -> None:
            bar.update(task, advance=1, description=f"{strategy}, seed {seed}")

        outcome = replay.run_all(found, place, on_done)
    console.print(show.table(found, outcome))
    files = show.write(found, outcome, place)
    if tracking != "none":
        uri = tracking or default_uri(place)
        figures = {item.strategy: show.numbers(item) for item in outcome.summaries}
        tracker.log(uri, f"backtest {found.config.name}", outcome.objective, outcome.runs, figures, files)
    console.print(f"figures in {place}: {', '.join(path.name for path in files)}")


StudyFolder = Annotated[Path | None, typer.Option(help="Where the storage lies; studies/NAME by default.")]


@study_app.command(name="run")
@command
def study_run(
    config: Annotated[Path, typer.Argument(help="The study's YAML.")],
    folder: StudyFolder = None,
    tracking: Annotated[str | None, typer.Option(help="MLflow tracking URI; a SQLite file in the folder by default; `none`.")] = None,
) -> None:
    """Run the trials of a study that are left; again after an interruption: it goes on."""
    from campaign.study import config as studies
    from campaign.study import run, show
    from campaign.study.trials import n_steps
    from campaign.tracking import study as tracker
    from campaign.tracking.mlflow import default_uri

    found = studies.read(config)
    place = folder or Path("studies") / found.config.name
    with progress(errors) as bar:
        task = bar.add_task(found.config.name, total=found.config.trials)

        def on_step(trials: Any) -> None:
            ended, told = run.standing(trials)
            bar.update(task, completed=ended, description=told or found.config.name)

        done = run.run(found, place, on_step)
    console.print(show.table(done))
    console.print(f"pruning saved {100 * run.steps_saved(done, n_steps(found)):.0f} % of the steps")
    if tracking != "none":
        uri = tracking or default_uri(place)
        tracker.log(uri, f"study {found.config.name}", run.records(done))


@study_app.command(name="best")
@command
def study_best(
    config: Annotated[Path, typer.Argument(help="The study's YAML.")],
    folder: StudyFolder = None,
    write: Annotated[Path | None, typer.Option(help="The file that the winning config is written to.")] = None,
    trial: Annotated[int | None, typer.Option(help="Number of the trial to write, where several goals leave a choice.")] = None,
) -> None:
    """The best trials of a study, and the winner's config as a file."""
    from campaign.study import config as studies
    from campaign.study import run, show

    found = studies.read(config)
    done = run.opened(found, folder or Path("studies") / found.config.name)
    console.print(show.table(done))
    if write is not None:
        winner = run.best(done, trial)
        console.print(f"trial {winner.number} in {show.write_best(found, winner, write)}")


@study_app.command(name="dashboard")
@command
def study_dashboard(
    config: Annotated[Path, typer.Argument(help="The study's YAML.")],
    folder: StudyFolder = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080,
) -> None:
    """Open optuna-dashboard on a study, on this machine alone."""
    import shutil
    import subprocess

    from campaign.study import config as studies
    from campaign.study.run import JOURNAL

    found = studies.read(config)
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent)) or shutil.which("optuna-dashboard")
    if program is None:
        raise SurroundingsError("optuna-dashboard is not installed", hint="pip install optuna-dashboard")
    place = found.config.storage or str((folder or Path("studies") / found.config.name) / JOURNAL)
    subprocess.run([program, place, "--host", "127.0.0.1", "--port", str(port)], check=True)


@app.command()
@command
def doctor() -> None:
    """What is installed and works, and what each missing part would give."""
    from campaign.doctor import examine

    table = Table("", "part", "state")
    for finding in examine():
        table.add_row("ok" if finding.is_fine else "-", finding.name, finding.detail)
    console.print(table)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


def _add_commands_of_adapters() -> None:
    """Hang the commands that adapters bring (entry points ``oreloop.commands``; ``train mace`` is ``mace`` below ``train``) on the CLI."""
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
    """`oreloop train GENERATOR SOURCE TARGET`; models that are no generators have commands of their own."""
    from campaign import pretraining

    group = typer.Typer(no_args_is_help=True, cls=_TrainsByDefault, help="Train models: `oreloop train GENERATOR SOURCE TARGET`.")
    group.command("generator")(command(pretraining.train))
    app.add_typer(group, name="train")
    return group


def _add_checks() -> None:
    """``oreloop oracle check`` and those of the other ports."""
    from campaign import checking

    for port, check in checking.COMMANDS.items():
        group = typer.Typer(no_args_is_help=True, help=f"{port.capitalize()}s.")
        group.command("check")(command(check))
        app.add_typer(group, name=port)


_add_checks()
_add_commands_of_adapters()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
