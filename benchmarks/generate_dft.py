"""Crystals of P-CDVAE through LAMMPS and GPAW to the hull (A. D. Naghdi et al. (2024), section 4.2
and Fig. 3), from a campaign's ledger.

python -m benchmarks.generate_dft [--folder FOLDER]

Runs configs/nifecr_generate_dft.yaml under benchmarks/results/parts, or goes on with what is there;
``--folder``: reads a campaign of that config that was run elsewhere, or with a larger budget, as it
stands. Formation energies refer to the elements at the same level.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.record import RESULTS, Row, show, write
from campaign.api import Campaign
from oracles.hull import Hull
from oracles.hull_view import phases_of

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "nifecr_generate_dft.yaml"
LEVELS = ("lammps", "gpaw")


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Counts, energies above the hull and times by generator and level; what failed; how far the
    levels agree.
    """
    found: dict[str, Any] = {}
    for level in LEVELS:
        for generator in ("random_alloy", "pcdvae"):
            mine = [
                row
                for row in rows["labels"]
                if row["level"] == level and row["generator"] == generator
            ]
            found[f"{level}, {generator}: labels"] = len(mine)
            if mine:
                found[
                    f"{level}, {generator}: lowest and median energy above the hull (eV/atom)"
                ] = [
                    round(min(row["above_hull"] for row in mine), 4),
                    round(median(row["above_hull"] for row in mine), 4),
                ]
                found[f"{level}, {generator}: median seconds per label"] = round(
                    median(row["seconds"] for row in mine), 2
                )
    stable = [row for row in rows["labels"] if row["level"] == "gpaw" and row["above_hull"] < 1e-9]
    found["gpaw: on the hull"] = ", ".join(
        f"{row['formula']} ({row['generator']})" for row in stable
    )
    found["failures"] = {
        f"{row['oracle']}, {row['kind']}, {row['generator']}": row["count"]
        for row in rows["failures"]
    }
    pairs = {
        row["candidate"]: row["formation_energy"]
        for row in rows["labels"]
        if row["level"] == "lammps"
    }
    differences = [
        row["formation_energy"] - pairs[row["candidate"]]
        for row in rows["labels"]
        if row["level"] == "gpaw" and row["candidate"] in pairs
    ]
    found["gpaw less lammps: pairs and mean difference of formation energies (eV/atom)"] = [
        len(differences),
        round(sum(differences) / max(1, len(differences)), 4),
    ]
    return found


def rows_of(campaign: Campaign) -> dict[str, list[Row]]:
    state = campaign.state()
    rows: dict[str, list[Row]] = {"labels": [], "failures": []}
    for level in LEVELS:
        hull = Hull(phases_of(state, level))
        for phase in hull.phases:
            label, of = state.labels[phase.id, level], hull.stability(phase)
            rows["labels"].append(
                {
                    "level": level,
                    "candidate": phase.id,
                    "generator": state.source_of(phase.id),
                    "formula": state.candidates[phase.id].equivalence.partition(":")[0],
                    "formation_energy": of.formation_energy,
                    "above_hull": of.above_hull,
                    "seconds": label.wall_seconds,
                    "values": {
                        name: value
                        for name, value in label.values.items()
                        if name != "formation_energy_per_atom"
                    },
                }
            )
    counts: dict[tuple[str, str, str], int] = {}
    for _, _, event in state.failures:
        key = event.oracle, event.kind, state.source_of(event.candidate)
        counts[key] = counts.get(key, 0) + 1
    rows["failures"] = [
        {"oracle": oracle, "kind": kind, "generator": name, "count": count}
        for (oracle, kind, name), count in counts.items()
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="a campaign that was run elsewhere")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        campaign = Campaign.open(arguments.folder)
    else:
        campaign = Campaign.from_config(CONFIG, RESULTS / "parts" / "nifecr-generate-dft")
        campaign.run()
    rows = rows_of(campaign)
    config = campaign.loaded.config
    assert config.fidelities is not None
    notes = (
        f"budget {config.budget.rounds} rounds, {config.fidelities.levels[-1].labels} "
        "labels of GPAW"
    )
    write("generate_dft", rows, summarise, notes)
    show(summarise(rows))


if __name__ == "__main__":
    main()
