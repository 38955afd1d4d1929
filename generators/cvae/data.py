"""Crystals to learn from: known ones with their subgroups, or, where there are none, random ones
refined.

Known crystals are refined, then described in their subgroups (t and k, PyXtal) and by other choices
of equivalent points, as in O. G. Ridwan et al., section 3.1; all that is kept has the target's
bonds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from campaign.reading.structures import read_structures
from campaign.types import Crystal
from generators.cvae.environment import Environment
from generators.cvae.feasible import SiteLimits
from generators.cvae.free_variables import batch_of
from generators.cvae.nets import keys_of
from generators.cvae.refine import Recipe, Refined, is_valid, refine
from generators.cvae.sites import random_condition, random_table
from generators.cvae.table import MOST_SITES, TabularCrystal, encode, variables_of
from generators.wyckoff import group_of

MOST_FREE, MOST_ATOMS = 24, 500


def read_crystals(path: Path) -> list[Crystal]:
    """Of a file of structures, or a folder of those. Raises InputError where one cannot be read."""
    return [entry.crystal for entry in read_structures(path)]


def fitting(crystals: Sequence[Crystal], environment: Environment) -> list[TabularCrystal]:
    """Tables of the crystals with the target's elements and bonds, at most 8 sites, 24 free
    variables and 500 atoms.
    """
    species = set(environment.species)
    tables = [encode(crystal) for crystal in crystals if set(crystal.numbers.tolist()) == species]
    small = [
        table
        for table in tables
        if len(table.sites) <= MOST_SITES
        and len(variables_of(table)) <= MOST_FREE
        and table.n_atoms <= MOST_ATOMS
    ]
    if not small:
        return []
    return [
        table
        for table, good in zip(
            small, is_valid(batch_of(small, environment.species), environment), strict=True
        )
        if good
    ]


def learnable(
    tables: Sequence[TabularCrystal],
    environment: Environment,
    rng: np.random.Generator,
    *,
    most: int,
    trials: int,
) -> list[TabularCrystal]:
    """Up to ``most`` descriptions of each table, those of its subgroups among them where there are
    ``trials`` of finding them.
    """
    if trials:
        return list(augmented(tables, environment, rng, trials=trials, most=most))
    return [one for table in tables for one in descriptions(table, most, rng)]


def augmented(
    tables: Sequence[TabularCrystal],
    environment: Environment,
    rng: np.random.Generator,
    *,
    trials: int = 20,
    most: int = 500,
) -> Iterator[TabularCrystal]:
    """Each table in other equivalent descriptions and in its subgroups, refined; at most ``most``
    from each, those of one net together.
    """
    recipe = Recipe(volume=(1.0, 100.0), shells=0, cutoffs=(), restarts=0)
    for table in tables:
        found = [table, *subgroups(table, environment, trials, rng)]
        refined = refine(batch_of(found, environment.species), environment, recipe, rng)
        valid = [
            one
            for one, good in zip(refined.batch.as_tables(), refined.is_valid, strict=True)
            if good
        ]
        if not valid:
            continue
        own = round(0.6 * most / len(valid)) if len(valid) > 1 else most
        rows = [
            description
            for k, one in enumerate(valid)
            for description in descriptions(one, own if k == 0 else 1 + own // 3, rng)
        ]
        yield from rows[:most]


def subgroups(
    table: TabularCrystal, environment: Environment, trials: int, rng: np.random.Generator
) -> list[TabularCrystal]:
    """Different tables of the same crystal in subgroups, half of the trials of each kind; fewer
    where PyXtal finds none.
    """
    from pyxtal import pyxtal

    from generators.cvae.table import decode

    parent = pyxtal()
    found: dict[tuple[int, tuple[int, ...]], TabularCrystal] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parent.from_seed(decode(table).structure)
        except Exception:
            return []
        most = max(1, MOST_ATOMS // table.n_atoms)
        for k in range(trials):
            try:
                child = parent.subgroup_once(
                    eps=5e-4, group_type="t" if k % 2 else "k", mut_lat=False, max_cell=most
                )
                made = _table_of_pyxtal(child)
            except Exception:
                continue
            small = (
                len(made.sites) <= MOST_SITES
                and made.n_atoms <= MOST_ATOMS
                and len(variables_of(made)) <= MOST_FREE
            )
            if small and made.space_group != table.space_group:
                found.setdefault((made.space_group, tuple(sorted(made.sites))), made)
    order = rng.permutation(len(found))
    return [list(found.values())[k] for k in order]


def _table_of_pyxtal(crystal: object) -> TabularCrystal:
    from ase.data import atomic_numbers

    a, b, c, alpha, beta, gamma = crystal.lattice.get_para()  # type: ignore[attr-defined]
    sites = list(crystal.atom_sites)  # type: ignore[attr-defined]
    points = tuple(
        tuple(float(value) for value in np.asarray(site.position) % 1.0) for site in sites
    )
    return TabularCrystal(
        int(crystal.group.number),  # type: ignore[attr-defined]
        (a, b, c, alpha, beta, gamma),
        tuple(int(site.wp.index) for site in sites),
        points,  # type: ignore[arg-type]
        tuple(atomic_numbers[site.specie] for site in sites),
    )


def descriptions(
    table: TabularCrystal, most: int, rng: np.random.Generator
) -> list[TabularCrystal]:
    """The table and others of the same crystal: each site by any of its equivalent points, sites in
    any order.
    """
    found = {table.points: table}
    operations = group_of(table.space_group).positions[0].operations
    for _ in range(2 * most):
        if len(found) >= most:
            break
        points = []
        for point in table.points:
            moved = operations[int(rng.integers(len(operations)))] @ np.append(point, 1.0)
            points.append(tuple(float(value) for value in np.round(moved[:3] % 1.0, 10)))
        order = rng.permutation(len(points))
        order = order[np.argsort(np.array(table.sites)[order], kind="stable")]
        chosen = tuple(points[k] for k in order)
        made = TabularCrystal(
            table.space_group,
            table.cell,
            tuple(table.sites[k] for k in order),
            chosen,
            tuple(table.numbers[k] for k in order),
        )
        found.setdefault(chosen, made)
    return list(found.values())


def bootstrap(
    n: int,
    environment: Environment,
    limits: SiteLimits,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    part: int = 500,
) -> Iterator[Refined]:
    """Random crystals on random sites, refined: parts of ``n`` in all, each as it is done."""
    middle = float(np.mean(recipe.volume))
    volume = (0.8 * middle, 1.2 * middle)
    for low in range(0, n, part):
        tables = [
            random_table(random_condition(limits, rng), volume, rng)
            for _ in range(min(part, n - low))
        ]
        yield refine(batch_of(tables, environment.species), environment, recipe, rng)


def distinct(
    refined: Refined, environment: Environment, known: set[str]
) -> list[tuple[TabularCrystal, str]]:
    """The accepted crystals whose nets are not in ``known``, which they are added to, with their
    keys.
    """
    rows = np.flatnonzero(refined.is_accepted)
    if len(rows) == 0:
        return []
    batch = refined.batch.subset(rows)
    found = []
    for table, key in zip(batch.as_tables(), keys_of(batch, environment), strict=True):
        if key not in known:
            known.add(key)
            found.append((table, key))
    return found
