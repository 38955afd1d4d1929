"""The public yardstick for the discovery of stable compounds: MADE's definitions on its chemical
systems, beside plainer strategies.

In a system of elements, beginning with the elements alone, each strategy asks an oracle 50 times
about crystals of at most 20 atoms. A discovery is a crystal that lies, relaxed, at most 0.1 eV/atom
above the hull, and is none of the elements' crystals nor one that was found before. The hull is of
all that is labelled in the system for that seed, by whichever strategy. Figures, after MADE:

    acceleration factor   queries that the baseline needs to reach a number of discoveries, by
                          those that the strategy needs: of the largest number that both reach
    enhancement factor    discoveries of the strategy by those of the baseline, after all queries
    area under the curve  the mean over the queries of the discoveries so far, by the number of
                          queries
    mSUN                  share of queries that are discoveries: metastable (within the tolerance),
                          unique, novel

Strategies: ``hull`` (choice by the hull), ``formation`` (the lowest formation energy, same
proposals), ``random choice`` (same proposals) and ``random crystals`` (random crystals of random
formulas); those of benchmarks.made_levels, for which a cheaper level looks at all proposals first.
Proposals are made and labelled once for each system and seed; strategies are replayed on them, by
the code that decides in campaigns.

    python -m benchmarks.made label --python ../sevennet-env/bin/python --seeds 100 101
    python -m benchmarks.made label --python ../sevennet-env/bin/python --seeds 101 \\
        --model 7net-0-rough
    python -m benchmarks.made label --python ../sevennet-env/bin/python --seeds 101 \\
        --model 7net-0-static
    python -m benchmarks.made --seeds 100 101

The first three save each label and go on where they stopped; they take the time that relaxations
take. The last adds what is labelled to the figures; systems and seeds that stand there are left
alone. The systems are read from a file of MADE's own, by default ../shared/data/made_systems.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import made_levels
from benchmarks.made_levels import dataset_of
from benchmarks.proposed import MAX_ATOMS, Labels, Proposed, label
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.config.schema import CampaignConfig
from campaign.crystals.hull import lower_hull
from campaign.crystals.matching import Distinct, Matcher, equivalence_key
from campaign.decide import fit, select
from campaign.decide.question import Question
from campaign.ledger.stability import fractions_of
from campaign.protocols import PluginSpec
from campaign.seeds import generator
from campaign.types import (
    ENERGY_ABOVE_HULL,
    FORMATION_ENERGY,
    Candidate,
    Crystal,
    FloatArray,
)

SYSTEMS = Path("../shared/data/made_systems.json")
QUERIES, TOLERANCE = 50, 0.1
INITIAL, BATCH = 5, 3
N_PROPOSALS = {"prototypes": 120, "random_crystal": 80, "baseline": QUERIES}
STRATEGIES = ("hull", "formation", "random choice", "random crystals")
LEVELLED = {
    "hull, levels": "7net-0-rough",
    "hull, gate": "7net-0-rough",
    "formation, gate": "7net-0-rough",
    "hull, static gate": "7net-0-static",
}
"""By strategy the level below, of a cheaper potential that relaxes roughly, or not at all."""
_CLOSE = 0.01
"""A hull is reached where it lies, in the mean over the phases on the hull of all proposals, at
most so far above it (eV/atom).
"""
_TERNARIES = 10
"""Systems from which on the goals over a cheaper level are judged: all of MADE's ternaries."""
_DESCRIPTORS = [
    {"use": "composition"},
    {"use": "power_spectrum", "params": {"average": "by_element"}},
]


# --- strategies
# ------------------------------------------------------------


def config_of(system: Sequence[str], strategy: str) -> CampaignConfig:
    """What a campaign with that strategy would be."""
    by_hull = strategy == "hull"
    return CampaignConfig.model_validate(
        {
            "name": "made",
            "space": {"elements": list(system)},
            "objective": {
                "quantity": (ENERGY_ABOVE_HULL if by_hull else FORMATION_ENERGY).name,
                "direction": "minimize",
            },
            "budget": {"labels": QUERIES},
            "generators": [{"use": "prototypes"}],
            "oracles": [{"use": "lennard_jones"}],
            "surrogate": {"use": "gp", "params": {"descriptors": _DESCRIPTORS}},
            "acquisition": {"use": "hull", "tolerance": TOLERANCE}
            if by_hull
            else {"use": "log_noisy_expected_improvement"},
        }
    )


