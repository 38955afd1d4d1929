"""Which sites the equivariant flow takes, and near what its samples begin."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from polymorph_cases import SIZES, ByFreedom, two_kinds

from campaign.errors import InputError
from generators.formulas import check_formula, formula_of
from generators.matrix_unet import energies
from generators.matrix_unet.choice import SiteChoice, in_play
from generators.matrix_unet.energies import SiteEnergies
from generators.matrix_unet.plugin import FlowMatching, FlowMatchingConfig
from generators.matrix_unet.sample import Recall, Starts, Way, generate
from generators.matrix_unet.store import from_checkpoint, to_checkpoint
from generators.matrix_unet.symmetric_flow import (
    SymmetricFlow,
    draw_paths,
    sample,
)
from generators.matrix_unet.train import Trained
from generators.matrix_unet.wanted import Wanted
from generators.polymorphs import PolymorphDataset
from generators.prototypes import pettifor_number


def test_sites_are_chosen_as_known_crystals_have_them(data: PolymorphDataset) -> None:
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    for item in data.items[::9]:
        options = choice.options(item.formula, item.cell.space_group)
        chances = options.chances()
        assert chances.sum() == pytest.approx(1.0)
        assert len(options.sites) == len(chances)
        assert {sites.space_group for sites in options.sites} == {item.cell.space_group}
        assert item.cell.prototype in [sites.prototype for sites in options.sites]
    assert choice.weights[0] + choice.weights[1] > 0, "what other formulas took counts"
    rng = np.random.default_rng(0)
    starts = Starts(choice, Way(starts=4, recall=0.0), Recall({}))
    drawn = starts.draw(Wanted(check_formula("AlNi3"), 221, -0.1), rng)
    assert [
        (start.cell.space_group, start.cell.crystal.formula, start.time) for start in drawn
    ] == [(221, "Al1Ni3", 0.0)] * 4
    assert starts.draw(Wanted(check_formula("AlNi2"), 221, -0.1), rng) == [], (
        "no sites of one and two atoms"
    )


def test_without_a_space_group_sites_are_those_of_any_known_one(data: PolymorphDataset) -> None:
    """Groups as often as crystals of the formula's shape have them; of any shape where there are
    none; an error where none fits.
    """
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    formula = check_formula("AlNi3")
    times = Counter(item.cell.space_group for item in data.items if item.formula.shape == (1, 3))
    assert choice.groups(formula) == times
    options = choice.options(formula)
    chances = options.chances()
    assert chances.sum() == pytest.approx(1.0)
    for group, count in times.items():
        here = [sites.space_group == group for sites in options.sites]
        assert chances[here].sum() == pytest.approx(count / times.total())
        within = choice.options(formula, group)
        assert [
            one for one, is_here in zip(options.sites, here, strict=True) if is_here
        ] == within.sites
        np.testing.assert_allclose(chances[here] / chances[here].sum(), within.chances())
    other = check_formula("Al5Ni7")
    assert not any(item.formula.shape == other.shape for item in data.items)
    assert set(choice.groups(other)) <= {item.cell.space_group for item in data.items}
    cubic = SiteChoice(np.zeros(5), {"221:a_b": 3})
    with pytest.raises(InputError, match="no labelled crystal has a space group that Al1Ni2 fits"):
        cubic.options(check_formula("AlNi2"))


def test_exploring_takes_sites_that_no_known_crystal_has(data: PolymorphDataset) -> None:
    """Where there are such; none of the weights counts known crystals. As large a share of the
    samples as is asked for.
    """
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    assert choice.new_weights.any()
    formula = check_formula("AlNi3")
    options = choice.options(formula, 123)
    is_new = np.array([sites.prototype not in choice.counts for sites in options.sites])
    assert 0 < is_new.sum() < len(is_new)
    assert options.chances(new=True)[is_new].sum() == pytest.approx(1.0)
    known = choice.options(formula, 221)
    assert all(sites.prototype in choice.counts for sites in known.sites)
    np.testing.assert_allclose(known.chances(new=True), known.chances())
    starts = Starts(choice, Way(exploration=0.5, repetition=1.0, starts=4), Recall({}))
    rng = np.random.default_rng(0)
    drawn = [starts.draw(Wanted(formula, 123, -0.1), rng) for _ in range(40)]
    all_new = [all(start.cell.prototype not in choice.counts for start in few) for few in drawn]
    assert 10 <= sum(all_new) <= 30


def test_sites_that_were_drawn_come_seldom_again(data: PolymorphDataset) -> None:
    """Fifteen draws meet more prototypes than with equal chances each time; where there is one kind
    of sites it is drawn again.
    """
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    wish = Wanted(check_formula("Al2Ni2"), 123, -0.1)
    met = {}
    for repetition in (1.0, 0.2):
        starts = Starts(choice, Way(starts=1, exploration=0.0, repetition=repetition), Recall({}))
        rng = np.random.default_rng(0)
        for _ in range(15):
            assert len(starts.draw(wish, rng)) == 1
        drawn = starts.drawn[wish.formula]
        assert sum(drawn.values()) == 15
        met[repetition] = sum(times > 0 for times in drawn.values())
    assert met[0.2] > met[1.0]
    starts = Starts(choice, Way(starts=16), Recall({}))
    for seed in range(20):
        assert (
            len(starts.draw(Wanted(check_formula("AlNi3"), 221, -0.1), np.random.default_rng(seed)))
            == 16
        )
    assert sum(times > 0 for times in starts.drawn[check_formula("AlNi3")].values()) <= 2
    assert sum(starts.drawn[check_formula("AlNi3")].values()) == pytest.approx(20)


def test_samples_of_one_formula_take_other_sites_in_turn(data: PolymorphDataset) -> None:
    """Though one kind of sites is nearest to the energy of every wish."""
    model = ByFreedom(SIZES)
    model.atomic_volumes.fill_(12.0)
    model.energy_errors.fill_(0.05)
    wanted = [Wanted(check_formula("Al2Ni2"), 123, 0.25)] * 20
    most = {}
    for repetition in (1.0, 0.1):
        way = Way(steps=1, repetition=repetition)
        made = generate(
            model,
            SiteChoice(np.zeros(5), {}),
            wanted,
            way,
            np.random.default_rng(0),
            data.subset([]),
        )
        [(_, most[repetition])] = Counter(one.prototype for one in made).most_common(1)
    assert most[0.1] < most[1.0]


def test_groups_and_sites_follow_the_energy_that_is_asked_for() -> None:
    """Where one prototype is low and another high in every formula, low wishes take the one and
    high wishes the other.
    """
    items = two_kinds()
    data = PolymorphDataset(items)
    choice = SiteChoice.fit(data, np.random.default_rng(0))
    assert choice.energies.deviation is not None
    assert choice.energies.deviation < 0.15, "a formula that was held out is predicted"
    rng, formula = np.random.default_rng(1), check_formula("MoTi")
    drawn = {
        energy: [choice.options(formula).draw_group(energy, rng) for _ in range(50)]
        for energy in (-0.4, 0.2)
    }
    assert drawn[-0.4].count(221) > 45
    assert drawn[0.2].count(123) > 45
    few = SiteChoice.fit(PolymorphDataset(items[:4]), np.random.default_rng(0))
    assert few.energies.deviation is None
    even = [few.options(formula).draw_group(-0.4, rng) for _ in range(100)]
    assert 25 < even.count(221) < 75, "nothing is known of energies"


def test_energies_on_sites_are_those_of_a_gaussian_process() -> None:
    """What each formula gets from the others is what a process without it gives, under the same
    settings; the distance is that of the best exchange of elements; weights give the same energies
    from a file.
    """
    data = PolymorphDataset(two_kinds())
    fitted = SiteEnergies.fit(data)
    known, settings = list(fitted.known), torch.as_tensor(fitted.settings)
    away = torch.tensor([item.energy for item in data.items], dtype=torch.float64) - fitted.middle
    inverse = torch.linalg.inv(energies.with_noise(energies.likeness(known, known), settings))
    blocks = energies.blocks_of(known)
    errors = energies.errors_without(inverse, away, blocks)
    block = blocks[4]
    rest = [row for row in range(len(known)) if row not in block]
    kernel = energies.with_noise(
        energies.likeness([known[row] for row in rest], [known[row] for row in rest]), settings
    )
    between = energies.kernel(
        energies.likeness([known[row] for row in block], [known[row] for row in rest]), settings
    )
    expected = between @ torch.linalg.solve(kernel, away[rest])
    at = sum(len(other) for other in blocks[:4])
    torch.testing.assert_close(errors[at : at + len(block)], away[block] - expected)

    apart = energies.distances(
        [check_formula("AlNi3")], [check_formula("FeCr3"), check_formula("Cr2Fe2")]
    )
    steps = [
        abs(pettifor_number(one) - pettifor_number(other))
        for one, other in (("Al", "Fe"), ("Ni", "Cr"))
    ]
    assert apart[0, 0] == pytest.approx(0.25 * steps[0] + 0.75 * steps[1])
    assert apart[0, 1] >= 100, "one and three atoms do not exchange with two and two"

    choice = SiteChoice.fit(data, np.random.default_rng(0))
    _, again = from_checkpoint(to_checkpoint(Trained(SymmetricFlow(SIZES), choice, {}), "key"))
    names = [item.cell.prototype for item in data.items[:2]]
    found = again.energies.predict(check_formula("MoTi"), names)
    np.testing.assert_allclose(found, choice.energies.predict(check_formula("MoTi"), names))
    np.testing.assert_allclose(found, [-0.4, 0.2], atol=0.1)
    assert again.energies.width == choice.energies.width


def test_samples_begin_near_a_known_crystal_with_the_same_sites(data: PolymorphDataset) -> None:
    """A path entered late is near its end; the known crystal has its elements exchanged for those
    wanted.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    recall = Recall.of(data)
    item = next(
        item
        for item in data.items
        if item.formula.symbols == ("Fe", "Ni") and len(item.cell.free_directions)
    )
    wanted = Wanted(
        check_formula(f"Al{item.formula.counts[0]}Fe{item.formula.counts[1]}"),
        item.cell.space_group,
        -0.2,
    )
    cell = recall.nearest(wanted.formula, item.cell.prototype, rng)
    assert cell is not None
    assert (str(formula_of(cell.crystal)), cell.space_group, cell.prototype) == (
        str(wanted.formula),
        wanted.space_group,
        item.cell.prototype,
    )
    assert recall.nearest(wanted.formula, "1:a_b", rng) is None
    model = SymmetricFlow(SIZES)
    model.atomic_volumes.fill_(12.0)
    time = np.full(3, 0.999)
    late = sample(
        model, draw_paths([cell] * 3, model, rng, time).here, time, torch.full((3,), -0.2), steps=2
    )
    assert all(
        StructureMatcher().fit(crystal.structure, cell.crystal.structure) for crystal in late
    )
    choice = SiteChoice.fit(data, rng)
    made = [
        one.crystal
        for one in generate(
            model,
            choice,
            [wanted] * 8,
            Way(recall=1.0, recall_time=0.999, exploration=0.0),
            rng,
            data,
        )
    ]
    known = [
        known.crystal.structure
        for known in data.items
        if known.formula.shape == wanted.formula.shape
    ]
    found = [
        any(StructureMatcher().fit_anonymous(crystal.structure, other) for other in known)
        for crystal in made
        if crystal is not None
    ]
    assert np.mean(found) > 0.5, "most are known prototypes"


