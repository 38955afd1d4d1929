"""Energies above the hull as an objective: values follow all labels of one level, at any moment,
and the choice follows the hull.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import load
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.decide import ranking
from campaign.decide.replay import replay
from campaign.errors import InputError
from campaign.ledger import CampaignState, LedgerReader
from campaign.types import ENERGY_ABOVE_HULL, ENERGY_PER_ATOM, FORMATION_ENERGY
from oracles.hull import Hull, Phase
from oracles.hull_view import phases_of

ABOVE = ENERGY_ABOVE_HULL.name
STABLE: dict[str, Any] = {
    "objective": {"quantity": ABOVE, "direction": "minimize"},
    "space": {"elements": ["Ni", "Fe", "Cr"], "max_fraction": 1.0},
    "generators": [{"use": "ordered_alloy", "count": 40, "params": {"atoms": [2, 4]}}],
    "acquisition": {"use": "hull", "initial_labels": 8, "batch_size": 4},
    "budget": {"labels": 20},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign that looked for what is stable."""
    folder = tmp_path_factory.mktemp("searched")
    campaign = Campaign(folder / "campaign", load(folder, **STABLE))
    campaign.run()
    return campaign


def assert_replayed(campaign: Campaign) -> None:
    for record in campaign.state().rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


def by_pymatgen(state: CampaignState, oracle: str) -> dict[str, float]:
    """Energies above the hull of the labels of an oracle as they stand."""
    labels = [
        label
        for label in state.labels.values()
        if label.oracle == oracle and FORMATION_ENERGY.name in label.observed
    ]
    phases = [
        Phase(
            label.candidate,
            state.counts(label.candidate),
            label.observed[ENERGY_PER_ATOM.name],
            label.fidelity,
        )
        for label in labels
    ]
    hull = Hull(phases)
    return {phase.id: hull.stability(phase).above_hull for phase in phases}


def test_after_every_label_the_values_are_those_of_the_hull_of_all_labels_so_far(
    searched: Campaign,
) -> None:
    reader = LedgerReader(searched.folder)
    live = CampaignState()
    moved = 0
    before: dict[str, float] = {}
    for sequence, time, event in reader.events():
        live.apply(sequence, time, event)
        if not live.labels or set(live.elemental["lennard_jones"]) != {"Ni", "Fe", "Cr"}:
            continue
        now = {label.candidate: label.values[ABOVE] for label in live.labels.values()}
        moved += any(now[candidate] > value + 1e-9 for candidate, value in before.items())
        if now.keys() != before.keys():
            assert now == pytest.approx(by_pymatgen(live, "lennard_jones"), abs=1e-8)
        before = now
    reader.close()
    assert moved > 3, "phases that landed moved the hull under others"
    assert {
        label.candidate: label.values[ABOVE] for label in searched.state().labels.values()
    } == pytest.approx(before, abs=1e-12)


def test_stable_phases_lead_and_the_elements_are_no_finds(searched: Campaign) -> None:
    state = searched.state()
    wanted = ranking.wanted_of(searched.loaded.config, "lennard_jones")
    ranked = ranking.ranked(state, wanted)
    assert [item.label.values[ABOVE] for item in ranked] == sorted(
        item.label.values[ABOVE] for item in ranked
    )
    assert ranked[0].label.values[ABOVE] == 0
    assert not {item.label.purpose for item in ranked} & {"reference"}
    best = ranking.best(state, wanted)
    assert best is not None
    assert best.candidate == ranked[0].label.candidate


def test_a_phase_that_lands_on_the_hull_is_a_gain(searched: Campaign) -> None:
    state = searched.state()
    hull = state.hull("lennard_jones")
    assert hull is not None
    last = max(label.round for label in hull.stable)
    ended = [record.index for record in state.rounds if record.ended is not None]
    wanted = ranking.wanted_of(searched.loaded.config, "lennard_jones")
    assert ranking.rounds_without_gain(state, wanted) == sum(index > last for index in ended)


