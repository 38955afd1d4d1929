"""The oracle ``ase``: labels at zero temperature from any ASE calculator.

Before anything runs it is tried on a small crystal of each element, so that an element it lacks, a
stress that it does not give and numbers that are none are told at once. Angstrom, eV; stress in
GPa.
"""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from campaign.crystals.lattice import atomic_volume
from campaign.errors import InputError
from campaign.parameters import PlacedSettings, may_download
from campaign.types import Crystal, Fidelity
from oracles.ase import calculators
from oracles.mechanics import Mechanics
from oracles.relaxation import AseMechanics
from oracles.static import StaticConfig, StaticOracle

log = logging.getLogger(__name__)

_FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
_OFF_SITE = 0.03


class AseStaticConfig(StaticConfig):
    """What all oracles on ASE calculators have; the tolerances are such as single precision
    reaches.
    """

    device: str = Field(
        "cpu",
        description="Where a network runs: cpu or cuda; it takes the place of {device} in "
        "arguments.",
    )
    force_tolerance: float = Field(
        5e-3,
        gt=0,
        description="Maximum force on an atom (eV/angstrom) at which a relaxation stops.",
    )
    max_steps: int = Field(500, gt=0, description="Maximum number of steps of one relaxation.")
    strain: float = Field(
        5e-3,
        gt=0,
        le=0.02,
        description="Linear strain (1) of the cells whose pressures or stresses are taken.",
    )
    residual_pressure: float = Field(
        0.2, gt=0, description="Maximum stress component (GPa) of a relaxed cell."
    )
    residual_force: float = Field(
        0.02, gt=0, description="Maximum force component (eV/angstrom) of relaxed ions."
    )


