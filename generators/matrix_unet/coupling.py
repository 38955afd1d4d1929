"""The nearest of a crystal's equivalent descriptions, so that the paths of flow matching are short
and do not cross without need.

Two descriptions of one crystal with the same operations differ by a translation that keeps the
operations, and by which of equal orbits is called which. The free coordinates c of a start lead to
the description with the least sum of squared lengths (as in L. Klein, A. Kraemer, F. Noe, NeurIPS
2023, for molecules).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from campaign.types import FloatArray
from generators.symmetry import SymmetricCell

_GRID = np.array(list(itertools.product(range(12), repeat=3))) / 12
_NEAR = np.array(list(itertools.product(range(-2, 3), repeat=3)), dtype=float)
_MOST_TRANSLATIONS = 16
_TOLERANCE = 2e-3


@dataclass(frozen=True)
class _Slot:
    """An orbit: where its free coordinates stand among all, its metric (r, r) times its atoms, and
    its targets.

    ``targets``: by translation, pairs of an orbit and the coordinates (r,) of one of its atoms from
    the first atom of this one.
    """

    first: int
    metric: FloatArray
    targets: tuple[tuple[tuple[int, FloatArray], ...], ...]


@dataclass(frozen=True)
class _Plan:
    slots: tuple[_Slot, ...]
    equal: tuple[tuple[int, ...], ...]
    """Orbits with the same element and the same operations that keep their first atom."""
    n_translations: int


_plans: WeakKeyDictionary[SymmetricCell, _Plan] = WeakKeyDictionary()


def nearest_equivalent(cell: SymmetricCell, free: FloatArray) -> FloatArray:
    """(f,) the steps from free coordinates ``free`` (f,), counted from the crystal, to its nearest
    equivalent.
    """
    plan = _plans.get(cell)
    if plan is None:
        plan = _plans[cell] = _plan(cell)
    best, way = np.inf, -free
    for k in range(plan.n_translations):
        cost, steps = 0.0, np.zeros_like(free)
        for group in plan.equal:
            price, found = _matched(plan, group, k, free)
            cost += price
            if cost >= best:
                break
            for place, step in found:
                steps[place : place + len(step)] = step
        if cost < best:
            best, way = cost, steps
    return way


def _matched(
    plan: _Plan, group: tuple[int, ...], k: int, free: FloatArray
) -> tuple[float, list[tuple[int, FloatArray]]]:
    prices = np.full((len(group), len(group)), np.inf)
    steps: dict[tuple[int, int], FloatArray] = {}
    for row, orbit in enumerate(group):
        slot = plan.slots[orbit]
        here = free[slot.first : slot.first + len(slot.metric)]
        for other, coordinates in slot.targets[k]:
            step = coordinates - here
            step = step - np.round(step)
            price, column = float(step @ slot.metric @ step), group.index(other)
            if price < prices[row, column]:
                prices[row, column], steps[row, column] = price, step
    if len(group) == 1:
        return float(prices[0, 0]), [(plan.slots[group[0]].first, steps[0, 0])] if steps else []
    if np.isinf(prices).all(1).any() or np.isinf(prices).all(0).any():
        return np.inf, []
    rows, columns = linear_sum_assignment(np.where(np.isinf(prices), 1e9, prices))
    cost = float(prices[rows, columns].sum())
    if not np.isfinite(cost):
        return np.inf, []
    return cost, [
        (plan.slots[group[r]].first, steps[r, c])
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def _plan(cell: SymmetricCell) -> _Plan:
    metric = cell.crystal.lattice @ cell.crystal.lattice.T
    positions = cell.crystal.fractional
    identity = np.arange(len(cell.crystal))
    keepers = [
        frozenset(np.flatnonzero(cell.permutations[:, atom] == atom).tolist()) for atom in identity
    ]
    orbit_of = np.empty(len(identity), dtype=int)
    for number, orbit in enumerate(cell.orbits):
        orbit_of[orbit.taken] = number
    alike = [
        [
            a
            for a in identity
            if cell.crystal.numbers[a] == cell.crystal.numbers[orbit.first]
            and keepers[a] == keepers[orbit.first]
        ]
        for orbit in cell.orbits
    ]
    kinds: defaultdict[tuple[int, frozenset[int]], list[int]] = defaultdict(list)
    for number, orbit in enumerate(cell.orbits):
        kinds[
            int(cell.crystal.numbers[orbit.first]), frozenset(orbit_of[alike[number]].tolist())
        ].append(number)
    translations = _translations(cell.rotations.tobytes(), len(cell.rotations))
    slots, first = [], 0
    for orbit, atoms in zip(cell.orbits, alike, strict=True):
        targets = []
        for shift in translations:
            options = []
            for atom in atoms:
                coordinates = _coordinates(
                    positions[atom] + shift - positions[orbit.first], orbit.basis
                )
                if coordinates is not None:
                    options.append((int(orbit_of[atom]), coordinates))
            targets.append(tuple(options))
        weight = len(np.unique(orbit.taken))
        slots.append(_Slot(first, weight * orbit.basis @ metric @ orbit.basis.T, tuple(targets)))
        first += len(orbit.basis)
    return _Plan(tuple(slots), tuple(tuple(group) for group in kinds.values()), len(translations))


def _coordinates(difference: FloatArray, basis: NDArray[np.int64]) -> FloatArray | None:
    """(r,) of a difference in a basis (r, 3), up to lattice vectors; None where no lattice vector
    brings it into the span.
    """
    if not len(basis):
        return np.zeros(0) if np.abs(difference - np.round(difference)).max() < _TOLERANCE else None
    if len(basis) == 3:
        return np.asarray(np.linalg.solve(basis.T.astype(float), difference))
    images = difference - np.round(difference) + _NEAR
    solved = images @ np.linalg.pinv(basis.astype(float))
    miss = np.abs(solved @ basis - images).max(1)
    best = int(miss.argmin())
    return np.asarray(solved[best]) if miss[best] < _TOLERANCE else None


@lru_cache(maxsize=4096)
def _translations(rotations: bytes, count: int) -> tuple[FloatArray, ...]:
    """Shifts t with (W - 1) t whole for each rotation W, of those that differ by a free translation
    one: the zero shift first.
    """
    turned = np.frombuffer(rotations, dtype=np.int64).reshape(count, 3, 3)
    moved = np.einsum("gij,tj->tgi", turned - np.eye(3, dtype=np.int64), _GRID)
    kept = _GRID[np.abs(moved - np.round(moved)).max((1, 2)) < 1e-6]
    fixed = kept - kept @ turned.mean(0).T
    names = np.round((fixed + 1e-6) % 1.0, 3)
    _, rows = np.unique(names, axis=0, return_index=True)
    return tuple(kept[sorted(rows.tolist())[:_MOST_TRANSLATIONS]])
