"""Hidden hulls: the stable ternary compounds of a system of known phases are hidden; does a
campaign find them again within 100 labels?

Given are the elements and all known compounds of two of them, labelled. A known ternary is hidden
and wanted where it lies, relaxed, at most 0.01 eV/atom above the hull of everything that is
labelled in the system, known or proposed. It is found when a queried crystal, once relaxed, is the
same structure. Strategies are replayed on proposals that are made and labelled once for each system
and seed:

    campaign            choice by the hull among ions exchanged, prototypes and random crystals
    random choice       of the same proposals
    substitution alone  ions exchanged, then prototypes, each as its generator gives them
    random crystals     of random formulas

Proposals come from the AFLOW library of structure types as any user has it; it knows the types of
most hidden compounds, and may name one after such a compound. Labels by a universal potential in an
environment of its own, saved one by one:

    python -m benchmarks.hidden_hull label --python .venv-sevennet/bin/python --seeds 200
    python -m benchmarks.hidden_hull --seeds 200

Known compounds are read from a table of CIFs, by default ../shared/data/known_crystals_9939.csv.gz.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept_labels
from benchmarks.made import order_of
from benchmarks.proposed import PROPOSALS, Labels, Proposed, label
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign import plugins
from campaign.config.schema import SpaceConfig
from campaign.crystals.hull import lower_hull
from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.crystals.references import elemental
from campaign.files import write_whole
from campaign.ledger.stability import fractions_of
from campaign.protocols import GenerationContext, PluginSpec
from campaign.report.found import known_crystals
from campaign.seeds import generator
from campaign.types import FORMATION_ENERGY, Candidate, Crystal, Objective

TABLE = Path("../shared/data/known_crystals_9939.csv.gz")
QUERIES, MAX_ATOMS, TOLERANCE = 100, 14, 0.01
COUNTS = {"ion_exchange": 120, "prototypes": 120, "random_crystal": 60, "baseline": 100}
SETTINGS: dict[str, dict[str, Any]] = {"prototypes": {"source": "library"}}
CHARGES: dict[tuple[str, str, str], dict[str, list[int]]] = {
    ("K", "Al", "F"): {"K": [1], "Al": [3], "F": [-1]},
    ("Y", "V", "O"): {"Y": [3], "V": [3, 4, 5], "O": [-2]},
    ("Zn", "W", "O"): {"Zn": [2], "W": [4, 6], "O": [-2]},
    ("La", "Ir", "Ge"): {},
    ("Sc", "Fe", "Ge"): {},
}
"""The systems, chosen for several known phases in small cells before anything was labelled; no
charges where it is an intermetallic.
"""
STRATEGIES = ("campaign", "random choice", "substitution alone", "random crystals")


@dataclass(frozen=True)
class System:
    """One system and seed: what is given, what is hidden, what is proposed, and the part of it that
    is substituted.
    """

    given: tuple[Crystal, ...]
    hidden: tuple[Crystal, ...]
    pool: tuple[Crystal, ...]
    substituted: tuple[Crystal, ...]
    random: tuple[Crystal, ...]

    @classmethod
    def of(cls, elements: Sequence[str], seed: int, table: Path) -> System:
        """As it was made before, where it was."""
        name = f"hidden-{'-'.join(elements)}-{seed}"
        parts = kept_labels.read(PROPOSALS, name)
        if parts is None:
            made = cls.make(elements, seed, table)
            parts = {
                name: [c.to_bytes().hex() for c in getattr(made, name)]
                for name in cls.__dataclass_fields__
            }
            write_whole(kept_labels.part(PROPOSALS, name), json.dumps(parts).encode())
        read = {
            name: tuple(Crystal.from_bytes(bytes.fromhex(c)) for c in part)
            for name, part in parts.items()
        }
        return cls(**read)

    @classmethod
    def make(cls, elements: Sequence[str], seed: int, table: Path) -> System:
        known = [
            crystal
            for crystal in _known(table)
            if len(crystal) <= MAX_ATOMS and set(crystal.symbols) <= set(elements)
        ]
        drawn = {
            name: list(_generated(name, elements, n, f"{seed}/hidden/{name}"))
            for name, n in COUNTS.items()
        }
        random = drawn.pop("baseline")
        substituted = [*drawn["ion_exchange"], *drawn["prototypes"]]
        return cls(
            given=(
                *map(elemental, elements),
                *_distinct(crystal for crystal in known if len(set(crystal.symbols)) == 2),
            ),
            hidden=tuple(_distinct(crystal for crystal in known if len(set(crystal.symbols)) == 3)),
            pool=tuple(_distinct([*substituted, *drawn["random_crystal"]])),
            substituted=tuple(_distinct(substituted)),
            random=tuple(random),
        )

    def proposed(self, elements: Sequence[str], seed: int) -> Proposed:
        return Proposed(tuple(elements), seed, self.given, self.pool, self.random)

    @property
    def everything(self) -> tuple[Crystal, ...]:
        return (*self.given, *self.hidden, *self.pool, *self.random)


@cache
def _known(table: Path) -> list[Crystal]:
    """Of the elements of all systems; the table takes minutes to read."""
    elements = {element for system in CHARGES for element in system}
    return [entry.crystal for entry in known_crystals(table, sorted(elements))]


def _distinct(crystals: Any) -> Iterator[Crystal]:
    seen = Distinct(Matcher())
    for crystal in crystals:
        key = equivalence_key(crystal)
        if seen.find(crystal, key) is None:
            seen.add(crystal.id, key, crystal)
            yield crystal


def _generated(name: str, elements: Sequence[str], n: int, stream: str) -> Iterator[Crystal]:
    """n compounds, fewer where a generator has no more."""
    charges = CHARGES[tuple(elements)]  # type: ignore[index]
    rules = {"charge_neutral": True, "oxidation_states": charges} if charges else {}
    space = SpaceConfig.model_validate(
        {"elements": list(elements), "max_fraction": 0.95, **rules}
    ).space
    use = "random_crystal" if name == "baseline" else name
    spec = PluginSpec(
        group="generators",
        use=use,
        params={**SETTINGS.get(use, {}), "atoms": [2, MAX_ATOMS]},
        elements=tuple(elements),
    )
    context = GenerationContext(space=space, objective=Objective(FORMATION_ENERGY.name, "minimize"))
    rng, built = generator(stream), plugins.build(spec)
    asked = itertools.repeat(None) if use == "random_crystal" else [None]
    found = (crystal for _ in asked for crystal, _ in built.generate(n, rng=rng, context=context))
    yield from itertools.islice((crystal for crystal in found if len(set(crystal.symbols)) > 1), n)


def play(elements: Sequence[str], seed: int, system: System, labels: Labels) -> Iterator[Row]:
    """Each strategy: after which query each wanted compound was found."""
    proposed = system.proposed(elements, seed)
    everything = Proposed(
        tuple(elements), seed, system.given, (*system.pool, *system.hidden), system.random
    )
    formation = labels.formation(everything)
    candidates = {
        crystal.id: Candidate(crystal)
        for crystal in everything.everything
        if crystal.id in formation
    }
    energies = np.array([formation[name] for name in candidates])
    whole = lower_hull(fractions_of(list(candidates.values()), labels.kinds), energies)
    above = dict(
        zip(
            candidates,
            whole.above(fractions_of(list(candidates.values()), labels.kinds), energies).tolist(),
            strict=True,
        )
    )
    wanted = [crystal for crystal in system.hidden if above.get(crystal.id, np.inf) <= TOLERANCE]
    targets = list(_distinct(labels.relaxed[crystal.id] for crystal in wanted))
    known = {
        name: value
        for name, value in formation.items()
        if name not in {crystal.id for crystal in system.hidden}
    }
    orders: Mapping[str, Any] = {
        "campaign": order_of("hull", proposed, known, QUERIES),
        "random choice": order_of("random choice", proposed, known, QUERIES),
        "substitution alone": iter(system.substituted[:QUERIES]),
        "random crystals": iter(system.random[:QUERIES]),
    }
    same = Matcher()
    for strategy, order in orders.items():
        found: dict[int, int] = {}
        for query, crystal in enumerate(order, start=1):
            relaxed = labels.relaxed.get(crystal.id)
            if relaxed is not None:
                found |= {
                    i: query
                    for i, target in enumerate(targets)
                    if i not in found and same.is_same(relaxed, target)
                }
        yield {
            "system": "-".join(elements),
            "seed": seed,
            "strategy": strategy,
            "known_ternaries": len(system.hidden),
            "wanted": [target.formula for target in targets],
            "found_after": [found.get(i) for i in range(len(targets))],
            "proposals": len(system.pool),
            "in_proposals": sum(
                any(
                    same.is_same(labels.relaxed[c.id], t)
                    for c in system.pool
                    if c.id in labels.relaxed
                )
                for t in targets
            ),
        }


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    runs = rows["runs"]
    found: dict[str, Any] = {
        "systems and seeds": len({(row["system"], row["seed"]) for row in runs}),
        "hidden stable compounds": sum(
            len(row["wanted"]) for row in runs if row["strategy"] == STRATEGIES[0]
        ),
        "of them among the proposals": sum(
            row["in_proposals"] for row in runs if row["strategy"] == STRATEGIES[0]
        ),
    }
    shares = {}
    for strategy in STRATEGIES:
        after = [
            query for row in runs if row["strategy"] == strategy for query in row["found_after"]
        ]
        shares[strategy] = float(np.mean([query is not None for query in after])) if after else 0.0
        hits = [query for query in after if query is not None]
        found[f"{strategy}: share found"] = shares[strategy]
        found[f"{strategy}: queries until found, median"] = float(np.median(hits)) if hits else None
    lead = shares["campaign"] - max(shares[strategy] for strategy in STRATEGIES[1:])
    is_told = len({row["system"] for row in rows["runs"]}) == len(CHARGES)
    return found | {
        "share found by the campaign, less the best of the others'": goal(lead, 0.0, at_least=True)
        if is_told
        else lead
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Hidden hulls")
    parser.add_argument("step", nargs="?", choices=("label", "replay"), default="replay")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["-".join(system) for system in CHARGES],
        help="such as K-Al-F",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[200])
    parser.add_argument("--file", type=Path, default=TABLE, help="the table of known crystals")
    parser.add_argument("--model", default="7net-l3i5")
    parser.add_argument("--python", default="python", help="interpreter that has the potential")
    options = parser.parse_args()
    path = RESULTS / "hidden_hull.json"
    rows: list[Row] = json.loads(path.read_text())["rows"]["runs"] if path.exists() else []
    done = {(row["system"], row["seed"]) for row in rows}
    for seed, name in itertools.product(options.seeds, options.systems):
        if (name, seed) in done:
            continue
        elements = tuple(name.split("-"))
        system = System.of(elements, seed, options.file)
        if options.step == "label":
            seconds = label(system.everything, options.model, options.python)
            print(
                f"{name}, seed {seed}: {len(system.everything)} crystals labelled, {seconds:.0f} s",
                flush=True,
            )
            continue
        labels = Labels.of(
            Proposed(elements, seed, system.given, (*system.pool, *system.hidden), system.random),
            options.model,
        )
        if labels is None:
            print(f"{name}, seed {seed}: not all is labelled yet")
            continue
        rows += play(elements, seed, system, labels)
    if rows:
        notes = (
            f"oracle {options.model}; {QUERIES} queries, at most {MAX_ATOMS} atoms; wanted "
            f"are ternaries within {TOLERANCE} eV/atom"
        )
        show(
            json.loads(write("hidden_hull", {"runs": rows}, summarise, notes).read_text())[
                "summary"
            ]
        )


if __name__ == "__main__":
    main()
