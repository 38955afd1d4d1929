"""Stable compounds from the shipped configs, offline, on this machine: how long they take, and
which known compounds lie on the hull that they end with.

    python -m benchmarks.offline_discovery                   # both, under twenty minutes each
    python -m benchmarks.offline_discovery --only li_fe_o

Each campaign is run by the command, in a folder that is removed. Known compounds are those that are
stable at room temperature in the systems, chosen before the runs; nothing known is given to the
campaigns. On the hull is what lies at most 1 meV/atom above it; near to it at most 50.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.api import Campaign
from campaign.types import ENERGY_ABOVE_HULL, FORMATION_ENERGY
from generators.formulas import formula_of

ROOT = Path(__file__).parent.parent
MINUTES, ON_HULL, NEAR = 20.0, 1e-3, 0.05
KNOWN: Mapping[str, tuple[str, ...]] = {
    "li_fe_o": ("Li2O", "Fe2O3", "Fe3O4", "LiFeO2", "Li5FeO4"),
    "nitride_discovery": ("Mg3N2", "Zn3N2", "Si3N4", "GaN", "MgSiN2", "ZnSiN2"),
}


def measured(name: str) -> Row:
    """One config to its end."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "campaign"
        began = time.monotonic()
        words = ["run", str(ROOT / "configs" / f"{name}.yaml"), "--folder", str(folder)]
        subprocess.run([sys.executable, "-m", "campaign.cli", *words], cwd=ROOT, check=True)
        minutes = (time.monotonic() - began) / 60
        campaign = Campaign.open(folder)
        oracle = campaign.loaded.config.oracles[-1].label
        state = campaign.state()
        labels = [label for (_, by), label in state.labels.items() if by == oracle]
        with closing(campaign.reader()) as reader:
            crystals = reader.crystals([label.candidate for label in labels])
        lowest: dict[str, tuple[float, float]] = {}
        for label, crystal in zip(labels, crystals, strict=True):
            if ENERGY_ABOVE_HULL.name in label.values:
                formula = str(formula_of(crystal).reduced)
                found = label.values[ENERGY_ABOVE_HULL.name], label.values[FORMATION_ENERGY.name]
                lowest[formula] = min(found, lowest.get(formula, found))
    return {
        "config": name,
        "minutes": round(minutes, 2),
        "labels": len(labels),
        "labels_of_all_levels": len(state.labels),
        "failures": len(state.failures),
        "lowest": {
            formula: [round(above, 4), round(formation, 4)]
            for formula, (above, formation) in sorted(lowest.items())
            if above <= NEAR
        },
    }


def _found(row: Row, most: float) -> list[str]:
    from generators.formulas import check_formula

    return [
        known
        for known in KNOWN[row["config"]]
        if row["lowest"].get(str(check_formula(known).reduced), [float("inf")])[0] <= most
    ]


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows["runs"]:
        name, known = row["config"], KNOWN[row["config"]]
        found[f"{name}: minutes"] = goal(row["minutes"], MINUTES, at_least=False)
        found[f"{name}: labels of the level that is believed"] = row["labels"]
        found[f"{name}: known compounds on the hull"] = goal(
            len(_found(row, ON_HULL)), len(known), at_least=True
        )
        found[f"{name}: of them within 50 meV/atom"] = len(_found(row, NEAR))
        found[f"{name}: not on the hull"] = ", ".join(
            formula for formula in known if formula not in _found(row, ON_HULL)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Stable compounds, offline")
    parser.add_argument("--only", nargs="+", choices=list(KNOWN), default=list(KNOWN))
    options = parser.parse_args()
    path = RESULTS / "offline_discovery.json"
    kept = json.loads(path.read_text())["rows"]["runs"] if path.exists() else []
    rows = {row["config"]: row for row in kept}
    for name in options.only:
        rows[name] = measured(name)
        ordered = [rows[one] for one in KNOWN if one in rows]
        write("offline_discovery", {"runs": ordered}, summarise)
    show(json.loads(path.read_text())["summary"])


if __name__ == "__main__":
    main()
