"""When two candidates are the same crystal: a key whose neighbours are the only crystals that may
be equal, then a comparison.

The key holds the formula and sums over neighbours that translation, rotation, mirrors, permutation,
uniform scaling and the choice of the cell leave unchanged, and that change little where atoms or
edges do. Crystals whose keys are near are compared atom by atom: primitive cells, every choice of
edges within the tolerances, every translation. A crystal and its mirror image have one energy, and
are one.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import spglib
from numpy.typing import NDArray

from campaign.crystals.neighbours import scaled_pairs
from campaign.crystals.primitive import PrimitiveCell, primitive_cell
from campaign.types import Crystal, FloatArray, counts_of, reduced_formula

Sameness = Literal["shape", "structure"]
"""Whether crystals that differ in volume alone are one (shape) or as many as there are volumes
(structure).
"""

_WIDTHS = (1.2, 1.7)
_SYMMETRY_PRECISION = 1e-4
_CACHED_KEYS = 4096
_CACHED_GEOMETRIES = 128
_CACHED_CELLS = 4096
_VERSION, _SITES_BYTES = "2", 6
_LEAST_SUM = 0.3
"""Below it a sum over neighbours is compared by its difference, above by its ratio."""
_ROUNDING, _VOLUME_ROUNDING = 1e-3, 4e-3
"""Of the sums, relative, and of the volume's logarithm, as keys hold them in half precision."""
_MEAN_REACH = 0.42
"""The largest change is at most the reach, the root mean square of all at most this much of it."""
_MOST_RIVALS = 100
_MARGIN = 1 + 1e-9
_permutations: OrderedDict[bytes, NDArray[np.int16]] = OrderedDict()


def site_environments(crystal: Crystal) -> FloatArray:
    """(n, 2 s) for s elements: Gaussian-weighted counts of each element around each atom, at two
    widths, in units of (V/n)^(1/3).
    """
    pairs = scaled_pairs(crystal)
    elements, kind = np.unique(crystal.numbers, return_inverse=True)
    flat = pairs.first * len(elements) + kind[pairs.second]
    columns = []
    for width in _WIDTHS:
        weight = np.exp(-((pairs.distance / width) ** 4))
        around = np.bincount(flat, weights=weight, minlength=len(crystal) * len(elements))
        columns.append(around.reshape(len(crystal), len(elements)))
    return np.concatenate(columns, axis=1)


def equivalence_key(crystal: Crystal) -> str:
    """The formula, and as text: a hash of the sites, the logarithm of a volume (of an atom), and
    sums that copies nearly share.
    """
    elements = np.unique(crystal.numbers)
    around = site_environments(crystal)
    share = (crystal.numbers[:, None] == elements) / len(crystal)
    near, far = around[:, : len(elements)], around[:, len(elements) :]
    upper = np.triu_indices(len(elements))
    sums = ((share.T @ near)[upper], (share.T @ far)[upper], (share.T @ near**2).ravel())
    values = np.concatenate([[math.log(crystal.volume / len(crystal))], *sums])
    sites = hashlib.blake2b(crystal.sites, digest_size=_SITES_BYTES).digest()
    return f"{crystal.formula}:{_VERSION}:{base64.b64encode(sites + values.astype('<f2').tobytes()).decode()}"  # noqa: E501


def key_or_none(crystal: Crystal) -> str:
    """The equivalence key; empty for an overlapping or degenerate cell, which the screens
    refuse.
    """
    try:
        return equivalence_key(crystal)
    except (ValueError, RuntimeError, ArithmeticError):
        return ""


