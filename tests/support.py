"""A small campaign on a closed-form oracle that runs in about a second, and helpers around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from campaign.api import Campaign
from campaign.config import loaded as configs

HELPERS = Path(__file__).parent / "engines" / "plugins"

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "space": {"elements": ["Ni", "Fe", "Cr"], "max_fraction": 0.9},
    "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
    "mode": "rounds",
    "budget": {"labels": 24},
    "generators": [
        {
            "use": "cross_entropy_alloy",
            "count": 12,
            "params": {"repeats": [2, 2, 1], "min_elites": 8},
        },
        {"use": "local_search", "count": 8},
    ],
    "surrogate": {"use": "gp"},
    "acquisition": {
        "use": "log_noisy_expected_improvement",
        "initial_labels": 9,
        "batch_size": 5,
        "samples": 32,
    },
    "oracles": [{"use": "lennard_jones"}],
    "executor": {"use": "serial"},
    "tracking": {"use": "none"},
}


def merged(base: Any, changes: Any) -> Any:
    """A mapping with another's keys laid over it, level by level."""
    if isinstance(base, dict) and isinstance(changes, dict):
        return {
            key: merged(base.get(key), changes[key]) if key in changes else base[key]
            for key in base | changes
        }
    return changes


def load(folder: Path, **changes: Any) -> configs.LoadedConfig:
    return configs.validate(merged(SMALL, changes), folder=folder, source=folder / "small.yaml")


def label_set(campaign: Campaign) -> dict[tuple[str, str], dict[str, float]]:
    """What counts of a campaign's outcome: every label's values by candidate and oracle."""
    return {pair: label.values for pair, label in campaign.state().labels.items()}
