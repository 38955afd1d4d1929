"""The words of the house: frozen values that cross ports, workers and the ledger.

Lattice vectors are rows, lengths in angstrom, energies in eV, moduli in GPa.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaign.errors import InputError
from campaign.text import storable

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]
HEAVIEST = 118


def _frozen(array: ArrayLike, dtype: type, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    is_frozen = (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and not array.flags.writeable
        and array.flags.c_contiguous
    )
    result = np.asarray(array) if is_frozen else np.array(array, dtype=dtype, order="C")
    if result.ndim != len(shape) or any(
        want not in (-1, got) for want, got in zip(shape, result.shape, strict=True)
    ):
        raise InputError(f"{name} should have shape {shape} (-1 is any), but has {result.shape}")
    if result.dtype.kind == "f" and not np.isfinite(result).all():
        raise InputError(f"{name} has values that are not finite")
    result.flags.writeable = False
    return result


def _elements(numbers: ArrayLike) -> NDArray[Any]:
    found = np.asarray(numbers)
    is_whole = found.dtype.kind in "iu" or (
        found.dtype.kind == "f" and bool((found == found.round()).all())
    )
    if found.size and not (is_whole and found.min() >= 1 and found.max() <= HEAVIEST):
        raise InputError(
            f"atomic numbers should be whole, from 1 to {HEAVIEST}, but are "
            f"{np.unique(found).tolist()}",
            hint="an atom without an element (a dummy X, a vacancy) has no place in a crystal: "
            "leave it out, or name its element",
        )
    return found


def _is_partial(share: object) -> bool:
    """Of one site, as ASE keeps it: its elements and their occupancies."""
    return isinstance(share, Mapping) and (
        len(share) != 1 or any(abs(float(value) - 1) > 1e-3 for value in share.values())
    )


def _handedness(lattice: FloatArray) -> float:
    (a, b, c), (d, e, f), (g, h, i) = lattice.tolist()
    return float(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic crystal as frozen arrays.

    lattice: (3, 3) rows in angstrom. fractional: (n, 3). numbers: (n,) atomic numbers, 1 to 118.
    Three lattice vectors that form a left-handed set are turned round, and the coordinates with
    them: every atom stays where it is. Raises InputError on wrong shapes, values that are not
    finite and numbers that are no element's.
    """

    lattice: FloatArray
    fractional: FloatArray
    numbers: NDArray[np.uint8]

    def __post_init__(self) -> None:
        self._keep(self.lattice, self.fractional, self.numbers)
        if _handedness(self.lattice) < 0:
            self._keep(-self.lattice, 0.0 - self.fractional, self.numbers)

    def _keep(self, lattice: ArrayLike, fractional: ArrayLike, numbers: ArrayLike) -> None:
        object.__setattr__(self, "lattice", _frozen(lattice, np.float64, (3, 3), "lattice"))
        object.__setattr__(
            self, "fractional", _frozen(fractional, np.float64, (-1, 3), "fractional coordinates")
        )
        object.__setattr__(
            self,
            "numbers",
            _frozen(_elements(numbers), np.uint8, (len(self.fractional),), "atomic numbers"),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crystal) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _crystal_of, (self.to_bytes(compress=False),)

    @cached_property
    def id(self) -> str:
        """128-bit hash, as 32 hexadecimal digits, of exactly the stored arrays."""
        return hashlib.blake2b(self._raw(), digest_size=16).hexdigest()

    @property
    def volume(self) -> float:
        """Cell volume in cubic angstrom."""
        return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def formula(self) -> str:
        """Elements in alphabetical order with their counts, such as ``Cr10Fe20Ni24``."""
        from ase.data import chemical_symbols

        values, counts = np.unique(self.numbers, return_counts=True)
        pairs = sorted(
            (chemical_symbols[value], int(count))
            for value, count in zip(values, counts, strict=True)
        )
        return "".join(f"{symbol}{count}" for symbol, count in pairs)

    @property
    def symbols(self) -> list[str]:
        """Element symbols, one per atom."""
        from ase.data import chemical_symbols

        return [chemical_symbols[number] for number in self.numbers]

    @property
    def structure(self) -> Structure:
        """The same crystal for pymatgen."""
        from pymatgen.core import Lattice, Structure

        return Structure(Lattice(self.lattice), self.symbols, self.fractional)

    @property
    def atoms(self) -> Atoms:
        """The same crystal for ASE."""
        from ase import Atoms

        return Atoms(
            numbers=self.numbers, scaled_positions=self.fractional, cell=self.lattice, pbc=True
        )

    @classmethod
    def from_structure(cls, structure: Structure) -> Crystal:
        """From a pymatgen Structure. Raises InputError where a site is disordered, or holds no
        element (a dummy).
        """
        from pymatgen.core import DummySpecies

        if not structure.is_ordered:
            raise InputError(
                f"expected one element on each site, but {structure.formula} has partly "
                "occupied sites"
            )
        dummies = sorted(
            {str(site.specie) for site in structure if isinstance(site.specie, DummySpecies)}
        )
        if dummies:
            raise InputError(
                f"expected an element on each site, found {', '.join(dummies)}",
                hint="leave the site out, or name its element",
            )
        numbers = np.array([site.specie.Z for site in structure], dtype=np.uint8)
        return cls(structure.lattice.matrix, structure.frac_coords, numbers)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Crystal:
        """From ASE Atoms. Raises InputError where the cell has no volume, a direction is not
        periodic or a site is partly occupied.
        """
        _elements(atoms.numbers)
        formula = atoms.get_chemical_formula()
        if not (np.isfinite(atoms.cell).all() and atoms.cell.rank == 3):
            raise InputError(
                f"expected three cell vectors that span a volume, but {formula} has "
                f"{np.asarray(atoms.cell).tolist()}",
                hint='a crystal has a cell, as extended xyz gives it by Lattice="..."; '
                "molecules and isolated atoms have none",
            )
        if not atoms.pbc.all():
            written = " ".join("T" if periodic else "F" for periodic in atoms.pbc)
            raise InputError(
                f"expected a crystal, periodic along all three cell vectors, but {formula} has "
                f"pbc {written}: a molecule, chain or slab",
                hint='a crystal has pbc="T T T"; molecules, chains and slabs are not supported',
            )
        occupancy = atoms.info.get("occupancy")
        if isinstance(occupancy, Mapping) and any(
            _is_partial(share) for share in occupancy.values()
        ):
            raise InputError(
                f"expected one element on each site, but {formula} has partly occupied sites "
                "(info['occupancy'])"
            )
        return cls(np.asarray(atoms.cell), atoms.get_scaled_positions(wrap=False), atoms.numbers)

    @cached_property
    def sites(self) -> bytes:
        """The same for all crystals on the same sites, whatever their elements and volume: lattice
        over (V/n)^(1/3), and coordinates.
        """
        edge = float((abs(np.linalg.det(self.lattice)) / len(self)) ** (1 / 3))
        return np.round(self.lattice / edge, 9).tobytes() + self.fractional.tobytes()

    def with_numbers(self, numbers: ArrayLike) -> Crystal:
        """The same sites with other elements; numbers (n,)."""
        crystal = Crystal.__new__(Crystal)
        checked = _frozen(
            _elements(np.asarray(numbers, dtype=np.uint8)), np.uint8, (len(self),), "atomic numbers"
        )
        crystal.__dict__.update(lattice=self.lattice, fractional=self.fractional, numbers=checked)
        if "sites" in self.__dict__:
            crystal.__dict__["sites"] = self.sites
        return crystal

    def _raw(self) -> bytes:
        return (
            struct.pack("<I", len(self))
            + self.lattice.tobytes()
            + self.fractional.tobytes()
            + self.numbers.tobytes()
        )

    def to_bytes(self, *, compress: bool = True) -> bytes:
        """The arrays as bytes: a count, the lattice, the coordinates, the numbers; read back by
        ``from_bytes``.
        """
        raw = self._raw()
        return b"z" + zlib.compress(raw, 1) if compress else b"r" + raw

    @classmethod
    def from_bytes(cls, data: bytes) -> Crystal:
        """Read exactly what ``to_bytes`` wrote, so that its id stays. Raises InputError on anything
        else.
        """
        try:
            raw = zlib.decompress(data[1:]) if data[:1] == b"z" else data[1:]
            (n,) = struct.unpack_from("<I", raw)
            floats = np.frombuffer(raw, dtype="<f8", count=9 + 3 * n, offset=4)
            numbers = np.frombuffer(raw, dtype=np.uint8, count=n, offset=4 + 8 * (9 + 3 * n))
        except (zlib.error, struct.error, ValueError) as error:
            raise InputError(f"these bytes are no stored crystal: {error}") from error
        crystal = cls.__new__(cls)
        crystal._keep(floats[:9].reshape(3, 3), floats[9:].reshape(n, 3), numbers)
        return crystal


