"""The report's 3-D view: the best structures, one at a time, turned with the mouse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors

from campaign.types import Crystal, FloatArray

_POINTS_PER_ANGSTROM = 22
_AT_FACE, _BOND = 0.02, 1.2
_MOST_BONDS = 2000
_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
_EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1]


def view(crystals: Sequence[tuple[str, Crystal]]) -> go.Figure | None:
    """One figure of named crystals, chosen from a menu: atoms in the cell and on its faces, bonds, and the cell's edges; angstrom."""
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
        showlegend=False,
        scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data", "camera": {"projection": {"type": "orthographic"}}},
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.1, "yanchor": "top"}],
    )
    return figure


def _traces(crystal: Crystal) -> list[go.Scatter3d]:
    corners = _CORNERS @ crystal.lattice
    sites, symbols = _in_and_on_the_cell(crystal)
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    colours = [f"rgb({', '.join(str(round(255 * part)) for part in jmol_colors[atomic_numbers[symbol]])})" for symbol in symbols]
    place = sites @ crystal.lattice
    return [
        _lines([(corners[a], corners[b]) for a, b in _EDGES], "black", 2),
        _lines(_bonds(place, radii), "#999", 5),
        go.Scatter3d(
            x=place[:, 0],
            y=place[:, 1],
            z=place[:, 2],
            mode="markers+text",
            text=symbols,
            textfont={"size": 11},
            hovertext=[f"{symbol} ({', '.join(f'{value:.3f}' for value in site)})" for symbol, site in zip(symbols, sites, strict=True)],
            hoverinfo="text",
            marker={"size": _POINTS_PER_ANGSTROM * radii, "color": colours, "opacity": 1, "line": {"width": 1, "color": "black"}},
        ),
    ]


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
    near = np.linalg.norm(place[:, None] - place[None], axis=-1) < _BOND * (radii[:, None] + radii[None])
    first, second = np.nonzero(np.triu(near, 1))
    return [(place[a], place[b]) for a, b in list(zip(first, second, strict=True))[:_MOST_BONDS]]


def _lines(ends: Sequence[tuple[FloatArray, FloatArray]], colour: str, width: int) -> go.Scatter3d:
    points = [point for first, second in ends for point in (first, second, np.full(3, np.nan))]
    x, y, z = np.array(points).T if points else np.empty((3, 0))
    return go.Scatter3d(x=x, y=y, z=z, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip")
