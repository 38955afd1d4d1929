"""Sites of a cell with what occupies them, as a file gives them: a crystal where each holds one
whole element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from campaign.errors import InputError
from campaign.types import Crystal, FloatArray

WHOLE = 2e-3
"""How far an occupancy may be from 1 and still be whole: files round thirds."""


@dataclass(frozen=True, eq=False)
class Sites:
    """lattice (3, 3) rows in angstrom, fractional (n, 3), shares (n,) occupancies by atomic number,
    labels (n,) as the file names them.
    """

    lattice: FloatArray
    fractional: FloatArray
    shares: Sequence[Mapping[int, float]]
    labels: Sequence[str]

    @property
    def disordered(self) -> list[int]:
        """Rows of sites that several elements share, or that are empty in part."""
        return [
            row
            for row, share in enumerate(self.shares)
            if len(share) != 1 or min(share.values()) < 1 - WHOLE
        ]

    def crystal(self, where: str) -> Crystal:
        """Raises InputError where a site is disordered."""
        rows = self.disordered
        if rows:
            told = {self.labels[row]: _told(self.shares[row]) for row in rows}
            shown = ", ".join(f"{label} ({share})" for label, share in list(told.items())[:4])
            raise InputError(
                f"{where}: disordered, with partly occupied sites: "
                f"{shown}{', ..' if len(told) > 4 else ''}",
                hint="give an ordered cell, or set disorder: {method: enumerate} or {method: "
                "sqs} of the source",
            )
        return self.occupied([next(iter(share)) for share in self.shares], where)

    def occupied(self, numbers: Sequence[int], where: str) -> Crystal:
        """With an element on each site, 0 for an empty one."""
        kept = [row for row, number in enumerate(numbers) if number]
        try:
            return Crystal(
                self.lattice, self.fractional[kept], np.array(numbers, dtype=np.uint8)[kept]
            )
        except InputError as error:
            raise InputError(f"{where}: {error.message}", hint=error.hint) from error


def _told(share: Mapping[int, float]) -> str:
    from ase.data import chemical_symbols

    return " ".join(f"{chemical_symbols[number]} {value:g}" for number, value in share.items())
