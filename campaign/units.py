"""Units of the house and the factors between them.

Length angstrom, energy eV, time seconds, pressure and moduli GPa, temperature K. LAMMPS' ``metal``
units give pressure in bar.

Models and decisions compute in standard units of each quantity, so that none depends on the unit
that its labels come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

GPA_PER_BAR: Final = 1e-4
_ROUNDING: Final = 1e-14
_STEPS: Final = 100


@dataclass(frozen=True)
class Standard:
    """Standard units of a quantity: what a value lies above ``center``, in multiples of ``spread``;
    both in the quantity's unit.
    """

    center: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, values: ArrayLike, noise: ArrayLike | None = None) -> Standard:
        """Mean and standard deviation of values (n,), at any magnitude; where their ``noise`` (n,),
        a standard deviation, is stated, of what lies behind it.

        Values that differ by no more than rounding, or a single one, spread by their magnitude, by
        1 where they are 0.
        """
        known = np.asarray(values, dtype=float)
        largest = float(np.abs(known).max(initial=0.0))
        if largest == 0.0:
            return cls()
        magnitude = 2.0 ** (np.frexp(largest)[1] - 1)
        scaled = known / magnitude
        if noise is not None and len(scaled) > 1 and np.any(noise):
            center, spread = _behind(scaled, np.square(np.asarray(noise, dtype=float) / magnitude))
        else:
            center = float(scaled.mean())
            spread = float(scaled.std(ddof=1)) if len(scaled) > 1 else 0.0
        return cls(center * magnitude, spread * magnitude if spread > _ROUNDING else largest)

    def of_value(self, value: float) -> float:
        """A value of the quantity's unit in standard units."""
        return (value - self.center) / self.spread


def _behind(values: NDArray[np.float64], variances: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of a normal distribution whose draws (n,) came with normal noise
    of known variances (n,): expectation maximisation from those with no more than the median.
    """
    quiet = values[variances <= np.median(variances)]
    quiet = quiet if np.ptp(quiet) > _ROUNDING else values
    center, variance = float(quiet.mean()), float(quiet.var())
    for _ in range(_STEPS if variance > 0 else 0):
        share = variance / (variance + variances)
        means = center + share * (values - center)
        center = float(means.mean())
        variance = float(np.mean(variance * (1 - share) + np.square(means - center)))
    return center, float(np.sqrt(variance))
