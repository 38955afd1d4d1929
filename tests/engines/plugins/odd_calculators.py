"""ASE calculators with one fault each, and one that takes an element for another."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


class _Faulty(Calculator):  # type: ignore[misc]
    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = self.found(len(self.atoms))

    def found(self, n: int) -> dict[str, Any]:
        return {"energy": -float(n), "forces": np.zeros((n, 3)), "stress": np.zeros(6)}


class Fine(_Faulty):
    """Any arguments and weights will do."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments


class WithoutStress(_Faulty):
    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]


class WithoutForces(_Faulty):
    implemented_properties: ClassVar[list[str]] = ["energy", "stress"]


class NotANumber(_Faulty):
    def found(self, n: int) -> dict[str, Any]:
        return super().found(n) | {"energy": float("nan")}


class InfiniteStress(_Faulty):
    def found(self, n: int) -> dict[str, Any]:
        return super().found(n) | {"stress": np.full(6, np.inf)}


class WrongShape(_Faulty):
    def found(self, n: int) -> dict[str, Any]:
        return super().found(n) | {"forces": np.zeros(3)}


class Empty:
    """No calculator at all."""


class Swapped(Calculator):  # type: ignore[misc]
    """Another calculator that is told of element ``one`` where there is ``other``, and the other
    way round.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, inner: Any, one: int, other: int) -> None:
        super().__init__()
        self._inner, self._exchanged = inner, {one: other, other: one}

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        twin = self.atoms.copy()
        twin.numbers = [self._exchanged.get(int(number), int(number)) for number in twin.numbers]
        twin.calc = self._inner
        self.results = {
            "energy": twin.get_potential_energy(),
            "forces": twin.get_forces(),
            "stress": twin.get_stress(),
        }


def refuses(**arguments: Any) -> EMT:
    raise RuntimeError("these weights are of another network")
