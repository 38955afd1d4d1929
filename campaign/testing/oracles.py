"""The conformance kit for oracles: ours and the users'. ``oreloop oracle check`` runs it, and
``check_oracle`` in pytest.

Every check runs the oracle in a worker process of its own, as a campaign would, so that a crash or
a hang is a finding and not an accident.

Which element is which cannot be seen from energies alone, so the elements' crystals are compared
with what is known of them (volume, bulk modulus, and cohesive energy where the oracle's energies
count from free atoms): a pair of elements whose figures fit clearly better with their names
exchanged has been swapped somewhere, and so have three or more that fit better in another order.
Energies of an oracle that states that they count from free atoms are held against the elements'
cohesive energies, which tells kcal/mol from eV.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from scipy.optimize import linear_sum_assignment

from campaign import plugins
from campaign import types as words
from campaign.crystals import references
from campaign.crystals.lattice import atomic_volume
from campaign.errors import OreloopError
from campaign.executors.serial import SerialExecutor
from campaign.protocols import (
    EvaluatesMany,
    EvaluationJob,
    HasElements,
    Oracle,
    OracleSpec,
    PluginSpec,
)
from campaign.testing.findings import Finding, Skipped, finding, passed, tell_nobody
from campaign.types import Candidate, Crystal, Evaluation, FailureKind, Quantity

_DEFAULT_ELEMENTS = ("Ni", "Fe", "Cr")
_MOST_ELEMENTS = 5
_FORCE_TOLERANCE = 0.02
_SMALL = {"eV/atom": 1e-2, "GPa": 1.0, "angstrom^3/atom": 0.1, "1": 0.05}
"""By unit: values below are compared as if they were this large."""
_SCALES = {"volume": 0.02, "bulk modulus": 0.1, "cohesive energy": 0.05}
"""Deviations from the known, as logarithms of ratios, that count as one."""
_SWAP_MARGIN, _SWAP_RATIO = 1.0, 0.62
_ENERGY_FACTOR, _UNIT_FACTOR = 2.0, 1.25
"""Largest ratio to the known cohesive energy that models of it have; and to a unit's factor that
points at this unit.
"""
_ENERGY_UNITS = {
    "kcal/mol": 23.0605,
    "kJ/mol": 96.4853,
    "meV": 1000.0,
    "K": 11604.5,
    "rydberg": 0.0734986,
    "hartree": 0.0367493,
    "J": 1.602e-19,
}
"""How many of a unit an electronvolt is."""
_SHORT_LIMIT, _GRACE = 0.05, 20.0
_SCAN = np.linspace(-0.06, 0.06, 9)
_HOUSE_UNITS = {
    quantity.name: quantity.unit
    for quantity in vars(words).values()
    if isinstance(quantity, Quantity)
}


class _Bench:
    """Evaluates crystals in a worker process whose temporary files go to a folder."""

    def __init__(self, spec: OracleSpec, folder: Path, on_step: Callable[[str], None]) -> None:
        self.spec, self._folder, self._on_step = spec, folder, on_step
        self._executor = SerialExecutor()
        self._executor.start([spec])
        self._count = 0
        self._known: dict[str, Evaluation] = {}
        self.left: list[int] = []
        """Processes that lived on when their worker died."""

    def evaluate(self, crystal: Crystal, *, again: bool = False) -> Evaluation:
        """The answer; asked once for each crystal unless ``again``."""
        if not again and crystal.id in self._known:
            return self._known[crystal.id]
        self._count += 1
        self._on_step(f"evaluation {self._count}, {crystal.formula or 'an empty cell'}")
        with _temporary_folder(self._folder):
            self._executor.submit(
                EvaluationJob(
                    key=f"check/{self._count}", oracle=self.spec.name, candidate=Candidate(crystal)
                )
            )
        while not (finished := self._executor.wait(1.0)):
            pass
        self._known[crystal.id] = finished[0].evaluation
        return finished[0].evaluation

    def together(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Their answers in one pass."""
        jobs = [
            EvaluationJob(
                key=f"check/together/{crystal.id}",
                oracle=self.spec.name,
                candidate=Candidate(crystal),
            )
            for crystal in crystals
        ]
        found: dict[str, Evaluation] = {}
        with _temporary_folder(self._folder):
            self._executor.submit(*jobs)
        while len(found) < len(jobs):
            found |= {item.job.key: item.evaluation for item in self._executor.wait(1.0)}
        return [found[job.key] for job in jobs]

    def close(self) -> None:
        before = _with_descendants(roots := self._executor.processes)
        for root in roots:
            os.kill(root, signal.SIGKILL)
        self.left = _living(before)
        self._executor.shutdown()


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[None]:
    """Processes started within put their temporary files there."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def examine(
    spec: OracleSpec,
    elements: Sequence[str] = (),
    *,
    tolerance: float = 2e-3,
    on_step: Callable[[str], None] = tell_nobody,
) -> Iterator[Finding]:
    """Run all checks on an oracle, one finding after another.

    ``elements``: those to check, by default what the oracle says it knows (at most five);
    ``tolerance``: relative, on top of stated noise; ``on_step`` is told of each check and each
    evaluation before it begins. Raises InputError or SurroundingsError where the oracle cannot be
    built or started.
    """
    oracle: Oracle = plugins.build(spec.plugin)
    known = sorted(oracle.elements) if isinstance(oracle, HasElements) else list(_DEFAULT_ELEMENTS)
    symbols = (
        list(elements) or [symbol for symbol in _DEFAULT_ELEMENTS if symbol in known] or known
    )[:_MOST_ELEMENTS]
    with tempfile.TemporaryDirectory(prefix="oreloop-check-") as name:
        folder = Path(name)
        name_of_check = ""
        bench = _Bench(spec, folder, lambda step: on_step(f"{name_of_check}: {step}"))
        try:
            yield from _quantities(oracle)
            checks = _Checks(bench, oracle, symbols, tolerance)
            for name_of_check, function in checks.all().items():
                on_step(name_of_check)
                yield finding(name_of_check, function)
        finally:
            bench.close()
        on_step("time limit")
        yield finding("time limit", lambda: _time_limit(spec, symbols, folder))
        yield finding("clean-up", lambda: _clean_up(bench.left, folder))


def _quantities(oracle: Oracle) -> Iterator[Finding]:
    def check() -> str:
        assert oracle.quantities, "the oracle promises no quantity"
        for quantity in oracle.quantities:
            wanted = _HOUSE_UNITS.get(quantity.name, quantity.unit)
            assert quantity.unit == wanted, (
                f"{quantity.name} is in {quantity.unit}; everywhere else it is in {wanted}"
            )
        return ", ".join(f"{quantity.name} ({quantity.unit})" for quantity in oracle.quantities)

    yield finding("quantities and units", check)


class _Checks:
    def __init__(
        self, bench: _Bench, oracle: Oracle, symbols: Sequence[str], tolerance: float
    ) -> None:
        self.bench, self.oracle, self.symbols, self.tolerance = (
            bench,
            oracle,
            list(symbols),
            tolerance,
        )
        pair = self.symbols[:2] if len(self.symbols) > 1 else self.symbols * 2
        self.crystal = _probe(*pair)

    def all(self) -> dict[str, Callable[[], str | None]]:
        return {
            "gives what it promises": self.promises,
            "same again": self.same_again,
            "several at once": self.at_once,
            "permutation": lambda: self.same_as(
                *self.permuted(), "with its atoms in another order"
            ),
            "rotation": lambda: self.same_as(*self.rotated(), "rotated"),
            "translation": lambda: self.same_as(*self.translated(), "moved"),
            "supercell": self.supercell,
            "order of species": self.order_of_species,
            "elements by name": self.elements_by_name,
            "cohesive energies": self.cohesive_energies,
            "overlapping atoms": self.overlapping,
            "empty cell": self.empty,
            "unknown element": self.unknown,
        }

    def reference(self) -> Evaluation:
        evaluation = self.bench.evaluate(self.crystal)
        if evaluation.failure is not None:
            raise Skipped(
                f"the oracle fails on {self.crystal.formula}: {evaluation.failure.message}"
            )
        return evaluation

    def promises(self) -> str:
        evaluation = self.bench.evaluate(self.crystal)
        assert evaluation.failure is None, (
            f"{self.crystal.formula}: {evaluation.failure and evaluation.failure.message}"
        )
        by_name = {observation.quantity: observation for observation in evaluation.observations}
        for quantity in self.oracle.quantities:
            shape = tuple(len(self.crystal) if n == -1 else n for n in quantity.shape)
            found = np.shape(by_name[quantity.name].value)
            assert found == shape, f"{quantity.name} came with shape {found}, promised is {shape}"
        return f"{len(by_name)} quantities in {evaluation.cost.wall_seconds:.3g} s"

    def same_again(self) -> str:
        first = self.reference()
        second = self.bench.evaluate(self.crystal, again=True)
        assert second.failure is None, (
            f"the second time it failed: {second.failure and second.failure.message}"
        )
        worst = self.compare(first, second, "the second time")
        noisy = [o.quantity for o in first.observations if o.noise]
        return f"largest change {worst:.1e}" + (
            f"; stated noise on {', '.join(noisy)}" if noisy else ""
        )

    def at_once(self) -> str:
        """Crystals of several sizes, and one that fails, have the labels that they have alone."""
        if not isinstance(self.oracle, EvaluatesMany):
            raise Skipped("the oracle takes one crystal at a time")
        doubled = Crystal.from_atoms(self.crystal.atoms.repeat((2, 1, 1)))
        empty = Crystal(self.crystal.lattice, np.zeros((0, 3)), np.zeros(0, dtype=np.uint8))
        crystals = [self.crystal, doubled, empty, self.permuted()[0]]
        found = self.bench.together(crystals)
        began = {evaluation.cost.started for evaluation in found}
        assert len(began) == 1, (
            "evaluate_many raised, or gave no answer for some of four crystals: they were "
            "evaluated one by one"
        )
        worst = 0.0
        for crystal, evaluation in zip(crystals, found, strict=True):
            single = self.bench.evaluate(crystal)
            assert (single.failure is None) == (evaluation.failure is None), (
                f"{crystal.formula or 'an empty cell'} fails only one way"
            )
            if single.failure is None:
                worst = max(worst, self.compare(single, evaluation, "among others"))
        return f"largest change {worst:.1e}"

    def permuted(self) -> tuple[Crystal, Any]:
        order = np.argsort(self.crystal.numbers[::-1], kind="stable")
        order = np.arange(len(self.crystal))[::-1][order]
        return Crystal(
            self.crystal.lattice, self.crystal.fractional[order], self.crystal.numbers[order]
        ), lambda forces: forces[order]

    def rotated(self) -> tuple[Crystal, Any]:
        turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        turn = turn * np.sign(np.linalg.det(turn))
        return Crystal(
            self.crystal.lattice @ turn, self.crystal.fractional, self.crystal.numbers
        ), lambda forces: forces @ turn

    def translated(self) -> tuple[Crystal, Any]:
        moved = (self.crystal.fractional + [0.37, -0.21, 1.13]) % 1.0
        return Crystal(self.crystal.lattice, moved, self.crystal.numbers), lambda forces: forces

    def same_as(self, crystal: Crystal, forces: Callable[[Any], Any], how: str) -> str:
        first = self.reference()
        second = self.bench.evaluate(crystal)
        assert second.failure is None, (
            f"the same crystal {how} fails: {second.failure and second.failure.message}"
        )
        worst = self.compare(first, second, how)
        ours, theirs = (_array(evaluation, words.FORCES.name) for evaluation in (first, second))
        if ours is not None and theirs is not None:
            change = float(np.abs(forces(ours) - theirs).max())
            assert change < _FORCE_TOLERANCE, (
                f"forces of the crystal {how} differ by {change:.3g} eV/angstrom"
            )
        return f"largest change {worst:.1e}"

    def supercell(self) -> str:
        doubled = Crystal.from_atoms(self.crystal.atoms.repeat((2, 1, 1)))
        first, second = self.reference(), self.bench.evaluate(doubled)
        assert second.failure is None, (
            f"the doubled cell fails: {second.failure and second.failure.message}"
        )
        return f"largest change {self.compare(first, second, 'doubled'):.1e}"

    def order_of_species(self) -> str:
        """A crystal of two elements in each order of their atoms, and the same sites with the
        elements exchanged.
        """
        if len(self.symbols) < 2:
            raise Skipped("the oracle knows one element")
        tried = []
        for one, other in itertools.combinations(self.symbols, 2):
            first, backward = _probe(one, other), _probe(one, other, backward=True)
            here, there = self.bench.evaluate(first), self.bench.evaluate(backward)
            for evaluation, crystal in ((here, first), (there, backward)):
                assert evaluation.failure is None, (
                    f"{crystal.formula} fails: {evaluation.failure and evaluation.failure.message}"
                )
            self.compare(here, there, f"{one}-{other} with the atoms of {other} first")
            numbers = {
                atomic_numbers[one]: atomic_numbers[other],
                atomic_numbers[other]: atomic_numbers[one],
            }
            exchanged = first.with_numbers([numbers[number] for number in first.numbers.tolist()])
            answer = self.bench.evaluate(exchanged)
            same = answer.failure is None and _is_same(here, answer)
            assert not same, (
                f"{first.formula} and {exchanged.formula} on the same sites have the same "
                "labels: elements are not told apart"
            )
            tried.append(f"{one}-{other}")
        return ", ".join(tried)

    def elements_by_name(self) -> str:
        """The elements' crystals against what is known of them, with names as they are and with
        each pair exchanged.
        """
        figures = {symbol: self.figures(symbol) for symbol in self.symbols}
        known = {symbol: references.known_figures(symbol) for symbol in self.symbols}
        usable = [
            symbol for symbol in self.symbols if known[symbol] is not None and figures[symbol]
        ]
        if len(usable) < 2:
            raise Skipped("fewer than two elements whose figures are known")
        energies = {symbol: figures[symbol].get("cohesive energy") for symbol in usable}
        free_atoms = all(
            _counts_from_free_atoms(symbol, energy) for symbol, energy in energies.items()
        )
        self._assert_no_other_order(usable, figures, free_atoms)
        unsure = []
        for one, other in itertools.combinations(usable, 2):
            named = _misfit(figures[one], one, free_atoms) + _misfit(
                figures[other], other, free_atoms
            )
            exchanged = _misfit(figures[one], other, free_atoms) + _misfit(
                figures[other], one, free_atoms
            )
            assert not (named - exchanged > _SWAP_MARGIN and exchanged < _SWAP_RATIO * named), (
                f"{one} behaves like {other} and {other} like {one}: "
                f"{_tell(one, figures[one])}; {_tell(other, figures[other])}. "
                "Two species are swapped"
            )
            if not (exchanged - named > _SWAP_MARGIN and named < _SWAP_RATIO * exchanged):
                unsure.append(f"{one}/{other}")
        told = "; ".join(_tell(symbol, figures[symbol]) for symbol in usable)
        left = [symbol for symbol in self.symbols if symbol not in usable]
        told += f"; these figures cannot tell {', '.join(unsure)} apart" if unsure else ""
        return told + (f"; not checked, as no figures are known: {', '.join(left)}" if left else "")

    def _assert_no_other_order(
        self, symbols: Sequence[str], figures: Mapping[str, Mapping[str, float]], free_atoms: bool
    ) -> None:
        """Three or more elements whose figures fit much better under each other's names."""
        misfit = np.array(
            [[_misfit(figures[one], other, free_atoms) for other in symbols] for one in symbols]
        )
        best = linear_sum_assignment(misfit)[1].tolist()
        moved = [i for i, other in enumerate(best) if other != i]
        named, ordered = misfit[moved, moved].sum(), misfit[moved, [best[i] for i in moved]].sum()
        likeness = ", ".join(f"{symbols[i]} behaves like {symbols[best[i]]}" for i in moved)
        assert len(moved) < 3 or not (
            named - ordered > _SWAP_MARGIN and ordered < _SWAP_RATIO * named
        ), (
            f"{likeness}: {'; '.join(_tell(symbols[i], figures[symbols[i]]) for i in moved)}. "
            "The order of the species is another one"
        )

    def cohesive_energies(self) -> str:
        """Energies of the elements' crystals against those that take them apart into free atoms,
        where they count from these.
        """
        if words.ENERGY_PER_ATOM.name not in {quantity.name for quantity in self.oracle.quantities}:
            raise Skipped("the oracle measures no energy")
        known = references.COHESIVE_ENERGIES
        energies = {
            symbol: self.figures(symbol).get("cohesive energy", math.nan)
            for symbol in self.symbols
            if symbol in known
        }
        left = [symbol for symbol in self.symbols if symbol not in known]
        unchecked = (
            f"; not checked, as no cohesive energy is known: {', '.join(left)}" if left else ""
        )
        if not energies:
            raise Skipped(f"no cohesive energy is known of {', '.join(left)}")
        ratios = {symbol: energy / known[symbol] for symbol, energy in energies.items()}
        told = ", ".join(
            f"{symbol} {-energy:.4g} eV/atom (known -{known[symbol]:.4g})"
            for symbol, energy in energies.items()
        )
        if all(1 / _ENERGY_FACTOR < ratio < _ENERGY_FACTOR for ratio in ratios.values()):
            return told + unchecked
        unit = _unit_of(list(ratios.values()))
        counts_from_free_atoms = getattr(self.oracle, "energy_zero", "") == "free atoms"
        if counts_from_free_atoms or (unit and len(ratios) > 1):
            guess = f"; these may be {unit}" if unit else ""
            raise AssertionError(
                "energies of the elements are not in eV/atom from free atoms: "
                f"{told}{guess}{unchecked}"
            )
        raise Skipped(
            "energies do not count from free atoms, so that their unit could not be checked: "
            f"{told}{unchecked}"
        )

    def figures(self, symbol: str) -> dict[str, float]:
        """Volume, bulk modulus and energy below zero of an element's crystal, as far as the oracle
        gives them.
        """
        crystal = references.elemental(symbol)
        evaluation = self.bench.evaluate(crystal)
        assert evaluation.failure is None, (
            f"the crystal of {symbol} fails: {evaluation.failure and evaluation.failure.message}"
        )
        values = {
            observation.quantity: observation.scalar for observation in evaluation.observations
        }
        found: dict[str, float] = {}
        if evaluation.crystal is not None:
            found["volume"] = evaluation.crystal.volume / len(crystal)
        elif words.ENERGY_PER_ATOM.name in values:
            found |= self.scan(crystal)
        if words.BULK_MODULUS.name in values:
            found["bulk modulus"] = values[words.BULK_MODULUS.name]
        if words.ENERGY_PER_ATOM.name in values and "cohesive energy" not in found:
            found["cohesive energy"] = -values[words.ENERGY_PER_ATOM.name]
        return found

    def scan(self, crystal: Crystal) -> dict[str, float]:
        """Of an oracle that does not relax: the minimum of its energies over volume."""
        from ase.eos import EquationOfState
        from ase.units import GPa

        volumes, energies = [], []
        for strain in _SCAN:
            scaled = Crystal(crystal.lattice * (1 + strain), crystal.fractional, crystal.numbers)
            evaluation = self.bench.evaluate(scaled)
            if evaluation.failure is None:
                volumes.append(scaled.volume / len(crystal))
                energies.append(evaluation.value(words.ENERGY_PER_ATOM.name))
        try:
            volume, energy, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(
                warn=False
            )
        except (RuntimeError, ValueError, TypeError):
            return {}
        if not min(volumes) < volume < max(volumes) or modulus <= 0:
            return {}
        return {
            "volume": float(volume),
            "bulk modulus": float(modulus / GPa),
            "cohesive energy": -float(energy),
        }

    def overlapping(self) -> str:
        crystal = Crystal(
            np.eye(3) * 3.0,
            np.array([[0, 0, 0], [0.001, 0, 0]]),
            references.elemental(self.symbols[0]).numbers[[0, 0]],
        )
        evaluation = self.bench.evaluate(crystal)
        if evaluation.failure is not None:
            assert "worker died" not in evaluation.failure.message, (
                f"two atoms in one place kill the worker: {evaluation.failure.message}"
            )
            return f"{evaluation.failure.kind.value}: {evaluation.failure.message[:100]}"
        values = ", ".join(f"{o.quantity} {o.scalar:.3g}" for o in evaluation.observations[:3])
        energy = next(
            (o.scalar for o in evaluation.observations if o.quantity == words.ENERGY_PER_ATOM.name),
            None,
        )
        assert energy is None or energy > 0, (
            f"two atoms in one place have an ordinary label: {values}"
        )
        return f"labelled, with {values}; sanity: in the config turns such values into failures"

    def empty(self) -> str:
        evaluation = self.bench.evaluate(
            Crystal(np.eye(3) * 4.0, np.zeros((0, 3)), np.zeros(0, dtype=np.uint8))
        )
        assert evaluation.failure is not None, "a cell without atoms is labelled"
        assert "worker died" not in evaluation.failure.message, (
            f"a cell without atoms kills the worker: {evaluation.failure.message}"
        )
        return f"{evaluation.failure.kind.value}: {evaluation.failure.message[:100]}"

    def unknown(self) -> str:
        if not isinstance(self.oracle, HasElements):
            raise Skipped("the oracle does not state its elements")
        foreign = next(
            (
                symbol
                for symbol in ("Xe", "Pu", "H", "Au", "Po")
                if symbol not in self.oracle.elements
            ),
            None,
        )
        if foreign is None:
            raise Skipped("the oracle knows every element")
        evaluation = self.bench.evaluate(references.elemental(foreign, "fcc"))
        assert evaluation.failure is not None, (
            f"a crystal of {foreign}, which the oracle does not know, is labelled"
        )
        assert not evaluation.failure.retryable, (
            f"the failure on {foreign} is marked as worth a retry"
        )
        return evaluation.failure.message[:100]

    def compare(self, first: Evaluation, second: Evaluation, how: str) -> float:
        """The largest relative change of a scalar; more than tolerance and noise allow is an
        AssertionError.
        """
        worst = 0.0
        others = {observation.quantity: observation for observation in second.observations}
        for observation in first.observations:
            if np.ndim(observation.value):
                continue
            other = others[observation.quantity]
            size = max(abs(observation.scalar), _SMALL.get(observation.unit, 1e-6))
            change = abs(observation.scalar - other.scalar)
            allowed = self.tolerance * size + 5 * math.hypot(
                observation.noise or 0.0, other.noise or 0.0
            )
            assert change <= allowed, (
                f"{how}: {observation.quantity} changes from {observation.scalar:.6g} to "
                f"{other.scalar:.6g} {observation.unit}"
            )
            worst = max(worst, change / size)
        return worst