def _crystal_of(data: bytes) -> Crystal:
    """A function of the module: a method would be sent to workers with its code each time."""
    return Crystal.from_bytes(data)


_FORMULA = re.compile(r"([A-Z][a-z]?)(\d+)")


@lru_cache(maxsize=8192)
def counts_of(formula: str) -> Mapping[str, int]:
    """Atoms of each element of a formula such as ``Cr10Fe20Ni24``."""
    return {symbol: int(count) for symbol, count in _FORMULA.findall(formula)}


@lru_cache(maxsize=8192)
def reduced_formula(formula: str) -> str:
    """The formula of the smallest whole numbers: ``Cr5Fe10Ni12`` of ``Cr10Fe20Ni24``."""
    counts = counts_of(formula)
    divisor = math.gcd(*counts.values())
    return "".join(f"{symbol}{count // divisor}" for symbol, count in counts.items())


@dataclass(frozen=True)
class Candidate:
    """A crystal under its identity. ``id`` is the crystal's hash."""

    crystal: Crystal

    @property
    def id(self) -> str:
        """That of its crystal."""
        return self.crystal.id


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Who proposed a crystal and from what. ``stream`` names the random stream; the loop fills it
    in with generator and round.
    """

    generator: str = ""
    round: int = -1
    stream: str = ""
    checkpoint: str | None = None
    parents: tuple[str, ...] = ()
    condition: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantity:
    """What is measured: name, unit and shape (() is a scalar, -1 the number of atoms)."""

    name: str
    unit: str
    shape: tuple[int, ...] = ()


BULK_MODULUS = Quantity("bulk_modulus", "GPa")
ENERGY_PER_ATOM = Quantity("energy_per_atom", "eV/atom")
FORMATION_ENERGY = Quantity("formation_energy_per_atom", "eV/atom")
"""Derived from the energies of a crystal and of its elements at one level; never a label."""
ENERGY_ABOVE_HULL = Quantity("energy_above_hull", "eV/atom")
"""Derived from the energies of all crystals at one level, and worked out anew when one of them
moves the hull; never a label.
"""
DERIVED = (FORMATION_ENERGY, ENERGY_ABOVE_HULL)
ENTHALPY_PREFIX = "enthalpy_per_atom_at_"
VOLUME_PER_ATOM = Quantity("volume_per_atom", "angstrom^3/atom")
FORCES = Quantity("forces", "eV/angstrom", (-1, 3))
STRESS = Quantity("stress", "GPa", (3, 3))
PROPOSED_ENERGY = Quantity("proposed_energy_per_atom", "eV/atom")
PROPOSED_FORCES = Quantity("proposed_forces", "eV/angstrom", (-1, 3))
PROPOSED_STRESS = Quantity("proposed_stress", "GPa", (3, 3))
FRACTION_FCC = Quantity("fraction_fcc", "1")
FRACTION_HCP = Quantity("fraction_hcp", "1")
FRACTION_BCC = Quantity("fraction_bcc", "1")


def enthalpy_at(pressure: float) -> Quantity:
    """Energy plus pressure times volume, per atom, of a crystal relaxed at a pressure (GPa), which
    its name says.
    """
    return Quantity(f"{ENTHALPY_PREFIX}{pressure:g}_GPa", "eV/atom")


def deciding_energy(values: Mapping[str, float]) -> float | None:
    """Of a label's values what decides which phase is stable (eV/atom): its enthalpy where it has
    one, its energy elsewhere.
    """
    enthalpy = next(
        (value for name, value in values.items() if name.startswith(ENTHALPY_PREFIX)), None
    )
    return values.get(ENERGY_PER_ATOM.name) if enthalpy is None else enthalpy


Direction = Literal["maximize", "minimize", "match"]


@dataclass(frozen=True)
class Objective:
    """What is wanted of a quantity: more, less, or to match ``value``.

    ``target`` is where the campaign may stop: a value in the quantity's unit, with ``match`` a
    distance from ``value``.
    """

    quantity: str
    direction: Direction
    target: float | None = None
    value: float | None = None

    @property
    def sign(self) -> int:
        """-1 where less is better, +1 elsewhere."""
        return -1 if self.direction == "minimize" else 1

    @overload
    def gain(self, value: float) -> float: ...
    @overload
    def gain(self, value: FloatArray) -> FloatArray: ...
    def gain(self, value: float | FloatArray) -> float | FloatArray:
        """A value such that larger is better, in the quantity's unit."""
        if self.direction == "match" and self.value is not None:
            return -np.abs(value - self.value)
        return self.sign * value

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is strictly nearer to what is wanted than another."""
        return self.gain(value) > self.gain(other)

    def is_reached(self, value: float) -> bool:
        """Whether a value is as good as the target; False without one."""
        if self.target is None:
            return False
        wanted = -self.target if self.direction == "match" else self.sign * self.target
        return self.gain(value) >= wanted


@dataclass(frozen=True)
class Fidelity:
    """A level of theory. ``settings`` are all settings that change what a label means; they enter
    the key.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name and eight hexadecimal digits over the settings."""
        from campaign.seeds import content_hash

        return f"{self.name}-{content_hash(dict(self.settings))[:8]}"


@dataclass(frozen=True)
class Observation:
    """One label: the value of a quantity in its unit, with the standard deviation of its noise
    where known.
    """

    quantity: str
    value: float | FloatArray
    unit: str
    noise: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether no number of the value is NaN or infinite."""
        return bool(np.all(np.isfinite(self.value)))

    @property
    def scalar(self) -> float:
        """The value as a float; NaN for arrays."""
        return float(self.value) if np.ndim(self.value) == 0 else math.nan


