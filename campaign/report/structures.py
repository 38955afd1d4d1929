"""The report's 3-D view: the best structures, one at a time, turned with the mouse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors

from campaign.types import Crystal, FloatArray

_ACROSS, _SHRUNK = 330, 0.25
"""Points that a cell takes across the figure, and the share of its covalent radius that an atom is
drawn with: all can be seen.
"""
_AT_FACE, _BOND = 0.02, 1.2
_MOST_BONDS, _MOST_NAMED = 2000, 60
_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
_EDGES = [
    (a, b)
    for a, b in itertools.combinations(range(8), 2)
    if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1
]


def view(crystals: Sequence[tuple[str, Crystal]]) -> go.Figure | None:
    """One figure of named crystals, chosen from a menu: atoms in the cell and on its faces, bonds,
    and the cell's edges; angstrom.
    """
    if not crystals:
        return None
    figure = go.Figure()
    counts = []
    for index, (_, crystal) in enumerate(crystals):
        traces = _traces(crystal)
        counts.append(len(traces))
        for trace in traces:
            trace.visible = index == 0
            figure.add_trace(trace)
    buttons = []
    for index, (name, _) in enumerate(crystals):
        shown = [index == owner for owner, count in enumerate(counts) for _ in range(count)]
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}]})
    hidden = {"visible": False}
    figure.update_layout(
        template="simple_white",
        height=520,
        margin={"l": 0, "r": 0, "t": 50, "b": 0},
        legend={"orientation": "h", "y": 0, "itemsizing": "constant"},
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": {"projection": {"type": "orthographic"}},
        },
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.1, "yanchor": "top"}],
    )
    return figure


def _traces(crystal: Crystal) -> list[go.Scatter3d]:
    corners = _CORNERS @ crystal.lattice
    sites, symbols = _in_and_on_the_cell(crystal)
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    place = sites @ crystal.lattice
    points_per_angstrom = _ACROSS / float(np.linalg.norm(np.ptp(corners, axis=0)))
    lines = [
        _lines([(corners[a], corners[b]) for a, b in _EDGES], "black", 2),
        _lines(_bonds(place, radii), "#999", 3),
    ]
    return lines + [
        _atoms(
            symbol,
            place[chosen],
            sites[chosen],
            crystal.symbols.count(symbol),
            points_per_angstrom,
            len(symbols) <= _MOST_NAMED,
        )
        for symbol in dict.fromkeys(crystal.symbols)
        if (chosen := np.array(symbols) == symbol).any()
    ]


def _atoms(
    symbol: str,
    place: FloatArray,
    sites: FloatArray,
    count: int,
    points_per_angstrom: float,
    are_named: bool,
) -> go.Scatter3d:
    """All atoms of one element, as one entry of the legend."""
    number = atomic_numbers[symbol]
    return go.Scatter3d(
        x=place[:, 0],
        y=place[:, 1],
        z=place[:, 2],
        name=f"{symbol} ({count})",
        mode="markers+text" if are_named else "markers",
        text=[symbol] * len(place),
        textfont={"size": 11},
        hovertext=[f"{symbol} ({', '.join(f'{value:.3f}' for value in site)})" for site in sites],
        hoverinfo="text",
        marker={
            "size": 2 * _SHRUNK * points_per_angstrom * covalent_radii[number],
            "color": f"rgb({', '.join(str(round(255 * part)) for part in jmol_colors[number])})",
            "opacity": 1,
            "line": {"width": 1, "color": "black"},
        },
    )


def _in_and_on_the_cell(crystal: Crystal) -> tuple[FloatArray, list[str]]:
    """Fractional coordinates (m, 3) and symbols, atoms on a face repeated on the opposite one."""
    home = crystal.fractional % 1.0
    home = np.where(home > 1 - _AT_FACE, home - 1, home)
    sites: list[FloatArray] = []
    symbols: list[str] = []
    for site, symbol in zip(home, crystal.symbols, strict=True):
        for shift in itertools.product(*((0, 1) if value < _AT_FACE else (0,) for value in site)):
            sites.append(site + np.array(shift))
            symbols.append(symbol)
    return np.array(sites), symbols


def _bonds(place: FloatArray, radii: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Between the atoms shown that are nearer than 1.2 times the sum of their covalent radii."""
    near = np.linalg.norm(place[:, None] - place[None], axis=-1) < _BOND * (
        radii[:, None] + radii[None]
    )
    first, second = np.nonzero(np.triu(near, 1))
    return [(place[a], place[b]) for a, b in list(zip(first, second, strict=True))[:_MOST_BONDS]]


def _lines(ends: Sequence[tuple[FloatArray, FloatArray]], colour: str, width: int) -> go.Scatter3d:
    points = [point for first, second in ends for point in (first, second, np.full(3, np.nan))]
    x, y, z = np.array(points).T if points else np.empty((3, 0))
    return go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="lines",
        line={"color": colour, "width": width},
        hoverinfo="skip",
        showlegend=False,
    )
