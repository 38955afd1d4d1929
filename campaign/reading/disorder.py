"""Ordered cells in place of partly occupied sites: all distinct small ones, or special quasirandom
structures.

``enumerate``: every way to put the elements on the sites of every cell that holds a whole number of
each, the smallest cells first, one of each set that symmetry makes equal (as G. L. W. Hart and R.
W. Forcade, Phys. Rev. B 77 (2008) 224115). ``sqs``: cells whose pairs are those of a random alloy
as nearly as may be (A. Zunger et al., Phys. Rev. Lett. 65 (1990) 353), found by sqsgenerator (D.
Gehringer, M. Friak and D. Holec, Comput. Phys. Commun. 286 (2023) 108664). The same file and
settings give the same cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import Parameters
from campaign.reading.sites import WHOLE, Sites
from campaign.types import Crystal, FloatArray

IntArray = NDArray[np.int64]
_LARGEST_ERROR = 0.011
_MOST_WAYS = 50_000
_NEAREST = 0.5
_PRECISION = 1e-3
_WEIGHTS = (1.0, 0.5, 0.3)
_STEPS = 300_000
_SAME_SHELL = 0.1
_LONGEST = 2.01


class Disorder(Parameters):
    """How partly occupied sites become ordered cells."""

    method: Literal["enumerate", "sqs"] = Field(
        description="enumerate: the distinct orderings of the smallest cells; sqs: special "
        "quasirandom structures, as a random alloy."
    )
    max_atoms: int = Field(
        32, ge=1, le=500, description="Maximum number of sites of an ordered cell."
    )
    count: int = Field(
        20, ge=1, description="Maximum number of ordered cells of each disordered crystal."
    )


def ordered_cells(sites: Sites, disorder: Disorder, where: str) -> list[Crystal]:
    """Raises InputError where no cell of the allowed size holds the shares, to 1 % of each site, or
    none keeps its atoms apart.
    """
    made = (
        _enumerated(sites, disorder, where)
        if disorder.method == "enumerate"
        else _quasirandom(sites, disorder, where)
    )
    found = list(itertools.islice(made, disorder.count))
    if not found:
        raise InputError(
            f"{where}: no ordered cell of at most {disorder.max_atoms} sites holds the partial "
            "occupancies with its atoms "
            f"{_NEAREST:g} angstrom apart",
            hint="raise max_atoms of disorder, or give an ordered cell (split positions have none)",
        )
    return found


def _groups(sites: Sites) -> list[list[int]]:
    """Rows of the disordered sites, those that the file lists as one together."""
    groups: dict[str, list[int]] = {}
    for row in sites.disordered:
        groups.setdefault(sites.labels[row], []).append(row)
    return list(groups.values())


def _amounts(share: Mapping[int, float], n: int) -> dict[int, int] | None:
    """Whole numbers of each element on n sites, 0 for empty ones; None where they differ from the
    shares by more than 1 % of a site.
    """
    counts = {number: round(value * n) for number, value in share.items()}
    if any(
        abs(count / n - share[number]) > _LARGEST_ERROR or not count
        for number, count in counts.items()
    ):
        return None
    empty = n - sum(counts.values())
    is_full = sum(share.values()) > 1 - 2 * WHOLE
    if empty < 0 or is_full != (empty == 0):
        return None
    return {0: empty, **counts} if empty else counts


def _filled(
    sites: Sites,
    lattice: FloatArray,
    fractional: FloatArray,
    parents: IntArray,
    numbers: IntArray,
    where: str,
) -> Crystal | None:
    """The cell with a number on each site; None where atoms of split positions lie on one
    another.
    """
    from campaign.crystals.neighbours import shortest_distance

    labels = [sites.labels[row] for row in parents]
    crystal = Sites(lattice, fractional, [{}] * len(numbers), labels).occupied(
        numbers.tolist(), where
    )
    return crystal if len(crystal) and shortest_distance(crystal) >= _NEAREST else None


def _enumerated(sites: Sites, disorder: Disorder, where: str) -> Iterator[Crystal]:
    from campaign.crystals.matching import Distinct, Matcher, equivalence_key

    parent = _primitive(sites)
    known = Distinct(Matcher())
    is_begun = False
    for multiple in range(1, disorder.max_atoms // len(parent.shares) + 1):
        amounts = [
            _amounts(parent.shares[group[0]], multiple * len(group)) for group in _groups(parent)
        ]
        if any(amount is None for amount in amounts):
            continue
        for matrix in _hermite_normal_forms(multiple):
            ways = math.prod(_multinomial(amount) for amount in amounts if amount)
            if ways > _MOST_WAYS:
                if is_begun:
                    return
                raise InputError(
                    f"{where}: {ways:g} ways to order a cell of "
                    f"{multiple * len(parent.shares)} sites are too many to enumerate",
                    hint="set disorder: {method: sqs}",
                )
            is_begun = True
            lattice, fractional, parents = _supercell(parent, matrix)
            for numbers in _distinct_fillings(parent, lattice, fractional, parents, amounts):
                crystal = _filled(parent, lattice, fractional, parents, numbers, where)
                if crystal is None:
                    continue
                key = equivalence_key(crystal)
                if known.find(crystal, key) is None:
                    known.add(crystal.id, key, crystal)
                    yield crystal


def _multinomial(amount: Mapping[int, int]) -> int:
    return math.factorial(sum(amount.values())) // math.prod(
        math.factorial(count) for count in amount.values()
    )


def _primitive(sites: Sites) -> Sites:
    """The primitive cell of the sites as they are occupied."""
    import spglib

    kinds = [
        (label, tuple(sorted(share.items())))
        for label, share in zip(sites.labels, sites.shares, strict=True)
    ]
    numbers = [sorted(set(kinds)).index(kind) + 1 for kind in kinds]
    found = spglib.standardize_cell(
        (sites.lattice, sites.fractional, numbers),
        to_primitive=True,
        no_idealize=True,
        symprec=_PRECISION,
    )
    if found is None:
        return sites
    lattice, fractional, kept = found
    rows = [numbers.index(number) for number in kept]
    return Sites(
        lattice,
        fractional,
        [sites.shares[row] for row in rows],
        [sites.labels[row] for row in rows],
    )


def _hermite_normal_forms(determinant: int) -> Iterator[IntArray]:
    """All superlattices of that many cells, as lower triangular matrices whose rows are the new
    vectors.
    """
    for a in range(1, determinant + 1):
        for c in range(1, determinant // a + 1):
            if determinant % (a * c) == 0:
                f = determinant // (a * c)
                for b, d, e in itertools.product(range(c), range(f), range(f)):
                    yield np.array([[a, 0, 0], [b, c, 0], [d, e, f]]).T


def _supercell(sites: Sites, matrix: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Lattice, fractional coordinates (m n, 3) and the rows (m n,) of the cell's sites they come
    from.
    """
    inverse = np.linalg.inv(matrix)
    corners = matrix.clip(max=0).sum(0), matrix.clip(min=0).sum(0)
    cells = np.array(
        list(itertools.product(*(range(low, high + 1) for low, high in zip(*corners, strict=True))))
    )
    inside = (cells @ inverse) % 1.0
    inside[inside > 1 - 1e-9] = 0.0
    shifts = np.unique(inside.round(9), axis=0)
    fractional = (shifts[None] + (sites.fractional @ inverse)[:, None]).reshape(-1, 3) % 1.0
    return matrix @ sites.lattice, fractional, np.repeat(np.arange(len(sites.shares)), len(shifts))


