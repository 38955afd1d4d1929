"""Phonons as a level of a ladder: what the cheap level likes is shaken, and what shakes itself
apart climbs no higher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from campaign.api import Campaign

POTENTIAL = {"potential": "NiAlH_jea.eam.alloy"}
SHAKEN = {"oracle": "lammps", "params": POTENTIAL, "supercell_length": 5.0}
LADDER: dict[str, Any] = {
    "space": {"elements": ["Al", "Ni"], "max_fraction": 1.0},
    "objective": {"quantity": "formation_energy_per_atom", "direction": "minimize"},
    "generators": [{"use": "ordered_alloy", "count": 20, "params": {"atoms": [2, 3]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 8, "batch_size": 1},
    "budget": {"labels": None, "rounds": 3},
    "oracles": [
        {"use": "lammps", "params": POTENTIAL},
        {"use": "phonons", "params": SHAKEN},
        {"use": "lammps_bulk_modulus", "name": "dear", "params": POTENTIAL},
    ],
    "fidelities": {
        "levels": [
            {"oracle": "lammps"},
            {"oracle": "phonons", "gate": {"best_fraction": 1.0}, "start": "relaxed"},
            {
                "oracle": "dear",
                "gate": {"constraints": [{"quantity": "lowest_frequency", "at_least": -0.1}]},
            },
        ]
    },
}


def test_what_shakes_itself_apart_climbs_no_higher(small: Callable[..., Campaign]) -> None:
    campaign = small(**LADDER)
    campaign.run()
    state = campaign.state()
    shaken = {
        label.candidate: label.values
        for label in state.labels.values()
        if label.oracle == "phonons" and not label.purpose
    }
    climbed = {
        candidate
        for (candidate, oracle), label in state.labels.items()
        if oracle == "dear" and not label.purpose
    }
    apart = {candidate for candidate, values in shaken.items() if values["lowest_frequency"] < -0.1}
    assert apart
    assert climbed
    assert climbed <= shaken.keys() - apart
    assert all(
        values["dynamically_stable"] == float(candidate not in apart)
        for candidate, values in shaken.items()
    )
