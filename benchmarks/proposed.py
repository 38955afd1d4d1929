"""Crystals proposed in a chemical system, and their labels by a universal potential in an
environment of its own: made once for each system and seed, saved one by one, read by all
strategies.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept_labels
from campaign import plugins
from campaign.crystals.hull import lower_hull
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
    Objective,
    SearchSpace,
)

PROPOSALS = "proposals"
MAX_ATOMS = 20


@dataclass(frozen=True)
class Proposed:
    """The crystals of one system and seed: the elements' own, what generators propose, and random
    crystals of random formulas.
    """

    system: tuple[str, ...]
    seed: int
    elements: tuple[Crystal, ...]
    pool: tuple[Crystal, ...]
    random: tuple[Crystal, ...]

    @classmethod
    def of(cls, system: Sequence[str], seed: int, counts: Mapping[str, int]) -> Proposed:
        """As they were made before, where they were; random crystals of large cells take seconds
        each.
        """
        name = f"{'-'.join(system)}-{seed}-{'-'.join(map(str, counts.values()))}"
        parts = kept_labels.read(PROPOSALS, name)
        if parts is None:
            made = cls.make(system, seed, counts)
            parts = {
                name: [c.to_bytes().hex() for c in getattr(made, name)]
                for name in ("elements", "pool", "random")
            }
            write_whole(kept_labels.part(PROPOSALS, name), json.dumps(parts).encode())
        read = {
            name: tuple(Crystal.from_bytes(bytes.fromhex(c)) for c in part)
            for name, part in parts.items()
        }
        return cls(tuple(system), seed, **read)

    @classmethod
    def make(cls, system: Sequence[str], seed: int, counts: Mapping[str, int]) -> Proposed:
        space = SearchSpace(tuple(system))
        drawn = {
            name: list(_generated(name, space, n, f"{seed}/made/{name}"))
            for name, n in counts.items()
        }
        random = [crystal for crystal in drawn.pop("baseline") if len(set(crystal.symbols)) > 1]
        together = list(dict.fromkeys(itertools.chain.from_iterable(drawn.values())))
        distinct = Distinct(Matcher(same="shape"))
        pool = []
        for crystal in together:
            key = equivalence_key(crystal)
            if len(set(crystal.symbols)) > 1 and distinct.find(crystal, key) is None:
                distinct.add(crystal.id, key, crystal)
                pool.append(crystal)
        return cls(tuple(system), seed, tuple(_elements(system)), tuple(pool), tuple(random))

    @property
    def everything(self) -> tuple[Crystal, ...]:
        return (*self.elements, *self.pool, *self.random)

    @property
    def searched(self) -> Proposed:
        """Without the baseline, which no level below the highest is asked about."""
        return replace(self, random=())


def _elements(system: Sequence[str]) -> Iterator[Crystal]:
    """Simple structures of each element: the lowest is the one that the search begins with."""
    for symbol in system:
        yield from dict.fromkeys(
            [elemental(symbol), *(elemental(symbol, kind) for kind in ("fcc", "bcc", "hcp"))]
        )


def _generated(name: str, space: SearchSpace, n: int, stream: str) -> Iterator[Crystal]:
    """n crystals, fewer where a generator has no more: what it does not find in one try is asked
    for again.
    """
    use = "prototypes" if name == "prototypes" else "random_crystal"
    settings: dict[str, dict[str, Any]] = {
        "prototypes": {"source": "library", "atoms": [2, MAX_ATOMS]},
        "random_crystal": {"atoms": [2, MAX_ATOMS]},
    }
    spec = PluginSpec(
        group="generators",
        use=use,
        params=settings[use] | {"atoms": [2, MAX_ATOMS]},
        elements=space.elements,
    )
    context = GenerationContext(space=space, objective=Objective(FORMATION_ENERGY.name, "minimize"))
    rng, built = generator(stream), plugins.build(spec)
    asked = itertools.repeat(None) if use == "random_crystal" else [None]
    found = (crystal for _ in asked for crystal, _ in built.generate(n, rng=rng, context=context))
    yield from itertools.islice(found, n)


def label(crystals: Sequence[Crystal], model: str, python: str) -> float:
    """Label what has no label yet in a process of another environment; returns the seconds that it
    took.
    """
    missing = [
        crystal
        for crystal in dict.fromkeys(crystals)
        if kept_labels.read(model, crystal.id) is None
    ]
    if not missing:
        return 0.0
    rows = [
        {
            "id": c.id,
            "lattice": c.lattice.tolist(),
            "fractional": c.fractional.tolist(),
            "numbers": c.numbers.tolist(),
        }
        for c in missing
    ]
    command = ["nice", python, "-m", "benchmarks.made_worker", model]
    surroundings = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
    }
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("".join(f"{json.dumps(row)}\n" for row in rows))
        worker.stdin.close()
        for line in worker.stdout:
            answer = json.loads(line)
            write_whole(kept_labels.part(model, answer["id"]), json.dumps(answer).encode())
    if worker.returncode:
        raise SystemExit(f"the worker that labels ended with exit code {worker.returncode}")
    return time.perf_counter() - started


@dataclass(frozen=True)
class Labels:
    """Labels of crystals of one system: energies (eV per atom) of those that relaxed, by id, and
    the relaxed crystals.
    """

    system: tuple[str, ...]
    energies: Mapping[str, float]
    relaxed: Mapping[str, Crystal]
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, proposed: Proposed, model: str) -> Labels | None:
        """None where some are not labelled yet."""
        energies, relaxed, seconds = {}, {}, {}
        for crystal in proposed.everything:
            answer = kept_labels.read(model, crystal.id)
            if answer is None:
                return None
            seconds[crystal.id] = answer["seconds"]
            if "failure" not in answer:
                energies[crystal.id] = answer["energy_per_atom"]
                relaxed[crystal.id] = Crystal(
                    np.array(answer["lattice"]),
                    np.array(answer["fractional"]),
                    np.array(answer["numbers"]),
                )
        return cls(proposed.system, energies, relaxed, seconds)

    @cached_property
    def kinds(self) -> Any:
        from ase.data import atomic_numbers

        return np.array(sorted(atomic_numbers[symbol] for symbol in self.system), dtype=np.uint8)

    def formation(self, proposed: Proposed) -> dict[str, float]:
        """Formation energies (eV per atom), against the lowest crystal of each element."""
        candidates = [
            Candidate(crystal) for crystal in proposed.everything if crystal.id in self.energies
        ]
        fractions = fractions_of(candidates, self.kinds)
        energies = np.array([self.energies[candidate.id] for candidate in candidates])
        ends = lower_hull(fractions, energies).ends
        return dict(
            zip([c.id for c in candidates], (energies - fractions @ ends).tolist(), strict=True)
        )
