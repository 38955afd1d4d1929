"""One settings model for every density functional theory engine. eV, angstrom, Bohr magnetons."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from campaign.parameters import Parameters
from campaign.types import Crystal, FloatArray

Relaxed = Literal["volume", "cell", "ions", "none"]


class DftConfig(Parameters):
    """What is computed and how; energies of different settings do not mix."""

    functional: str = Field("PBE", description="Exchange-correlation functional.")
    cutoff: float = Field(
        500.0,
        gt=0,
        description="Plane-wave cutoff (eV); at least 400 for energy differences, 500 to 600 "
        "with stress.",
    )
    kpoint_density: float = Field(
        3.5,
        gt=0,
        description="k-points per reciprocal angstrom (angstrom), along each reciprocal vector.",
    )
    smearing: float = Field(0.1, gt=0, description="Width of the Fermi-Dirac occupation (eV).")
    moments: dict[str, float] = Field(
        default_factory=dict,
        description="Starting moment by element (Bohr magnetons); others start at 0. Empty: "
        "not spin-polarised.",
    )
    antiferromagnetic: tuple[str, ...] = Field(
        (), description="Elements whose starting moments alternate in sign from atom to atom."
    )
    energy_convergence: float = Field(
        1e-5,
        gt=0,
        description="Change of the energy (eV per electron) at which self-consistency is reached.",
    )
    relax: Relaxed = Field(
        "volume",
        description="volume: shape and ions as proposed, the volume from the equation of "
        "state; cell: all; ions; none.",
    )
    bulk_modulus: bool = Field(
        True, description="Measure the bulk modulus, from the equation of state."
    )
    window: float = Field(
        0.015, gt=0, le=0.05, description="Maximum linear strain (1) of the equation of state."
    )
    points: int = Field(5, ge=5, description="Volumes of the equation of state.")
    force_tolerance: float = Field(
        0.02,
        gt=0,
        description="Maximum force on an atom (eV/angstrom) at which a relaxation stops.",
    )
    max_steps: int = Field(100, gt=0, description="Maximum number of ionic steps.")
    mixing: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of the new density in each step of self-consistency; smaller is safer.",
    )
    max_iterations: int = Field(
        200, gt=0, description="Maximum number of steps of self-consistency."
    )
    largest_step: float = Field(
        0.1, gt=0, description="Longest move of an atom in one ionic step (angstrom)."
    )
    setups: dict[str, str] = Field(
        default_factory=dict,
        description="Engine's own pseudopotential or setup by element, such as Ni: '10'.",
    )


_NOT_IN_THE_LABEL = frozenset({"max_steps", "mixing", "max_iterations", "largest_step"})


def label_settings(config: DftConfig) -> dict[str, object]:
    """The settings that change what a label means."""
    own = DftConfig.model_fields.keys() - _NOT_IN_THE_LABEL
    return {name: value for name, value in config.model_dump(mode="json").items() if name in own}


def kpoints(crystal: Crystal, density: float) -> tuple[int, int, int]:
    """Divisions of a Gamma-centred mesh: 2 pi |b| density rounded up to an even number, with b the
    rows of the inverse lattice.

    Even meshes converge faster for cubic metals: the moment of Ni is 0.70, 0.53, 0.65 Bohr
    magnetons with 8, 9, 12 divisions.
    """
    reciprocal = np.linalg.norm(np.linalg.inv(crystal.lattice).T, axis=1)
    first, second, third = (
        2 * max(1, math.ceil(math.pi * float(length) * density - 1e-6)) for length in reciprocal
    )
    return first, second, third


def starting_moments(crystal: Crystal, config: DftConfig) -> FloatArray:
    """(n,) starting moments in Bohr magnetons; antiferromagnetic elements alternate along the order
    of their atoms.
    """
    seen: dict[str, int] = {}
    found = []
    for symbol in crystal.symbols:
        moment = config.moments.get(symbol, 0.0)
        if symbol in config.antiferromagnetic:
            moment *= (-1) ** seen.get(symbol, 0)
            seen[symbol] = seen.get(symbol, 0) + 1
        found.append(moment)
    return np.array(found)
