"""Rules of chemistry that a composition holds or breaks: charges that cancel, ratios that are
fixed, bounds of prices and supply risks.

Charges: each element takes one oxidation state, and an element of mixed valence two neighbouring
ones of one sign, in any shares (Fe3O4 has one Fe2+ and two Fe3+). States are those that smact
counts in the ICSD (D. W. Davies et al., J. Open Source Softw. 4 (2019) 1361), or given.
Electronegativity order: every cation's Pauling electronegativity lies below every anion's. An
element alone is neutral.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from campaign.crystals.abundance import KNOWN, of_composition
from campaign.types import FloatArray

Counts = NDArray[np.int64]
"""(m, elements) atoms of each element in m cells."""


@cache
def oxidation_states(symbol: str) -> tuple[int, ...]:
    """Of an element, by the ICSD; empty where it has none."""
    from smact.data_loader import lookup_element_oxidation_states_icsd24

    return tuple(
        sorted(state for state in lookup_element_oxidation_states_icsd24(symbol) or () if state)
    )


@cache
def electronegativity(symbol: str) -> float:
    """Pauling's; NaN where there is none."""
    from smact import Element

    found = Element(symbol).pauling_eneg
    return float("nan") if found is None else float(found)


@cache
def _has_mixed_valence(symbol: str) -> bool:
    from smact.screening import MIXED_VALENCE_ELEMENTS

    return symbol in MIXED_VALENCE_ELEMENTS


@dataclass(frozen=True)
class ChargeNeutral:
    """Oxidation states, one of each element, that add up to nothing. ``states``: those of some
    elements, in place of the ICSD's.
    """

    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    electronegativity_order: bool = False

    def states_of(self, symbol: str) -> tuple[int, ...]:
        return tuple(self.states[symbol]) if symbol in self.states else oxidation_states(symbol)

    def holds(self, elements: Sequence[str], counts: Counts) -> NDArray[np.bool_]:
        """(m,) which compositions are neutral."""
        found = [
            self._is_neutral(
                {symbol: count for symbol, count in zip(elements, row, strict=True) if count}
            )
            for row in counts.tolist()
        ]
        return np.array(found, dtype=bool)

    def _is_neutral(self, counts: Mapping[str, int]) -> bool:
        if len(counts) == 1:
            return True
        states = {symbol: self.states_of(symbol) for symbol in counts}
        if not self.electronegativity_order:
            return _can_cancel(counts, states)
        pull = {symbol: electronegativity(symbol) for symbol in counts}
        return any(
            _can_cancel(
                counts,
                {
                    symbol: _of_sign(states[symbol], 1 if pull[symbol] < border else -1)
                    for symbol in counts
                },
            )
            for border in set(pull.values())
        )

    def violation(self, counts: Mapping[str, int]) -> str:
        if self._is_neutral(counts):
            return ""
        without = sorted(symbol for symbol in counts if not self.states_of(symbol))
        if without:
            return f"{', '.join(without)} has no oxidation state"
        order = " and keep the order of electronegativities" if self.electronegativity_order else ""
        return f"no oxidation states of {', '.join(sorted(counts))} cancel{order}"


@lru_cache(maxsize=65_536)
def _of_sign(states: tuple[int, ...], sign: int) -> tuple[int, ...]:
    return tuple(state for state in states if state * sign > 0)


def _can_cancel(counts: Mapping[str, int], states: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the charges of all atoms of each element can add up to 0. Sets of sums are bits of
    whole numbers.
    """
    sums, lowest = 1, 0
    for symbol, count in counts.items():
        if not states[symbol]:
            return False
        charges, least = _charges(count, states[symbol], _has_mixed_valence(symbol))
        sums, lowest = _all_sums(sums, charges), lowest + least
    return lowest <= 0 and bool(sums >> -lowest & 1)


@lru_cache(maxsize=65_536)
def _charges(count: int, states: tuple[int, ...], is_mixed: bool) -> tuple[tuple[int, ...], int]:
    """What ``count`` atoms of an element may carry, counted from the least, and the least."""
    known = sorted(set(states))
    found = {count * state for state in known}
    for low, high in itertools.pairwise(known) if is_mixed else ():
        if low * high > 0:
            found |= {count * low + raised * (high - low) for raised in range(count + 1)}
    return tuple(charge - min(found) for charge in sorted(found)), min(found)


def _all_sums(sums: int, charges: Sequence[int]) -> int:
    found = 0
    for charge in charges:
        found |= sums << charge
    return found


@dataclass(frozen=True)
class FixedRatio:
    """Atoms of some elements in a fixed ratio, all of them there: Li to O as 1 to 2."""

    ratios: Mapping[str, int] = field(hash=False)

    def holds(self, elements: Sequence[str], counts: Counts) -> NDArray[np.bool_]:
        """(m,) which compositions have the ratio."""
        units = np.stack(
            [
                counts[:, list(elements).index(symbol)] / share
                for symbol, share in self.ratios.items()
            ],
            axis=1,
        )
        return np.asarray((units > 0).all(1) & (np.ptp(units, axis=1) < 1e-9))

    def violation(self, counts: Mapping[str, int]) -> str:
        units = {counts.get(symbol, 0) / share for symbol, share in self.ratios.items()}
        if len(units) == 1 and 0 not in units:
            return ""
        told = (
            " : ".join(self.ratios),
            " : ".join(str(counts.get(symbol, 0)) for symbol in self.ratios),
        )
        return (
            f"{told[0]} is {told[1]}, wanted "
            f"{' : '.join(str(share) for share in self.ratios.values())}"
        )


@dataclass(frozen=True)
class ValueBound:
    """A quantity that the composition alone decides is at least (sign +1) or at most (sign -1) a
    value, in its unit.
    """

    quantity: str
    sign: int
    value: float

    def holds(self, elements: Sequence[str], counts: Counts) -> NDArray[np.bool_]:
        """(m,) which compositions keep the bound; one whose value is not known breaks it."""
        values = of_composition(self.quantity, elements, counts)
        return np.asarray(self.sign * values >= self.sign * self.value - 1e-9 * abs(self.value))

    def violation(self, counts: Mapping[str, int]) -> str:
        symbols = list(counts)
        row = np.array([[counts[symbol] for symbol in symbols]])
        if self.holds(symbols, row)[0]:
            return ""
        value: FloatArray = of_composition(self.quantity, symbols, row)
        found = f"{value[0]:.4g}" if np.isfinite(value[0]) else "not known"
        return (
            f"{self.quantity} is {found}, allowed at {'least' if self.sign > 0 else 'most'} "
            f"{self.value:g} {KNOWN[self.quantity].unit}"
        )
