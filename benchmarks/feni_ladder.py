"""The Fe-Ni ladder: LAMMPS ranks the ordered cells of 2 to 4 atoms, GPAW labels the few best, and
the hull is drawn from the ledger.

python -m benchmarks.feni_ladder

Runs configs/feni_dft_ladder.yaml as it stands, goes on with it where it was interrupted, and reads
the hulls of both levels. Ordered cells are recognised by symmetry: L1_0 is P4/mmm with two atoms in
its primitive cell on fcc sites, L1_2 is Pm-3m with four.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import spglib

from benchmarks.record import Row, goal, show, write
from campaign.api import Campaign
from campaign.crystals.phases import Phase as Local
from campaign.crystals.phases import fractions
from campaign.types import Crystal
from oracles.hull import Hull
from oracles.hull_view import phases_of

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "feni_dft_ladder.yaml"
_ORDERS = {(123, 2): "L1_0", (221, 4): "L1_2"}


def order_of(crystal: Crystal) -> str:
    """L1_0 or L1_2 where the crystal is one of these, else empty."""
    if len(set(crystal.symbols)) != 2 or fractions(crystal)[Local.FCC] < 1:
        return ""
    cell = (crystal.lattice, crystal.fractional, crystal.numbers)
    data = spglib.get_symmetry_dataset(cell, symprec=1e-2)
    primitive = spglib.find_primitive(cell, symprec=1e-2)
    return _ORDERS.get((int(data.number), len(primitive[2])), "")


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    (run,) = rows["run"]
    phases = rows["phases"]
    found: dict[str, Any] = {"minutes of running time": goal(run["minutes"], 60, at_least=False)}
    for level in ("lammps", "gpaw"):
        part = [row for row in phases if row["level"] == level]
        found[f"{level}: labels"] = len(part)
        found[f"{level}: seconds per label, median"] = sorted(row["seconds"] for row in part)[
            len(part) // 2
        ]
    for row in phases:
        if row["level"] == "gpaw" and row["order"]:
            found[f"gpaw: formation energy of {row['order']} {row['formula']} (eV/atom)"] = row[
                "formation_energy"
            ]
    ordered = [row["formation_energy"] for row in phases if row["level"] == "gpaw" and row["order"]]
    found["gpaw: ordered cells (L1_0, L1_2) labelled"] = len(ordered)
    found["gpaw: highest formation energy of L1_0 and L1_2 (eV/atom)"] = goal(
        max(ordered, default=1.0), 0.0, at_least=False
    )
    found["gpaw: phases on the hull"] = ", ".join(
        sorted(row["formula"] for row in phases if row["level"] == "gpaw" and row["stable"])
    )
    found["lammps to gpaw: candidates at both levels"] = run["pairs"]
    found["lammps to gpaw: mean difference of formation energies (eV/atom)"] = run["bias"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("campaigns") / "feni-dft-ladder")
    arguments = parser.parse_args()
    campaign = Campaign.from_config(CONFIG, arguments.folder)
    reason = campaign.run()
    reader = campaign.reader()
    state = reader.fold()
    rows: dict[str, list[Row]] = {"run": [], "phases": []}
    for level in ("lammps", "gpaw"):
        hull = Hull(phases_of(state, level))
        stable = {phase.id for phase in hull.stable()}
        for phase in hull.phases:
            label = state.labels[phase.id, level]
            of = hull.stability(phase)
            rows["phases"].append(
                {
                    "level": level,
                    "id": phase.id,
                    "formula": state.candidates[phase.id].equivalence.partition(":")[0],
                    "order": order_of(reader.crystal(phase.id)),
                    "formation_energy": of.formation_energy,
                    "above_hull": of.above_hull,
                    "stable": phase.id in stable,
                    "seconds": label.wall_seconds,
                    "values": label.values,
                }
            )
    both = [
        (
            label.values["formation_energy_per_atom"],
            state.labels[label.candidate, "lammps"].values["formation_energy_per_atom"],
        )
        for label in state.labels.values()
        if label.oracle == "gpaw"
        and not label.purpose
        and (label.candidate, "lammps") in state.labels
    ]
    bias = sum(high - low for high, low in both) / len(both)
    failures = [[event.oracle, event.kind, event.message[:200]] for _, _, event in state.failures]
    rows["run"].append(
        {
            "minutes": state.active_seconds / 60,
            "reason": reason,
            "pairs": len(both),
            "bias": bias,
            "failures": failures,
        }
    )
    reader.close()
    write("feni_ladder", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