@dataclass(frozen=True)
class Invariants:
    """What a key tells.

    formula: of the smallest whole numbers. atoms: of the cell. sites: a number that crystals on
    exactly the same sites share. values: (1 + m,) the volume's logarithm, sums.
    """

    formula: str
    atoms: int
    sites: int
    values: FloatArray

    @staticmethod
    def are_in(key: str) -> bool:
        """Whether a key tells them: not where it is empty, or of a ledger from before keys had
        neighbours.
        """
        return key.partition(":")[2].startswith(f"{_VERSION}:")

    @classmethod
    @lru_cache(maxsize=_CACHED_KEYS)
    def of_key(cls, key: str) -> Invariants | None:
        """None where the key is empty, or of a ledger from before keys had neighbours."""
        formula, _, rest = key.partition(":")
        version, _, text = rest.partition(":")
        if version != _VERSION:
            return None
        data = base64.b64decode(text)
        sites, values = (
            int.from_bytes(data[:_SITES_BYTES]),
            np.frombuffer(data[_SITES_BYTES:], dtype="<f2").astype(float),
        )
        return cls(reduced_formula(formula), sum(counts_of(formula).values()), sites, values)


def site_permutations(crystal: Crystal) -> NDArray[np.int16]:
    """(operations, n): how each symmetry operation of the bare sites, their elements forgotten,
    permutes them. Kept by geometry.
    """
    key = crystal.sites
    known = _permutations.get(key)
    if known is None:
        cell = (crystal.lattice, crystal.fractional, np.ones(len(crystal), dtype=int))
        symmetry = spglib.get_symmetry(cell, symprec=_SYMMETRY_PRECISION)
        found = np.empty((len(symmetry["rotations"]), len(crystal)), dtype=np.int16)
        for row, rotation, shift in zip(
            found, symmetry["rotations"], symmetry["translations"], strict=True
        ):
            moved = crystal.fractional @ rotation.T + shift
            offset = moved[:, None] - crystal.fractional
            row[:] = np.abs(offset - np.round(offset)).sum(-1).argmin(1)
        known = _permutations[key] = found
        if len(_permutations) > _CACHED_GEOMETRIES:
            _permutations.popitem(last=False)
    return known


@dataclass(frozen=True)
class Matcher:
    """Two crystals are one where, in units of (V/n)^(1/3), some choice of primitive cells and some
    translation brings all atoms together.

    length: largest relative difference of the cells' edges (1). angle: largest difference of their
    angles (degrees). site: how far the atoms stay apart, root mean square, in units of (V/n)^(1/3);
    no atom farther than three times that. volume: where ``same`` is structure, largest relative
    difference of the volumes (1).
    """

    length: float = 0.05
    site: float = 0.05
    angle: float = 1.0
    same: Sameness = "shape"
    volume: float = 0.005

    def is_same(self, one: Crystal, other: Crystal) -> bool:
        from campaign.crystals.matching_compiled import find_match

        first, second = _cell(one, self.site), _cell(other, self.site)
        if not (
            np.array_equal(first.numbers, second.numbers)
            and np.array_equal(first.starts, second.starts)
        ):
            return False
        if self.same == "structure" and abs(math.log(first.volume / second.volume)) > math.log1p(
            self.volume
        ):
            return False
        return bool(
            find_match(
                first.metric,
                second.metric,
                first.fractional,
                second.fractional,
                first.starts,
                self.length,
                self.site,
                self.angle,
            )
        )

    def reach(self, atoms: int | NDArray[np.int64]) -> FloatArray:
        """How much of themselves the sums of a cell of so many atoms change (1) within the
        tolerances.

        Strains of the cell act on all neighbours together; what the atoms' own moves do averages
        out over the cell.
        """
        strains = 0.5 * self.length + 0.4 * math.radians(self.angle)
        return _ROUNDING + strains + 1.5 * self.site * np.minimum(1.0, 12.0 / atoms)


@lru_cache(maxsize=_CACHED_CELLS)
def _cell(crystal: Crystal, site: float) -> PrimitiveCell:
    return primitive_cell(crystal, site)


