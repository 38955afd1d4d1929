"""Duplicates among 10,000 labelled crystals: ours, the rounded keys that came before, and
pymatgen's matcher, side by side on one core.

python -m benchmarks.sameness [--crystals 10000] [--subset 500]

The set is of ``benchmarks.labelled_copies``: prototypes, random crystals and alloys with their
copies, in random order. One after the other is compared with those kept before it, as the screen
does. A miss is a copy of something seen before that is kept, as a share of the copies; a false
merge is a crystal taken for one that it is no copy of, as a share of all. Tolerances are the
config's defaults.

pymatgen: StructureMatcher with the same tolerances, asked for each kept crystal of the reduced
formula. As it is slow, it and the rounded keys see only a part of the set, families drawn at
random, and so do we beside them; only by shape, as it has no tolerance for volumes. The growth is
of alloys of 54 atoms, random orderings of one composition, on the sites of one lattice or each
rattled: the costliest that can be, as all have one formula. Rounded keys of rattled alloys are all
different, so that they compare none and miss all. Times are of the processor, keys included,
compiling left out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.labelled_copies import Labelled, labelled, rattled
from benchmarks.record import Row, goal, show, write
from campaign.crystals.lattice import supercell
from campaign.crystals.matching import (
    Distinct,
    Matcher,
    Sameness,
    equivalence_key,
    site_environments,
)
from campaign.types import Crystal, reduced_formula

SEED = 100
LARGEST_SHARE, LONGEST = 0.005, 60.0
BLOCKS = (100, 300, 1000, 3000)
MODES: tuple[Sameness, ...] = ("shape", "structure")


class Method(ABC):
    """Finds the kept crystal that one is a copy of, or keeps it."""

    def __init__(self, same: Sameness) -> None:
        self.same = same

    @abstractmethod
    def find(self, name: int, crystal: Crystal) -> int | None:
        """The kept crystal's name; None where there was none, and this one is kept."""


class NearKeys(Method):
    """Ours."""

    def __init__(self, same: Sameness) -> None:
        super().__init__(same)
        self.distinct = Distinct(Matcher(same=same))

    def find(self, name: int, crystal: Crystal) -> int | None:
        key = equivalence_key(crystal)
        found = self.distinct.find(crystal, key)
        if found is None:
            self.distinct.add(str(name), key, crystal)
        return None if found is None else int(found)


class Pymatgen(Method):
    """StructureMatcher among the crystals of one group."""

    primitive_cell = True

    def __init__(self, same: Sameness) -> None:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        super().__init__(same)
        matcher = Matcher()
        self.matcher = StructureMatcher(
            ltol=matcher.length,
            stol=matcher.site,
            angle_tol=matcher.angle,
            primitive_cell=self.primitive_cell,
        )
        self.kept: defaultdict[str, list[tuple[int, Any]]] = defaultdict(list)

    def group(self, crystal: Crystal) -> str:
        return reduced_formula(crystal.formula)

    def find(self, name: int, crystal: Crystal) -> int | None:
        structure, kept = crystal.structure, self.kept[self.group(crystal)]
        for other, rival in kept:
            if self.matcher.fit(structure, rival):
                return other
        kept.append((name, structure))
        return None


class RoundedKeys(Pymatgen):
    """As before: StructureMatcher among the crystals of one cell's formula with the same
    invariants, rounded to five digits.
    """

    primitive_cell = False

    def group(self, crystal: Crystal) -> str:
        environment = site_environments(crystal)
        invariants = []
        for number in np.unique(crystal.numbers):
            around = environment[crystal.numbers == number]
            invariants += [
                around.mean(0),
                (around.T @ around / len(around)).ravel(),
                (around**3).mean(0),
            ]
        values = np.concatenate(invariants)
        rounded = np.round(values / np.abs(values).max(), 5) + 0.0
        return f"{crystal.formula}:{hashlib.blake2b(rounded.tobytes(), digest_size=8).hexdigest()}"


METHODS: dict[str, type[Method]] = {
    "ours": NearKeys,
    "rounded keys": RoundedKeys,
    "pymatgen": Pymatgen,
}


def judge(method: str, crystals: Sequence[Labelled], same: Sameness, part: str) -> list[Row]:
    """Counts by how the crystals were made; the seconds of all in the first row."""
    finder, seen = METHODS[method](same), set()
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    started = time.process_time()
    for name, item in enumerate(crystals):
        found, label = finder.find(name, item.crystal), getattr(item, same)
        count = counts[item.kind, item.made]
        count["crystals"] += 1
        count["copies"] += label in seen
        count["misses"] += found is None and label in seen
        count["merges"] += found is not None and getattr(crystals[found], same) != label
        seen.add(label)
    seconds = time.process_time() - started
    rows = []
    for (kind, made), count in sorted(counts.items()):
        numbers = {name: count[name] for name in ("crystals", "copies", "misses", "merges")}
        rows.append(
            {
                "method": method,
                "part": part,
                "same": same,
                "kind": kind,
                "made": made,
                **numbers,
                "seconds": 0.0,
            }
        )
    rows[0]["seconds"] = seconds
    return rows


