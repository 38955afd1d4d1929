"""Copies are found whatever was done to them within the tolerances, others are kept apart, and the
tolerances decide.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk

from benchmarks.labelled_copies import (
    COPIES,
    PROTOTYPES,
    VOLUMES,
    deformed,
    mirrored,
    orderings,
    prototype,
    random_crystal,
    repeated,
    scaled,
)
from campaign.crystals.matching import (
    Distinct,
    Invariants,
    KeyIndex,
    Matcher,
    Sameness,
    equivalence_key,
    site_permutations,
)
from campaign.crystals.neighbours import length_scale
from campaign.crystals.primitive import primitive_cell
from campaign.errors import InputError
from campaign.types import Crystal, counts_of, reduced_formula

RNG = np.random.default_rng(5)
ELEMENTS = ("Mg", "O", "Ti")
BASES = {
    **{
        name: prototype(name, ELEMENTS[: max(occupied) + 1], 12.0)
        for name, (_, _, occupied, _, _) in PROTOTYPES.items()
    },
    **{f"random {k}": random_crystal(np.random.default_rng(k)) for k in range(12)},
    **dict(orderings(np.random.default_rng(1), (2, 2, 2), 1, 3)),
    **dict(orderings(np.random.default_rng(2), (3, 3, 3), 1, 3)),
}


def distinct_of(crystals: dict[str, Crystal], matcher: Matcher) -> Distinct:
    found = Distinct(matcher)
    for name, crystal in crystals.items():
        found.add(name, equivalence_key(crystal), crystal)
    return found


@pytest.mark.parametrize("same", ["shape", "structure"])
@pytest.mark.parametrize("made", COPIES)
def test_each_copy_is_found_and_taken_for_nothing_else(made: str, same: str) -> None:
    known = distinct_of(BASES, Matcher(same=same))  # type: ignore[arg-type]
    for name, crystal in BASES.items():
        copy = COPIES[made](crystal, RNG)
        assert known.find(copy, equivalence_key(copy)) == name


def test_no_two_of_the_originals_are_one() -> None:
    """Seven prototypes of MgO among them, and alloys that differ by one exchange."""
    for (one, first), (other, second) in itertools.combinations(BASES.items(), 2):
        if reduced_formula(first.formula) == reduced_formula(second.formula):
            assert not Matcher().is_same(first, second), f"{one} and {other}"


def test_volumes_are_one_shape_and_as_many_structures() -> None:
    crystal = BASES["rutile"]
    shape, structure = (
        distinct_of({"first": crystal}, Matcher()),
        distinct_of({"first": crystal}, Matcher(same="structure")),
    )
    for volume in VOLUMES:
        other = repeated(scaled(crystal, volume), RNG)
        key = equivalence_key(other)
        assert shape.find(other, key) == "first"
        assert structure.find(other, key) is None
        structure.add(str(volume), key, other)
    near = scaled(crystal, 1.004)
    assert structure.find(near, equivalence_key(near)) == "first"


def moved_apart(site: float) -> tuple[Crystal, Crystal]:
    """Caesium chloride, and with its two atoms moved apart to a root mean square of ``site``."""
    crystal = BASES["caesium chloride"]
    step = (
        np.linalg.inv(crystal.lattice)
        @ np.array([1.0, 0.3, 0.2])
        / np.linalg.norm([1.0, 0.3, 0.2])
        * length_scale(crystal.lattice, 2)
    )
    return crystal, Crystal(
        crystal.lattice, crystal.fractional + np.array([[site], [-site]]) * step, crystal.numbers
    )


@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.1])
@pytest.mark.parametrize(("factor", "expected"), [(0.95, True), (1.05, False)])
def test_each_tolerance_decides(tolerance: float, factor: float, expected: bool) -> None:
    size = factor * tolerance
    matcher = Matcher(length=tolerance, site=tolerance, angle=100 * tolerance)
    cubic = BASES["caesium chloride"]
    long = deformed(cubic, np.diag([1 + size, (1 + size) ** -0.5, (1 + size) ** -0.5]))
    first, apart = moved_apart(size)
    angle = np.radians(100 * size)
    leaning = deformed(cubic, np.array([[1, 0, 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]))
    for one, other in ((first, apart), (cubic, leaning), (cubic, long)):
        assert matcher.is_same(one, other) == expected
        index = KeyIndex(matcher)
        index.add("one", equivalence_key(one))
        assert not expected or index.near(equivalence_key(other)) == ["one"]


def test_one_atom_far_off_its_site_is_another_crystal_however_many_are_on_theirs() -> None:
    crystal = Crystal.from_atoms(bulk("Si", cubic=True) * (2, 2, 2))
    vacancy = Crystal(crystal.lattice, crystal.fractional[1:], crystal.numbers[1:])
    fractional = vacancy.fractional.copy()
    fractional[0] += [0.05, 0.0, 0.0]
    other = Crystal(vacancy.lattice, fractional, vacancy.numbers)
    moved = 0.05 * crystal.lattice[0, 0] / length_scale(crystal.lattice, 64)
    assert moved / np.sqrt(63) < Matcher().site, "near in the mean"
    assert not Matcher().is_same(vacancy, other)


def test_a_chiral_crystal_and_its_mirror_image_are_one() -> None:
    """Quartz of both hands: P3_1 21 and P3_2 21."""
    import spglib

    left, right = BASES["quartz"], mirrored(BASES["quartz"], RNG)
    groups = {
        spglib.get_symmetry_dataset((c.lattice, c.fractional, c.numbers)).number
        for c in (left, right)
    }
    assert groups == {152, 154}
    assert Matcher(0.001, 0.001, 0.01).is_same(left, right)


@pytest.mark.parametrize(("symbol", "atoms"), [("Ni", 1), ("Fe", 1), ("Co", 2), ("Si", 2)])
@pytest.mark.parametrize("repeats", [(1, 1, 1), (1, 2, 3), (3, 3, 3)])
@pytest.mark.parametrize("width", [0.0, 0.03])
def test_primitive_cells_of_rattled_supercells(
    symbol: str, atoms: int, repeats: tuple[int, int, int], width: float
) -> None:
    large = bulk(symbol).repeat(repeats)
    large.rattle(width, seed=3)
    cell = primitive_cell(Crystal.from_atoms(large), 0.05)
    assert len(cell.fractional) == atoms
    assert cell.starts.tolist() == [0, atoms]
    assert np.linalg.det(cell.metric) == pytest.approx(atoms**2)
    assert cell.volume == pytest.approx(large.get_volume() / len(large))


def test_an_alloy_is_no_supercell_of_another() -> None:
    name, ordering = next(orderings(np.random.default_rng(3), (2, 2, 2), 1, 0))
    cell = primitive_cell(ordering, 0.05)
    assert len(cell.fractional) == 16, name
    assert cell.starts[0] == 0
    assert np.diff(cell.starts).tolist() == sorted(np.diff(cell.starts).tolist()), (
        "the rarest element first"
    )


def test_keys_begin_with_the_formula_and_those_from_before_have_no_neighbours() -> None:
    key = equivalence_key(BASES["fluorite"])
    assert key.startswith("Mg4O8:")
    found = Invariants.of_key(key)
    assert found is not None
    assert (found.formula, found.atoms) == ("Mg1O2", 12)
    assert found.values[0] == pytest.approx(np.log(12.0), abs=2e-3)
    assert Invariants.of_key("Mg4O8:0123456789abcdef") is None
    assert Invariants.of_key("") is None


def test_keys_of_one_crystal_are_near_and_most_others_are_not() -> None:
    alloys = {
        name: COPIES["rattled by 0.03"](crystal, RNG)
        for name, crystal in orderings(np.random.default_rng(4), (3, 3, 3), 25, 0)
        if "Cr" in name
    }
    index = KeyIndex(Matcher())
    keys = {name: equivalence_key(crystal) for name, crystal in alloys.items()}
    for name, key in keys.items():
        index.add(name, key)
    near = {name: index.near(key) for name, key in keys.items()}
    assert all(found[0] == name for name, found in near.items())
    assert np.mean([len(found) for found in near.values()]) < 3


def test_keys_on_exactly_the_same_sites_are_near_where_they_are_equal() -> None:
    alloys = dict(orderings(np.random.default_rng(4), (3, 3, 3), 25, 0))
    index = KeyIndex(Matcher())
    for name, crystal in alloys.items():
        index.add(name, equivalence_key(crystal))
    near = {}
    for name, crystal in alloys.items():
        permutations = site_permutations(crystal)
        near[name] = index.near(
            equivalence_key(
                crystal.with_numbers(crystal.numbers[permutations[RNG.integers(len(permutations))]])
            )
        )
    assert all(name in found for name, found in near.items())
    assert np.mean([len(found) for found in near.values()]) < 1.5


def test_the_limits_of_few_and_many_atoms() -> None:
    lonely = Crystal(3 * np.eye(3), [[0.2, 0.1, 0.0]], [29])  # type: ignore[arg-type]
    many = Crystal.from_atoms(lonely.atoms.repeat((5, 5, 5)))
    known = distinct_of({"lonely": lonely}, Matcher())
    assert known.find(many, equivalence_key(many)) == "lonely"
    assert known.find(many, "") is None


@pytest.mark.parametrize("same", ["shape", "structure"])
def test_many_keys_at_once_have_the_neighbours_of_each(same: Sameness) -> None:
    """The first of the sums leaves out none that all of them together would find near."""
    matcher = Matcher(same=same)
    index = KeyIndex(matcher)
    keys = {name: equivalence_key(crystal) for name, crystal in BASES.items()}
    for name, key in keys.items():
        index.add(name, key)
        assert name in index
    moved = {
        name: equivalence_key(COPIES["rattled by 0.03"](crystal, RNG))
        for name, crystal in BASES.items()
    }
    asked = [*keys.values(), *moved.values(), ""]
    together = index.near_each(asked)
    assert together == {key: index.near(key) for key in asked}
    for key in asked:
        wanted = Invariants.of_key(key)
        expected = {
            name
            for name, other in keys.items()
            if wanted is not None and is_near(wanted, other, matcher)
        }
        assert set(together[key]) == expected


def is_near(wanted: Invariants, key: str, matcher: Matcher) -> bool:
    """Every sum by itself, without a shortcut."""
    found = Invariants.of_key(key)
    if found is None or found.formula != wanted.formula:
        return False
    one, other = wanted.values[1:], found.values[1:]
    apart = np.abs(one - other) / (0.5 * (one + other) + 0.3)
    apart[-(len(counts_of(wanted.formula)) ** 2) :] /= 2
    reach = (
        1e-3
        if wanted.sites == found.sites
        else float(matcher.reach(min(wanted.atoms, found.atoms)))
    )
    is_at_volume = (
        matcher.same == "shape"
        or abs(wanted.values[0] - found.values[0]) <= np.log1p(matcher.volume) + 4e-3
    )
    return bool(apart.max() <= reach and np.mean(apart**2) <= (0.42 * reach) ** 2 and is_at_volume)


def test_crystals_on_the_same_sites_share_what_the_sites_tell() -> None:
    """Whether the first of them was asked for it before or not."""
    for crystal in BASES.values():
        fresh = Crystal(crystal.lattice, crystal.fractional, crystal.numbers)
        before = fresh.with_numbers(crystal.numbers)
        assert fresh.sites == before.sites == fresh.with_numbers(crystal.numbers[::-1]).sites
        assert before == fresh
        with pytest.raises(InputError):
            fresh.with_numbers(np.zeros(len(fresh), dtype=np.uint8))
        with pytest.raises(InputError):
            fresh.with_numbers(crystal.numbers[1:])
