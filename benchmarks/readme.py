"""Writes the figures of the committed results into the README: python -m benchmarks.readme"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
QUOTED = {
    "sample_efficiency": (
        "bcc bulk modulus: labels to 197.4 GPa, median",
        "bcc bulk modulus: seeds of the hill climb that reach 197.4 GPa",
        "fcc bulk modulus: labels to the best, median, over the hill climb's (at most 1000)",
        "four elements: labels to the best, median, over the hill climb's (at most 1000)",
        "winner, bulk modulus by the elastic protocol (GPa)",
    ),
    "decisions": (
        "nifecr (1197 rows): acceleration to the best 1 %, 10 seeds",
        "polymorphs (1599 rows): acceleration to the best 1 %, 10 seeds",
        "carbon as proposed (846 rows): acceleration to the best 1 %, 10 seeds",
        "two objectives: share of the hypervolume after 40 labels, hypervolume",
        "two objectives: share of the hypervolume after 40 labels, scalarised",
        "two objectives: share of the hypervolume after 40 labels, random",
        "levels, thermal: cost to target over a single level's",
        "levels, network: cost to target over a single level's",
        "failures by structure: labels per attempt, aware over unaware",
        "failures by random: labels per attempt, aware over unaware",
        "100,000 candidates, 2,000 labels, batch 32: seconds",
        "100,000 candidates, 2,000 labels, batch 32: peak MB",
    ),
    "md_oracle": (
        "labels per second per core",
        "times faster than the elastic protocol",
        "times faster than one process per label",
        "mean |deviation| from published labels, fcc (GPa)",
        "mean |deviation| from published labels, all 24 (GPa)",
        "share of the time inside LAMMPS' force evaluations",
    ),
    "engine": (
        "busy fraction, 2 LAMMPS workers",
        "busy fraction, 64 sleeping actors, steady",
        "driver CPU ms per label",
        "labels per second against a plain loop",
        "fold of 10^5 candidates (s)",
        "append, candidates per second",
        "driver CPU ms per label, rounds, batches of 5",
        "driver CPU ms per label, rounds, batches of 40",
        "driver CPU ms per label, streaming, batches of 5",
        "driver CPU ms per label, streaming, batches of 10",
        "labels per second against a bare loop, streaming, batches of 5",
        "labels per second against a bare loop, streaming, batches of 40",
        "quick start, before: labels per second",
        "quick start, after: labels per second",
        "quick start, before: labels to the target",
        "quick start, after: labels to the target",
    ),
    "oracles": (
        "LAMMPS, 54 atoms: elastic tensor: labels per second and core",
        "LAMMPS, 54 atoms: bulk modulus at 300 K: labels per second and core",
        "MACE, 32 channels, 2 layers, 16 atoms, as oracle: labels per second and core",
        "GPAW: Ni primitive, volume and bulk modulus: labels per second and core",
        "swaps found by oracle check, share",
        "swaps found by a sentinel, share",
        "false alarms without a swap",
    ),
    "mace_active": (
        "force error at 280 by committee over 400 at random, median",
        "minutes for all seeds",
        "200 crystals near their sites: energy error (meV/atom)",
        "200 crystals near their sites: force error (meV/angstrom)",
    ),
    "pcdvae_tables": (
        "CP G-distance of P-CDVAE over the larger of 0.71 CDVAE's and the noise floor",
        "CP G-distance, P-CDVAE over CDVAE",
        "CP G-distance, LS over Random",
        "P-CDVAE-Random: up to step 2500, held over plain",
        "P-CDVAE-Random: up to step 5000, held over plain",
        "P-CDVAE-LS: up to step 2500, held over plain",
        "P-CDVAE-LS: up to step 5000, held over plain",
    ),
    "pcdvae_speed": (
        "training step, 54 atoms, batch 16, fastest: reduced and compiled (s)",
        "decoder call, 54 atoms, batch 16, fastest: reduced and compiled (s)",
        "16 crystals of 54 atoms (s)",
    ),
    "three_generators": (
        "minutes of running time",
        "pairs of learned generator and oracle with labels",
        "fewest trainings of a learned generator",
    ),
    "studies": (
        "generator: trials",
        "generator: share of the training steps saved by pruning",
        "generator: validation loss of the best, goal: below that of the defaults",
        "fresh seeds, equal time: loss of the winner's rate over that of the defaults, median",
        "strategy: the same best twice",
    ),
    "logging_cost": ("nifecr_quickstart: share of the wall time that the driver waited (%)",),
    "interleavings": (
        "levels: ends, replays and keeps its budget, share of seeds",
        "two oracles: ends, replays and keeps its budget, share of seeds",
    ),
    "faults": (
        "rows",
        "labels lost",
        "labels paid twice in all",
        "labels paid twice beyond those under way at a kill",
        "most seconds until a word",
    ),
    "inputs": (
        "own: cases",
        "own: wrong",
        "shared: wrong",
        "shared: hang",
        "fuzz: mutated files",
        "fuzz: tracebacks",
    ),
    "sameness": (
        "ours, shape, 10000 crystals: misses (share of 8425 copies)",
        "ours, shape, 10000 crystals: false merges (share)",
        "ours, shape, 10000 crystals: seconds",
        "pymatgen, shape, 505 crystals: misses (share of 422 copies)",
    ),
    "scale_of_labels": ("choices that are others",),
    "hull": ("slowest of all (s)", "largest difference from pymatgen (eV/atom)"),
    "references": (
        "7net-l3i5: largest error on 10 hard elements (eV/atom)",
        "7net-l3i5: largest error (eV/atom)",
        "chgnet: largest error on 10 hard elements (eV/atom)",
    ),
    "batches": ("at once over torch-sim", "one by one before over at once"),
    "phonons": (
        "all generated: dynamically stable (%)",
        "lowest known polymorphs: dynamically stable (%)",
        "literature: mean of generators (%)",
    ),
    "chemistry": (
        "compounds",
        "mean error of one number for all (eV/atom)",
        "7net-l3i5: mean error beside measurement (eV/atom)",
        "7net-l3i5: the same without corrections (eV/atom)",
        "7net-mf-0-pbe: mean error beside measurement (eV/atom)",
        "chgnet: mean error beside measurement (eV/atom)",
        "7net-l3i5: median error of bulk moduli beside PBE",
        "chgnet: median error of bulk moduli beside PBE",
    ),
    "potentials": ("files", "rows", "agrees"),
    "made": (
        "systems and seeds",
        "hull: mSUN",
        "formation: mSUN",
        "random choice: mSUN",
        "random crystals: mSUN",
        "hull over random crystals: median enhancement factor",
    ),
    "feni_ladder": (
        "minutes of running time",
        "gpaw: highest formation energy of L1_0 and L1_2 (eV/atom)",
    ),
}


def table() -> str:
    """Every goal, and the quoted figures that have none."""
    lines = ["| benchmark | figure | measured | goal |", "|---|---|---|---|"]
    verdicts = Counter[str]()
    for name, quoted in {**QUOTED, **dict.fromkeys(_names_of_others(), ())}.items():
        summary = json.loads((RESULTS / f"{name}.json").read_text())["summary"]
        for key in dict.fromkeys((*quoted, *filter(lambda key: _is_goal(summary[key]), summary))):
            value = summary[key]
            measured, wanted = value, ""
            if _is_goal(value):
                sign = "at least" if value["at_least"] else "at most"
                measured = value["measured"]
                wanted = f"{sign} {value['goal']:g}: {value['verdict']}"
                verdicts[value["verdict"]] += 1
            figure = key.replace("|", "\\|")
            lines.append(f"| `{name}` | {figure} | {measured:.3g} | {wanted} |")
    told = f"Of {verdicts.total()} goals {verdicts['met']} are met and {verdicts['missed']} missed."
    return "\n".join([told, "", *lines]) + "\n"


def _names_of_others() -> list[str]:
    return sorted(path.stem for path in RESULTS.glob("*.json") if path.stem not in QUOTED)


def _is_goal(value: Any) -> bool:
    return isinstance(value, dict) and "verdict" in value


def rewritten(text: str) -> str:
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + table() + END + tail


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