def _distinct_fillings(
    parent: Sites,
    lattice: FloatArray,
    fractional: FloatArray,
    parents: IntArray,
    amounts: Sequence[Mapping[int, int] | None],
) -> Iterator[IntArray]:
    """Atomic numbers (m n,), one filling of each set that the symmetry of the empty sites makes
    equal.

    What a smaller cell holds, as a translation leaves it as it is, is left out.
    """
    rows = [np.flatnonzero(np.isin(parents, group)) for group in _groups(parent)]
    open_rows = np.concatenate(rows)
    numbers = np.array([next(iter(parent.shares[row])) for row in parents])
    permutations, translations = _permutations(lattice, fractional, parents)
    seen: set[bytes] = set()
    for parts in itertools.product(*(_arrangements(amount) for amount in amounts if amount)):
        numbers[open_rows] = np.concatenate(parts)
        if numbers.tobytes() not in seen:
            seen.update(image.tobytes() for image in numbers[permutations])
            if not (numbers[translations] == numbers).all(1).any():
                yield numbers.copy()


def _arrangements(amount: Mapping[int, int]) -> list[IntArray]:
    """Every order of a number of each element."""
    n = sum(amount.values())
    partial = [(np.full(n, -1), list(range(n)))]
    for number, count in amount.items():
        grown = []
        for filled, free in partial:
            for chosen in itertools.combinations(free, count):
                one = filled.copy()
                one[list(chosen)] = number
                grown.append((one, [row for row in free if row not in chosen]))
        partial = grown
    return [filled for filled, _ in partial]


def _permutations(
    lattice: FloatArray, fractional: FloatArray, parents: IntArray
) -> tuple[IntArray, IntArray]:
    """(operations, n): how the symmetry of the sites, as the disordered crystal has them, permutes
    them; and its translations alone.
    """
    import spglib

    unmoved = np.arange(len(parents))
    found = spglib.get_symmetry((lattice, fractional, parents + 1), symprec=_PRECISION)
    if found is None:
        return unmoved[None], np.empty((0, len(parents)), dtype=np.int64)
    rows, translations = [], []
    for rotation, shift in zip(found["rotations"], found["translations"], strict=True):
        offset = (fractional @ rotation.T + shift)[:, None] - fractional
        offset = np.where(
            parents[:, None] == parents, np.abs(offset - np.round(offset)).sum(-1), np.inf
        )
        row = offset.argmin(1)
        rows.append(row)
        if (rotation == np.eye(3)).all() and (row != unmoved).any():
            translations.append(row)
    return np.unique(rows, axis=0), np.array(translations, dtype=np.int64).reshape(-1, len(parents))


