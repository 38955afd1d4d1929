"""What a conditional generator is asked for: energies from the hull, and every wish once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry
from support import load

from campaign.api import Campaign
from campaign.protocols import GenerationContext
from campaign.types import Objective, SearchSpace
from generators.matrix_unet.wanted import WantedConfig, draw
from generators.polymorphs import PolymorphDataset, polymorphs_of
from generators.prototypes import Prototypes, PrototypesConfig

SPACE = SearchSpace(("Al", "Ni", "Ti"))
COUNTING = """
from pydantic import BaseModel
from campaign.types import Proposal
from generators.random_alloy import RandomAlloy

class Counting:
    class Config(BaseModel):
        pass

    def __init__(self, config):
        self.alloys = RandomAlloy(RandomAlloy.Config(lattices=["fcc"], repeats=(2, 2, 1)))

    def generate(self, n, *, rng, context):
        for crystal, _ in self.alloys.generate(n, rng=rng, context=context):
            yield crystal, Proposal(condition={"asked": context.asked})
"""


@pytest.fixture(scope="module")
def data() -> PolymorphDataset:
    config = PrototypesConfig(source="library", atoms=(2, 6), shapes=((1, 1), (1, 2), (1, 1, 1)))
    context = GenerationContext(space=SPACE, objective=Objective("energy_per_atom", "minimize"))
    made = Prototypes(config).generate(80, rng=np.random.default_rng(0), context=context)
    return polymorphs_of(
        [
            (crystal, 0.1 * (crystal.volume / len(crystal) % 3) - 0.3, str(row))
            for row, (crystal, _) in enumerate(made)
        ]
    )


def test_energies_are_counted_from_the_hull_of_what_is_labelled(data: PolymorphDataset) -> None:
    """Each formula from its own point on it, whether or not a label has that formula."""
    formulas = (*map(str, data.groups), "Al3Ni5", "AlNiTi4")
    wanted = WantedConfig(
        formulas=formulas, space_groups=(1,), energies=(-0.1, 0.2), every=True, above="hull"
    )
    entries = [ComputedEntry(str(i.formula), i.energy * i.formula.n_atoms) for i in data.items]
    diagram = PhaseDiagram([*entries, *(ComputedEntry(symbol, 0) for symbol in SPACE.elements)])
    wishes = draw(wanted, 2 * len(formulas), data, SPACE, np.random.default_rng(0))
    for wish, change in zip(wishes, (-0.1, 0.2) * len(formulas), strict=True):
        on_hull = diagram.get_hull_energy_per_atom(Composition(str(wish.formula)))
        assert wish.energy == pytest.approx(on_hull + change, abs=1e-9)
    drawn = draw(
        wanted.model_copy(update={"every": False}), 60, data, SPACE, np.random.default_rng(0)
    )
    assert {round(w.energy, 9) for w in drawn} <= {round(w.energy, 9) for w in wishes}


def test_where_nothing_is_labelled_the_hull_is_of_the_elements() -> None:
    wanted = WantedConfig(formulas=("AlNi",), space_groups=(221,), energies=(-0.1,), above="hull")
    empty = PolymorphDataset([])
    assert draw(wanted, 1, empty, SPACE, np.random.default_rng(0))[0].energy == -0.1


def test_a_generator_knows_for_how_many_it_was_asked_whatever_others_were(tmp_path: Path) -> None:
    """So that of all wishes in turn none is left out, and none comes twice."""
    (tmp_path / "counting.py").write_text(COUNTING)
    counts = {"counting": 7, "random_alloy": 11}
    loaded = load(
        tmp_path,
        generators=[
            {"use": "counting:Counting", "name": "counting", "count": counts["counting"]},
            {
                "use": "random_alloy",
                "count": counts["random_alloy"],
                "params": {"lattices": ["bcc"], "repeats": [2, 2, 1]},
            },
        ],
        budget={"rounds": 3},
    )
    campaign = Campaign(tmp_path / "campaign", loaded)
    campaign.run()
    state = campaign.state()
    asked = [
        {row.condition["asked"] for row in event.proposals}
        for record in state.rounds
        for event in record.proposed
        if event.generator == "counting"
    ]
    assert asked == [{0}, {7}, {14}]
    assert {name: state.asked(name) for name in counts} == {"counting": 21, "random_alloy": 33}
