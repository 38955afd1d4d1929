"""What the ledger's labels say about phase stability: a table, a figure, and the command ``oreloop
hull``.

The figure is formation energy against composition with the hull drawn through the stable phases,
one level at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from campaign.errors import InputError
from campaign.views.terminal import PlainConsole
from oracles.hull import Hull, Phase, Stability, read_phases

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LAYOUT = {
    "template": "simple_white",
    "height": 420,
    "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
    "legend": {"orientation": "h", "y": -0.2},
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


def phases_of(state: Any, oracle: str) -> list[Phase]:
    """The labelled crystals of one oracle as phases, and in place of elements with a chemical
    potential these.
    """
    given = state.zeros.potentials_of(oracle)
    labels = [
        label
        for label in state.labels.values()
        if label.oracle == oracle
        and state.energy(label) is not None
        and state.is_of_its_level(label)
    ]
    phases = [
        Phase(label.candidate, counts, state.energy(label), state.zeros.level(label.fidelity))
        for label in labels
        if not (len(counts := state.counts(label.candidate)) == 1 and counts.keys() <= given.keys())
    ]
    level = state.zeros.level(labels[0].fidelity) if labels else ""
    held = {element for phase in phases for element in phase.composition}
    return phases + [
        Phase(f"chemical potential of {element}", {element: 1}, given[element], level)
        for element in sorted(held & given.keys())
    ]


def oracles_with_hull(state: Any) -> list[str]:
    """Oracles whose labels hold an energy of every element that they name."""
    found = []
    for oracle in dict.fromkeys(label.oracle for label in state.labels.values()):
        phases = phases_of(state, oracle)
        elements = {element for phase in phases for element in phase.composition}
        if len(elements) > 1 and elements <= state.zeros_of(oracle).keys():
            found.append(oracle)
    return found


def figures(state: Any) -> Iterable[tuple[str, go.Figure]]:
    """For the report: each level's hull, for each pair and three of elements that it has compounds
    of, and formation energies beyond three.
    """
    for oracle in oracles_with_hull(state):
        hull = Hull(phases_of(state, oracle))
        stable = {phase.id for phase in hull.stable()}
        systems: dict[tuple[str, ...], list[tuple[Phase, Stability]]] = defaultdict(list)
        for phase in hull.phases:
            systems[tuple(sorted(phase.composition))].append((phase, hull.stability(phase)))
        for system, members in sorted(systems.items()):
            if len(system) == 2:
                ends = [pair for element in system for pair in systems[(element,)]]
                yield (
                    f"Hull of {'-'.join(system)} at {hull.fidelity}",
                    binary_figure(system, [*ends, *members], stable),
                )
            elif len(system) == 3:
                inside = [phase for phase in hull.phases if phase.composition.keys() <= {*system}]
                yield (
                    f"Hull of {'-'.join(system)} at {hull.fidelity}",
                    ternary_figure(system, Hull(inside)),
                )
            elif len(system) > 3:
                yield (
                    f"Formation energies of {'-'.join(system)} at {hull.fidelity}",
                    many_figure(system, members, stable),
                )


def binary_figure(
    system: tuple[str, ...], members: list[tuple[Phase, Stability]], stable: set[str]
) -> go.Figure:
    import plotly.graph_objects as go

    element = system[1]
    points = sorted(
        (_percent(phase, element), of.formation_energy, of.above_hull, phase.id)
        for phase, of in members
    )
    on_hull = [point for point in points if point[3] in stable]
    figure = go.Figure(layout=_LAYOUT)
    for name, some, symbol in (
        ("above the hull", [p for p in points if p[3] not in stable], "circle-open"),
        ("stable", on_hull, "diamond"),
    ):
        figure.add_scatter(
            x=[p[0] for p in some],
            y=[p[1] for p in some],
            text=[f"{p[3]}<br>{1000 * p[2]:.1f} meV/atom above the hull" for p in some],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 8, "color": "black"},
        )
    figure.add_scatter(
        x=[p[0] for p in on_hull],
        y=[p[1] for p in on_hull],
        mode="lines",
        line={"color": "black"},
        name="hull",
    )
    figure.update_xaxes(title=f"{element} (at%)", range=[-2, 102]).update_yaxes(
        title="formation energy (eV/atom)"
    )
    return figure


def ternary_figure(system: tuple[str, ...], hull: Hull) -> go.Figure:
    """The triangle of compositions with the tie lines of the stable phases; the lowest of the
    others at each composition by their energy above the hull.
    """
    import plotly.graph_objects as go
    from pymatgen.core import Composition

    stable = hull.stable()
    heights = {phase.id: hull.stability(phase).above_hull for phase in hull.phases}
    lowest: dict[str, Phase] = {}
    for phase in sorted(hull.phases, key=lambda phase: -heights[phase.id]):
        lowest[_formula(phase)] = phase
    others = [phase for phase in lowest.values() if phase not in stable]
    figure = go.Figure(layout=_LAYOUT | {"height": 520})
    lines = [row for pair in hull.tie_lines() for row in (*pair, None)]
    figure.add_scatterternary(
        **_at(system, lines), mode="lines", line={"color": "black", "width": 1}, name="tie lines"
    )
    figure.add_scatterternary(
        **_at(system, others),
        text=[
            f"{_formula(phase)} {phase.id}<br>"
            f"{1000 * heights[phase.id]:.1f} meV/atom above the hull"
            for phase in others
        ],
        mode="markers",
        name="above the hull",
        cliponaxis=False,
        marker={
            "size": 8,
            "color": [heights[phase.id] for phase in others],
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": "above the hull (eV/atom)", "side": "right"}},
        },
    )
    figure.add_scatterternary(
        **_at(system, stable),
        text=[Composition(dict(phase.composition)).reduced_formula for phase in stable],
        hovertext=[phase.id for phase in stable],
        mode="markers+text",
        textposition="top center",
        name="stable",
        cliponaxis=False,
        marker={"symbol": "diamond", "size": 9, "color": "black"},
    )
    figure.update_ternaries(
        sum=100,
        **{
            f"{axis}axis_title": f"{element} (at%)"
            for axis, element in zip("abc", system, strict=True)
        },
    )
    return figure


def _at(system: tuple[str, ...], phases: Sequence[Phase | None]) -> dict[str, list[float | None]]:
    """Where phases lie in the triangle (at%); None breaks a line."""
    return {
        axis: [None if phase is None else _percent(phase, element) for phase in phases]
        for axis, element in zip("abc", system, strict=True)
    }


def many_figure(
    system: tuple[str, ...], members: list[tuple[Phase, Stability]], stable: set[str]
) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(layout=_LAYOUT)
    for element, symbol in zip(system, _SYMBOLS, strict=False):
        figure.add_scatter(
            x=[_percent(phase, element) for phase, _ in members],
            y=[of.formation_energy for _, of in members],
            text=[f"{phase.id}{' (stable)' if phase.id in stable else ''}" for phase, _ in members],
            mode="markers",
            name=element,
            marker={"symbol": symbol, "size": 6},
        )
    figure.update_xaxes(title="fraction of the element (at%)").update_yaxes(
        title="formation energy (eV/atom)"
    )
    return figure


def hull(
    folder: Annotated[Path, typer.Argument(help="A campaign's folder.")],
    oracle: Annotated[
        str | None, typer.Option(help="Level; each that has energies of the elements by default.")
    ] = None,
    phases: Annotated[
        Path | None,
        typer.Option(help="CSV of competing phases: id, formula, energy_per_atom (eV), fidelity."),
    ] = None,
    largest: Annotated[
        float, typer.Option(help="Maximum energy above the hull (eV/atom) that is listed.")
    ] = 0.1,
) -> None:
    """Formation energies, energies above the hull and decompositions from a campaign's labels, one
    level at a time.
    """
    from campaign.api import Campaign
    from campaign.ledger.debts import debts

    state = Campaign.open(folder).state()
    names = [oracle] if oracle else oracles_with_hull(state)
    if not names:
        raise InputError(
            f"{folder} holds no level with an energy of every element",
            hint="set references: in the config, so that the elements are labelled",
        )
    console = PlainConsole()
    lacking = [debt for debt in debts(state) if debt.oracle in names]
    for name in names:
        found = Hull([*phases_of(state, name), *(read_phases(phases) if phases else [])])
        table = Table(
            "formula",
            "formation (eV/atom)",
            "above hull (eV/atom)",
            "decomposes to",
            "candidate",
            title=f"{name}, hull {found.version}",
        )
        rows = sorted(
            ((phase, found.stability(phase)) for phase in found.phases),
            key=lambda row: (row[1].above_hull, row[1].formation_energy),
        )
        formula = {phase.id: _formula(phase) for phase in found.phases}
        for phase, of in rows:
            if of.above_hull <= largest:
                parts = (
                    ", ".join(
                        f"{share:.2f} {formula[part]}" for part, share in of.decomposition.items()
                    )
                    if of.above_hull > 1e-9
                    else "stable"
                )
                table.add_row(
                    formula[phase.id],
                    f"{of.formation_energy:.4f}",
                    f"{of.above_hull:.4f}",
                    parts,
                    phase.id,
                )
        console.print(table)
    if lacking:
        table = Table(
            "level", "formula", "phase", "why", title="hull debt: competing phases without a label"
        )
        for debt in lacking:
            table.add_row(debt.oracle, debt.formula, debt.name, debt.reason)
        console.print(table)


def _percent(phase: Phase, element: str) -> float:
    """Atomic percent."""
    return 100 * phase.composition.get(element, 0.0) / sum(phase.composition.values())


def _formula(phase: Phase) -> str:
    """The least whole numbers of atoms, elements in alphabetical order, such as ``Cu9Zr7``."""
    from math import gcd

    from pymatgen.core import Composition

    counts = Composition(dict(phase.composition))
    if any(amount != round(amount) for amount in counts.values()):
        counts = Composition(counts.get_integer_formula_and_factor(max_denominator=10_000)[0])
    whole = {element.symbol: round(amount) for element, amount in counts.items()}
    least = gcd(*whole.values())
    return "".join(
        f"{symbol}{n // least if n > least else ''}" for symbol, n in sorted(whole.items())
    )