def _quasirandom(sites: Sites, disorder: Disorder, where: str) -> Iterator[Crystal]:
    matrix = _roundest(sites, disorder.max_atoms)
    if matrix is None:
        return
    lattice, fractional, parents = _supercell(sites, matrix)
    rows = [np.flatnonzero(np.isin(parents, group)) for group in _groups(sites)]
    amounts = [
        _amounts(sites.shares[group[0]], len(row))
        for group, row in zip(_groups(sites), rows, strict=True)
    ]
    numbers = np.array([next(iter(sites.shares[row])) for row in parents])
    known: set[str] = set()
    for seed in range(disorder.count):
        for row, amount in zip(rows, amounts, strict=True):
            numbers[row] = _best_of(lattice, fractional[row], amount or {}, seed, where)
        crystal = _filled(sites, lattice, fractional, parents, numbers, where)
        if crystal is not None and crystal.id not in known:
            known.add(crystal.id)
            yield crystal


def _roundest(sites: Sites, most: int) -> IntArray | None:
    """Of the repeats of the cell that hold the shares in at most that many sites the largest, and
    of those the nearest to a cube.

    None where no repeats do. Cells more than twice as long as wide are taken only where there is no
    other.
    """
    lengths = np.linalg.norm(sites.lattice, axis=1)
    largest = most // len(sites.shares)
    found = []
    for repeats in _products_up_to(largest):
        multiple = math.prod(repeats)
        if all(_amounts(sites.shares[group[0]], multiple * len(group)) for group in _groups(sites)):
            edges = lengths * repeats
            found.append(
                (
                    edges.max() / edges.min() > _LONGEST,
                    -multiple,
                    edges.max() / edges.min(),
                    repeats,
                )
            )
    return np.diag(min(found)[3]) if found else None


def _products_up_to(largest: int) -> Iterator[tuple[int, int, int]]:
    for a in range(1, largest + 1):
        for b in range(1, largest // a + 1):
            for c in range(1, largest // (a * b) + 1):
                yield a, b, c


def _best_of(
    lattice: FloatArray, fractional: FloatArray, amount: Mapping[int, int], seed: int, where: str
) -> IntArray:
    """Atomic numbers (n,) of the sites, the best of many drawn at random under the seed; the first
    of equally good ones in order.
    """
    from ase.data import chemical_symbols

    try:
        import sqsgenerator
        from sqsgenerator.core import LogLevel
    except ImportError as error:
        hint = 'pip install "oreloop[disorder]", or set disorder: {method: enumerate}'
        raise InputError(
            "special quasirandom structures need the package sqsgenerator, which is not installed",
            hint=hint,
        ) from error
    occupied = {
        ("0" if number == 0 else chemical_symbols[number]): count
        for number, count in amount.items()
    }
    n = len(fractional)
    if n == max(amount.values()):
        return np.full(n, next(iter(amount)))
    first = next(name for name in occupied if name != "0")
    reason = ""
    edges = _shell_edges(lattice, fractional)
    for shells in range(min(len(_WEIGHTS), len(edges) - 1), 0, -1):
        config: dict[str, Any] = {
            "structure": {
                "lattice": lattice.tolist(),
                "coords": fractional.tolist(),
                "species": [first] * n,
            },
            "composition": [{"sites": list(range(n)), **occupied}],
            "shell_radii": edges[: shells + 1],
            "shell_weights": dict(enumerate(_WEIGHTS[:shells], start=1)),
            "iterations": _STEPS,
            "seed": seed,
            "thread_config": 1,
            "max_results_per_objective": 1,
        }
        try:
            found = sqsgenerator.optimize(config, level=LogLevel.error)
            best = min(
                (objective, sorted(tuple(one.structure().species) for one in equal))
                for objective, equal in found
            )
            return np.array(best[1][0])
        except (
            Exception
        ) as error:  # a cell that is too small for a shell is told by errors of several kinds
            reason = str(error)
    raise InputError(
        f"{where}: no special quasirandom structure of {n} sites: {reason.splitlines()[0]}",
        hint="raise max_atoms of disorder",
    )


def _shell_edges(lattice: FloatArray, fractional: FloatArray) -> list[float]:
    """Distances (angstrom) between the shells of nearest images, from 0 on."""
    from campaign.crystals.neighbours import length_scale, pairs

    n = len(fractional)
    first, second, distance, _ = pairs(lattice, fractional, 2.5 * length_scale(lattice, n))
    nearest = np.full((n, n), np.inf)
    np.minimum.at(nearest, (first, second), distance)
    steps = np.unique(nearest[np.isfinite(nearest) & ~np.eye(n, dtype=bool)].round(2))
    shells = np.split(steps, np.flatnonzero(np.diff(steps) > _SAME_SHELL) + 1)
    return [
        0.0,
        *(float(inner[-1] + outer[0]) / 2 for inner, outer in itertools.pairwise(shells)),
        float(steps[-1]) + _SAME_SHELL,
    ]