def order_of(
    strategy: str, proposed: Proposed, formation: Mapping[str, float], queries: int = QUERIES
) -> Iterator[Crystal]:
    """The crystals that a strategy asks about, one query after another."""
    if strategy == "random crystals":
        yield from proposed.random[:queries]
        return
    pool = list(proposed.pool)
    drawn = generator(f"{proposed.seed}/made/first").permutation(len(pool)).tolist()
    if strategy == "random choice":
        yield from (pool[row] for row in drawn[:queries])
        return
    config = config_of(proposed.system, strategy)
    assert config.surrogate is not None
    surrogate = PluginSpec(
        group="surrogates", use="gp", params=config.surrogate.params, elements=proposed.system
    )
    asked = [pool[row] for row in drawn[:INITIAL]]
    yield from asked
    previous: Mapping[str, Any] | None = None
    while len(asked) < min(queries, len(pool)):
        dataset = dataset_of([*proposed.elements, *asked], formation)
        stream = f"{proposed.seed}/made/{strategy}/{len(asked)}"
        request = fit.FitRequest(
            surrogate=surrogate,
            classifier=None,
            quantities=config.modelled,
            previous=previous,
            stream=f"{stream}/fit",
        )
        fitted = fit.fit(request, {"made": dataset}).value
        previous = fitted.summary.hyperparameters
        left = [Candidate(crystal) for crystal in pool if crystal not in asked]
        question = Question(
            round=0,
            as_of=0,
            way="model",
            stream=stream,
            oracles=("made",),
            n=min(BATCH, queries - len(asked), len(left)),
            limit=None,
            pool=tuple(candidate.id for candidate in left),
        )
        selection = select.by_model(
            question, select.Material(config, left, (), {"made": dataset}, fitted, None)
        )
        by_id = {candidate.id: candidate.crystal for candidate in left}
        chosen = [by_id[choice.candidate] for choice in selection.choices]
        asked += chosen
        yield from chosen


def levelled(
    strategy: str,
    proposed: Proposed,
    formation: Mapping[str, float],
    labels: Labels,
    cheaper: Labels,
) -> Iterator[tuple[Crystal, float]]:
    """The crystals that a strategy over two levels asks the highest about, each with the seconds
    that the cheaper one took since the last.
    """
    below = cheaper.formation(proposed.searched)
    if strategy.endswith("gate"):
        spent = sum(cheaper.seconds[crystal.id] for crystal in proposed.pool)
        order = made_levels.behind_a_gate(
            proposed.pool, proposed.elements, below, by_hull=strategy.startswith("hull")
        )
        for crystal in itertools.islice(order, QUERIES):
            yield crystal, spent
            spent = 0.0
        return
    spent = 0.0
    pairs = made_levels.by_gain_per_cost(
        proposed.pool,
        proposed.elements,
        (below, formation),
        [median(one.seconds.values()) for one in (cheaper, labels)],
        made_levels.config_of(proposed.system, TOLERANCE),
        queries=QUERIES,
        stream=f"{proposed.seed}/made/{strategy}",
    )
    for crystal, level in pairs:
        if level == made_levels.LEVELS[0]:
            spent += cheaper.seconds[crystal.id]
        else:
            yield crystal, spent
            spent = 0.0


def play(strategy: str, proposed: Proposed, labels: Labels, cheaper: Labels | None = None) -> Row:
    """One strategy on one system and seed: which of its queries were discoveries, how far its hull
    lay above that of all labels, and the seconds of relaxation that all levels took by then.
    """
    formation = labels.formation(proposed)
    candidates = {
        crystal.id: Candidate(crystal) for crystal in proposed.everything if crystal.id in formation
    }
    everything = list(candidates.values())
    whole = lower_hull(
        fractions_of(everything, labels.kinds), np.array([formation[c.id] for c in everything])
    )
    distinct = Distinct(Matcher(same="shape"))
    for crystal in proposed.elements:
        if crystal.id in labels.relaxed:
            _take(distinct, labels.relaxed[crystal.id])
    known = {crystal.id for crystal in proposed.elements} & formation.keys()
    order: Iterator[tuple[Crystal, float]]
    if strategy in LEVELLED:
        assert cheaper is not None
        order = levelled(strategy, proposed, formation, labels, cheaper)
    else:
        order = ((crystal, 0.0) for crystal in order_of(strategy, proposed, formation))
    started = time.perf_counter()
    above, hits, gaps, spent = [], [], [], [0.0]
    for crystal, seconds_below in order:
        spent.append(spent[-1] + seconds_below + labels.seconds[crystal.id])
        if crystal.id in formation:
            fraction = fractions_of([candidates[crystal.id]], labels.kinds)
            height = float(whole.above(fraction, np.array([formation[crystal.id]]))[0])
            is_new = _take(distinct, labels.relaxed[crystal.id])
            known.add(crystal.id)
        else:
            height, is_new = float("inf"), False
        above.append(round(height, 4) if np.isfinite(height) else None)
        hits.append(int(is_new and height <= TOLERANCE))
        gaps.append(
            round(
                _gap(
                    whole.fractions,
                    whole.formation,
                    [candidates[i] for i in known],
                    formation,
                    labels.kinds,
                ),
                5,
            )
        )
    return {
        "system": "-".join(proposed.system),
        "seed": proposed.seed,
        "strategy": strategy,
        "proposals": len(proposed.pool),
        "stable": len(whole.vertices) - len(proposed.system),
        "above_hull": above,
        "discoveries": hits,
        "hull_gap": gaps,
        "spent": [round(seconds, 2) for seconds in spent[1:]],
        "seconds": round(time.perf_counter() - started, 2),
        "relaxation_seconds": round(median(labels.seconds.values()), 2),
    }


