"""The training-free generators and the one that learns by the cross-entropy method."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.crystals.lattice import supercell
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace, Together
from generators.local_search import LocalSearch, LocalSearchConfig, mutate, swap_unlike
from generators.random_alloy import (
    CrossEntropyAlloy,
    CrossEntropyConfig,
    RandomAlloy,
    RandomAlloyConfig,
    draw_counts,
    round_counts,
)

ELEMENTS = ("Ni", "Fe", "Cr")
SPACE = SearchSpace(ELEMENTS, {}, dict.fromkeys(ELEMENTS, 0.9))
CONTEXT = GenerationContext(space=SPACE, objective=Objective("x", "maximize"))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_random_alloys_fill_the_simplex_and_its_bounds() -> None:
    generator = RandomAlloy(RandomAlloyConfig())
    crystals = [crystal for crystal, _ in generator.generate(400, rng=rng(), context=CONTEXT)]
    assert all(len(crystal) == 54 for crystal in crystals)
    fractions = np.array(
        [[crystal.symbols.count(element) / 54 for element in ELEMENTS] for crystal in crystals]
    )
    assert fractions.max() <= 0.9
    assert fractions.mean(0) == pytest.approx([1 / 3] * 3, abs=0.04)
    assert fractions.std(0) == pytest.approx([np.sqrt(1 / 18)] * 3, abs=0.03)
    tetragonal = sum(crystal.lattice[2, 2] / crystal.lattice[0, 0] > 1.2 for crystal in crystals)
    assert 150 < tetragonal < 250
    again = [crystal for crystal, _ in generator.generate(400, rng=rng(), context=CONTEXT)]
    assert again == crystals


def test_an_element_that_may_not_be_used_is_not_drawn_in_large_cells_either() -> None:
    space = SPACE.without(["Cr"])
    drawn = np.array([draw_counts(space, 500, rng(seed)) for seed in range(50)])
    assert (drawn[:, 2] == 0).all()
    assert np.ptp(drawn[:, 0]) > 250
    assert space.violation(["Ni", "Cr"]) == "Cr at 50.0 at%, allowed 0 to 0 at%"
    assert space.without(()) is space


@pytest.mark.parametrize(
    ("banned", "has"), [(["Cr"], True), (["Cr", "Fe"], False), (["Ni"], False)]
)
def test_whether_a_space_without_elements_holds_anything(banned: list[str], has: bool) -> None:
    space = SearchSpace(
        ELEMENTS, {"Ni": 0.1}, dict.fromkeys(ELEMENTS, 0.9), (Together(("Cr", "Fe"), 0.2),)
    )
    assert space.without(banned).has_compositions == has


def test_counts_add_up() -> None:
    assert round_counts(np.array([0.5, 0.25, 0.25]), 7).tolist() == [3, 2, 2]
    assert sum(round_counts(np.array([1.0, 1.0, 1.0]), 16)) == 16
    with pytest.raises(InputError, match="found no 3-atom composition"):
        draw_counts(SearchSpace(("Ni", "Fe"), {"Ni": 0.45}, {"Ni": 0.55}), 3, rng())


def test_swaps_keep_the_composition_and_change_two_sites() -> None:
    numbers = np.array([24] * 5 + [26] * 6 + [28] * 5, dtype=np.uint8)
    children = swap_unlike(numbers, 200, rng())
    assert all(Counter(child.tolist()) == Counter(numbers.tolist()) for child in children)
    assert set((children != numbers).sum(1)) == {2}
    assert len({child.tobytes() for child in children}) > 60


def test_mutations_change_one_site() -> None:
    numbers = np.array([24] * 8 + [26] * 8, dtype=np.uint8)
    children = mutate(numbers, 100, np.array([24, 26, 28], dtype=np.uint8), rng())
    assert set((children != numbers).sum(1)) == {1}
    assert set(np.unique(children)) == {24, 26, 28}


def labelled(n: int, seed: int = 0) -> list[LabelledCandidate]:
    """Labels that reward nickel on the first half of the sites of bcc cells."""
    generator = RandomAlloy(RandomAlloyConfig(repeats=(2, 2, 2)))
    crystals = [crystal for crystal, _ in generator.generate(n, rng=rng(seed), context=CONTEXT)]
    return [LabelledCandidate(candidate=Candidate(c), values={"x": reward(c)}) for c in crystals]


def reward(crystal: Crystal) -> float:
    return float(
        (crystal.numbers[:8] == 28).mean() - (crystal.lattice[2, 2] > 1.2 * crystal.lattice[0, 0])
    )


def test_local_search_starts_from_the_best_and_names_its_parents() -> None:
    known = labelled(40)
    best = sorted(known, key=lambda item: (-item.values["x"], item.candidate.id))[:3]
    context = GenerationContext(space=SPACE, objective=Objective("x", "maximize"), labelled=known)
    found = list(
        LocalSearch(LocalSearchConfig(parents=3, mutation=0.5)).generate(
            60, rng=rng(), context=context
        )
    )
    assert {proposal.parents[0] for _, proposal in found} == {item.candidate.id for item in best}
    parents = {item.candidate.id: item.candidate.crystal for item in best}
    for crystal, proposal in found:
        changed = (crystal.numbers != parents[proposal.parents[0]].numbers).sum()
        assert changed == {"swap": 2, "mutation": 1}[proposal.condition["move"]]
        assert not SPACE.violation(crystal.symbols)
    assert list(LocalSearch(LocalSearchConfig()).generate(5, rng=rng(), context=CONTEXT)) == []


def test_cross_entropy_moves_toward_the_best_labels_and_the_gate_sees_it() -> None:
    generator = CrossEntropyAlloy(CrossEntropyConfig(repeats=(2, 2, 2), exploration=0.0))
    known = labelled(300)
    context = GenerationContext(space=SPACE, objective=Objective("x", "maximize"), labelled=known)
    checkpoint = None
    means = [np.mean([item.values["x"] for item in known])]
    for _ in range(3):
        context = GenerationContext(
            space=SPACE, objective=Objective("x", "maximize"), labelled=known, checkpoint=checkpoint
        )
        new = generator.train(known, rng=rng(), context=context)
        is_better, figures = generator.is_improvement(new, checkpoint, known, context=context)
        assert is_better == (
            figures["held_out_log_likelihood"] > figures["held_out_log_likelihood_before"]
        )
        if is_better:
            checkpoint = checkpoint_from_bytes(checkpoint_to_bytes(new))
        context = GenerationContext(
            space=SPACE, objective=Objective("x", "maximize"), checkpoint=checkpoint
        )
        fresh = [crystal for crystal, _ in generator.generate(150, rng=rng(5), context=context)]
        known += [LabelledCandidate(candidate=Candidate(c), values={"x": reward(c)}) for c in fresh]
        means.append(np.mean([reward(crystal) for crystal in fresh]))
    assert means[1] > means[0] + 0.3
    assert means[-1] > means[0] + 0.5


def test_the_gate_keeps_the_old_distribution_where_the_new_one_is_worse() -> None:
    generator = CrossEntropyAlloy(CrossEntropyConfig(repeats=(2, 2, 2)))
    known = labelled(300)
    context = GenerationContext(space=SPACE, objective=Objective("x", "maximize"), labelled=known)
    good = generator.train(known, rng=rng(), context=context)
    wrong = GenerationContext(space=SPACE, objective=Objective("x", "minimize"), labelled=known)
    bad = generator.train(known, rng=rng(), context=wrong)
    assert generator.is_improvement(good, bad, known, context=context)[0]
    assert not generator.is_improvement(bad, good, known, context=context)[0]


def test_a_learned_ordering_keeps_its_composition() -> None:
    generator = CrossEntropyAlloy(CrossEntropyConfig(repeats=(2, 2, 2)))
    counts = np.array([5, 6, 5])
    sites = np.full((16, 3), 1e-3)
    sites[:5, 0] = sites[5:11, 1] = sites[11:, 2] = 1.0
    symbols = generator._ordering(sites, counts, SPACE, rng())
    assert Counter(symbols) == dict(zip(ELEMENTS, counts.tolist(), strict=True))
    assert symbols == ["Ni"] * 5 + ["Fe"] * 6 + ["Cr"] * 5


def test_crystals_on_other_sites_teach_nothing() -> None:
    generator = CrossEntropyAlloy(CrossEntropyConfig(repeats=(2, 2, 2)))
    other = supercell("bcc", (2, 2, 1), ["Ni"] * 8)
    assert generator._lattice_of(other) is None
    assert generator._lattice_of(supercell("fcc", (2, 2, 2), ["Ni"] * 16)) == 1
