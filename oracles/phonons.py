"""The oracle ``phonons``: whether a crystal shakes itself apart, and what its vibrations add to its
energy, by any engine of forces.

The crystal is relaxed and labelled by an inner oracle of the static protocols. The forces on
displaced atoms of a supercell, by the same engine, give the force constants (A. Togo, J. Phys. Soc.
Jpn. 92, 012001 (2023)): finite differences with the crystal's symmetry, forces of the crystal at
rest subtracted, sum rules enforced. Harmonic; long-range splitting of polar crystals at Gamma is
left out. Each displaced supercell costs one evaluation of energy and forces: one or two for simple
crystals, up to six an atom without symmetry.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import atomic_masses
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from pydantic import Field

from campaign import plugins
from campaign.errors import InputError
from campaign.protocols import HasElements, HasTrial
from campaign.types import (
    ENERGY_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Fidelity,
    FloatArray,
    Observation,
    Quantity,
)
from oracles import vibrations
from oracles.inner import AsksOracle, built
from oracles.mechanics import Mechanics
from oracles.static import StaticOracle

if TYPE_CHECKING:
    from phonopy import Phonopy

LOWEST_FREQUENCY = Quantity("lowest_frequency", "THz")
DYNAMICALLY_STABLE = Quantity("dynamically_stable", "1")
ZERO_POINT_ENERGY = Quantity("zero_point_energy_per_atom", "eV/atom")
VIBRATIONAL_FREE_ENERGY = Quantity("vibrational_free_energy_per_atom", "eV/atom")
FREE_ENERGY = Quantity("free_energy_per_atom", "eV/atom")
_MEASURED = (
    LOWEST_FREQUENCY,
    DYNAMICALLY_STABLE,
    ZERO_POINT_ENERGY,
    VIBRATIONAL_FREE_ENERGY,
    FREE_ENERGY,
)


class PhononsConfig(AsksOracle):
    """The inner oracle, the supercell, and what counts as stable."""

    oracle: str = Field(
        description="Name of the oracle that relaxes and whose forces are taken: lammps, mace "
        "or another static one."
    )
    supercell_length: float = Field(
        10.0,
        gt=0,
        description="Minimum distance (angstrom) between an atom and its images in the supercell.",
    )
    displacement: float = Field(
        0.01, gt=0, le=0.1, description="How far atoms are moved (angstrom)."
    )
    mesh_length: float = Field(
        30.0,
        ge=10,
        description="Length (angstrom) whose inverse is the spacing of the mesh of q points.",
    )
    temperature: float = Field(300.0, ge=0, description="Temperature (K) of the free energies.")
    tolerance: float = Field(
        0.1,
        ge=0,
        description="Imaginary frequency (THz) up to which a crystal counts as dynamically stable.",
    )
    acoustic_tolerance: float = Field(
        0.5,
        gt=0,
        description="Maximum frequency (THz) at Gamma of moving the whole crystal, before it "
        "is set to zero; noise of the forces.",
    )
    symmetry_tolerance: float = Field(
        1e-3, gt=0, description="How far atoms may lie off their symmetric sites (angstrom)."
    )
    on_instability: Literal["report", "fail"] = Field(
        "report",
        description="A dynamically unstable crystal is reported, its energies from its real "
        "modes alone, or is a failure.",
    )


@dataclass(frozen=True)
class Spectrum:
    """Frequencies (q, m) in THz on a mesh of q points (q, 3) with weights (q,); ``drift``: acoustic
    ones at Gamma before the sum rules.
    """

    frequencies: FloatArray
    points: FloatArray
    weights: FloatArray
    drift: float


def primitive(crystal: Crystal, tolerance: float) -> Crystal:
    """The reduced primitive cell, its atoms on their symmetric sites where they lie within
    ``tolerance`` (angstrom) of them.
    """
    import spglib

    cell = (crystal.lattice, crystal.fractional, crystal.numbers)
    lattice, fractional, numbers = (
        spglib.standardize_cell(cell, to_primitive=True, symprec=tolerance) or cell
    )
    rows = minkowski_reduce(lattice)[0]
    return Crystal(rows, fractional @ lattice @ np.linalg.inv(rows), np.asarray(numbers))


def supercell(crystal: Crystal, length: float, tolerance: float) -> NDArray[np.intp]:
    """(3, 3) whole rows of a symmetric supercell of a primitive cell; repeats of the conventional
    cell are tried too.
    """
    import spglib

    cell = (crystal.lattice, crystal.fractional, crystal.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=tolerance)
    if found is None:
        return vibrations.supercell(crystal.lattice, np.eye(3, dtype=np.intp)[None], (), length)
    conventional = np.round(np.linalg.inv(found.transformation_matrix).T).astype(np.intp)
    return vibrations.supercell(crystal.lattice, found.rotations, (conventional,), length)


def force_constants(engine: Mechanics, crystal: Crystal, config: PhononsConfig) -> Phonopy:
    """Those of a primitive cell at rest, from forces on a supercell, before the sum rules."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    masses = atomic_masses[crystal.numbers]
    cell = PhonopyAtoms(
        numbers=crystal.numbers.tolist(),
        cell=crystal.lattice,
        scaled_positions=crystal.fractional,
        masses=masses,
    )
    rows = supercell(crystal, config.supercell_length, config.symmetry_tolerance)
    phonons = Phonopy(
        cell, supercell_matrix=rows.T, primitive_matrix="P", symprec=config.symmetry_tolerance
    )
    phonons.generate_displacements(distance=config.displacement)
    rest = _forces(engine, cell)[
        [phonons.supercell.u2u_map[atom] for atom in phonons.supercell.s2u_map]
    ]
    phonons.forces = [
        _forces(engine, moved) - rest for moved in phonons.supercells_with_displacements
    ]
    phonons.produce_force_constants(show_drift=False)
    return phonons


