"""Gates that bound quantities of the level below: what two potentials agree about climbs, or what
they disagree about.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import load, merged

from campaign.api import Campaign
from campaign.decide.replay import replay
from campaign.errors import InputError

LADDER: dict[str, Any] = {
    "space": {"elements": ["Fe", "Ni"], "max_fraction": 0.8},
    "objective": {"quantity": "formation_energy_per_atom", "direction": "minimize"},
    "generators": [{"use": "ordered_alloy", "count": 80, "params": {"atoms": [2, 3]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 6, "batch_size": 4},
    "budget": {"labels": None, "rounds": 4},
}
PAIR = [{"use": "lennard_jones", "params": {"cutoff": cutoff}} for cutoff in (4.0, 7.0)]
COMMITTEE = {"use": "committee", "name": "pair", "params": {"members": PAIR}}


def ladder_with(gate: dict[str, Any]) -> dict[str, Any]:
    dear = {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 0.2, "cutoff": 8.0}}
    return {
        **LADDER,
        "oracles": [COMMITTEE, dear],
        "fidelities": {"levels": [{"oracle": "pair"}, {"oracle": "dear", "gate": gate}]},
    }


@pytest.mark.parametrize("bound", ["at_most", "at_least"])
def test_disagreement_decides_who_climbs(small: Callable[..., Campaign], bound: str) -> None:
    limit = 0.003
    campaign = small(**ladder_with({"constraints": [{"quantity": "disagreement", bound: limit}]}))
    campaign.run()
    state = campaign.state()
    below = {
        label.candidate: label.values["disagreement"]
        for label in state.labels.values()
        if label.oracle == "pair" and not label.purpose
    }
    climbed = {
        choice.candidate
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
        if choice.reason == "gate"
    }
    refused = {
        name
        for name, value in below.items()
        if (value > limit if bound == "at_most" else value < limit)
    }
    assert climbed
    assert refused
    assert not refused & climbed
    for record in state.rounds:
        assert record.decided is not None
        assert replay(campaign, record.index) == record.decided.choices


def test_all_that_a_gate_asks_has_to_hold(small: Callable[..., Campaign]) -> None:
    campaign = small(
        **ladder_with(
            {"best_fraction": 0.4, "constraints": [{"quantity": "disagreement", "at_least": 0.003}]}
        )
    )
    campaign.run()
    state = campaign.state()
    assert any(
        choice.reason == "gate"
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
    )
    for record in state.rounds:
        assert record.decided is not None
        seen = [
            label
            for label in state.labels.values()
            if label.oracle == "pair" and not label.purpose and label.sequence < record.sequence
        ]
        best = sorted(seen, key=lambda label: label.values["formation_energy_per_atom"])[
            : -(-len(seen) * 4 // 10)
        ]
        for choice in record.decided.choices:
            if choice.reason == "gate":
                assert choice.candidate in {label.candidate for label in best}
                assert state.labels[choice.candidate, "pair"].values["disagreement"] >= 0.003


def test_formation_energies_that_a_gate_alone_bounds_have_their_references(
    small: Callable[..., Campaign],
) -> None:
    gate = {
        "threshold": 0.0,
        "quantity": "energy_per_atom",
        "constraints": [{"quantity": "formation_energy_per_atom", "at_most": 0.5}],
    }
    campaign = small(
        **merged(
            ladder_with(gate),
            {"objective": {"quantity": "energy_per_atom", "direction": "minimize"}},
        )
    )
    campaign.run()
    state = campaign.state()
    assert {"Fe", "Ni"} <= state.elemental["pair"].keys()
    assert any(
        choice.reason == "gate"
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
    )


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            {"constraints": [{"quantity": "disagrement", "at_most": 0.1}]},
            "pair, the level below, does not measure disagrement",
        ),
        ({"constraints": [{"quantity": "disagreement"}]}, "give either at_least or at_most"),
        ({"quantity": "disagreement"}, "a gate needs constraints, threshold or best_fraction"),
    ],
)
def test_gates_that_cannot_be_are_refused(
    tmp_path: Path, gate: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _ = load(tmp_path, **ladder_with(gate)).parts