def growth(method: str, width: float) -> list[Row]:
    """Milliseconds for each alloy, rattled by so much, with so many kept before it, over blocks."""
    rng = np.random.default_rng(SEED)
    symbols = np.repeat(["Cr", "Fe", "Ni"], (10, 20, 24))
    crystals = [
        rattled(supercell("bcc", (3, 3, 3), rng.permutation(symbols).tolist()), rng, width)
        for _ in range(BLOCKS[-1] + 50)
    ]
    finder, rows, begun = METHODS[method]("shape"), [], 0
    for kept in BLOCKS:
        for name in range(begun, kept):
            finder.find(name, crystals[name])
        started = time.process_time()
        for name in range(kept, kept + 50):
            finder.find(name, crystals[name])
        rows.append(
            {
                "method": method,
                "rattled": width,
                "kept": kept,
                "milliseconds": 20 * (time.process_time() - started),
            }
        )
        begun = kept + 50
    return rows


def a_part(crystals: Sequence[Labelled], n: int) -> list[Labelled]:
    """Whole families, those of alloys with their neighbours, until there are n crystals; their
    order stays.
    """
    families: defaultdict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(crystals):
        families[item.family.partition(".")[0]].append(row)
    names = sorted(families)
    chosen: list[int] = []
    for k in np.random.default_rng(SEED).permutation(len(names)).tolist():
        if len(chosen) < n:
            chosen += families[names[k]]
    return [crystals[row] for row in sorted(chosen)]


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for method in METHODS:
        for part in ("whole", "part"):
            for same in MODES:
                mine = [
                    row
                    for row in rows["found"]
                    if (row["method"], row["part"], row["same"]) == (method, part, same)
                ]
                if not mine:
                    continue
                total = {
                    name: sum(row[name] for row in mine)
                    for name in ("crystals", "copies", "misses", "merges", "seconds")
                }
                misses, merges = (
                    total["misses"] / total["copies"],
                    total["merges"] / total["crystals"],
                )
                name = f"{method}, {same}, {total['crystals']} crystals"
                if part == "whole":
                    summary[f"{name}: misses (share of {total['copies']} copies)"] = goal(
                        misses, LARGEST_SHARE, at_least=False
                    )
                    summary[f"{name}: false merges (share)"] = goal(
                        merges, LARGEST_SHARE, at_least=False
                    )
                    summary[f"{name}: seconds"] = goal(total["seconds"], LONGEST, at_least=False)
                else:
                    summary[f"{name}: misses (share of {total['copies']} copies)"] = misses
                    summary[f"{name}: false merges (share)"] = merges
                    summary[f"{name}: milliseconds a crystal"] = (
                        1000 * total["seconds"] / total["crystals"]
                    )
    for method in METHODS:
        for made in (
            "rattled by 0.005",
            "rattled by 0.03",
            "supercell",
            "another setting",
            "all at once",
        ):
            mine = [
                row
                for row in rows["found"]
                if (row["method"], row["part"], row["same"], row["made"])
                == (method, "part", "shape", made)
            ]
            copies = sum(row["copies"] for row in mine)
            summary[f"{method}, of {copies} {made}: misses (share)"] = sum(
                row["misses"] for row in mine
            ) / max(1, copies)
    for row in rows["growth"]:
        place = "rattled" if row["rattled"] else "on one lattice"
        summary[
            f"{row['method']}, alloys of one composition {place}, {row['kept']} kept: "
            "milliseconds a crystal"
        ] = row["milliseconds"]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crystals", type=int, default=10_000)
    parser.add_argument("--subset", type=int, default=500)
    arguments = parser.parse_args()
    crystals = labelled(arguments.crystals, SEED)
    for method in METHODS:
        judge(method, crystals[:3], "shape", "")
    found: list[Row] = []
    for same in MODES:
        found += judge("ours", crystals, same, "whole")
    for method in METHODS:
        found += judge(method, a_part(crystals, arguments.subset), "shape", "part")
    rows = {
        "found": found,
        "growth": [
            row
            for width in (0.0, 0.03)
            for method in ("ours", "rounded keys")
            for row in growth(method, width)
        ],
    }
    show(summarise(rows))
    write(
        "sameness",
        rows,
        summarise,
        notes="rounded keys and pymatgen see a part of the set, as the matcher takes too long "
        "for the whole",
    )


if __name__ == "__main__":
    main()