def _forces(engine: Mechanics, cell: Any) -> FloatArray:
    engine.load(Crystal(cell.cell, cell.scaled_positions, cell.numbers))
    return engine.state().forces


def spectrum(phonons: Phonopy, mesh_length: float) -> Spectrum:
    """On a mesh with Gamma, after the sum rules."""
    drift = float(np.sort(np.abs(phonons.run_qpoints([[0, 0, 0]]).frequencies[0]))[:3].max())
    phonons.symmetrize_force_constants(show_drift=False)
    with warnings.catch_warnings(
        category=RuntimeWarning, action="ignore"
    ):  # meshes that follow the conventional cell are told as warnings
        mesh = phonons.run_mesh(mesh_length, is_gamma_center=True)
    return Spectrum(
        np.asarray(mesh.frequencies),
        np.asarray(mesh.qpoints),
        np.asarray(mesh.weights, dtype=float),
        drift,
    )


class Phonons:
    """What the inner oracle measures, the lowest frequency, whether the crystal is dynamically
    stable, and its vibrations' energies.
    """

    Config = PhononsConfig

    def __init__(self, config: PhononsConfig) -> None:
        self.config = config
        inner = built(config.spec(), "params")
        if not isinstance(inner, StaticOracle):
            raise InputError(
                f"phonons need forces, and {config.oracle} hands on none",
                hint="take an oracle of the static protocols, such as lammps or mace",
            )
        if inner.config.relax == "none":
            raise InputError(
                "phonons are those of a crystal at rest, but the inner oracle has relax: none",
                hint="set relax: cell or ions",
            )
        self.inner = inner

    @staticmethod
    def unavailable() -> str:
        from importlib.util import find_spec

        return (
            ""
            if find_spec("phonopy") is not None
            else "phonopy is not installed in this interpreter: pip install 'phonopy>=4'"
        )

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        return (*self.inner.quantities, *_MEASURED)

    @property
    def elements(self) -> frozenset[str]:
        from ase.data import chemical_symbols

        return (
            self.inner.elements
            if isinstance(self.inner, HasElements)
            else frozenset(chemical_symbols[1:])
        )

    @property
    def relaxes_volume(self) -> bool:
        return self.inner.relaxes_volume

    @property
    def fidelity(self) -> Fidelity:
        inner = plugins.fidelity_of(self.inner, self.config.spec())
        settings = self.config.model_dump(
            mode="json", exclude={"oracle", "params", "acoustic_tolerance", "on_instability"}
        )
        return Fidelity(f"phonons-{inner.name}", {**settings, "inner": inner.key, "protocol": 1})

    def trial(self, elements: Sequence[str]) -> None:
        """The inner oracle's. Raises InputError."""
        if isinstance(self.inner, HasTrial):
            self.inner.trial(elements)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        evaluation = self.inner.evaluate(crystal)
        if evaluation.failure is not None:
            return evaluation
        at_rest = primitive(evaluation.crystal or crystal, self.config.symmetry_tolerance)
        try:
            found = spectrum(
                force_constants(self.inner.mechanics, at_rest, self.config), self.config.mesh_length
            )
        except ValueError as error:
            return Evaluation.failed(FailureKind.UNPHYSICAL, f"no phonons: {error}")
        if not np.isfinite(found.frequencies).all():
            return Evaluation.failed(
                FailureKind.UNPHYSICAL, "no phonons: forces on displaced atoms are not finite"
            )
        if found.drift > self.config.acoustic_tolerance:
            message = (
                f"moving the whole crystal has {found.drift:.3g} THz, allowed "
                f"{self.config.acoustic_tolerance:g}: forces are too noisy"
            )
            return Evaluation.failed(FailureKind.NOT_CONVERGED, message)
        measured = tuple(
            self._observations(found, len(at_rest), evaluation.value(ENERGY_PER_ATOM.name))
        )
        lowest, stable = measured[0].scalar, measured[1].scalar
        if self.config.on_instability == "fail" and not stable:
            message = (
                f"dynamically unstable: lowest frequency {lowest:.3f} THz, allowed down "
                f"to -{self.config.tolerance:g}"
            )
            return Evaluation.failed(FailureKind.UNPHYSICAL, message, retryable=False)
        return replace(evaluation, observations=(*evaluation.observations, *measured))

    def _observations(self, found: Spectrum, n: int, energy: float) -> Iterator[Observation]:
        modes = vibrations.counted(found.frequencies, found.points)
        lowest = float(found.frequencies[modes].min())
        zero_point = vibrations.zero_point_energy(found.frequencies, found.weights, modes) / n
        vibrational = (
            vibrations.free_energy(found.frequencies, found.weights, modes, self.config.temperature)
            / n
        )
        values = (
            lowest,
            float(lowest >= -self.config.tolerance),
            zero_point,
            vibrational,
            energy + vibrational,
        )
        return (
            Observation(quantity.name, value, quantity.unit)
            for quantity, value in zip(_MEASURED, values, strict=True)
        )