def _probe(one: str, other: str, *, backward: bool = False) -> Crystal:
    """Three atoms of one element and one of another in L1_2 order; the other one is the first atom
    if ``backward``.
    """
    volume = (3 * atomic_volume(one) + atomic_volume(other)) / 4
    lattice = np.eye(3) * (4 * volume) ** (1 / 3)
    sites = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]])
    numbers = np.array(
        [atomic_numbers[symbol] for symbol in (one, one, one, other)], dtype=np.uint8
    )
    order = [3, 0, 1, 2] if backward else [0, 1, 2, 3]
    return Crystal(lattice, sites[order], numbers[order])


def _array(evaluation: Evaluation, quantity: str) -> Any:
    return next(
        (
            np.asarray(o.value)
            for o in evaluation.observations
            if o.quantity == quantity and np.ndim(o.value)
        ),
        None,
    )


def _is_same(first: Evaluation, second: Evaluation) -> bool:
    others = {observation.quantity: observation.scalar for observation in second.observations}
    pairs = [
        (o.scalar, others[o.quantity])
        for o in first.observations
        if np.ndim(o.value) == 0 and o.quantity in others
    ]
    return all(abs(a - b) <= 1e-9 * max(abs(a), 1e-3) for a, b in pairs)


def _misfit(figures: Mapping[str, float], symbol: str, free_atoms: bool) -> float:
    """How far figures are from what is known of an element, in units of usual deviations; the
    nearer of experiment and PBE counts.
    """
    known = references.known_figures(symbol)
    assert known is not None
    wanted: dict[str, tuple[float, ...]] = {
        "volume": known.volumes,
        "bulk modulus": known.bulk_moduli,
    }
    if free_atoms:
        wanted["cohesive energy"] = (references.COHESIVE_ENERGIES[symbol],)
    return sum(
        min(abs(math.log(max(figures[name], 1e-9) / value)) for value in values) / _SCALES[name]
        for name, values in wanted.items()
        if name in figures
    )


