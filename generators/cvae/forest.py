"""Which conditions bring what is wanted, learned from what failed too: two random forests on
features of a condition, one of whether refinement is accepted, one of whether an accepted crystal
is of low energy.

Conditions are drawn at random and kept by the product of the two chances to a power, so that sites
that no crystal has had are reached by their likeness to others (L. Breiman, Machine Learning 45
(2001) 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.errors import InputError
from campaign.types import Checkpoint, FloatArray
from generators.cvae.feasible import Condition, SiteLimits
from generators.cvae.orbits import bond_orbits, reversible_orbits, stabiliser, ways
from generators.cvae.sites import random_condition
from generators.cvae.table import MOST_SITES
from generators.wyckoff import group_of

BoolArray = NDArray[np.bool_]
LAST_GROUPS = (2, 15, 74, 142, 167, 194, 230)
"""Of the crystal systems, from triclinic to cubic."""
FREE_LENGTHS = (6, 4, 3, 2, 2, 2, 1)
"""Free variables of each system's cell."""
NAMES = (
    "space group",
    "system",
    "free variables of the cell",
    "primitive cells in the conventional one",
    "operations of the point group",
    "inversion",
    "sites",
    "distinct positions",
    "atoms of the cell",
    "atoms of the primitive cell",
    "odd atoms of the primitive cell",
    "free coordinates",
    "free coordinates of an atom",
    "free variables of an atom",
    "sites without a free coordinate",
    "sites with one",
    "sites with two",
    "general sites",
    *(f"{what} atoms of a site" for what in ("fewest", "most", "mean")),
    *(f"{what} operations of a site" for what in ("fewest", "most", "mean")),
    *(f"{what} ways to make a site's bonds" for what in ("fewest", "most", "mean")),
    *(f"{what} orbits of a site's bonds" for what in ("fewest", "most", "mean")),
    "sites with a bond to their own kind",
    "sites whose bonds are one orbit",
)


@dataclass(frozen=True)
class _Site:
    atoms: float
    """Of the primitive cell."""
    freedom: int
    operations: int
    ways: int
    orbits: int
    is_own_neighbour: bool


@lru_cache(maxsize=16384)
def _site(group: int, index: int, bonds: int) -> _Site:
    position = group_of(group).positions[index]
    sizes = ways(bond_orbits(group, index), bonds)
    return _Site(
        position.multiplicity / group_of(group).centring,
        position.degrees_of_freedom,
        len(stabiliser(group, index)[1]),
        len(sizes),
        min((len(one) for one in sizes), default=0),
        bool(reversible_orbits(group, index)),
    )


@lru_cache(maxsize=230)
def of_group(number: int) -> tuple[float, ...]:
    """(6,) the first of ``NAMES``."""
    group = group_of(number)
    turns = group.positions[0].operations[:, :3, :3]
    system = system_of(number)
    return (
        float(number),
        float(system),
        float(FREE_LENGTHS[system]),
        float(group.centring),
        float(len(np.unique(turns, axis=0))),
        float((np.abs(turns + np.eye(3)).max((1, 2)) < 1e-6).any()),
    )


def system_of(number: int) -> int:
    """From 0, triclinic, to 6, cubic."""
    return int(np.searchsorted(LAST_GROUPS, number))


@lru_cache(maxsize=65536)
def _row(condition: Condition, bonds: tuple[tuple[int, int], ...]) -> tuple[float, ...]:
    number, places = condition
    wanted = dict(bonds)
    sites = [_site(number, index, wanted[element]) for index, element in places]
    of_whole = of_group(number)
    atoms = sum(site.atoms for site in sites)
    freedom = sum(site.freedom for site in sites)
    kinds = [sum(site.freedom == k for site in sites) for k in range(4)]

    def spread(values: Sequence[float]) -> tuple[float, float, float]:
        return float(min(values)), float(max(values)), float(np.mean(values))

    return (
        *of_whole,
        float(len(sites)),
        float(len({index for index, _ in places})),
        atoms * of_whole[3],
        atoms,
        float(round(atoms) % 2),
        float(freedom),
        freedom / atoms,
        (freedom + of_whole[2]) / atoms,
        *(float(count) for count in kinds),
        *spread([site.atoms for site in sites]),
        *spread([site.operations for site in sites]),
        *spread([site.ways for site in sites]),
        *spread([site.orbits for site in sites]),
        float(sum(site.is_own_neighbour for site in sites)),
        float(sum(site.orbits == 1 for site in sites)),
    )


