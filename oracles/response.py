"""How a crystal's stress answers a strain: the slope at the crystal as it is, with relaxed ions,
and how well it is known.

    d sigma / dx = (sigma(+x) - sigma(-x)) / 2x

Two things spoil such a slope. Ions that give way do so in straight proportion at small strains
only; and tabulated potentials have a rough second derivative, so that small strains see the table's
own steps. Therefore it is taken twice: with relaxed ions at a small strain and at twice as much;
and with ions that are carried along, from a cubic through the stresses of a line of wider strains
beside it. Where the line and the small strain agree, the small strain's slope is given; where not,
the line's, to which the ions' share is added. The error is the largest of what lies between the
two, between the small strains, between the slope and plain differences over wide strains, and what
the cubic leaves; crystals that are only anharmonic have 0.02 % of it at a reach of 0.3 %. Strains
in 1, stresses and slopes in GPa.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from campaign.types import FloatArray
from oracles.mechanics import Mechanics, State

LEAST_REACH = 3e-3
"""Linear strain at the ends of the line; twice the small strain where that is more."""
_POINTS = 5
_AGREEMENT = 0.01


@dataclass(frozen=True)
class Slope:
    """A slope and its error, of the same shape."""

    value: FloatArray
    error: FloatArray


class _Path:
    """Moves the crystal that an engine holds along a line of gradients of deformation."""

    def __init__(
        self,
        mechanics: Mechanics,
        gradient: Callable[[float], FloatArray],
        measure: Callable[[State], FloatArray],
    ) -> None:
        self._mechanics, self._gradient, self._measure, self._here = (
            mechanics,
            gradient,
            measure,
            np.eye(3),
        )

    def go(self, x: float) -> None:
        there = self._gradient(x)
        self._mechanics.deform(np.asarray(np.linalg.solve(self._here, there), dtype=float))
        self._here = there

    def carried(self, x: float) -> FloatArray:
        self.go(x)
        return self._measure(self._mechanics.state())

    def relaxed(self, x: float) -> FloatArray:
        self.go(x)
        self._mechanics.relax(cell=False)
        return self._measure(self._mechanics.state())


def slope(
    mechanics: Mechanics,
    gradient: Callable[[float], FloatArray],
    measure: Callable[[State], FloatArray],
    strain: float,
    reach: float,
) -> Slope:
    """The slope of ``measure`` along ``gradient`` (x to (3, 3), the unit matrix at 0), of the
    crystal that the engine holds.

    ``strain`` and ``reach``: the small x and the largest. The engine's ions are left relaxed in the
    cell that it had.
    """
    mechanics.relax(cell=False)
    path = _Path(mechanics, gradient, measure)
    line = [sign * reach * i / _POINTS for sign in (-1, 1) for i in range(1, _POINTS + 1)]
    carried = {x: path.carried(x) for x in sorted({*line, *_both(strain), *_both(2 * strain)})}
    path.go(0)
    relaxed = {x: path.relaxed(x) for x in sorted({*_both(strain), *_both(2 * strain)})}
    path.relaxed(0)

    wide, spread = cubic_slope(np.array(line), np.array([carried[x] for x in line]))
    small, twice = _central(relaxed, strain), _central(relaxed, 2 * strain)
    stiff, stiff_twice = _central(carried, strain), _central(carried, 2 * strain)
    plain = [_central(carried, x) for x in line if x > reach / 2]
    if np.abs(stiff - wide).max() <= _AGREEMENT * np.abs(wide).max():
        others = [wide - stiff, twice - small, *(one - stiff for one in plain)]
        return Slope(small, np.maximum.reduce([spread, *np.abs(others)]))
    yielding, yielding_twice = small - stiff, twice - stiff_twice
    others = [yielding_twice - yielding, *(one - wide for one in plain)]
    return Slope(wide + yielding_twice, np.maximum.reduce([spread, *np.abs(others)]))


def cubic_slope(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope at 0 of cubics through y (n, ...) at x (n,), and its standard error from what the
    cubics leave.
    """
    scale = np.abs(x).max()
    powers = np.vander(x / scale, 4, increasing=True)
    rows = y.reshape(len(x), -1)
    parameters = np.linalg.lstsq(powers, rows, rcond=None)[0]
    left = np.sum((rows - powers @ parameters) ** 2, axis=0) / (len(x) - 4)
    error = np.sqrt(left * np.linalg.inv(powers.T @ powers)[1, 1])
    return (parameters[1] / scale).reshape(y.shape[1:]), (error / scale).reshape(y.shape[1:])


def _both(x: float) -> tuple[float, float]:
    return -x, x


def _central(values: dict[float, FloatArray], x: float) -> FloatArray:
    found: FloatArray = (values[x] - values[-x]) / (2 * x)
    return found