def _unit_of(ratios: Sequence[float]) -> str:
    """The unit whose factor all ratios to known energies are near; empty where there is none."""
    for unit, factor in _ENERGY_UNITS.items():
        if all(
            ratio > 0 and abs(math.log(ratio / factor)) < math.log(_UNIT_FACTOR) for ratio in ratios
        ):
            return unit
    return ""


def _counts_from_free_atoms(symbol: str, energy: float | None) -> bool:
    """Whether an energy (eV/atom below zero) can be the element's cohesive energy."""
    known = references.COHESIVE_ENERGIES.get(symbol)
    return (
        known is not None
        and energy is not None
        and energy > 0
        and abs(math.log(energy / known)) < 0.25
    )


def _tell(symbol: str, figures: Mapping[str, float]) -> str:
    units = {"volume": "angstrom^3", "bulk modulus": "GPa", "cohesive energy": "eV"}
    return f"{symbol}: " + ", ".join(
        f"{name} {value:.4g} {units[name]}" for name, value in figures.items()
    )


def _time_limit(spec: OracleSpec, symbols: Sequence[str], folder: Path) -> str:
    """A worker that takes longer than its limit is killed, and the next evaluation works."""
    bench = _Bench(replace(spec, wall_limit=_SHORT_LIMIT), folder, tell_nobody)
    try:
        crystal = Crystal.from_atoms(_probe(symbols[0], symbols[-1]).atoms.repeat((2, 2, 2)))
        began = time.monotonic()
        evaluation = bench.evaluate(crystal)
        seconds = time.monotonic() - began
    finally:
        bench.close()
    if evaluation.failure is None or evaluation.failure.kind is not FailureKind.TIMEOUT:
        raise Skipped(f"it answers within {_SHORT_LIMIT:g} s")
    assert seconds < spec.start_limit + _GRACE, (
        f"with a limit of {_SHORT_LIMIT:g} s it took {seconds:.1f} s"
    )
    return (
        f"stopped {max(0.0, seconds - _SHORT_LIMIT):.2f} s after a limit of "
        f"{_SHORT_LIMIT:g} s, start included"
    )