def features(conditions: Sequence[Condition], limits: SiteLimits) -> FloatArray:
    """(n, 32), by ``NAMES``: numbers that all space groups have, so that sites that were never
    tried are told by their likeness to others.
    """
    bonds = tuple(zip(limits.species, limits.bonds, strict=True))
    return np.array([_row(condition, bonds) for condition in conditions]).reshape(-1, len(NAMES))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came of conditions: (n,) whether each was as wanted."""

    conditions: tuple[Condition, ...] = ()
    is_good: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if len(self.conditions) != len(self.is_good):
            raise InputError(
                f"expected an outcome for each of {len(self.conditions)} conditions, got "
                f"{len(self.is_good)}"
            )

    def with_more(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            (*self.conditions, *other.conditions), np.concatenate([self.is_good, other.is_good])
        )

    def as_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """(n, 17) the space group and the sites' positions and elements, -1 where there is none,
        and (n,) outcomes.
        """
        rows = np.full((len(self.conditions), 1 + 2 * MOST_SITES), -1, dtype=np.int64)
        for row, (group, sites) in zip(rows, self.conditions, strict=True):
            row[0] = group
            flat = [value for site in sites for value in site]
            row[1 : 1 + len(flat)] = flat
        return {f"{name}.conditions": rows, f"{name}.good": self.is_good.astype(np.int64)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> Outcomes:
        """The inverse of ``as_arrays``; none where there are no such arrays."""
        if f"{name}.conditions" not in arrays:
            return cls()
        conditions = tuple(
            (
                int(row[0]),
                tuple((int(a), int(b)) for a, b in row[1:].reshape(-1, 2) if a >= 0),
            )
            for row in arrays[f"{name}.conditions"]
        )
        return cls(conditions, np.asarray(arrays[f"{name}.good"]) > 0)


class SiteForest:
    """Chances of conditions: of being accepted, times of low energy where accepted. One of the two
    is left out where all its outcomes are alike.
    """

    def __init__(
        self,
        accepted: Outcomes,
        low: Outcomes,
        limits: SiteLimits,
        seed: int,
        *,
        trees: int = 200,
        leaf: int = 3,
        pool: int = 4000,
    ) -> None:
        self.limits, self._seed, self._n_pool = limits, seed, pool
        self._forests = [
            self._fitted(outcomes, seed, trees, leaf)
            for outcomes in (accepted, low)
            if len(set(outcomes.is_good.tolist())) == 2
        ]

    def _fitted(self, outcomes: Outcomes, seed: int, trees: int, leaf: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(trees, min_samples_leaf=leaf, random_state=seed, n_jobs=1)
        return forest.fit(features(outcomes.conditions, self.limits), outcomes.is_good)

    def chances(self, conditions: Sequence[Condition]) -> FloatArray:
        """(n,) between 0 and 1; 1 of all where nothing was learned."""
        found = np.ones(len(conditions))
        if self._forests and len(conditions):
            rows = features(conditions, self.limits)
            for forest in self._forests:
                found = found * forest.predict_proba(rows)[:, 1]
        return found

    @cached_property
    def _pool(self) -> tuple[list[Condition], FloatArray]:
        rng = np.random.default_rng(self._seed)
        drawn = [random_condition(self.limits, rng) for _ in range(self._n_pool)]
        return drawn, self.chances(drawn)

    def draw(
        self, n: int, rng: np.random.Generator, *, power: float = 2.5, explored: float = 0.2
    ) -> list[Condition]:
        """``n`` of a pool of random conditions, by their chances to the power, with repeats; the
        share ``explored`` with equal chances.

        Raises InputError where no condition meets the limits.
        """
        drawn, chances = self._pool
        weights = (chances + 1e-6) ** power
        weights = (1 - explored) * weights / weights.sum() + explored / len(drawn)
        return [drawn[int(k)] for k in rng.choice(len(drawn), size=n, p=weights / weights.sum())]


KIND = "site_forest"


def to_checkpoint(accepted: Outcomes, low: Outcomes, seed: int) -> Checkpoint:
    """The outcomes themselves: the forests are grown again from them and the seed, the same."""
    return Checkpoint(
        tensors={**accepted.as_arrays("accepted"), **low.as_arrays("low")},
        metrics={
            "tried": float(len(accepted.is_good)),
            "accepted": float(accepted.is_good.sum()),
            "labelled": float(len(low.is_good)),
            "low": float(low.is_good.sum()),
        },
        facts={"kind": KIND, "seed": str(seed)},
    )


def from_checkpoint(checkpoint: Checkpoint) -> tuple[Outcomes, Outcomes, int]:
    """What was accepted, what was low, and the seed. Raises InputError on another kind."""
    facts = checkpoint.facts
    if facts.get("kind") != KIND:
        raise InputError(
            f"expected weights of kind {KIND}, got kind {facts.get('kind', 'none')}",
            hint="give the checkpoint of a random_environment",
        )
    return outcomes_of(checkpoint)


def outcomes_of(checkpoint: Checkpoint) -> tuple[Outcomes, Outcomes, int]:
    """What was accepted, what was low, and the seed, in a checkpoint that holds more; none where it
    has no outcomes.
    """
    tensors = checkpoint.tensors
    return (
        Outcomes.of_arrays(tensors, "accepted"),
        Outcomes.of_arrays(tensors, "low"),
        int(checkpoint.facts.get("seed", "0")),
    )


def beside(checkpoint: Checkpoint, forest: Checkpoint) -> Checkpoint:
    """A checkpoint with a forest's outcomes in it."""
    return Checkpoint(
        tensors={**checkpoint.tensors, **forest.tensors},
        metrics={**checkpoint.metrics, **forest.metrics},
        facts={**checkpoint.facts, "seed": forest.facts["seed"]},
    )
