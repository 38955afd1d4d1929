"""The commands ``oreloop oracle check``, ``generator check``, ``surrogate check``, ``embedder
check`` and ``screen check``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from campaign.errors import InputError
from campaign.reading.arguments import settings_of, words_of_all
from campaign.views.terminal import PlainConsole, steps

if TYPE_CHECKING:
    from campaign.protocols import PluginSpec
    from campaign.testing import Finding

console = PlainConsole()
errors = PlainConsole(stderr=True)

Name = Annotated[
    str, typer.Argument(help="An installed plug-in's name, or module:Class beside here.")
]
Elements = Annotated[
    list[str] | None,
    typer.Option(
        "--elements",
        "--element",
        help="Elements of the search space, as in `Ni,Fe`, or given several times.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as in training.epochs=5; may be given several times."),
]


def oracle_check(
    what: Annotated[
        str,
        typer.Argument(
            help="A campaign's YAML config, the name of an oracle, or module:Class beside here."
        ),
    ],
    oracle: Annotated[
        str | None, typer.Option(help="Config: name of the oracle; all of them by default.")
    ] = None,
    elements: Annotated[
        list[str] | None,
        typer.Option("--element", help="Element to check with; may be given several times."),
    ] = None,
    params: Annotated[str, typer.Option(help="Name: the oracle's settings as JSON.")] = "{}",
    python: Annotated[
        str | None,
        typer.Option(help="Name: the interpreter that it lives in, or the words that start one."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Maximum relative change (1) that counts as the same.")
    ] = 2e-3,
) -> None:
    """Check oracles before they are believed: units, symmetries, elements by name, failures, time
    limit, clean-up.
    """
    from campaign.testing import examine

    specs, symbols = _oracles_to_check(what, oracle, params, tuple(elements or ()), python)
    _told(
        *(
            (f"oracle {spec.name}", partial(examine, spec, symbols, tolerance=tolerance))
            for spec in specs
        )
    )


def _row(finding: Any) -> Table:
    """A finding as a line of its own, so that it can be shown as soon as it is there."""
    colour = {"passed": "green", "failed": "bold red", "skipped": "yellow"}[finding.status]
    row = Table.grid(Column(width=24), Column(width=7), Column(ratio=1), padding=(0, 2))
    row.add_row(finding.check, console.styled(finding.status, colour), finding.detail)
    return row


def _oracles_to_check(
    what: str, oracle: str | None, params: str, elements: tuple[str, ...], python: str | None
) -> tuple[list[Any], tuple[str, ...]]:
    """Specifications of the oracles named, and the elements to check them with."""
    from campaign import plugins
    from campaign.config import loaded as configs
    from campaign.interpreters import words_of
    from campaign.protocols import OracleSpec, PluginSpec

    if what.endswith((".yaml", ".yml")):
        loaded = configs.read(Path(what))
        found = [
            loaded.oracle_spec(item)
            for item in loaded.config.oracles
            if oracle in (None, item.label)
        ]
        if not found:
            raise InputError(f"{what} has no oracle {oracle!r}")
        return found, elements or loaded.config.space.elements
    try:
        settings = json.loads(params)
    except json.JSONDecodeError as error:
        raise InputError(
            f"--params is no JSON: {error}",
            hint='write it like --params \'{"potential": "FeCr.cdeam"}\'',
        ) from error
    words = words_of(tuple(shlex.split(python)) if python else None, Path.cwd())
    plugin = PluginSpec(
        group="oracles",
        use=what,
        params=settings,
        module_folder=str(Path.cwd()),
        elements=elements,
        python=words,
    )
    reason = plugins.unavailable(plugin)
    if reason:
        raise InputError(reason)
    return [OracleSpec(name=what.rpartition(":")[2], plugin=plugin)], elements


def generator_check(
    what: Name,
    params: Settings = None,
    elements: Elements = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled crystals that it learns from, where the kit's alloys are not what "
            "it is for."
        ),
    ] = None,
    quantity: Annotated[
        str, typer.Option(help="The quantity that is to be small; with --data, its name there.")
    ] = "energy_per_atom",
) -> None:
    """Check a generator before a campaign relies on it: seeds, space, number, parents, few labels,
    checkpoints.
    """
    from campaign.testing import examine_generator

    spec = _spec("generators", what, params, elements)
    labelled = []
    if data is not None:
        from campaign.cli.pretraining import labelled_of

        labelled = labelled_of(data, quantity)
    _told(
        (
            f"generator {what}",
            partial(examine_generator, spec, labelled=labelled, quantity=quantity),
        )
    )


def surrogate_check(what: Name, params: Settings = None, elements: Elements = None) -> None:
    """Check a surrogate before a campaign relies on it: posterior, rows, seeds, few labels,
    hyperparameters, units.
    """
    from campaign.testing import examine_surrogate

    _told(
        (
            f"surrogate {what}",
            partial(examine_surrogate, _spec("surrogates", what, params, elements)),
        )
    )


def embedder_check(what: Name, params: Settings = None, elements: Elements = None) -> None:
    """Check an embedder before a surrogate relies on it: columns, order, version."""
    from campaign.testing import examine_embedder

    _told(
        (f"embedder {what}", partial(examine_embedder, _spec("embedders", what, params, elements)))
    )


def screen_check(
    what: Name,
    params: Settings = None,
    elements: Elements = None,
    data: Annotated[
        Path | None, typer.Option(help="Crystals that it judges beside the kit's alloys.")
    ] = None,
) -> None:
    """Check a screen before a campaign relies on it: verdicts, reasons, order."""
    from campaign.reading.structures import read_structures
    from campaign.testing import examine_screen

    crystals = [entry.crystal for entry in read_structures(data)] if data is not None else []
    _told(
        (
            f"screen {what}",
            partial(examine_screen, _spec("screens", what, params, elements), crystals=crystals),
        )
    )


def _spec(
    group: str, what: str, params: list[str] | None, elements: list[str] | None
) -> PluginSpec:
    """What is to be checked. Raises InputError where it cannot be built."""
    from campaign import plugins
    from campaign.testing.bench import ELEMENTS, spec_of

    spec = spec_of(
        group, what, settings_of(params or []), words_of_all(elements or []) or ELEMENTS, Path.cwd()
    )
    plugins.build(spec)
    return spec


def _told(*examined: tuple[str, Callable[..., Iterator[Finding]]]) -> None:
    """Each finding as it comes; the exit status tells whether one failed."""
    has_failed = False
    for title, examine in examined:
        console.print(console.styled(title, "bold"))
        with steps(errors, f"checking {title.rpartition(' ')[2]}") as on_step:
            for finding in examine(on_step=on_step):
                console.print(_row(finding))
                has_failed |= finding.status == "failed"
    if has_failed:
        raise typer.Exit(1)


COMMANDS: dict[str, Callable[..., None]] = {
    "oracle": oracle_check,
    "generator": generator_check,
    "surrogate": surrogate_check,
    "embedder": embedder_check,
    "screen": screen_check,
}
"""By port."""
