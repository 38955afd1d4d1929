"""Space groups: standard cells keep their symmetry, assignments are all there are, and random
crystals have the group asked for.
"""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.crystals.neighbours import shortest_distance
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Crystal, Objective, SearchSpace
from generators.formulas import Formula, check_formula, formulas_of
from generators.random_crystal import RandomCrystal, RandomCrystalConfig
from generators.symmetry import prototype_name, space_group_of, symmetric_cell
from generators.wyckoff import assignments, check_fits, group_of, name_of, random_cell, spread_cell

CONTEXT = GenerationContext(
    space=SearchSpace(("Al", "Ni")), objective=Objective("energy_per_atom", "minimize")
)
NICKEL, ALUMINIUM = 28, 13


def rock_salt() -> Crystal:
    fractional = [
        [0, 0, 0],
        [0.5, 0.5, 0],
        [0.5, 0, 0.5],
        [0, 0.5, 0.5],
        [0.5, 0, 0],
        [0, 0.5, 0],
        [0, 0, 0.5],
        [0.5, 0.5, 0.5],
    ]
    return Crystal(4.2 * np.eye(3), np.array(fractional), np.array([NICKEL] * 4 + [ALUMINIUM] * 4))


def test_a_standard_cell_is_primitive_and_named() -> None:
    cell = symmetric_cell(rock_salt())
    assert cell is not None
    assert (len(cell.crystal), cell.space_group, cell.prototype) == (2, 225, "225:a_b")
    assert len(cell.rotations) == 48
    assert cell.free_directions.shape == (0, 2, 3)
    assert cell.site_symmetry.tolist() == [48, 48]
    shifted = Crystal(rock_salt().lattice, rock_salt().fractional + 0.37, rock_salt().numbers[::-1])
    again = symmetric_cell(shifted)
    assert again is not None
    assert again.prototype == cell.prototype, (
        "another origin and exchanged elements are one prototype"
    )


@settings(max_examples=25, deadline=None)
@given(
    group=st.sampled_from(
        [2, 5, 8, 12, 38, 47, 62, 71, 99, 122, 139, 148, 156, 166, 187, 194, 198, 215, 221, 227]
    ),
    seed=st.integers(0, 99),
)
def test_what_is_free_keeps_the_group(group: int, seed: int) -> None:
    """Steps along free coordinates and symmetric metrics leave a crystal with every operation;
    projectors are idempotent.
    """
    rng = np.random.default_rng(seed)
    fitting = assignments(group, (2, 4))
    if not fitting:
        return
    cell = random_cell(group, fitting[rng.integers(len(fitting))], (ALUMINIUM, NICKEL), 12.0, rng)
    if cell is None:
        return
    n = len(cell.crystal)
    positions, metric = cell.position_projector, cell.metric_projector
    assert np.allclose(positions @ positions, positions)
    assert np.allclose(metric @ metric, metric)
    assert round(np.trace(positions)) == len(cell.free_directions)
    free = np.einsum("f,fni->ni", rng.normal(size=len(cell.free_directions)), cell.free_directions)
    assert np.allclose(positions @ free.ravel(), free.ravel())
    drawn = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    lattice = np.linalg.cholesky(
        (metric @ (drawn @ drawn.T).ravel()).reshape(3, 3)
    ) * cell.crystal.volume ** (1 / 3)
    moved = (lattice, cell.crystal.fractional + free, cell.crystal.numbers.astype(int))
    found = spglib.get_symmetry(moved, symprec=1e-4)
    kept = {rotation.tobytes() for rotation in found["rotations"].astype(np.int64)}
    assert {rotation.tobytes() for rotation in cell.rotations} <= kept
    whole = cell.crystal.fractional + cell.free_directions.sum(0)
    offset = whole - cell.crystal.fractional
    assert np.allclose(offset, np.round(offset)), (
        "a whole step of any free coordinate is a lattice vector"
    )
    assert n == 6


