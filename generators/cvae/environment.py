"""The local environment that crystals are refined towards: its power spectra, its shells of
neighbours and its bonds.

A target is a known crystal: its sites of one element share one environment, the mean over them.
Angstrom; alpha in 1/angstrom^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from campaign.crystals.neighbours import pairs
from campaign.crystals.so3 import PowerSpectrum, harmonic_norms, solid_pieces
from campaign.errors import InputError
from campaign.types import Crystal, FloatArray
from generators.cvae.free_variables import Batch, batch_of
from generators.cvae.table import encode

SPECTRUM = PowerSpectrum(cutoff=2.1, n_max=2, l_max=4, alpha=1.5)


@lru_cache(maxsize=1)
def prototypes() -> dict[str, Crystal]:
    """Targets by name."""
    from pymatgen.core import Lattice, Structure

    hexagonal, cubic = Lattice.hexagonal, Lattice.cubic
    made = {
        "graphite": Structure.from_spacegroup(
            194, hexagonal(2.46, 6.70), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]
        ),
        "diamond": Structure.from_spacegroup(227, cubic(3.567), ["C"], [[0, 0, 0]]),
        "lonsdaleite": Structure.from_spacegroup(
            194, hexagonal(2.52, 4.12), ["C"], [[1 / 3, 2 / 3, 0.0625]]
        ),
        "boron_nitride": Structure.from_spacegroup(
            194, hexagonal(2.504, 6.66), ["B", "N"], [[1 / 3, 2 / 3, 0.25], [1 / 3, 2 / 3, 0.75]]
        ),
        "cubic_boron_nitride": Structure.from_spacegroup(
            216, cubic(3.615), ["B", "N"], [[0, 0, 0], [0.25, 0.25, 0.25]]
        ),
        "cristobalite": Structure.from_spacegroup(
            227, cubic(7.16), ["Si", "O"], [[0, 0, 0], [0.125, 0.125, 0.125]]
        ),
    }
    return {name: Crystal.from_structure(structure) for name, structure in made.items()}


def prototype(name: str) -> Crystal:
    """Raises InputError naming those there are."""
    if name not in prototypes():
        raise InputError(
            f"no target is called {name}",
            hint=f"take one of {', '.join(prototypes())}, or a structure file",
        )
    return prototypes()[name]


@dataclass(frozen=True, eq=False)
class Environment:
    """What every site should look like.

    references: crystals whose environments are averaged, with the same elements. bonds: longest
    bond (angstrom) of two elements by their symbols; absent, 1.3 times the shortest distance of the
    two in the references, and no bond where they are not bonded there.
    """

    references: tuple[Crystal, ...]
    bonds: dict[str, float] = field(default_factory=dict)
    spectrum: PowerSpectrum = SPECTRUM

    def __post_init__(self) -> None:
        elements = {frozenset(crystal.numbers.tolist()) for crystal in self.references}
        if len(elements) != 1:
            raise InputError(
                "expected targets of the same elements, got "
                + " and ".join(sorted(_names(item) for item in elements))
            )
        known = set(self.species)
        for pair in self.bonds:
            if (
                not {atomic_numbers.get(symbol, 0) for symbol in pair.split("-")} <= known
                or len(pair.split("-")) != 2
            ):
                raise InputError(
                    f"bonds: expected two elements of the target ({_names(known)}) such as "
                    f"C-C, got {pair}"
                )

    @cached_property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers, in order."""
        return tuple(sorted(set(self.references[0].numbers.tolist())))

    @cached_property
    def bond_lengths(self) -> FloatArray:
        """(elements, elements) longest bonds."""
        found = np.zeros((len(self.species), len(self.species)))
        for row, one in enumerate(self.species):
            for column, other in enumerate(self.species):
                names = {
                    f"{chemical_symbols[one]}-{chemical_symbols[other]}",
                    f"{chemical_symbols[other]}-{chemical_symbols[one]}",
                }
                given = [length for pair, length in self.bonds.items() if pair in names]
                found[row, column] = given[0] if given else self._longest(one, other)
        return found

    @property
    def bonds_by_numbers(self) -> dict[tuple[int, int], float]:
        """Longest bonds by atomic numbers."""
        rows = range(len(self.species))
        return {
            (self.species[one], self.species[other]): float(self.bond_lengths[one, other])
            for one in rows
            for other in rows
        }

    @property
    def apart(self) -> frozenset[tuple[int, int]]:
        """Pairs of atomic numbers, both ways round, that have no bonds."""
        return frozenset(pair for pair, length in self.bonds_by_numbers.items() if length == 0)

    def _longest(self, one: int, other: int) -> float:
        shortest: list[float] = []
        for crystal in self.references:
            first, second, distance, _ = pairs(crystal.lattice, crystal.fractional, 4.0)
            chosen = (crystal.numbers[first] == one) & (crystal.numbers[second] == other)
            if (
                chosen.any()
                and distance[chosen].min() < 1.3 * distance[crystal.numbers[first] == one].min()
            ):
                shortest.append(float(distance[chosen].min()))
        return 1.3 * min(shortest) if shortest else 0.0

    @cached_property
    def coordination(self) -> tuple[int, ...]:
        """Bonded neighbours of each element in the references. Raises InputError where sites of an
        element differ.
        """
        found = []
        for number in self.species:
            counts = set()
            for crystal in self.references:
                first, second, distance, _ = pairs(
                    crystal.lattice, crystal.fractional, float(self.bond_lengths.max())
                )
                rows = [self.species.index(value) for value in crystal.numbers.tolist()]
                longest = self.bond_lengths[np.array(rows)[first], np.array(rows)[second]]
                bonded = np.bincount(first[distance < longest], minlength=len(crystal))
                counts |= set(bonded[crystal.numbers == number].tolist())
            if len(counts) != 1:
                raise InputError(
                    f"the targets' {chemical_symbols[number]} atoms have {sorted(counts)} "
                    "bonds, expected one number",
                    hint="set `bonds`, or take another target",
                )
            found.append(counts.pop())
        return tuple(found)

    def spectra(self, spectrum: PowerSpectrum) -> FloatArray:
        """(elements, n_max (n_max + 1) / 2 (l_max + 1)) of the target: mean over the sites of each
        element in the references.
        """
        found = []
        for crystal in self.references:
            batch = batch_of([encode(crystal)], self.species)
            rows = site_spectra(batch, Spectrum(spectrum, self._no_target(spectrum), self.species))
            found.append(
                [
                    np.average(
                        rows[batch.elements == k], 0, batch.multiplicities[batch.elements == k]
                    )
                    for k in range(len(self.species))
                ]
            )
        return np.asarray(np.mean(found, axis=0))

    def _no_target(self, spectrum: PowerSpectrum) -> FloatArray:
        return np.zeros((len(self.species), spectrum.size))

    @lru_cache(maxsize=8)  # noqa: B019 - a campaign has one or two environments
    def stage(self, cutoff: float, alpha: float) -> Spectrum:
        """Spectra at another cutoff (angstrom) and width (1/angstrom^2)."""
        settings = PowerSpectrum(cutoff, self.spectrum.n_max, self.spectrum.l_max, alpha)
        return Spectrum(settings, self.spectra(settings), self.species)

    @cached_property
    def target(self) -> Spectrum:
        return self.stage(self.spectrum.cutoff, self.spectrum.alpha)

    def shells(self, n: int, margin: float = 0.97) -> Shells:
        """The nearest ``n`` distances of each element; those beyond the bonds times ``margin``, as
        they may be longer but not shorter.
        """
        table = np.zeros((len(self.species), n))
        for row, number in enumerate(self.species):
            found = []
            for crystal in self.references:
                first, _, distance, _ = pairs(crystal.lattice, crystal.fractional, 8.0)
                found += [
                    np.sort(distance[first == atom])[:n]
                    for atom in np.flatnonzero(crystal.numbers == number)
                ]
            table[row] = np.mean(found, axis=0)
            table[row, self.coordination[row] :] *= margin
        return Shells(table, self.coordination)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Residuals against a spectrum per element. Neighbours weigh their atomic number, negative
    where the elements differ.
    """

    settings: PowerSpectrum
    targets: FloatArray
    species: tuple[int, ...]

    @cached_property
    def objective(self) -> tuple[Any, ...]:
        """As the compiled loops take it."""
        return (*self._terms, *_NO_SHELLS)

    @cached_property
    def _terms(self) -> tuple[Any, ...]:
        numbers = np.array(self.species, dtype=np.float64)
        weights = np.where(numbers[:, None] == numbers, 1.0, -1.0) * numbers
        settings = self.settings
        pieces = solid_pieces(settings, _INTERVALS)
        step = settings.cutoff**2 / _INTERVALS
        return (
            settings.cutoff,
            step,
            settings.l_max,
            settings.n_max,
            pieces,
            harmonic_norms(settings.l_max),
            weights,
            self.targets,
        )

    def with_shells(self, shells: Shells, share: float) -> tuple[Any, ...]:
        """The objective of both, the shells' residuals (angstrom) times ``share``."""
        return (*self._terms, *shells._terms, share)


