"""Still pictures for trackers, drawn with matplotlib without a screen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from campaign.text import drawn
from campaign.types import Crystal


def best_so_far(values: Sequence[float], best: Sequence[float], quantity: str, unit: str) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    count = np.arange(1, len(values) + 1)
    axes.plot(count, values, ".", color="0.6", markersize=4, label="label")
    axes.step(count, best, where="post", color="black", label="best so far")
    axes.set_xlabel("labels")
    axes.set_ylabel(drawn(f"{quantity} ({unit})"))
    axes.legend(frameon=False)
    return figure


def parity(predicted: Sequence[tuple[float, float, float]], quantity: str, unit: str) -> Figure:
    """predicted: mean, standard deviation, value found."""
    mean, deviation, found = np.array(predicted).T
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        found,
        mean,
        yerr=1.645 * deviation,
        fmt="o",
        color="black",
        ecolor="0.75",
        markersize=3,
        linewidth=0.8,
    )
    axes.axline((found.mean(), found.mean()), slope=1, color="0.4", linestyle="--")
    axes.set_xlabel(drawn(f"{quantity} found ({unit})"))
    axes.set_ylabel(drawn(f"{quantity} predicted with its 90 % interval ({unit})"))
    return figure


def crystal(crystal: Crystal, title: str) -> Figure:
    """Atoms as discs and the cell as lines, seen along the third lattice vector, nearer atoms in
    front.
    """
    turn = rotate("10x,-15y,0z")
    positions = (crystal.fractional % 1.0) @ crystal.lattice @ turn
    corners = np.array(list(itertools.product((0, 1), repeat=3)))
    edges = [
        (a, b)
        for a, b in itertools.combinations(range(8), 2)
        if np.abs(corners[a] - corners[b]).sum() == 1
    ]
    frame = corners @ crystal.lattice @ turn
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.add_collection(
        LineCollection([frame[[a, b], :2] for a, b in edges], colors="0.5", linewidths=0.8)
    )
    order = np.argsort(positions[:, 2])
    diameters = 1.1 * covalent_radii[crystal.numbers]
    low, high = (end(frame[:, :2], axis=0) for end in (np.min, np.max))
    low, high = low - diameters.max() / 2, high + diameters.max() / 2
    points_per_angstrom = 72 * 3.2 / (high - low).max()
    sizes = (diameters * points_per_angstrom) ** 2
    x, y = positions[order, :2].T
    axes.scatter(
        x,
        y,
        s=sizes[order],
        c=jmol_colors[crystal.numbers][order],
        edgecolors="black",
        linewidths=0.5,
    )
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    axes.set_title(drawn(title), fontsize=8)
    return figure


def cif(crystal: Crystal) -> str:
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(crystal.structure))
