"""Commands on many campaigns: back-tests and studies of settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from campaign.cli.base import app, command, console, errors
from campaign.errors import SurroundingsError
from campaign.views.terminal import progress


class _RunsByDefault(typer.core.TyperGroup):
    """`oreloop study FILE` is `oreloop study run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


study_app = typer.Typer(
    no_args_is_help=True,
    cls=_RunsByDefault,
    help="Tune settings with Optuna: `oreloop study FILE` runs a study.",
)
app.add_typer(study_app, name="study")


@app.command()
@command
def backtest(
    config: Annotated[Path, typer.Argument(help="The backtest's YAML.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where runs and figures go; backtests/NAME by default.")
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI; a SQLite file in the folder by default; `none`."),
    ] = None,
) -> None:
    """Replay strategies on a table of labels or a cheap oracle, in virtual time; again after an
    interruption: it goes on.
    """
    from campaign.backtest import config as backtests
    from campaign.backtest import replay, show
    from campaign.tracking import backtest as tracker
    from campaign.tracking.places import tracking_uri

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
        uri = tracking_uri(tracking, place)
        figures = {item.strategy: show.numbers(item) for item in outcome.summaries}
        tracker.log(
            uri,
            place,
            f"backtest {found.config.name}",
            outcome.objective,
            outcome.runs,
            figures,
            files,
        )
    console.print(f"figures in {place}: {', '.join(path.name for path in files)}")


StudyFolder = Annotated[
    Path | None, typer.Option(help="Where the storage lies; studies/NAME by default.")
]


@study_app.command(name="run")
@command
def study_run(
    config: Annotated[Path, typer.Argument(help="The study's YAML.")],
    folder: StudyFolder = None,
    tracking: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI; a SQLite file in the folder by default; `none`."),
    ] = None,
) -> None:
    """Run the trials of a study that are left; again after an interruption: it goes on."""
    from campaign.study import config as studies
    from campaign.study import run, show
    from campaign.study.trials import n_steps
    from campaign.tracking import study as tracker
    from campaign.tracking.places import tracking_uri

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
        uri = tracking_uri(tracking, place)
        tracker.log(uri, place, f"study {found.config.name}", run.records(done))


@study_app.command(name="best")
@command
def study_best(
    config: Annotated[Path, typer.Argument(help="The study's YAML.")],
    folder: StudyFolder = None,
    write: Annotated[
        Path | None, typer.Option(help="The file that the winning config is written to.")
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(help="Number of the trial to write, where several goals leave a choice."),
    ] = None,
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
    program = shutil.which(
        "optuna-dashboard", path=str(Path(sys.executable).parent)
    ) or shutil.which("optuna-dashboard")
    if program is None:
        raise SurroundingsError(
            "optuna-dashboard is not installed", hint="pip install optuna-dashboard"
        )
    place = found.config.storage or str((folder or Path("studies") / found.config.name) / JOURNAL)
    subprocess.run([program, place, "--host", "127.0.0.1", "--port", str(port)], check=True)
