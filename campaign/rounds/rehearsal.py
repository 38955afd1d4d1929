"""A short rehearsal of a campaign: its decisions with made-up labels, in a folder that is removed,
to see what deciding takes.

Generators are not trained in it, and sentinels are left out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from campaign.config import loaded as configs
from campaign.config.loaded import LoadedConfig
from campaign.decide import budget
from campaign.ledger import events as ev
from campaign.seeds import generator
from campaign.types import Crystal, Evaluation, Observation, Quantity

_MOST_SECONDS = 60.0
_ROUNDS = 3
_NEVER = 10**9
_SCATTER = 0.1


@dataclass(frozen=True)
class Deciding:
    """Seconds from a round's begin to its decision: the first, at random, and a later one."""

    first: float
    later: float


class StandIn:
    """An oracle that makes up values from a crystal's id: as quick as can be, and of no meaning."""

    def __init__(self, quantities: Mapping[str, tuple[str, Sequence[int]]]) -> None:
        self.quantities = tuple(
            Quantity(name, unit, tuple(shape)) for name, (unit, shape) in quantities.items()
        )

    def evaluate(self, crystal: Crystal) -> Evaluation:
        rng = generator(crystal.id)
        found = []
        for quantity in self.quantities:
            shape = tuple(len(crystal) if n == -1 else n for n in quantity.shape)
            values = _SCATTER * rng.normal(size=shape)
            found.append(
                Observation(quantity.name, values if shape else 1.0 + float(values), quantity.unit)
            )
        return Evaluation(observations=tuple(found))


def deciding(loaded: LoadedConfig) -> Deciding:
    """Run some rounds of the campaign without its oracles. Raises OreloopError where they cannot be
    run.
    """
    from campaign.api import Campaign

    logger = logging.getLogger("campaign")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="oreloop-rehearsal-") as name:
            campaign = Campaign(Path(name) / "campaign", _rehearsed(loaded))
            campaign.run()
            began: dict[int, float] = {}
            seconds: list[float] = []
            with closing(campaign.reader()) as reader:
                for _, time, event in reader.events():
                    if isinstance(event, ev.RoundStarted):
                        began[event.round] = time
                    if isinstance(event, ev.Decided):
                        seconds.append(time - began[event.round])
    finally:
        logger.setLevel(level)
    if not seconds:
        return Deciding(0.0, 0.0)
    return Deciding(seconds[0], median(seconds[1:]) if len(seconds) > 1 else seconds[0])


def with_stand_ins(loaded: LoadedConfig, use: str, **params: Any) -> dict[str, Any]:
    """The config as a mapping, with oracles that are named ``use`` and get ``params`` and the
    quantities of the oracle that they stand for.

    Nothing in it costs or reaches anything outside: one worker process for each oracle, its own
    ledger, no tracking, no training, nobody notified, nobody waited for.
    """
    document = loaded.resolved()
    for oracle in document["oracles"]:
        name = oracle["name"] or oracle["use"].rpartition(":")[2]
        measured = {q.name: (q.unit, q.shape) for q in loaded.parts.oracles[name].quantities}
        oracle |= {
            "name": name,
            "use": use,
            "params": {**params, "quantities": measured},
            "sanity": {},
            "python": None,
            "run_on": "executor",
            "queue": None,
            "workers": 1,
            "batch": 1,
            "cpus": 0.5,
            "gpus": 0.0,
            "memory": 0,
            "wall_limit": None,
        }
    document |= {
        "tracking": {"use": "none"},
        "notifications": None,
        "ledger": {},
        "sentinels": None,
        "failure_policy": {**document["failure_policy"], "pause_above": 1.0},
        "train_every": _NEVER,
    }
    document["objective"] |= {"target": None}
    if document["fidelities"]:
        document["fidelities"] |= {"approval": None}
    return document


def _rehearsed(loaded: LoadedConfig) -> LoadedConfig:
    document = with_stand_ins(loaded, f"{__name__}:StandIn")
    acquisition = loaded.config.acquisition
    n_labels = budget.labels_per_candidate(loaded.config) * (
        acquisition.initial_labels + (_ROUNDS - 1) * acquisition.batch_size
    )
    most = loaded.config.budget.labels
    document |= {
        "budget": {
            "labels": n_labels if most is None else min(n_labels, most),
            "wall_time": _MOST_SECONDS,
        },
        "mode": "rounds",
        "executor": {**document["executor"], "use": "serial"},
    }
    return configs.validate(document, folder=loaded.folder, source=loaded.source)