class AseConfig(AseStaticConfig, PlacedSettings):
    calculator: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="module:Class, or module:Class.method or module:function that makes one; a "
        "module of your own lies beside the config.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="What it is called with, by name; {weights} and {device} are filled in, "
        "and {call: module:function, arguments: {...}} "
        "is what the function returns.",
    )
    weights: str | None = Field(
        None,
        description="File or folder of the potential, whose hash is part of the level of "
        "theory; a path starts at the config's folder. "
        "Or a name that the calculator knows.",
    )
    elements: tuple[str, ...] | None = Field(
        None, description="The elements that it knows; otherwise they are tried."
    )

    @field_validator("elements")
    @classmethod
    def _are_elements(cls, elements: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ase.data import chemical_symbols

        foreign = [symbol for symbol in elements or () if symbol not in chemical_symbols[1:]]
        if foreign:
            raise ValueError(f"expected symbols of elements, found {', '.join(foreign)}")
        return elements

    @property
    def folder(self) -> Path:
        """Where paths and modules of the user's own lie."""
        return Path(self._folder or ".")


class CalculatorOracle(StaticOracle):
    """Base of the oracles on an ASE calculator: made at the first evaluation, and for a trial."""

    config: AseStaticConfig
    title: str
    """What messages call it."""

    @abstractmethod
    def make_calculator(self) -> Any:
        """Raises InputError."""

    def make_mechanics(self) -> Mechanics:
        known: frozenset[str] | None = getattr(self, "elements", None)

        def check(crystal: Crystal) -> None:
            lacking = sorted(set(crystal.symbols) - known) if known is not None else []
            if lacking:
                raise ValueError(f"{self.title} knows no {', '.join(lacking)}")

        return AseMechanics(
            self.make_calculator(),
            force_tolerance=self.config.force_tolerance,
            max_steps=self.config.max_steps,
            residual_force=self.config.residual_force,
            residual_pressure=self.config.residual_pressure,
            check=check,
        )

    @property
    def is_to_be_tried(self) -> bool:
        """Not for a device that is elsewhere, on the workers' machines."""
        return not self.config.device.startswith("cuda") or _has_cuda()

    def trial(self, elements: Sequence[str]) -> None:
        """Energy, forces and stress of a small crystal of each element. Raises InputError where one
        is not given or no number.
        """
        if not self.is_to_be_tried:
            log.warning("%s was not tried here", self.title)
            return
        calculator = self.make_calculator()
        for symbol in elements:
            _try(calculator, symbol, self.title)


class AseOracle(CalculatorOracle):
    """Energy, volume, relaxed crystal and its phase; forces, bulk modulus and elastic tensor where
    asked.
    """

    Config = AseConfig
    config: AseConfig

    def __init__(self, config: AseConfig) -> None:
        self.config, self.title = config, f"the calculator {config.calculator}"
        if str(config.folder) not in sys.path:
            sys.path.append(str(config.folder))
        if config.elements is not None:
            self.elements = frozenset(config.elements)
        self._package = calculators.package_of(config.calculator)
        self._file = (
            weights_file(config.weights, config.folder) if config.weights is not None else None
        )
        self._weights = (
            calculators.sha256_of(self._file) if self._file is not None else config.weights
        )

    @property
    def level(self) -> Fidelity:
        config = self.config
        settings = {
            "calculator": config.calculator,
            "arguments": config.arguments,
            "weights": self._weights,
            **self._package,
        }
        return Fidelity(
            f"ase-{config.calculator.rpartition(':')[2].lower()}",
            {**settings, "force_tolerance": config.force_tolerance},
        )

    @property
    def is_to_be_tried(self) -> bool:
        """Not where a name may stand for weights that would be downloaded now."""
        may_fetch = self.config.weights is not None and self._file is None
        return super().is_to_be_tried and (may_download() or not may_fetch)

    def make_calculator(self) -> Any:
        config = self.config
        return calculators.make(
            config.calculator,
            config.arguments,
            str(self._file) if self._file is not None else config.weights,
            config.device,
        )


def weights_file(weights: str, folder: Path) -> Path | None:
    """The file or folder that ``weights`` means; None for a name. Raises InputError for a path
    where nothing lies.
    """
    path = folder / Path(weights).expanduser()
    if path.exists():
        return path
    if "/" in weights or Path(weights).suffix[1:].isalpha():
        raise InputError(
            f"there are no weights at {path}",
            hint="give the path of the potential's file; it starts at the config's folder",
        )
    return None


def _try(calculator: Any, symbol: str, title: str) -> None:
    from ase import Atoms
    from ase.calculators.calculator import PropertyNotImplementedError

    edge = (4 * atomic_volume(symbol)) ** (1 / 3)
    atoms = Atoms([symbol] * 4, scaled_positions=_FCC, cell=np.eye(3) * edge, pbc=True)
    atoms.positions[0] += _OFF_SITE * edge
    atoms.calc = calculator
    asked = {
        "energy": atoms.get_potential_energy,
        "forces": atoms.get_forces,
        "stress": atoms.get_stress,
    }
    shapes = {"energy": (), "forces": (4, 3), "stress": (6,)}
    for name, ask in asked.items():
        try:
            found = np.asarray(ask(), dtype=float)
        except (PropertyNotImplementedError, NotImplementedError) as error:
            if name == "energy":
                raise _no_element(symbol, title, error) from error
            raise InputError(
                f"{title} gives no {name}",
                hint="labels need energy, forces and stress: see its arguments, or take another",
            ) from error
        except Exception as error:
            raise _no_element(symbol, title, error) from error
        if found.shape != shapes[name]:
            raise InputError(
                f"{title} gives {name} of shape {found.shape} for a crystal of {symbol}, "
                f"expected {shapes[name]}"
            )
        if not np.isfinite(found).all():
            raise InputError(
                f"{title} gives {name} that is no finite number for a crystal of {symbol}",
                hint="see its weights",
            )


def _no_element(symbol: str, title: str, error: Exception) -> InputError:
    hint = f"leave {symbol} out of space.elements, or take a potential that knows it"
    return InputError(
        f"{title} fails on a crystal of {symbol}: {type(error).__name__}: {error}", hint=hint
    )


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