def _take(distinct: Distinct, crystal: Crystal) -> bool:
    """Whether a crystal is like none before it."""
    key = equivalence_key(crystal)
    if distinct.find(crystal, key) is not None:
        return False
    distinct.add(crystal.id, key, crystal)
    return True


def _gap(
    fractions: FloatArray,
    wanted: FloatArray,
    known: Sequence[Candidate],
    formation: Mapping[str, float],
    kinds: Any,
) -> float:
    hull = lower_hull(
        fractions_of(known, kinds), np.array([formation[candidate.id] for candidate in known])
    )
    return float(np.mean(hull.at(fractions) - wanted))


# --- figures
# ------------------------------------------------------------


def queries_to(hits: Sequence[int], n: int) -> int:
    """After how many queries there are n discoveries."""
    return int(np.searchsorted(np.cumsum(hits), n)) + 1


def acceleration(ours: Sequence[int], baseline: Sequence[int]) -> float | None:
    """Of the largest number of discoveries that both reach; None where one finds nothing."""
    n = min(sum(ours), sum(baseline))
    return queries_to(baseline, n) / queries_to(ours, n) if n else None


def speedup(ours: Row, baseline: Row) -> float | None:
    """The acceleration in seconds of relaxation, those of cheaper levels too."""
    n = min(sum(ours["discoveries"]), sum(baseline["discoveries"]))
    until = [row["spent"][queries_to(row["discoveries"], n) - 1] for row in (ours, baseline)]
    return until[1] / until[0] if n else None


def area(hits: Sequence[int]) -> float:
    return float(np.cumsum(hits).mean() / len(hits))


def queries_to_hull(gaps: Sequence[float]) -> int:
    """The first query after which the hull is close to that of all proposals; one more than there
    are where none is.
    """
    close = np.flatnonzero(np.array(gaps) <= _CLOSE)
    return int(close[0]) + 1 if len(close) else len(gaps) + 1


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    by_run: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows["runs"]:
        by_run.setdefault((row["system"], row["seed"]), {})[row["strategy"]] = row
    runs = [run for run in by_run.values() if all(strategy in run for strategy in STRATEGIES)]
    found: dict[str, Any] = {
        "systems and seeds": len(runs),
        "systems": len({run["hull"]["system"] for run in runs}),
    }
    for strategy in STRATEGIES:
        hits = [run[strategy]["discoveries"] for run in runs]
        found[f"{strategy}: mSUN"] = float(np.mean([np.mean(one) for one in hits]))
        found[f"{strategy}: area under the discovery curve"] = float(
            np.mean([area(one) for one in hits])
        )
    for baseline in STRATEGIES[1:]:
        pairs = [(run["hull"]["discoveries"], run[baseline]["discoveries"]) for run in runs]
        factors = [factor for pair in pairs if (factor := acceleration(*pair)) is not None]
        enhancement = [sum(ours) / sum(other) for ours, other in pairs if sum(other)]
        found[f"hull over {baseline}: median acceleration factor"] = (
            median(factors) if factors else None
        )
        found[f"hull over {baseline}: median enhancement factor"] = (
            median(enhancement) if enhancement else None
        )
    ratios = [
        queries_to_hull(run["hull"]["hull_gap"]) / queries_to_hull(run["formation"]["hull_gap"])
        for run in runs
    ]
    factors = [
        f
        for run in runs
        if (f := acceleration(run["hull"]["discoveries"], run["random crystals"]["discoveries"]))
        is not None
    ]
    by_system: dict[str, list[bool]] = {}
    for run in runs:
        by_system.setdefault(run["hull"]["system"], []).append(
            area(run["hull"]["discoveries"]) > area(run["random choice"]["discoveries"])
        )
    better = (
        float(np.mean([np.mean(won) > 0.5 for won in by_system.values()])) if by_system else 0.0
    )
    return found | {
        **_of_levels(runs),
        "acceleration over random crystals": goal(
            median(factors) if factors else 0.0, 3, at_least=True
        ),
        "share of systems with a larger area than random choice": goal(better, 0.8, at_least=True),
        "queries to the same hull, by those of minimising formation energy": goal(
            median(ratios), 0.7, at_least=False
        ),
    }


