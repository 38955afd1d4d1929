"""W-B-Ta: the second paper's Table 3 with a universal potential in place of M3GNet and VASP.

Three formulas of eight and nine atoms are asked for in 19 space groups at 21 energies, by three
schedules: from the hull downward by 0.01 and by 0.1 eV/atom, and from 1 eV/atom below it by 0.01.
Models learn from library structures of W, B and Ta with their labels, as do models that modify a
labelled crystal. What they make is relaxed, cell and all, one crystal of each structure; energies
lie above the hull of the elements and library structures at the same level, ternaries included.

    flow                flow between random symmetric crystals and known ones
    matrix flow         the paper's flow on the matrix form
    diffusion           the paper's DDIM on the matrix form
    regression, modifying diffusion, modifying flow
                        the paper's modification of labelled crystals of the formula
    random crystals     of the same formulas and space groups, without any model
    library             the lowest library structure of the formula: the hull's own

A way's rows are saved, and labels one by one:

    python -m benchmarks.wbta --python .venv-sevennet/bin/python --seed 200 --stride 4

With `--stride 1` all of the paper's 399 wishes a formula and schedule are relaxed, hours on a core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.kept_labels import FOLDER as LABELS
from benchmarks.proposed import Labels, Proposed, label
from benchmarks.record import RESULTS, Row, show, write
from campaign import plugins
from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.crystals.hull import LowerHull, lower_hull
from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.crystals.references import elemental
from campaign.files import write_whole
from campaign.ledger.stability import fractions_of
from campaign.protocols import GenerationContext, PluginSpec
from campaign.seeds import generator
from campaign.types import (
    FORMATION_ENERGY,
    Candidate,
    Crystal,
    LabelledCandidate,
    Objective,
    SearchSpace,
)
from generators.formulas import check_formula, formula_of

PARTS = RESULTS / "parts" / "wbta"
ELEMENTS = ("B", "Ta", "W")
FORMULAS = ("TaWB6", "TaW2B5", "Ta2WB5")
GROUPS = (6, 8, 10, 12, 25, 35, 44, 47, 65, 71, 99, 119, 123, 129, 139, 160, 166, 216, 225)
SCHEDULES = {
    "from the hull by 0.01": [-0.01 * k for k in range(21)],
    "from the hull by 0.1": [-0.1 * k for k in range(21)],
    "from 1 below it by 0.01": [-1 - 0.01 * k for k in range(21)],
}
SHAPES = (
    (1, 1), (2, 2), (1, 2), (2, 4), (1, 3), (2, 6), (1, 4), (2, 3), (3, 4), (1, 1, 6), (1, 2, 5),
    (1, 1, 2), (1, 1, 1), (2, 2, 4),
)  # fmt: skip
N_LIBRARY, N_RANDOM, N_MODIFIED = 500, 133, 133
LEARNING = {"min_labels": 20, "min_distance": 1.2, "training": {"steps": 4000}}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "flow": ("flow_matching", {}),
    "matrix flow": ("flow_matching", {"architecture": "matrix", "variant": "paper"}),
    "diffusion": ("diffusion", {}),
}
MODIFIERS = {
    "regression": "regression",
    "modifying diffusion": "diffusion",
    "modifying flow": "flow",
}
PAPER = {
    ("diffusion", "TaWB6"): 10.41,
    ("diffusion", "TaW2B5"): -1.409,
    ("diffusion", "Ta2WB5"): -0.042,
    ("matrix flow", "TaWB6"): 9.529,
    ("matrix flow", "TaW2B5"): -4.852,
    ("matrix flow", "Ta2WB5"): -5.497,
}
"""The lowest energy above the hull (meV/atom) over the three schedules, by VASP."""
_SPACE = SearchSpace(ELEMENTS)
_OBJECTIVE = Objective(FORMATION_ENERGY.name, "minimize")


class Known:
    """The elements' and library structures with their labels: what models learn from, and the
    hull.
    """

    def __init__(self, seed: int, model: str, python: str) -> None:
        self.seed, self.model, self.python = seed, model, python
        drawn = _build("prototypes", {"source": "library", "atoms": [2, 12], "shapes": SHAPES})
        made = drawn.generate(
            N_LIBRARY, rng=generator(f"{seed}/wbta/library"), context=self._context()
        )
        compounds = [crystal for crystal, _ in made if len(set(crystal.symbols)) > 1]
        simple = [elemental(s, kind) for s in ELEMENTS for kind in ("fcc", "bcc", "hcp")]
        elements = tuple(dict.fromkeys([*map(elemental, ELEMENTS), *simple]))
        self.proposed = Proposed(ELEMENTS, seed, elements, tuple(_distinct(compounds)), ())
        label(self.proposed.everything, model, python)
        labels = Labels.of(self.proposed, model)
        assert labels is not None
        self.labels, self.formation = labels, labels.formation(self.proposed)
        self._seen = Distinct(Matcher())
        self._representative: dict[str, Crystal] = {}
        self.one_each(self.proposed.everything)

    def one_each(self, crystals: Sequence[Crystal]) -> list[Crystal]:
        """For each structure the crystal that stood for it first, in whichever experiment."""
        found = []
        for crystal in crystals:
            key = equivalence_key(crystal)
            name = self._seen.find(crystal, key)
            if name is None:
                self._seen.add(crystal.id, key, crystal)
                self._representative[crystal.id] = crystal
                name = crystal.id
            found.append(self._representative[name])
        return list(dict.fromkeys(found))

    def _context(self, **more: Any) -> GenerationContext:
        return GenerationContext(space=_SPACE, objective=_OBJECTIVE, **more)

    @cached_property
    def hull(self) -> LowerHull:
        known = [Candidate(c) for c in self.proposed.everything if c.id in self.formation]
        energies = np.array([self.labels.energies[c.id] for c in known])
        return lower_hull(fractions_of(known, self.labels.kinds), energies)

    @cached_property
    def labelled(self) -> list[LabelledCandidate]:
        """Relaxed crystals with formation energies (eV/atom)."""
        return [
            LabelledCandidate(
                candidate=Candidate(c),
                values={FORMATION_ENERGY.name: self.formation[c.id]},
                relaxed=self.labels.relaxed[c.id],
            )
            for c in self.proposed.everything
            if c.id in self.formation
        ]

    def above(self, crystals: Sequence[Crystal]) -> dict[str, float]:
        """meV/atom above the hull, by id, of those that relax."""
        seconds = label(crystals, self.model, self.python)
        print(f"    {len(crystals)} relaxed in {seconds:.0f} s", flush=True)
        found = Labels.of(Proposed(ELEMENTS, self.seed, (), tuple(crystals), ()), self.model)
        assert found is not None
        there = [Candidate(c) for c in crystals if c.id in found.energies]
        energies = np.array([found.energies[c.id] for c in there])
        heights = self.hull.above(fractions_of(there, self.labels.kinds), energies)
        return dict(zip((c.id for c in there), (1000 * heights).tolist(), strict=True))

    def trained(self, way: str, use: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """The generator and its checkpoint, learned once."""
        path = PARTS / f"{way.replace(' ', '_')}-{self.seed}.checkpoint"
        built = _build(use, {**LEARNING, **settings})
        if not path.exists():
            started = time.perf_counter()
            checkpoint = built.train(
                self.labelled, rng=generator(f"{self.seed}/wbta/{way}"), context=self._context()
            )
            write_whole(path, checkpoint_to_bytes(checkpoint))
            print(f"{way}: trained in {time.perf_counter() - started:.0f} s", flush=True)
        return built, checkpoint_from_bytes(path.read_bytes())

    def generated(
        self, way: str, n: int, formula: str, settings: Mapping[str, Any]
    ) -> list[Crystal]:
        """What a way makes of n wishes for one formula."""
        use, own = MODELS[way]
        _, checkpoint = self.trained(way, use, own)
        built = _build(use, {**LEARNING, **own, "wanted": dict(settings)})
        rng = generator(f"{self.seed}/wbta/{way}/{formula}/{settings}")
        context = self._context(labelled=self.labelled, checkpoint=checkpoint)
        return [crystal for crystal, _ in built.generate(n, rng=rng, context=context)]

    def modified(self, way: str, formula: str) -> list[Crystal]:
        """Labelled crystals of a formula, modified to lie lower."""
        settings = {"method": MODIFIERS[way], "starts": 1.0}
        built, checkpoint = self.trained(way, "regression_modifier", settings)
        of_formula = [
            item
            for item in self.labelled
            if formula_of(item.candidate.crystal).reduced == check_formula(formula).reduced
        ]
        context = self._context(labelled=of_formula, checkpoint=checkpoint)
        rng = generator(f"{self.seed}/wbta/{way}/{formula}")
        return [crystal for crystal, _ in built.generate(N_MODIFIED, rng=rng, context=context)]

    def random(self, formula: str) -> list[Crystal]:
        built = _build(
            "random_crystal",
            {"formulas": [formula], "space_groups": list(GROUPS)},
        )
        made = built.generate(
            N_RANDOM, rng=generator(f"{self.seed}/wbta/random/{formula}"), context=self._context()
        )
        return [crystal for crystal, _ in made]


def _build(use: str, settings: Mapping[str, Any]) -> Any:
    return plugins.build(
        PluginSpec(group="generators", use=use, params=dict(settings), elements=ELEMENTS)
    )


def _distinct(crystals: Sequence[Crystal]) -> Iterator[Crystal]:
    """One of each structure."""
    seen = Distinct(Matcher())
    for crystal in crystals:
        key = equivalence_key(crystal)
        if seen.find(crystal, key) is None:
            seen.add(crystal.id, key, crystal)
            yield crystal


def experiments(known: Known, stride: int) -> Iterator[tuple[str, str, str, int, list[Crystal]]]:
    """Way, schedule, formula, wishes, and what was made of them."""
    wished = {"formulas": (), "space_groups": GROUPS, "above": "hull", "every": True}
    for way in MODELS:
        for schedule, energies in SCHEDULES.items():
            for formula in FORMULAS:
                wanted = {**wished, "formulas": [formula], "energies": energies[::stride]}
                n = len(GROUPS) * len(energies[::stride])
                yield way, schedule, formula, n, known.generated(way, n, formula, wanted)
    for way in MODIFIERS:
        for formula in FORMULAS:
            yield way, "", formula, N_MODIFIED, known.modified(way, formula)
    for formula in FORMULAS:
        yield "random crystals", "", formula, N_RANDOM, known.random(formula)


def measured(known: Known, stride: int) -> Iterator[Row]:
    """One row an experiment; saved, and found again."""
    for formula in FORMULAS:
        yield {"way": "library", "schedule": "", "formula": formula, **_library(known, formula)}
    for way, schedule, formula, n, made in experiments(known, stride):
        name = "-".join([way, schedule, formula]).replace(" ", "_")
        path = PARTS / f"{known.seed}-{stride}-{name}.json"
        if not path.exists():
            started = time.perf_counter()
            one_each = known.one_each(made)
            print(f"{way}, {schedule or 'no wish'}, {formula}:", flush=True)
            above = known.above(one_each)
            row = {
                "way": way,
                "schedule": schedule,
                "formula": formula,
                "wishes": n,
                "possible": len(made),
                "distinct": len(one_each),
                "relaxed": len(above),
                "lowest": round(min(above.values(), default=float("nan")), 2),
                "within_50": sum(height <= 50 for height in above.values()),
                "known": sum(crystal in known.proposed.pool for crystal in one_each),
                "seconds": round(time.perf_counter() - started, 1),
            }
            write_whole(path, json.dumps(row).encode())
        yield json.loads(path.read_bytes())


def _library(known: Known, formula: str) -> Row:
    """The lowest library structure of a formula above the hull of all others."""
    wanted = check_formula(formula).reduced
    is_it = {
        item.candidate.id: formula_of(item.candidate.crystal).reduced == wanted
        for item in known.labelled
    }
    heights = known.above([item.candidate.crystal for item in known.labelled])
    found = [heights[name] for name, is_of_it in is_it.items() if is_of_it and name in heights]
    return {
        "relaxed": len(found),
        "lowest": round(min(found), 2) if found else None,
        "within_50": sum(height <= 50 for height in found),
        "hull": round(
            float(
                known.hull.formation_at(
                    fractions_of(
                        [next(i.candidate for i in known.labelled if is_it[i.candidate.id])],
                        known.labels.kinds,
                    )
                )[0]
            ),
            4,
        ),
    }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The lowest energy above the hull (meV/atom) by way and formula, the paper's own beside."""
    found: dict[str, Any] = {}
    for way in dict.fromkeys(row["way"] for row in rows["experiments"]):
        for formula in FORMULAS:
            of_it = [
                row
                for row in rows["experiments"]
                if (row["way"], row["formula"]) == (way, formula) and row["lowest"] is not None
            ]
            if of_it:
                paper = PAPER.get((way, formula))
                found[f"{way}, {formula}: lowest above the hull (meV/atom)"] = {
                    "measured": min(row["lowest"] for row in of_it),
                    "paper": paper,
                    "relaxed": sum(row["relaxed"] for row in of_it),
                    "within_50": sum(row["within_50"] for row in of_it),
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="W-B-Ta")
    parser.add_argument("--seed", type=int, default=200)
    parser.add_argument("--model", default="7net-l3i5")
    parser.add_argument("--python", default="python", help="interpreter that has the potential")
    parser.add_argument("--stride", type=int, default=1, help="of 21 energies every so many")
    options = parser.parse_args()
    rows: list[Row] = []
    for row in measured(Known(options.seed, options.model, options.python), options.stride):
        rows.append(row)
        notes = (
            f"oracle {options.model}, seed {options.seed}, every {options.stride}th of the 21 "
            f"energies of a schedule; the hull is that of the elements and "
            f"library structures; labels are kept in {LABELS.name}"
        )
        path = write("wbta", {"experiments": rows}, summarise, notes)
    show(json.loads(path.read_text())["summary"])


if __name__ == "__main__":
    main()
