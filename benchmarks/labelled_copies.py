"""Crystals with copies of them, near ones and far ones, labelled by how they were made.

Two crystals of one ``shape`` differ in nothing but their volume; two of one ``structure`` not even
in that. Copies are rattled (0.005 and 0.03 angstrom, each coordinate, normal), strained within the
tolerances (0.5 %), given as supercells, in other settings, turned, shifted, their atoms in another
order, mirrored, or all of it at once. Others are no copies: strained by 12 %, of seven volumes 2 %
apart (one shape, seven structures), or alloys that differ by one exchange of two atoms, which the
symmetry operations of the bare sites keep apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from ase.spacegroup import crystal as from_space_group

from campaign.crystals.lattice import supercell
from campaign.crystals.matching import site_permutations
from campaign.crystals.neighbours import shortest_distance
from campaign.types import Crystal, FloatArray

ELEMENTS = (
    "Al",
    "Ca",
    "Cl",
    "Co",
    "Cr",
    "Cu",
    "Fe",
    "Ga",
    "K",
    "Li",
    "Mg",
    "Mn",
    "Na",
    "Nb",
    "Ni",
    "O",
    "S",
    "Si",
    "Ti",
    "V",
    "Zn",
    "Zr",
)
ANGLES = {"hexagonal": (90, 90, 120)}
PROTOTYPES: dict[
    str,
    tuple[int, tuple[tuple[float, float, float], ...], tuple[int, ...], tuple[float, float], str],
] = {
    # name: space group, sites, which element on each, b/a and c/a, system
    "fcc": (225, ((0, 0, 0),), (0,), (1, 1), ""),
    "bcc": (229, ((0, 0, 0),), (0,), (1, 1), ""),
    "hcp": (194, ((1 / 3, 2 / 3, 1 / 4),), (0,), (1, 1.62), "hexagonal"),
    "diamond": (227, ((0, 0, 0),), (0,), (1, 1), ""),
    "white tin": (141, ((0, 0, 0),), (0,), (1, 0.546), ""),
    "rock salt": (225, ((0, 0, 0), (0.5, 0.5, 0.5)), (0, 1), (1, 1), ""),
    "caesium chloride": (221, ((0, 0, 0), (0.5, 0.5, 0.5)), (0, 1), (1, 1), ""),
    "zinc blende": (216, ((0, 0, 0), (0.25, 0.25, 0.25)), (0, 1), (1, 1), ""),
    "wurtzite": (186, ((1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, 0.375)), (0, 1), (1, 1.63), "hexagonal"),
    "nickel arsenide": (194, ((0, 0, 0), (1 / 3, 2 / 3, 0.25)), (0, 1), (1, 1.4), "hexagonal"),
    "L1_0": (123, ((0, 0, 0), (0.5, 0.5, 0.5)), (0, 1), (1, 1.38), ""),
    "L1_2": (221, ((0, 0, 0), (0, 0.5, 0.5)), (0, 1), (1, 1), ""),
    "D0_3": (225, ((0, 0, 0), (0.25, 0.25, 0.25), (0.5, 0.5, 0.5)), (0, 1, 1), (1, 1), ""),
    "fluorite": (225, ((0, 0, 0), (0.25, 0.25, 0.25)), (0, 1), (1, 1), ""),
    "rutile": (136, ((0, 0, 0), (0.305, 0.305, 0)), (0, 1), (1, 0.644), ""),
    "quartz": (152, ((0.47, 0, 1 / 3), (0.413, 0.267, 0.452)), (0, 1), (1, 1.1), "hexagonal"),
    "perovskite": (221, ((0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)), (0, 1, 2), (1, 1), ""),
    "L2_1": (225, ((0, 0, 0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), (0, 1, 2), (1, 1), ""),
}
COMPOSITIONS = (("Cr", "Fe", "Ni"), ("Fe", "Ni"))
LARGE_STRAIN, SMALL_STRAIN = 0.12, 0.005
VOLUMES = (0.94, 0.96, 0.98, 1.02, 1.04, 1.06)
MOST_ATOMS = 108

Kind = Literal["prototype", "random", "alloy of 16", "alloy of 54"]


@dataclass(frozen=True)
class Labelled:
    """shape, structure: what the crystal is one of. made: how. family: the crystal that it was made
    from, however far it is now.
    """

    crystal: Crystal
    shape: str
    structure: str
    kind: Kind
    made: str
    family: str


def prototype(name: str, elements: tuple[str, ...], volume: float) -> Crystal:
    """In the conventional cell; ``volume``: of an atom, in cubic angstrom."""
    group, sites, occupied, (b, c), system = PROTOTYPES[name]
    atoms = from_space_group(
        [elements[k] for k in occupied],
        basis=sites,
        spacegroup=group,
        cellpar=[4, 4 * b, 4 * c, *ANGLES.get(system, (90, 90, 90))],
    )
    atoms.set_cell(
        atoms.cell * (volume * len(atoms) / atoms.cell.volume) ** (1 / 3), scale_atoms=True
    )
    return Crystal.from_atoms(atoms)


def random_crystal(rng: np.random.Generator) -> Crystal:
    """2 to 8 atoms of one of a few formulas, without symmetry."""
    symbols = [
        ["Si"] * 2,
        ["Si"] * 4,
        ["Si"] * 8,
        ["Zn", "S"] * 2,
        ["Ti", "O", "O"] * 2,
        ["Mg", "Al", "O"],
    ][rng.integers(6)]
    numbers = [
        {"Si": 14, "Zn": 30, "S": 16, "Ti": 22, "O": 8, "Mg": 12, "Al": 13}[symbol]
        for symbol in symbols
    ]
    while True:
        lattice = np.diag(rng.uniform(0.8, 1.25, 3)) + rng.normal(0, 0.15, (3, 3))
        lattice *= (rng.uniform(14, 20) * len(numbers) / abs(np.linalg.det(lattice))) ** (1 / 3)
        found = Crystal(lattice, rng.random((len(numbers), 3)), np.array(numbers, dtype=np.uint8))
        if shortest_distance(found) > 1.5:
            return found


def deformed(crystal: Crystal, gradient: FloatArray) -> Crystal:
    return Crystal(crystal.lattice @ gradient, crystal.fractional, crystal.numbers)


def scaled(crystal: Crystal, volume: float) -> Crystal:
    return deformed(crystal, volume ** (1 / 3) * np.eye(3))


def rattled(crystal: Crystal, rng: np.random.Generator, width: float) -> Crystal:
    moves = rng.normal(0, width, (len(crystal), 3))
    return Crystal(
        crystal.lattice,
        crystal.fractional + moves @ np.linalg.inv(crystal.lattice),
        crystal.numbers,
    )


def strained(crystal: Crystal, rng: np.random.Generator, size: float = SMALL_STRAIN) -> Crystal:
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T - 2 * np.trace(strain) / 3 * np.eye(3)
    gradient = np.eye(3) + size * strain / np.linalg.norm(strain, 2)
    return deformed(crystal, gradient / np.linalg.det(gradient) ** (1 / 3))


def repeated(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    choices = [(2, 1, 1), (1, 1, 2), (2, 2, 1), (1, 3, 1), (2, 2, 2), (3, 2, 1)]
    room = [
        choice for choice in choices if np.prod(choice) * len(crystal) <= MOST_ATOMS
    ] or choices[:1]
    return Crystal.from_atoms(crystal.atoms.repeat(room[rng.integers(len(room))]))


def in_another_setting(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """By a random unimodular matrix."""
    change = np.eye(3)
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        change[i] += rng.choice([-1, 1]) * change[j]
    change = change[rng.permutation(3)]
    return Crystal(
        change @ crystal.lattice, (crystal.fractional @ np.linalg.inv(change)) % 1, crystal.numbers
    )


def turned(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return deformed(crystal, rotation * np.sign(np.linalg.det(rotation)))


def shifted(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    return Crystal(crystal.lattice, (crystal.fractional + rng.random(3)) % 1, crystal.numbers)


def reordered(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    order = rng.permutation(len(crystal))
    return Crystal(crystal.lattice, crystal.fractional[order], crystal.numbers[order])


def mirrored(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    return Crystal(crystal.lattice, -crystal.fractional % 1, crystal.numbers)


def all_at_once(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    found = repeated(crystal, rng)
    for step in (
        strained,
        partial(rattled, width=0.03),
        in_another_setting,
        turned,
        shifted,
        reordered,
    ):
        found = step(found, rng=rng)
    return found


COPIES: dict[str, Callable[[Crystal, np.random.Generator], Crystal]] = {
    "rattled by 0.005": partial(rattled, width=0.005),
    "rattled by 0.03": partial(rattled, width=0.03),
    "strained by 0.5 %": strained,
    "supercell": repeated,
    "another setting": in_another_setting,
    "turned": turned,
    "shifted": shifted,
    "reordered": reordered,
    "mirrored": mirrored,
    "all at once": all_at_once,
}


def with_copies(
    crystal: Crystal,
    name: str,
    kind: Kind,
    rng: np.random.Generator,
    n: int,
    *,
    has_others: bool = True,
) -> Iterator[Labelled]:
    """The crystal, n copies of different kinds, and crystals made from it that are others."""
    original = Labelled(crystal, name, name, kind, "original", name)
    yield original
    for made in rng.choice(list(COPIES), n, replace=False).tolist():
        yield replace(original, crystal=COPIES[made](crystal, rng), made=made)
    if not has_others:
        return
    for volume in VOLUMES:
        yield replace(
            original,
            crystal=scaled(crystal, volume),
            structure=f"{name}, volume {volume}",
            made="of another volume",
        )
    long = (1 + LARGE_STRAIN) * np.array([-0.5, -0.5, 1.0]) + 1.5 * np.array([1.0, 1.0, 0.0])
    gradient = np.diag(long / np.prod(long) ** (1 / 3))
    far = f"{name}, strained"
    yield replace(
        original,
        crystal=turned(deformed(crystal, gradient), rng),
        shape=far,
        structure=far,
        made="strained by 12 %",
    )


def orderings(
    rng: np.random.Generator, repeats: tuple[int, int, int], n: int, exchanges: int
) -> Iterator[tuple[str, Crystal]]:
    """Random orderings and their neighbours by one exchange, no two of them one by a symmetry of
    the sites; few compositions.
    """
    for parent in ("bcc", "fcc"):
        for elements in COMPOSITIONS:
            symbols = np.resize(np.array(elements), 2 * int(np.prod(repeats)))
            seen: set[bytes] = set()
            for k in range(n):
                first = supercell(parent, repeats, rng.permutation(symbols).tolist())
                family = [first]
                for _ in range(exchanges):
                    numbers = first.numbers.copy()
                    i, j = rng.choice(len(first), 2, replace=False)
                    numbers[[i, j]] = numbers[[j, i]]
                    family.append(first.with_numbers(numbers))
                for m, crystal in enumerate(family):
                    if crystal.numbers.tobytes() not in seen:
                        seen.update(
                            row.tobytes() for row in crystal.numbers[site_permutations(crystal)]
                        )
                        yield (
                            f"{'-'.join(elements)} on {parent}, {len(crystal)} atoms, {k}.{m}",
                            crystal,
                        )


def labelled(n: int, seed: int) -> list[Labelled]:
    """n crystals in random order."""
    rng = np.random.default_rng(seed)
    found: list[Labelled] = []
    for repeats, count, kind in (((2, 2, 2), 30, "alloy of 16"), ((3, 3, 3), 18, "alloy of 54")):
        for name, ordering in orderings(rng, repeats, count, 4):
            found += with_copies(ordering, name, kind, rng, 3, has_others=False)  # type: ignore[arg-type]
    for k in range(n // 60):
        found += with_copies(
            random_crystal(rng), f"random {k}", "random", rng, 7, has_others=bool(k % 2)
        )
    seen = set()
    while len(found) < n:
        name = str(rng.choice(list(PROTOTYPES)))
        elements = tuple(
            sorted(rng.choice(ELEMENTS, max(PROTOTYPES[name][2]) + 1, replace=False).tolist())
        )
        if (name, elements) in seen:
            continue
        seen.add((name, elements))
        made = prototype(name, elements, rng.uniform(9, 22))
        found += with_copies(
            made,
            f"{'-'.join(elements)} as {name}",
            "prototype",
            rng,
            7,
            has_others=bool(rng.integers(2)),
        )
    return [found[row] for row in rng.permutation(len(found))[:n].tolist()]