def _of_levels(runs: Sequence[Mapping[str, Row]]) -> dict[str, Any]:
    """Figures of the strategies over two levels, of the runs that have them."""
    runs = [run for run in runs if all(strategy in run for strategy in LEVELLED)]
    if not runs:
        return {}
    found: dict[str, Any] = {"systems and seeds with a cheaper level": len(runs)}
    for strategy in LEVELLED:
        hits = [run[strategy]["discoveries"] for run in runs]
        found[f"{strategy}: mSUN"] = float(np.mean([np.mean(one) for one in hits]))
        found[f"{strategy}: area under the discovery curve"] = float(
            np.mean([area(one) for one in hits])
        )
        for baseline in ("random crystals", "random choice"):
            pairs = [(run[strategy], run[baseline]) for run in runs]
            factors = [acceleration(a["discoveries"], b["discoveries"]) for a, b in pairs]
            speedups = [speedup(a, b) for a, b in pairs]
            found[f"{strategy} over {baseline}: runs in which both discover"] = sum(
                factor is not None for factor in factors
            )
            found[f"{strategy} over {baseline}: median acceleration factor"] = _median(factors)
            found[f"{strategy} over {baseline}: median acceleration in seconds"] = _median(speedups)
    ratios = [
        queries_to_hull(run["hull, gate"]["hull_gap"])
        / queries_to_hull(run["formation, gate"]["hull_gap"])
        for run in runs
    ]
    reached = {
        "acceleration over random crystals, a cheaper level first": (
            found["hull, gate over random crystals: median acceleration factor"],
            3,
            True,
        ),
        "queries to the same hull, by those of minimising formation energy, a cheaper level "
        "first": (median(ratios), 0.7, False),
    }
    is_told = len({run["hull"]["system"] for run in runs}) >= _TERNARIES
    return found | {
        name: goal(value, aim, at_least=at_least) if is_told else value
        for name, (value, aim, at_least) in reached.items()
    }


def _median(factors: Sequence[float | None]) -> float | None:
    known = [factor for factor in factors if factor is not None]
    return median(known) if known else None


# --- the command
# ------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="MADE's yardstick")
    parser.add_argument("step", nargs="?", choices=("label", "replay"), default="replay")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["ternary"],
        help="ternary, quaternary, quinary, or systems such as Mg-Sn-Sr",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[100])
    parser.add_argument("--file", type=Path, default=SYSTEMS, help="MADE's systems")
    parser.add_argument("--model", default="7net-l3i5")
    parser.add_argument("--python", default="python", help="interpreter that has the potential")
    parser.add_argument(
        "--proposals",
        nargs=3,
        type=int,
        default=list(N_PROPOSALS.values()),
        help="of prototypes, of random crystals, of the baseline",
    )
    options = parser.parse_args()
    known = json.loads(options.file.read_text()) if options.file.exists() else {}
    systems = [
        tuple(s)
        for name in options.systems
        for s in (known[name] if name in known else [name.split("-")])
    ]
    counts = dict(zip(N_PROPOSALS, options.proposals, strict=True))
    path = RESULTS / "made.json"
    rows: list[Row] = json.loads(path.read_text())["rows"]["runs"] if path.exists() else []
    done = {(row["system"], row["seed"]) for row in rows}
    for seed, system in itertools.product(options.seeds, systems):
        if ("-".join(system), seed) in done:
            continue
        proposed = Proposed.of(system, seed, counts)
        if options.step == "label":
            if options.model in LEVELLED.values():
                proposed = proposed.searched
            seconds = label(proposed.everything, options.model, options.python)
            print(
                f"{'-'.join(system)}, seed {seed}: {len(proposed.everything)} crystals "
                f"labelled, {seconds:.0f} s",
                flush=True,
            )
            continue
        labels = Labels.of(proposed, options.model)
        if labels is None:
            print(f"{'-'.join(system)}, seed {seed}: not all is labelled yet")
            continue
        rows += [play(strategy, proposed, labels) for strategy in STRATEGIES]
        for strategy, model in LEVELLED.items():
            cheaper = Labels.of(proposed.searched, model)
            if cheaper is not None:
                rows.append(play(strategy, proposed, labels, cheaper))
    if options.step == "replay" and rows:
        notes = (
            f"oracle {options.model}; {QUERIES} queries, at most {MAX_ATOMS} atoms, "
            f"{TOLERANCE} eV/atom above the hull of all labels"
        )
        show(json.loads(write("made", {"runs": rows}, summarise, notes).read_text())["summary"])


if __name__ == "__main__":
    main()