class KeyIndex:
    """Keys of crystals by name, asked for those near another."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self._groups: dict[str, _Group] = {}
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, key: str) -> None:
        """An empty key has no neighbours."""
        self._names.add(name)
        found = Invariants.of_key(key)
        if found is not None:
            self._groups.setdefault(found.formula, _Group()).add(name, found)

    def near(self, key: str) -> list[str]:
        """Names of the crystals that may be equal, the nearest first, at most 100."""
        return self.near_each([key])[key]

    def near_each(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """``near`` by key, those of one formula together."""
        found: dict[str, list[str]] = {}
        together: dict[str, dict[str, Invariants]] = {}
        for key in keys:
            found[key] = []
            wanted = (
                Invariants.of_key(key)
                if reduced_formula(key.partition(":")[0]) in self._groups
                else None
            )
            if wanted is not None:
                together.setdefault(wanted.formula, {})[key] = wanted
        for formula, asked in together.items():
            found.update(
                zip(
                    asked,
                    self._groups[formula].near(list(asked.values()), self.matcher),
                    strict=True,
                )
            )
        return found


class _Group:
    """The keys of one reduced formula, in arrays that double as they fill: atoms and sites (n, 2),
    values (n, 1 + m) in the precision that keys have.

    On exactly the same sites nothing is rattled or strained, so that sums of equal crystals are
    equal.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.cells: NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
        self.values: NDArray[np.float16] = np.empty(0, dtype=np.float16)

    def add(self, name: str, key: Invariants) -> None:
        n = len(self.names)
        if n == len(self.cells):
            room, width = max(1, n), len(key.values)
            self.cells = np.concatenate([self.cells, np.empty((room, 2), dtype=np.int64)])
            self.values = np.concatenate(
                [self.values.reshape(n, width), np.empty((room, width), dtype=np.float16)]
            )
        self.cells[n], self.values[n] = (key.atoms, key.sites), key.values
        self.names.append(name)

    def near(self, wanted: Sequence[Invariants], matcher: Matcher) -> list[list[str]]:
        """For each key the names of those near it. What the first of the sums alone tells apart is
        left out before the others count.
        """
        n, elements = len(self.names), len(counts_of(wanted[0].formula))
        asked = np.stack([one.values for one in wanted])
        first, wanted_first = self.values[:n, 1].astype(float), asked[:, 1, None]
        farthest = _MARGIN * matcher.reach(
            min(int(self.cells[:n, 0].min()), *(one.atoms for one in wanted))
        )
        which, rows = np.nonzero(
            np.abs(first - wanted_first) <= farthest * (0.5 * (first + wanted_first) + _LEAST_SUM)
        )
        (atoms, sites), (wanted_atoms, wanted_sites) = (
            self.cells[rows].T,
            np.array([(one.atoms, one.sites) for one in wanted])[which].T,
        )
        values, sums = self.values[rows, 1:].astype(float), asked[which, 1:]
        apart = np.abs(values - sums) / (0.5 * (values + sums) + _LEAST_SUM)
        apart[:, -(elements**2) :] /= 2
        reach = np.where(
            sites == wanted_sites, _ROUNDING, matcher.reach(np.minimum(atoms, wanted_atoms))
        )
        mean_square = np.einsum("nm,nm->n", apart, apart) / sums.shape[1]
        is_near = (mean_square <= (_MEAN_REACH * reach) ** 2) & (apart.max(1) <= reach)
        if matcher.same == "structure":
            is_near &= (
                np.abs(self.values[rows, 0].astype(float) - asked[which, 0])
                <= math.log1p(matcher.volume) + _VOLUME_ROUNDING
            )
        kept = np.flatnonzero(is_near)
        order = kept[np.lexsort((mean_square[kept], which[kept]))]
        found: list[list[str]] = [[] for _ in wanted]
        for one, row in zip(which[order].tolist(), rows[order].tolist(), strict=True):
            if len(found[one]) < _MOST_RIVALS:
                found[one].append(self.names[row])
        return found


class Distinct:
    """Crystals that differ from each other, by name. ``is_same`` of an equal matcher decides among
    those whose keys are near.
    """

    def __init__(self, matcher: Matcher) -> None:
        self._index = KeyIndex(matcher)
        self._crystals: dict[str, Crystal] = {}

    def add(self, name: str, key: str, crystal: Crystal) -> None:
        self._index.add(name, key)
        self._crystals[name] = crystal

    def find(self, crystal: Crystal, key: str) -> str | None:
        """The name of the crystal that is the same; None where there is none."""
        is_same = self._index.matcher.is_same
        return next(
            (name for name in self._index.near(key) if is_same(crystal, self._crystals[name])), None
        )
