"""Universal potentials by name: ``use: sevennet``, ``chgnet``, ``mattersim``, ``orb``,
``fairchem``, ``grace``.

The level of theory holds the calculator, its arguments, the package's version and the hash of the
weights.
"""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath
from campaign.types import Fidelity
from oracles.ase import calculators
from oracles.ase.oracle import AseStaticConfig, CalculatorOracle
from oracles.ase.potentials import POTENTIALS, home_of
from oracles.batched import BatchedOracle

if TYPE_CHECKING:
    from oracles.ase.sevennet import SevenNetModel


class UniversalConfig(AseStaticConfig):
    checkpoint: str | None = Field(
        None,
        description="Which of the potential's weights, as `oreloop potentials` lists them; its "
        "first.",
    )
    weights: ConfigPath | None = Field(
        None,
        description="File or folder of weights of your own that are called in the checkpoint's "
        "way.",
    )


class Universal(CalculatorOracle):
    """Base of the named ones: energy, volume, relaxed crystal and its phase; forces, bulk modulus
    and elastic tensor where asked.
    """

    Config = UniversalConfig
    config: UniversalConfig
    preset: ClassVar[str]

    @classmethod
    def unavailable(cls) -> str:
        potential = POTENTIALS[cls.preset]
        if home_of(potential.module) is not None:
            return ""
        return (
            f"the package {potential.distribution} is not installed in this interpreter; "
            f"{potential.install}"
        )

    def __init__(self, config: UniversalConfig) -> None:
        self.config, self.potential = config, POTENTIALS[self.preset]
        if self.unavailable():
            raise InputError(self.unavailable())
        names = self.potential.checkpoints
        self.checkpoint = config.checkpoint or next(iter(names))
        if self.checkpoint not in names:
            nearest = difflib.get_close_matches(self.checkpoint, names, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise InputError(
                f"{self.preset} has no checkpoint {self.checkpoint!r}",
                hint=f"{hint}it has {', '.join(names)}",
            )
        self.title = f"{self.preset} ({self.checkpoint})"
        shipped = self.potential.file_of(self.checkpoint, home_of(self.potential.module))
        path = config.weights or shipped
        if path is None or not path.exists():
            where = f"there are none at {path}" if path is not None else "its package ships none"
            raise InputError(
                f"the weights of {self.title} are not here: {where}",
                hint=f"{self.potential.install}; then weights: PATH, if need be",
            )
        self._path, self._sha256 = path, calculators.sha256_of(path)
        known = names[self.checkpoint].elements
        if known is not None and config.weights is None:
            self.elements = known

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.potential.arguments, **self.potential.checkpoints[self.checkpoint].arguments}

    @property
    def level(self) -> Fidelity:
        settings = {
            "calculator": self.potential.calculator,
            "arguments": self.arguments,
            "weights": self._sha256,
            "package": self.potential.distribution,
            "version": calculators.version_of(self.potential.distribution),
            "force_tolerance": self.config.force_tolerance,
        }
        return Fidelity(f"{self.preset}-{self.checkpoint}", settings)

    def make_calculator(self) -> Any:
        return calculators.make(
            self.potential.calculator, self.arguments, str(self._path), self.config.device
        )


class SevenNet(BatchedOracle, Universal):
    preset = "sevennet"

    @cached_property
    def networks(self) -> SevenNetModel:
        from oracles.ase.sevennet import SevenNetModel

        return SevenNetModel(self.make_calculator(), self.config.device)


class CHGNetConfig(UniversalConfig):
    largest_modulus_error: float = Field(
        0.5,
        gt=0,
        description="Maximum error of a modulus, as a share (1) of it, with which it is a "
        "label. CHGNet's pressures jump where neighbours "
        "cross 3 angstrom: most elements' moduli are known to a tenth or worse.",
    )


class CHGNet(Universal):
    preset = "chgnet"
    Config = CHGNetConfig


class MatterSim(Universal):
    preset = "mattersim"


class Orb(Universal):
    preset = "orb"


class FairChem(Universal):
    preset = "fairchem"


class Grace(Universal):
    preset = "grace"