class FailureKind(StrEnum):
    """Why there is no label."""

    CRASH = "crash"
    TIMEOUT = "timeout"
    NOT_CONVERGED = "not_converged"
    UNPHYSICAL = "unphysical"
    OUT_OF_MEMORY = "out_of_memory"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Failure:
    """No label: the kind, a message for people, and whether another attempt may succeed."""

    kind: FailureKind
    message: str
    retryable: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", storable(str(self.message)))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an evaluation took: wall-clock and processor seconds, and when it started (seconds since
    the epoch).
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    started: float = 0.0
    worker: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an oracle answers: observations of ``crystal`` (the relaxed one where it relaxes), or a
    failure.

    ``fidelity`` is the key of the settings that it was made with; the worker fills it in.
    """

    observations: tuple[Observation, ...] = ()
    crystal: Crystal | None = None
    failure: Failure | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    fidelity: str = ""

    @classmethod
    def single(
        cls, quantity: Quantity, value: float, *, crystal: Crystal | None = None
    ) -> Evaluation:
        """The answer of an oracle that measures one scalar quantity."""
        return cls(
            observations=(Observation(quantity.name, float(value), quantity.unit),), crystal=crystal
        )

    @classmethod
    def failed(cls, kind: FailureKind, message: str, *, retryable: bool = True) -> Evaluation:
        """No label, for a reason; ``retryable``: the same crystal may succeed another time."""
        return cls(failure=Failure(kind, message, retryable))

    def value(self, quantity: str) -> float:
        """The scalar value of a quantity. Raises KeyError where it was not observed."""
        for observation in self.observations:
            if observation.quantity == quantity:
                return observation.scalar
        raise KeyError(quantity)


@dataclass(frozen=True)
class Verdict:
    """A screen's judgement of a candidate, with its reason where it was refused."""

    accepted: bool
    screen: str
    reason: str = ""