def test_explain_status_and_report_tell_of_stability(searched: Campaign) -> None:
    state = searched.state()
    chosen = next(
        choice
        for record in reversed(state.rounds)
        if record.decided
        for choice in record.decided.choices
        if choice.stable
    )
    told = [
        (
            ["explain", str(searched.folder), chosen.candidate],
            ("stable with probability", "energy_above_hull = "),
        ),
        (["status", str(searched.folder)], ("lie on it",)),
        (["report", str(searched.folder)], ()),
    ]
    for command, words in told:
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert all(word in result.output for word in words), result.output
    page = next(searched.folder.rglob("report.html")).read_text()
    for words in (
        "How the hull moved",
        "Chances to be stable, and what came true",
        "chance to be stable when chosen",
    ):
        assert words in page


def test_a_batch_by_the_hull_spreads_over_compositions_and_says_how_likely_each_is_stable(
    searched: Campaign,
) -> None:
    state = searched.state()
    batches = [
        r.decided.choices
        for r in state.rounds
        if r.decided is not None and r.decided.acquisition == "hull" and r.decided.choices
    ]
    assert batches
    for choices in batches:
        assert all(choice.stable is not None and 0 < choice.stable < 1 for choice in choices)
        assert len({state.formula(choice.candidate) for choice in choices}) > 1
    assert_replayed(searched)


def test_the_hulls_history_goes_down_to_the_hull_as_it_stands(searched: Campaign) -> None:
    state = searched.state()
    hull = state.hull("lennard_jones")
    assert hull is not None
    moves = hull.moves()
    assert [move.sequence for move in moves] == sorted(move.sequence for move in moves)
    assert all(move.fall > 0 for move in moves)
    assert moves[-1].n_stable == len(hull.stable)
    assert {label.candidate for label in hull.stable} <= {move.candidate for move in moves} | {
        label.candidate for label in state.labels.values() if label.purpose == "reference"
    }


def test_without_the_quantity_labels_carry_none_of_it_but_the_hull_is_there(
    small: Callable[..., Campaign],
) -> None:
    campaign = small(
        **(
            STABLE
            | {
                "objective": {"quantity": FORMATION_ENERGY.name},
                "acquisition": {"use": "random", "batch_size": 10},
            }
        )
    )
    campaign.run()
    state = campaign.state()
    assert all(ABOVE not in label.values for label in state.labels.values())
    hull = state.hull("lennard_jones")
    assert hull is not None
    above = {label.candidate: label.observed[ABOVE] for label in hull.labels}
    assert above == pytest.approx(by_pymatgen(state, "lennard_jones"), abs=1e-8)


@pytest.mark.parametrize("use", ["log_noisy_expected_improvement", "thompson"])
def test_every_acquisition_sees_formation_energies_from_the_hull(
    small: Callable[..., Campaign], use: str
) -> None:
    campaign = small(
        **(
            STABLE
            | {
                "acquisition": {"use": use, "initial_labels": 8, "batch_size": 4},
                "budget": {"labels": 12},
            }
        )
    )
    campaign.run()
    state = campaign.state()
    (decided,) = [
        r.decided for r in state.rounds if r.decided is not None and r.decided.acquisition == use
    ]
    found = [
        state.labels[choice.candidate, "lennard_jones"].values[FORMATION_ENERGY.name]
        for choice in decided.choices
    ]
    told = [choice.mean for choice in decided.choices]
    assert np.abs(np.array(found) - np.array(told, dtype=float)).max() < 0.5, (
        "means are told as formation energies"
    )
    assert_replayed(campaign)


