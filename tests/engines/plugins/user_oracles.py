"""Oracles as users write them, for the tests of the engine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from campaign.types import (
    ENERGY_PER_ATOM,
    VOLUME_PER_ATOM,
    Crystal,
    Evaluation,
    FailureKind,
    Observation,
    Quantity,
)
from oracles.analytic import LennardJones, LennardJonesConfig


class Density:
    """The README's oracle: a user's whole oracle."""

    quantities = (Quantity("density", "g/cm^3"),)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        return Evaluation.single(self.quantities[0], float(crystal.structure.density))


class Counting:
    """Lennard-Jones energies; every finished evaluation leaves a line in a file."""

    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, log: str, seconds: float = 0.0) -> None:
        self._log, self._seconds = Path(log), seconds
        self._oracle = LennardJones(LennardJonesConfig())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        time.sleep(self._seconds)
        with self._log.open("a") as file:
            file.write(crystal.id + "\n")
        return self._oracle.evaluate(crystal)


class Together(Counting):
    """The same, and several at once: each pass leaves a line that says how many it was asked
    for.
    """

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        with self._log.open("a") as file:
            file.write(f"together {len(crystals)}\n")
        for index, crystal in enumerate(crystals):
            yield index, self.evaluate(crystal)


class MixedUp:
    """Lennard-Jones energies; of several at once each gets its neighbour's, or the last ones get
    none.
    """

    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, how: str) -> None:
        self._how = how
        self._oracle = LennardJones(LennardJonesConfig())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if len(crystal) == 0:
            return Evaluation.failed(FailureKind.UNPHYSICAL, "no atoms", retryable=False)
        return self._oracle.evaluate(crystal)

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        for index in range(len(crystals)):
            if self._how == "forgets" and index == 2:
                return
            yield (
                index,
                self.evaluate(crystals[index - 1] if self._how == "mixes" else crystals[index]),
            )


class DeadlyTogether(Together):
    """The same, but every crystal of three irons or more in its first four atoms ends the
    process.
    """

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if (crystal.numbers[:4] == 26).sum() >= 3:
            with self._log.open("a") as file:
                file.write(f"dies {crystal.id}\n")
            os._exit(3)
        return super().evaluate(crystal)


class Sized:
    """Lennard-Jones energies, and a made-up volume that differs from crystal to crystal."""

    quantities = (ENERGY_PER_ATOM, VOLUME_PER_ATOM)

    def __init__(self) -> None:
        self._oracle = LennardJones(LennardJonesConfig())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        energy = self._oracle.evaluate(crystal).value(ENERGY_PER_ATOM.name)
        volume = Observation(
            VOLUME_PER_ATOM.name, 11.0 + 0.1 * (int(crystal.id[:4], 16) % 5), VOLUME_PER_ATOM.unit
        )
        return Evaluation(
            observations=(Observation(ENERGY_PER_ATOM.name, energy, ENERGY_PER_ATOM.unit), volume)
        )


class Failing:
    """Fails on two candidates in five, by their ids: process death, hang, exception, NaN,
    impossible energy.
    """

    quantities = (ENERGY_PER_ATOM,)

    def __init__(self) -> None:
        self._oracle = LennardJones(LennardJonesConfig())

    @staticmethod
    def fate(identity: str) -> str:
        draw = int(identity[:6], 16) % 100
        return (
            ("exit", "hang", "exception", "nan", "impossible")[draw // 8] if draw < 40 else "label"
        )

    def evaluate(self, crystal: Crystal) -> Evaluation:
        match self.fate(crystal.id):
            case "exit":
                os._exit(13)
            case "hang":
                time.sleep(1000)
            case "exception":
                raise RuntimeError("this oracle throws")
            case "nan":
                return Evaluation.single(ENERGY_PER_ATOM, math.nan)
            case "impossible":
                return Evaluation.single(ENERGY_PER_ATOM, -1e6)
        return self._oracle.evaluate(crystal)


class Unstartable:
    """Can be built where it is checked, but not in a worker."""

    quantities = (ENERGY_PER_ATOM,)
    _driver = os.environ.setdefault("ORELOOP_TEST_DRIVER", str(os.getpid()))

    def __init__(self) -> None:
        if os.environ["ORELOOP_TEST_DRIVER"] != str(os.getpid()):
            raise RuntimeError("only starts in the driver")

    def evaluate(self, crystal: Crystal) -> Evaluation:
        raise AssertionError(f"never asked about {crystal.formula}")


class Switched:
    """Lennard-Jones energies, unless a file is there: its first word is the kind of failure, its
    second how many times (for ever).
    """

    quantities = (ENERGY_PER_ATOM,)

    def __init__(self, switch: str) -> None:
        self._switch, self._oracle = Path(switch), LennardJones(LennardJonesConfig())

    def evaluate(self, crystal: Crystal) -> Evaluation:
        if self._switch.exists():
            kind, _, times = self._switch.read_text().partition(" ")
            if times == "1":
                self._switch.unlink()
            elif times:
                self._switch.write_text(f"{kind} {int(times) - 1}")
            return Evaluation.failed(FailureKind(kind), f"the switch says {kind}")
        return self._oracle.evaluate(crystal)