@dataclass(frozen=True)
class Together:
    """Bounds of what the atomic fractions of some elements add up to."""

    elements: tuple[str, ...]
    minimum: float = 0.0
    maximum: float = 1.0


class CompositionRule(Protocol):
    """What a composition has to hold beside bounds of its fractions."""

    def holds(self, elements: Sequence[str], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(m,) which of m compositions (m, elements), in atoms, hold it."""
        ...

    def violation(self, counts: Mapping[str, int]) -> str:
        """Why a composition, atoms by element, breaks it; empty where it holds it."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """The elements of a campaign and the bounds of each one's atomic fraction, and of what some of
    them add up to, and further rules.
    """

    elements: tuple[str, ...]
    minimum: Mapping[str, float] = field(default_factory=dict)
    maximum: Mapping[str, float] = field(default_factory=dict)
    together: tuple[Together, ...] = ()
    rules: tuple[CompositionRule, ...] = ()

    def bounds(self, element: str) -> tuple[float, float]:
        """Least and largest atomic fraction of an element."""
        return self.minimum.get(element, 0.0), self.maximum.get(element, 1.0)

    def without(self, elements: Iterable[str]) -> SearchSpace:
        """The same space, of which some elements may not be used."""
        banned = dict.fromkeys(elements, 0.0)
        return replace(self, maximum={**self.maximum, **banned}) if banned else self

    @property
    def has_compositions(self) -> bool:
        """Whether the bounds leave any composition, whatever the rules say."""
        bounds = {element: self.bounds(element) for element in self.elements}
        low, high = (math.fsum(bound[end] for bound in bounds.values()) for end in (0, 1))
        is_open = (
            all(least <= most for least, most in bounds.values())
            and low <= 1 + 1e-9
            and high >= 1 - 1e-9
        )
        return is_open and all(
            math.fsum(bounds[element][1] for element in group.elements) >= group.minimum
            for group in self.together
        )

    def holds(self, numbers: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(m,): which of m occupations (m, atoms) lie inside the bounds; ``kinds`` are the atomic
        numbers of ``elements``.
        """
        counts = (numbers[:, :, None] == kinds).sum(1)
        return np.asarray(self.holds_counts(counts) & (counts.sum(1) == numbers.shape[1]))

    def holds_counts(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(m,): which of m compositions (m, elements), in atoms, lie inside the bounds and hold the
        rules.
        """
        inside = self.holds_fractions(counts / counts.sum(1, keepdims=True).clip(1))
        for rule in self.rules:
            inside[inside] = rule.holds(self.elements, counts[inside])
        return inside

    def holds_fractions(self, share: FloatArray) -> NDArray[np.bool_]:
        """(m,): which of m compositions (m, elements) lie inside the bounds."""
        bounds = np.array([self.bounds(element) for element in self.elements])
        inside = np.all((share >= bounds[:, 0] - 1e-9) & (share <= bounds[:, 1] + 1e-9), axis=1)
        for together in self.together:
            total = share[:, [element in together.elements for element in self.elements]].sum(1)
            inside &= (total >= together.minimum - 1e-9) & (total <= together.maximum + 1e-9)
        return np.asarray(inside)

    def violation(self, symbols: Sequence[str]) -> str:
        """Why a list of atoms lies outside the space; empty where it lies inside."""
        foreign = sorted(set(symbols) - set(self.elements))
        if foreign:
            return f"holds {', '.join(foreign)}, which the search space does not"
        for element in self.elements:
            fraction = symbols.count(element) / len(symbols)
            low, high = self.bounds(element)
            if not low - 1e-9 <= fraction <= high + 1e-9:
                return (
                    f"{element} at {100 * fraction:.1f} at%, allowed {100 * low:g} to "
                    f"{100 * high:g} at%"
                )
        for group in self.together:
            fraction = sum(symbols.count(element) for element in group.elements) / len(symbols)
            if not group.minimum - 1e-9 <= fraction <= group.maximum + 1e-9:
                names, allowed = (
                    " + ".join(group.elements),
                    f"{100 * group.minimum:g} to {100 * group.maximum:g} at%",
                )
                return f"{names} at {100 * fraction:.1f} at%, allowed {allowed}"
        counts = {
            element: symbols.count(element) for element in self.elements if element in symbols
        }
        return next((reason for rule in self.rules if (reason := rule.violation(counts))), "")


@dataclass(frozen=True, kw_only=True)
class LabelledCandidate:
    """A candidate, the labels it has (by quantity: scalar values, and arrays) and the relaxed
    crystal they belong to. ``noise``: standard deviations of the scalars whose noise is stated.
    """

    candidate: Candidate
    values: Mapping[str, float]
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)
    relaxed: Crystal | None = None
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained state: named arrays, metrics, and the readable facts that go with them."""

    tensors: Mapping[str, NDArray[Any]]
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
