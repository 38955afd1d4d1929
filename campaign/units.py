"""Units of the house and the factors between them.

Length angstrom, energy eV, time seconds, pressure and moduli GPa, temperature K. LAMMPS' ``metal`` units give pressure in bar.

Models and decisions compute in standard units of each quantity, so that none depends on the unit that its labels come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

GPA_PER_BAR: Final = 1e-4
_ROUNDING: Final = 1e-14


@dataclass(frozen=True)
class Standard:
    """Standard units of a quantity: what a value lies above ``center``, in multiples of ``spread``; both in the quantity's unit."""

    center: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, values: ArrayLike) -> Standard:
        """Mean and standard deviation of values (n,), at any magnitude.

        Values that differ by no more than rounding, or a single one, spread by their magnitude, by 1 where they are 0.
        """
        known = np.asarray(values, dtype=float)
        largest = float(np.abs(known).max(initial=0.0))
        if largest == 0.0:
            return cls()
        magnitude = 2.0 ** (np.frexp(largest)[1] - 1)
        scaled = known / magnitude
        center, spread = float(scaled.mean()), float(scaled.std(ddof=1)) if len(scaled) > 1 else 0.0
        return cls(center * magnitude, spread * magnitude if spread > _ROUNDING else largest)

    def of_value(self, value: float) -> float:
        """A value of the quantity's unit in standard units."""
        return (value - self.center) / self.spread
