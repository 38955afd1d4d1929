"""Still pictures for trackers, drawn with matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data.colors import jmol_colors
from matplotlib.figure import Figure

from campaign.types import Crystal


def best_so_far(values: Sequence[float], best: Sequence[float], quantity: str, unit: str) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    count = np.arange(1, len(values) + 1)
    axes.plot(count, values, ".", color="0.6", markersize=4, label="label")
    axes.step(count, best, where="post", color="black", label="best so far")
    axes.set_xlabel("labels")
    axes.set_ylabel(f"{quantity} ({unit})")
    axes.legend(frameon=False)
    return figure


def parity(predicted: Sequence[tuple[float, float, float]], quantity: str, unit: str) -> Figure:
    """predicted: mean, standard deviation, value found."""
    mean, deviation, found = np.array(predicted).T
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(found, mean, yerr=1.645 * deviation, fmt="o", color="black", ecolor="0.75", markersize=3, linewidth=0.8)
    axes.axline((found.mean(), found.mean()), slope=1, color="0.4", linestyle="--")
    axes.set_xlabel(f"{quantity} found ({unit})")
    axes.set_ylabel(f"{quantity} predicted with its 90 % interval ({unit})")
    return figure


def crystal(crystal: Crystal, title: str) -> Figure:
    from ase.visualize.plot import plot_atoms

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    plot_atoms(crystal.atoms, axes, rotation="10x,-15y,0z", colors=jmol_colors[crystal.numbers])
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)
    return figure


def cif(crystal: Crystal) -> str:
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(crystal.structure))