def test_as_a_constraint_it_bounds_what_is_modelled(small: Callable[..., Campaign]) -> None:
    changes = {
        **STABLE,
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "constraints": [{"quantity": ABOVE, "at_most": 0.05}],
        "acquisition": {"use": "log_expected_improvement", "initial_labels": 8, "batch_size": 4},
    }
    campaign = small(**changes)
    campaign.run()
    state = campaign.state()
    wanted = ranking.wanted_of(campaign.loaded.config, "lennard_jones")
    best = ranking.best(state, wanted)
    assert best is not None
    assert best.values[ABOVE] <= 0.05
    assert_replayed(campaign)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"objective": {"quantity": ABOVE, "direction": "maximize"}},
            "expected minimize for energy_above_hull",
        ),
        (
            {"objective": {"quantity": "energy_per_atom", "direction": "minimize"}},
            "expected objective energy_above_hull",
        ),
        (
            {"constraints": [{"quantity": ABOVE, "at_most": 0.1}]},
            "one objective and no constraints",
        ),
    ],
)
def test_what_cannot_be_wanted_of_the_hull_is_told(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load(tmp_path, **{**STABLE, **changes})


def test_over_levels_candidate_and_level_are_chosen_by_the_hull_per_cost(
    small: Callable[..., Campaign],
) -> None:
    changes: dict[str, Any] = {
        "surrogate": {"use": "multi_task_gp"},
        "oracles": [
            {"use": "lennard_jones", "name": "cheap"},
            {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.12}},
        ],
        "fidelities": {
            "mode": "acquisition",
            "levels": [{"oracle": "cheap", "cost": 1.0}, {"oracle": "dear", "cost": 3.0}],
        },
        "acquisition": {"use": "hull", "initial_labels": 8, "batch_size": 4},
    }
    campaign = small(**(STABLE | changes))
    campaign.run()
    state = campaign.state()
    decided = [
        record.decided
        for record in state.rounds
        if record.decided is not None and record.decided.acquisition == "hull_per_cost"
    ]
    assert decided
    assert all(choice.stable is not None for one in decided for choice in one.choices)
    for oracle in ("cheap", "dear"):
        now = {
            label.candidate: label.values[ABOVE]
            for label in state.labels.values()
            if label.oracle == oracle
        }
        assert now == pytest.approx(by_pymatgen(state, oracle), abs=1e-8), "a hull for each level"
    assert_replayed(campaign)


def test_a_gate_lets_climb_what_lies_near_the_hull_of_its_level(
    small: Callable[..., Campaign],
) -> None:
    changes: dict[str, Any] = {
        "surrogate": None,
        "objective": {"quantity": "energy_per_atom", "direction": "maximize"},
        "oracles": [
            {"use": "lennard_jones", "name": "cheap"},
            {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.12}},
        ],
        "fidelities": {
            "levels": [
                {"oracle": "cheap"},
                {"oracle": "dear", "gate": {"quantity": ABOVE, "threshold": 0.02}},
            ]
        },
        "acquisition": {"use": "random", "initial_labels": 8, "batch_size": 8},
        "budget": {"labels": None, "rounds": 3},
    }
    campaign = small(**(STABLE | changes))
    campaign.run()
    state = campaign.state()
    climbed = [
        choice
        for record in state.rounds
        if record.decided is not None
        for choice in record.decided.choices
        if choice.reason == "gate"
    ]
    assert climbed
    assert all(choice.score is not None and choice.score <= 0.02 for choice in climbed)
    assert not {choice.candidate for choice in climbed} & {
        label.candidate for label in state.labels.values() if label.purpose
    }


def test_a_chemical_potential_stands_for_its_element_on_the_hull(tmp_path: Path) -> None:
    """Crystals of that element alone lie on no diagram; all others as pymatgen has them with the
    potential as a phase.
    """
    changes = {
        **STABLE,
        "references": {"chemical_potentials": {"Cr": -0.9}},
        "budget": {"labels": 16},
    }
    campaign = Campaign(tmp_path / "campaign", load(tmp_path, **changes))
    campaign.run()
    state = campaign.state()
    hull = state.hull("lennard_jones")
    assert hull is not None
    diagram = Hull(phases_of(state, "lennard_jones"))
    given = {phase.id: diagram.stability(phase).above_hull for phase in diagram.phases}
    assert "chemical potential of Cr" in given
    assert len(hull.labels) > 10
    for label in hull.labels:
        assert state.counts(label.candidate).keys() != {"Cr"}
        assert label.values[ABOVE] == pytest.approx(given[label.candidate], abs=1e-9)
    alone = [
        label for label in state.labels.values() if state.counts(label.candidate).keys() == {"Cr"}
    ]
    assert all(ABOVE not in label.values for label in alone)
    assert sum(move.fall for move in hull.moves()) > 0
    assert_replayed(campaign)