def test_there_are_as_many_starts_as_sites_are_in_play(data: PolymorphDataset) -> None:
    """Two where known crystals took one of two, sixteen where a group has many sites and none is
    known.
    """
    assert in_play(np.array([1.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert in_play(np.full(5, 0.2)) == pytest.approx(5.0)
    rng = np.random.default_rng(0)
    known = SiteChoice.fit(data, rng)
    formula = check_formula("AlNi3")
    way = Way(exploration=0.0)
    sure = Starts(known, way, Recall({})).draw(Wanted(formula, 221, -0.1), rng)
    assert len(sure) == round(in_play(known.options(formula, 221).chances(-0.1))) == 2
    unknown = SiteChoice(np.zeros(5), {})
    wide = Wanted(check_formula("Al4Ni12"), 47, -0.1)
    assert len(unknown.options(wide.formula, 47).sites) > 16
    starts = Starts(unknown, way, Recall({}))
    assert len(starts.draw(wide, rng)) == 16
    assert sum(starts.drawn[wide.formula].values()) == pytest.approx(1.0)


def test_starts_are_left_to_the_choice_of_sites_unless_a_config_counts_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert FlowMatching(FlowMatchingConfig()).way.starts is None
    assert FlowMatching(FlowMatchingConfig(starts=3)).way.starts == 3
    former = FlowMatchingConfig.model_validate({"candidates": 5})
    assert former.starts == 5
    assert "candidates is called starts now" in caplog.text
    with pytest.raises(ValueError, match="starts"):
        FlowMatchingConfig(starts=0)
