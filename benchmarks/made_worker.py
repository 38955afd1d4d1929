"""Relaxes crystals with SevenNet, in the environment that has it: one JSON object a line in, one a
line out as they are ready.

In: id, lattice (3, 3) rows in angstrom, fractional (n, 3), numbers (n,). Out: id, energy_per_atom
(eV), the relaxed crystal, steps, is_converged, and seconds, an even share of the time that those
under way took together; or id and failure. From a checkout:

    python -m benchmarks.made_worker 7net-l3i5 < crystals.jsonl

A model's name may say that it goes less far, as levels of their own: 7net-0-rough stops at ten
times the force, after a few steps; 7net-0-static takes the energy of a crystal as it comes.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

import numpy as np
import torch

from campaign.types import Crystal
from oracles.ase.sevennet import SevenNetModel
from oracles.many import Criterion, Relaxations, Relaxed

_FAR: Mapping[str, tuple[Criterion, int]] = {
    "": (Criterion(force=0.05, force_component=0.05, stress=1.0), 200),
    "rough": (Criterion(force=0.5, force_component=0.5, stress=8.0), 40),
    "static": (Criterion(force=math.inf, force_component=math.inf, stress=math.inf), 1),
}
"""Largest force (eV/angstrom) and stress (GPa) of a relaxed crystal, and most steps; the force also
bounds that on its cell (eV).
"""
_TOGETHER = 4
_LARGEST_VOLUME, _LEAST_DISTANCE = 100.0, 0.8


def answer_of(relaxed: Relaxed) -> dict[str, Any]:
    """A failure where the crystal fell apart or collapsed, or where its energy is no number."""
    from ase.geometry import get_distances

    crystal = relaxed.state.crystal
    if not np.isfinite(relaxed.state.energy):
        return {"failure": "it has no energy"}
    if abs(np.linalg.det(crystal.lattice)) / len(crystal) > _LARGEST_VOLUME:
        return {"failure": "it fell apart"}
    if len(crystal) > 1:
        _, distances = get_distances(
            crystal.fractional @ crystal.lattice, cell=crystal.lattice, pbc=True
        )
        if distances[~(distances < 1e-9)].min() < _LEAST_DISTANCE:
            return {"failure": "it collapsed"}
    return {
        "energy_per_atom": relaxed.state.energy / len(crystal),
        "lattice": crystal.lattice.tolist(),
        "fractional": crystal.fractional.tolist(),
        "numbers": crystal.numbers.tolist(),
        "steps": relaxed.steps,
        "is_converged": relaxed.is_converged,
    }


def answers(relaxations: Relaxations, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A few crystals under way at a time."""
    waiting, seconds = list(rows)[::-1], dict[str, float]()
    while waiting or len(relaxations):
        while waiting and len(relaxations) < _TOGETHER:
            row = waiting.pop()
            seconds[row["id"]] = 0.0
            try:
                relaxations.add(
                    row["id"],
                    Crystal(row["lattice"], row["fractional"], row["numbers"]),
                    ions=True,
                    cell=True,
                )
            except ValueError as error:
                del seconds[row["id"]]
                yield {"id": row["id"], "failure": str(error), "seconds": 0.0}
        if not len(relaxations):
            continue
        started = time.perf_counter()
        finished = relaxations.step()
        share = (time.perf_counter() - started) / len(seconds)
        seconds = {name: spent + share for name, spent in seconds.items()}
        for name, relaxed in finished:
            yield {"id": name, **answer_of(relaxed), "seconds": seconds.pop(str(name))}


def work(model: str, rows: Iterable[str], out: TextIO) -> None:
    from sevenn.calculator import SevenNetCalculator

    torch.set_num_threads(1)
    network, _, far = model.rpartition("-")
    if far not in _FAR:
        network, far = model, ""
    potential = SevenNetModel(SevenNetCalculator(network, device="cpu"), "cpu")
    for answer in answers(Relaxations(potential, *_FAR[far]), map(json.loads, rows)):
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    output, sys.stdout = sys.stdout, sys.stderr
    work(sys.argv[1], sys.stdin, output)