def test_assignments_are_those_that_there_are() -> None:
    """Rock salt alone for AB in Fm-3m; zinc blende and rock salt in F-43m; Cu3Au and its twin with
    edges in Pm-3m.
    """
    assert [name_of(225, (1, 1), option) for option in assignments(225, (1, 1))] == ["225:a_b"]
    assert [name_of(216, (1, 1), option) for option in assignments(216, (1, 1))] == [
        "216:a_b",
        "216:a_c",
    ]
    assert [name_of(221, (1, 3), option) for option in assignments(221, (1, 3))] == [
        "221:a_c",
        "221:a_d",
    ]
    assert assignments(225, (1, 2, 3)) == (), (
        "no set of one, two and three atoms in Fm-3m's primitive cell"
    )
    positions = group_of(139).positions
    for option in assignments(139, (1, 2)):
        assert [sum(positions[site].multiplicity for site in part) for part in option] == [2, 4]
    with pytest.raises(InputError, match=r"225 \(Fm-3m\) hold Al1Co2Ni3"):
        check_fits(225, ("Al", "Co", "Ni"), (1, 2, 3))
    with pytest.raises(InputError, match="from 1 to 230"):
        group_of(231)


def test_a_name_forgets_elements_and_origins() -> None:
    assert prototype_name(225, [(1, {"b": 1}), (1, {"a": 1})]) == prototype_name(
        225, [(1, {"a": 1}), (1, {"b": 1})]
    )
    assert prototype_name(221, [(3, {"d": 1}), (1, {"b": 1})]) == prototype_name(
        221, [(1, {"a": 1}), (3, {"c": 1})]
    )


def test_random_cells_have_their_group_and_names() -> None:
    rng = np.random.default_rng(0)
    for group in (12, 62, 99, 139, 166, 194, 216, 227):
        for option in assignments(group, (2, 2))[:4]:
            cell = spread_cell(group, option, (ALUMINIUM, NICKEL), 12.0, rng)
            if cell is not None:
                assert (cell.space_group, cell.prototype) == (group, name_of(group, (2, 2), option))
                assert cell.crystal.volume / len(cell.crystal) == pytest.approx(12.0)


def test_random_crystals_are_spread_and_as_asked() -> None:
    config = RandomCrystalConfig(formulas=("Al2Ni4", "AlNi"), space_groups=(71, 99, 139, 166))
    made = list(RandomCrystal(config).generate(20, rng=np.random.default_rng(3), context=CONTEXT))
    assert len(made) == 20
    for crystal, proposal in made:
        assert crystal.formula in ("Al2Ni4", "Al1Ni1")
        assert space_group_of(crystal, 0.01) == proposal.condition["space_group"]
        assert shortest_distance(crystal) > 1.5
    again = list(RandomCrystal(config).generate(20, rng=np.random.default_rng(3), context=CONTEXT))
    assert [crystal.id for crystal, _ in again] == [crystal.id for crystal, _ in made]


def test_formulas_are_read_and_drawn() -> None:
    assert check_formula("Ni3Al") == Formula(("Al", "Ni"), (1, 3))
    assert str(check_formula("Al2Ni6").reduced) == "Al1Ni3"
    for text, what in (
        ("Xq2", "Xq2"),
        ("Ni61", "at most 60"),
        ("Ni0.5Al", "whole numbers"),
        ("", "no chemical formula"),
    ):
        with pytest.raises(InputError, match=what):
            check_formula(text)
    found = formulas_of(SearchSpace(("Al", "Ni"), {"Ni": 0.5}), (2, 3))
    assert [str(formula) for formula in found] == ["Ni2", "Al1Ni1", "Ni3", "Al1Ni2"]
    assert [str(formula) for formula in formulas_of(CONTEXT.space, (4, 4), [(1, 3)])] == [
        "Al1Ni3",
        "Al3Ni1",
    ]
    with pytest.raises(InputError, match="no formula"):
        formulas_of(CONTEXT.space, (2, 2), [(1, 3)])
    impossible = RandomCrystalConfig(formulas=("AlNi3",), space_groups=(227,))
    with pytest.raises(InputError, match="Fd-3m"):
        list(RandomCrystal(impossible).generate(1, rng=np.random.default_rng(0), context=CONTEXT))
