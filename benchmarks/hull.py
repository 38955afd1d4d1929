"""What it takes to work out 10,000 energies above the hull anew when one phase moves it: in the
state of a campaign, beside pymatgen.

For each number of elements a ledger's state is folded from made labels of random crystals' formulas
and energies; then a phase lands that lies below the hull, and every label's value is asked for.
pymatgen's PhaseDiagram is asked for the same values, for a part of the labels, and has to agree.

    python -m benchmarks.hull
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.record import Row, goal, middle, show, write
from campaign.ledger import CampaignState
from campaign.ledger import events as ev
from campaign.types import ENERGY_ABOVE_HULL, ENERGY_PER_ATOM

ELEMENTS = ("Al", "Cr", "Fe", "Ni", "W")
N_LABELS, N_CHECKED = 10_000, 200
FALL = 0.2
"""How far below the hull the phase lands (eV/atom)."""
SEEDS = range(100, 105)
_WANTED = {"objective": {"quantity": ENERGY_ABOVE_HULL.name, "direction": "minimize"}}


def folded(n_elements: int, n: int, seed: int) -> CampaignState:
    """A state of n labels: each element alone, and formulas of at most 20 atoms with formation
    energies around zero.
    """
    rng = np.random.default_rng(seed)
    elements = ELEMENTS[:n_elements]
    alone = rng.uniform(-9, -3, n_elements)
    state = CampaignState()
    state.apply(
        1,
        0.0,
        ev.ConfigRevised(revision=0, sha256="", config=_WANTED, fidelities={"level": "level-1"}),
    )
    counts = np.vstack(
        [np.eye(n_elements, dtype=int), rng.integers(0, 20 // n_elements + 1, (n, n_elements))]
    )
    counts = counts[counts.sum(1) > 0][:n]
    shares = counts / counts.sum(1, keepdims=True)
    mixing = 4 * np.prod(1 - shares, axis=1) * (counts > 0).sum(1)
    energies = shares @ alone + rng.normal(-0.05, 0.15, len(counts)) * mixing * (
        (counts > 0).sum(1) > 1
    )
    for i, (row, energy) in enumerate(zip(counts.tolist(), energies.tolist(), strict=True)):
        land(state, i, dict(zip(elements, row, strict=True)), energy)
    return state


def land(state: CampaignState, number: int, counts: Mapping[str, int], energy: float) -> None:
    """A label comes in."""
    name = f"{number:032x}"
    formula = "".join(f"{symbol}{count}" for symbol, count in sorted(counts.items()) if count)
    row = ev.RequestRow(name, f"{formula}:", "level")
    label = ev.Labelled(
        key=name, candidate=name, oracle="level", fidelity="level-1", attempt=0,
        observations=(ev.ObservationRow(ENERGY_PER_ATOM.name, energy, ENERGY_PER_ATOM.unit),), crystal=None, artifacts={},  # noqa: E501
        wall_seconds=1.0, cpu_seconds=1.0, started=0.0, worker="w",
    )  # fmt: skip
    for event in (ev.Requested(purpose=ev.PHASE, rows=(row,)), label):
        state.apply(state.sequence + 1, 0.0, event)


def values(state: CampaignState) -> dict[str, float]:
    return {
        label.candidate: label.values[ENERGY_ABOVE_HULL.name] for label in state.labels.values()
    }


def by_pymatgen(
    state: CampaignState, asked: Sequence[str]
) -> tuple[dict[str, float], float, float]:
    """Values of some labels by the phase diagram of all; the seconds to make it, and the seconds a
    value.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    entries = {}
    for label in state.labels.values():
        composition = Composition(dict(state.counts(label.candidate)))
        entries[label.candidate] = PDEntry(
            composition,
            label.observed[ENERGY_PER_ATOM.name] * composition.num_atoms,
            name=label.candidate,
        )
    started = time.perf_counter()
    diagram = PhaseDiagram(list(entries.values()))
    made = time.perf_counter()
    found = {name: float(diagram.get_e_above_hull(entries[name])) for name in asked}
    return found, made - started, (time.perf_counter() - made) / len(asked)


def measured(n_elements: int, seed: int) -> Row:
    state = folded(n_elements, N_LABELS, seed)
    before = values(state)
    elements = ELEMENTS[:n_elements]
    middle_of_all = np.full((1, n_elements), 1 / n_elements)
    hull = state.hull("level")
    assert hull is not None
    land(state, N_LABELS, dict.fromkeys(elements, 1), float(hull.lower.at(middle_of_all)[0]) - FALL)
    started = time.perf_counter()
    after = values(state)
    seconds = time.perf_counter() - started
    asked = [name for name in after if name in before][:: N_LABELS // N_CHECKED]
    found, making, each = by_pymatgen(state, asked)
    return {
        "elements": n_elements,
        "seed": seed,
        "labels": len(after),
        "compositions": len({tuple(sorted(state.composition(name).items())) for name in after}),
        "stable": len(hull.stable),
        "moved": sum(after[name] > value + 1e-9 for name, value in before.items()),
        "seconds": seconds,
        "pymatgen_seconds": making + each * len(after),
        "largest_difference": max(abs(after[name] - value) for name, value in found.items()),
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n in sorted({row["elements"] for row in rows["moves"]}):
        mine = [row for row in rows["moves"] if row["elements"] == n]
        found[f"{n} elements: seconds"] = middle(mine, "seconds")
        found[f"{n} elements: times faster than pymatgen"] = middle(
            mine, "pymatgen_seconds"
        ) / middle(mine, "seconds")
        found[f"{n} elements: values that moved"] = middle(mine, "moved")
    every = rows["moves"]
    return found | {
        "slowest of all (s)": goal(max(row["seconds"] for row in every), 1.0, at_least=False),
        "largest difference from pymatgen (eV/atom)": goal(
            max(row["largest_difference"] for row in every), 1e-8, at_least=False
        ),
    }


def main() -> None:
    rows = [measured(n, seed) for seed in SEEDS for n in range(2, len(ELEMENTS) + 1)]
    notes = (
        f"a phase {FALL} eV/atom below the hull lands among {N_LABELS} labels; pymatgen's "
        f"time for all is told from {N_CHECKED} of them"
    )
    show(json.loads(write("hull", {"moves": rows}, summarise, notes).read_text())["summary"])


if __name__ == "__main__":
    main()
