"""Prototypes lend their structure; polymorphs are filtered, split and paired so that nothing is on
both sides.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.formulas import check_formula, formula_of
from generators.polymorphs import Filters, PolymorphDataset, polymorphs_of, polymorphs_of_labelled
from generators.prototypes import (
    Known,
    Prototypes,
    PrototypesConfig,
    chemical_distance,
    library,
    substitutions,
)
from generators.symmetry import symmetric_cell

METALS = SearchSpace(("Al", "Co", "Fe", "Ni"))
CONTEXT = GenerationContext(
    space=METALS, objective=Objective("formation_energy_per_atom", "minimize")
)


@pytest.fixture(scope="module")
def data() -> PolymorphDataset:
    """Library prototypes of five binary shapes over four metals, with energies by a rule."""
    config = PrototypesConfig(
        source="library", atoms=(2, 6), shapes=((1, 1), (1, 2), (2, 2), (2, 4), (1, 3))
    )
    made = [
        crystal
        for crystal, _ in Prototypes(config).generate(
            260, rng=np.random.default_rng(0), context=CONTEXT
        )
    ]
    return polymorphs_of(
        [
            (crystal, float(crystal.volume / len(crystal) % 1), str(row))
            for row, crystal in enumerate(made)
        ]
    )


def test_the_library_has_the_well_known_ones() -> None:
    by_name = dict(library())
    assert len(by_name) > 250
    for name, group in (("AB_cF8_225_a_b", 225), ("AB_cF8_216_c_a", 216), ("AB3_cP4_221_a_c", 221)):
        cell = symmetric_cell(by_name[name], 0.01)
        assert cell is not None
        assert cell.space_group == group


def test_substitution_takes_the_nearest_elements_first() -> None:
    iron_nickel = Crystal(
        2.9 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 28])
    )
    copper_gold = Crystal(
        3.1 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.4]]), np.array([29, 79])
    )
    known = [
        Known(crystal, formula_of(crystal), name)
        for crystal, name in ((copper_gold, "far"), (iron_nickel, "near"))
    ]
    made = list(substitutions(check_formula("CoNi"), known))
    assert [name for _, name in made] == ["near", "near", "far", "far"]
    first = made[0][0]
    assert first.formula == "Co1Ni1"
    assert first.numbers.tolist() == [27, 28], (
        "cobalt stands where iron was, its neighbour in the table"
    )
    assert chemical_distance(formula_of(iron_nickel), {"Fe": "Co", "Ni": "Ni"}) < 10
    assert next(name for _, name in substitutions(check_formula("FeNi"), known)) == "near", (
        "only with its elements exchanged"
    )
    assert first.volume == pytest.approx(2.9**3 * (11.07 + 10.94) / (11.82 + 10.94), rel=0.02), (
        "at the elements' own volumes"
    )


def test_labelled_crystals_lend_their_structure_too() -> None:
    config = PrototypesConfig(formulas=("CoAl",), atoms=(1, 4))
    iron_nickel = Crystal(
        2.9 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 28])
    )
    item = LabelledCandidate(
        candidate=Candidate(iron_nickel), values={"formation_energy_per_atom": -0.1}
    )
    assert list(Prototypes(config).generate(5, rng=np.random.default_rng(0), context=CONTEXT)) == []
    context = GenerationContext(space=METALS, objective=CONTEXT.objective, labelled=(item,))
    made = list(Prototypes(config).generate(5, rng=np.random.default_rng(0), context=context))
    assert len(made) == 2
    assert {crystal.formula for crystal, _ in made} == {"Al1Co1"}
    assert made[0][1].parents == (iron_nickel.id,)


def test_a_split_shares_no_formula_and_keeps_the_elements(data: PolymorphDataset) -> None:
    learned, held = data.split_by_formula(0.25, np.random.default_rng(0))
    assert not set(learned.groups) & set(held.groups)
    assert len(learned) + len(held) == len(data)
    for symbol in METALS.elements:
        share = [
            sum(symbol in item.formula.symbols for item in part.items) for part in (learned, held)
        ]
        assert 0.1 < share[1] / sum(share) < 0.4
    learned, held = data.split_by_prototype(0.25, np.random.default_rng(0))
    assert not {item.cell.prototype for item in learned.items} & {
        item.cell.prototype for item in held.items
    }
    assert len(held) > 0.1 * len(data)


def test_pairs_lead_down_among_the_same_atoms(data: PolymorphDataset) -> None:
    pairs = data.pairs(np.random.default_rng(0), per_group=3)
    lowest = {rows[0] for rows in data._same_cell()}
    for high, low in pairs:
        assert data.items[high].energy >= data.items[low].energy
        assert data.items[high].formula == data.items[low].formula
    kinds = Counter(low in lowest for _, low in pairs)
    assert 0.3 < kinds[True] / len(pairs) < 0.75
    assert pairs != data.pairs(np.random.default_rng(1), per_group=3), "new ones each epoch"


def test_filters_say_what_is_left(data: PolymorphDataset) -> None:
    kept = data.filtered(Filters(atoms=(2, 4), least_group=5, least_share=0.02))
    assert {len(item.crystal) for item in kept.items} <= {2, 3, 4}
    assert min(len(rows) for rows in kept.groups.values()) >= 5 or len(kept) < len(data)
    shares = Counter(item.cell.space_group for item in kept.items)
    assert len(shares) < len({item.cell.space_group for item in data.items})
    with pytest.raises(InputError, match="none passes: 40 to 60 atoms"):
        data.filtered(Filters(atoms=(40, 60)))


def test_one_polymorph_of_each_formula_makes_no_pairs(data: PolymorphDataset) -> None:
    alone = data.subset([rows[0] for rows in data.groups.values()])
    with pytest.raises(InputError, match="at least two polymorphs"):
        alone.pairs(np.random.default_rng(0))


def test_the_same_crystal_is_kept_once_and_energies_are_referred() -> None:
    cell = 2.88 * np.eye(3)
    bcc = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    twice = [
        Crystal(cell, bcc, np.array([13, 28])),
        Crystal(1.0005 * cell, bcc + 0.25, np.array([28, 13])),
    ]
    pure = [Crystal(cell, bcc, np.array([z, z])) for z in (13, 28)]
    values = [-4.6, -4.6, -3.4, -4.4]
    labelled = [
        LabelledCandidate(candidate=Candidate(crystal), values={"energy_per_atom": value})
        for crystal, value in zip([*twice, *pure], values, strict=True)
    ]
    found = polymorphs_of_labelled(labelled, "energy_per_atom")
    assert sorted(str(item.formula) for item in found.items) == ["Al1", "Al1Ni1", "Ni1"]
    energies = {str(item.formula): item.energy for item in found.items}
    assert energies["Al1Ni1"] < min(energies["Al1"], energies["Ni1"])
