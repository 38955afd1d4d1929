"""Units of the house and the factors between them.

Length angstrom, energy eV, time seconds, pressure and moduli GPa, temperature K. LAMMPS' ``metal`` units give pressure in bar.
"""

from __future__ import annotations

from typing import Final

GPA_PER_BAR: Final = 1e-4
