"""The campaign configs/carbon_sp2.yaml from nothing: how many nets in which time, and which known
ones are among them.

python -m benchmarks.carbon_campaign [--known sp2_sacada.db]

The campaign is run to its end under benchmarks/results/parts, or gone on with; its driver's running
time counts. ``--known``: an ASE database of known nets, which the campaign itself does not see.
Goal: at least 1,000 distinct three-dimensional nets, relaxed and ranked, in 20 minutes on two
cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.api import Campaign
from generators.cvae.commands import WINDOW, nets_of

MINUTES, NETS = 20.0, 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--known", type=Path, help="ASE database of known nets")
    arguments = parser.parse_args()
    folder = RESULTS / "parts" / "carbon-sp2"
    campaign = Campaign.from_config(
        Path(__file__).parent.parent / "configs" / "carbon_sp2.yaml", folder
    )
    campaign.run()
    state = campaign.state()
    found, counts = nets_of(folder, arguments.known)
    ends = {
        candidate: label.started + label.wall_seconds
        for (candidate, _), label in state.labels.items()
    }
    frameworks = sorted(ends[net.candidate] for net in found if net.dimension == 3)
    begun = min(label.started for label in state.labels.values())
    first = {
        candidate: min(event.round for event, _ in record.proposals)
        for candidate, record in state.candidates.items()
        if record.proposals
    }
    parts: dict[str, list[Row]] = {
        "nets": [
            {
                "rank": rank,
                "energy": round(net.energy, 5),
                "atoms": len(net.crystal),
                "dimension": net.dimension,
                "generator": net.generator,
                "round": first[net.candidate],
                "name": net.name,
                "net": net.key,
            }
            for rank, net in enumerate(found, 1)
        ],
        "campaign": [
            {
                "minutes": round(state.active_seconds / 60, 2),
                "minutes to 1,000 nets": round((frameworks[NETS - 1] - begun) / 60, 2)
                if len(frameworks) >= NETS
                else None,
                "proposed": len(first),
                "labelled": sum(1 for _ in state.own_labels),
                "failed": sum(1 for _ in state.failures),
                **counts,
            }
        ],
    }
    show(summarise(parts))
    write("carbon_campaign", parts, summarise)


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Counts of the campaign, by generator and round, and the known nets that it found."""
    nets, facts = parts["nets"], parts["campaign"][0]
    frameworks = [net for net in nets if net["dimension"] == 3]
    found: dict[str, Any] = dict(facts)
    found["three-dimensional nets"] = goal(len(frameworks), NETS, at_least=True)
    if facts["minutes to 1,000 nets"] is not None:
        found["minutes from the first label to 1,000 of them"] = goal(
            facts["minutes to 1,000 nets"], MINUTES, at_least=False
        )
    for generator in sorted({net["generator"] for net in nets}):
        for turn in sorted({net["round"] for net in nets}):
            mine = [
                net for net in frameworks if net["generator"] == generator and net["round"] == turn
            ]
            if mine:
                low = sum(net["energy"] <= WINDOW for net in mine)
                found[f"{generator}, round {turn + 1}"] = {
                    "nets": len(mine),
                    f"within {WINDOW} eV/atom": low,
                }
    found["known nets found again"] = sorted(net["name"] for net in nets if net["name"])
    return found


if __name__ == "__main__":
    main()