@dataclass(frozen=True, eq=False)
class Shells:
    """Residuals against the nearest distances: (elements, k) in angstrom, the first ones of each
    element its bonds.
    """

    distances: FloatArray
    bonded: tuple[int, ...]

    @cached_property
    def objective(self) -> tuple[Any, ...]:
        """As the compiled loops take it."""
        n = len(self.distances)
        nothing = np.zeros((1, 1))
        return (
            1.0,
            1.0,
            0,
            1,
            np.zeros((1, 1, 1, 4)),
            nothing,
            nothing,
            np.zeros((n, 0)),
            *self._terms,
            1.0,
        )

    @cached_property
    def _terms(self) -> tuple[Any, ...]:
        return (
            1.3 * float(self.distances.max()),
            np.array(self.bonded, dtype=np.int64),
            self.distances,
        )


_NO_SHELLS = (1.0, np.zeros(1, dtype=np.int64), np.zeros((1, 0)), 1.0)
_INTERVALS = 512


def site_spectra(batch: Batch, spectrum: Spectrum) -> FloatArray:
    """(S, components) around the first atom of each site; not a number where a crystal has no
    cell.
    """
    from generators.cvae import kernel

    return np.asarray(kernel.spectra_all(*batch.arguments, spectrum.objective, limits_of(batch), 1))


def limits_of(
    batch: Batch, steps: int = 0, goal: float = 0.0, plateau: float = 0.0
) -> tuple[Any, ...]:
    """What the compiled loops are bounded by: steps, loss and gain at which a crystal ends; the
    room for atoms, sites and neighbours.
    """
    return (
        steps,
        goal,
        plateau,
        int(batch.atoms.max()),
        int(np.diff(batch.site_start).max()),
        MOST_NEIGHBOURS,
    )


MOST_NEIGHBOURS = 512


def _names(numbers: Sequence[int] | set[int] | frozenset[int]) -> str:
    return " ".join(chemical_symbols[number] for number in sorted(numbers))