def _processes() -> dict[int, tuple[int, str]]:
    """The parent of each living process, and when it was started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(folder.name)] = (int(fields[1]), fields[19])
    return found


def _with_descendants(roots: Sequence[int]) -> dict[int, str]:
    """These processes and all that they started, with when each was started."""
    processes = _processes()
    found = {root: processes[root][1] for root in roots if root in processes}
    while more := {
        number: began
        for number, (parent, began) in processes.items()
        if parent in found and number not in found
    }:
        found |= more
    return found


def _living(before: Mapping[int, str]) -> list[int]:
    """Those of processes, with when each was started, that live on for seconds."""
    deadline = time.monotonic() + 5
    while (
        left := [
            number for number, (_, began) in _processes().items() if before.get(number) == began
        ]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    return sorted(left)


def _clean_up(left: Sequence[int], folder: Path) -> str:
    """No process of the worker is left, and no temporary file."""
    assert not left, f"processes {left} are still there"
    names = sorted(path.name for path in folder.iterdir())
    assert not names, f"temporary files are left: {', '.join(names[:5])}"
    return "no process left, no file left"


def check_oracle(
    oracle: str,
    params: Mapping[str, Any] | None = None,
    *,
    elements: Sequence[str] = (),
    folder: Path | None = None,
    wall_limit: float = 600.0,
    python: Sequence[str] = (),
) -> list[Finding]:
    """For pytest: run the kit on an oracle by name or ``module:Class``. Raises AssertionError that
    lists what failed.

    ``folder`` is where a user's module lies; ``wall_limit`` in seconds an evaluation; ``python``
    the words of the command that starts the interpreter that it lives in.
    """
    home = str(folder) if folder else None
    plugin = PluginSpec(
        group="oracles",
        use=oracle,
        params=dict(params or {}),
        module_folder=home,
        python=tuple(python),
    )
    spec = OracleSpec(name=oracle.rpartition(":")[2], plugin=plugin, wall_limit=wall_limit)
    try:
        return passed(examine(spec, elements))
    except OreloopError as error:
        raise AssertionError(f"{oracle} cannot be built or started: {error.message}") from error
