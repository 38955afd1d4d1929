"""Labels times 10^k and plus a number, as another unit or zero would write them: how many of a
campaign's choices stay the same.

python -m benchmarks.scale_of_labels

One table of alloys, one seed, 30 labels of which 24 are chosen by a Gaussian process; each change
of the labels is a whole campaign beside the plain one, of the same acquisition function.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import Row, goal, show, write
from campaign.api import Campaign
from campaign.config import loaded as configs

NAME = "scale_of_labels"
CHANGES = tuple((10.0**k, 0.0) for k in (-15, -12, -9, -6, -3, 3, 6, 12)) + (
    (1.0, 1e3),
    (1.0, -1e3),
    (1e-9, 1e-6),
    (1e6, -1e9),
)
ACQUISITIONS = (
    "log_noisy_expected_improvement",
    "log_expected_improvement",
    "upper_confidence_bound",
    "thompson",
    "max_value_entropy",
)
_SEED, _LABELS, _FIRST, _BATCH = 300, 30, 6, 4
_ORACLE = """
import math

from campaign.types import Evaluation, Observation, Quantity
from pydantic import BaseModel


class Hills:
    quantities = (Quantity("merit", "1"),)

    class Config(BaseModel):
        factor: float
        shift: float

    def __init__(self, config):
        self.config = config

    def evaluate(self, crystal):
        share = crystal.symbols.count("Fe") / len(crystal)
        apart = sum(one != other for one, other in zip(crystal.symbols, crystal.symbols[1:])) / len(crystal)
        merit = math.sin(5 * share) + 0.4 * apart
        return Evaluation(observations=(Observation("merit", self.config.factor * merit + self.config.shift, "1"),))
"""  # noqa: E501


def chosen(
    folder: Path,
    factor: float,
    shift: float,
    acquisition: str = ACQUISITIONS[0],
    labels: int = _LABELS,
) -> list[str]:
    """What a campaign labels on the changed labels, in its order."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hills.py").write_text(_ORACLE)
    document: dict[str, Any] = {
        "name": "scale",
        "seed": _SEED,
        "space": {"elements": ["Ni", "Fe"]},
        "objective": {"quantity": "merit", "direction": "maximize"},
        "mode": "rounds",
        "budget": {"labels": labels},
        "generators": [{"use": "random_alloy", "count": 20, "params": {"repeats": [2, 2, 1]}}],
        "surrogate": {"use": "gp"},
        "acquisition": {
            "use": acquisition,
            "initial_labels": _FIRST,
            "batch_size": _BATCH,
            "samples": 32,
        },
        "oracles": [{"use": "hills:Hills", "params": {"factor": factor, "shift": shift}}],
        "executor": {"use": "serial"},
        "tracking": {"use": "none"},
    }
    campaign = Campaign(
        folder / "campaign", configs.validate(document, folder=folder, source=folder / "scale.yaml")
    )
    campaign.run()
    return [
        choice.candidate
        for row in campaign.state().rounds
        if row.decided
        for choice in row.decided.choices
    ]


def rows() -> Iterator[Row]:
    for acquisition in ACQUISITIONS:
        with tempfile.TemporaryDirectory() as home:
            plain = chosen(Path(home) / "plain", 1.0, 0.0, acquisition)
            for i, (factor, shift) in enumerate(CHANGES):
                other = chosen(Path(home) / f"{i}", factor, shift, acquisition)
                same = sum(a == b for a, b in zip(plain[_FIRST:], other[_FIRST:], strict=False))
                row = {
                    "acquisition": acquisition,
                    "factor": factor,
                    "shift": shift,
                    "choices": len(plain) - _FIRST,
                    "same": same,
                }
                print(row, flush=True)
                yield row


def summarise(found: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    every = found["scale"]
    apart = [row for row in every if row["same"] < row["choices"]]
    return {
        "campaigns": float(len(every)),
        "choices by a model": float(sum(row["choices"] for row in every)),
        "choices that are others": goal(
            float(sum(row["choices"] - row["same"] for row in every)), 0, at_least=False
        ),
        "campaigns with another choice": goal(float(len(apart)), 0, at_least=False),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = {"scale": list(rows())}
    write(NAME, found, summarise)
    show(summarise(found))


if __name__ == "__main__":
    main()
