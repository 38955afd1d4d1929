"""Rules of chemistry that a composition holds or breaks: charges that cancel, ratios that are fixed, bounds of prices and supply risks.

Charges: each element takes one oxidation state, and an element of mixed valence two neighbouring ones of one sign, in any shares (Fe3O4 has
one Fe2+ and two Fe3+). States are those that smact counts in the ICSD (D. W. Davies et al., J. Open Source Softw. 4 (2019) 1361), or given.
Electronegativity order: every cation's Pauling electronegativity lies below every anion's. An element alone is neutral.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from campaign.crystals.abundance import KNOWN, of_composition
from campaign.errors import InputError
from campaign.types import FloatArray

Counts = NDArray[np.int64]
"""(m, elements) atoms of each element in m cells."""

_MIXED_GAPS = (1, 2)
_MOST_COMBINATIONS = 500_000
_CHUNK = 2_000_000


@cache
def oxidation_states(symbol: str) -> tuple[int, ...]:
    """Of an element, by the ICSD; empty where it has none."""
    from smact.data_loader import lookup_element_oxidation_states_icsd24

    return tuple(sorted(state for state in lookup_element_oxidation_states_icsd24(symbol) or () if state))


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
    """Oxidation states, one of each element, that add up to nothing. ``states``: those of some elements, in place of the ICSD's."""

    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    electronegativity_order: bool = False

    def states_of(self, symbol: str) -> tuple[int, ...]:
        return tuple(self.states[symbol]) if symbol in self.states else oxidation_states(symbol)

    def holds(self, elements: Sequence[str], counts: Counts) -> NDArray[np.bool_]:
        """(m,) which compositions are neutral."""
        found = np.zeros(len(counts), dtype=bool)
        present = counts > 0
        for kinds in np.unique(present, axis=0):
            rows = np.flatnonzero((present == kinds).all(1))
            columns = np.flatnonzero(kinds)
            symbols = tuple(elements[column] for column in columns)
            found[rows] = True if len(symbols) == 1 else _is_neutral(counts[rows][:, columns], *self._charges(symbols))
        return found

    def _charges(self, symbols: tuple[str, ...]) -> tuple[Counts, Counts]:
        return _combinations(symbols, tuple(self.states_of(symbol) for symbol in symbols), self.electronegativity_order)

    def violation(self, counts: Mapping[str, int]) -> str:
        symbols = sorted(counts)
        if self.holds(symbols, np.array([[counts[symbol] for symbol in symbols]]))[0]:
            return ""
        without = [symbol for symbol in symbols if not self.states_of(symbol)]
        if without:
            return f"{', '.join(without)} has no oxidation state"
        order = " and keep the order of electronegativities" if self.electronegativity_order else ""
        return f"no oxidation states of {', '.join(symbols)} cancel{order}"


@lru_cache(maxsize=4096)
def _combinations(symbols: tuple[str, ...], states: tuple[tuple[int, ...], ...], is_ordered: bool) -> tuple[Counts, Counts]:
    """(c, elements) the lower state of each element, and the gap (0, 1 or 2) to the other one that some of its atoms may take.

    Raises InputError where there are too many to try.
    """
    options = [_options(symbol, known) for symbol, known in zip(symbols, states, strict=True)]
    n_combinations = int(np.prod([len(option) for option in options], dtype=float))
    if n_combinations > _MOST_COMBINATIONS:
        raise InputError(
            f"{', '.join(symbols)} have {n_combinations} combinations of oxidation states, more than {_MOST_COMBINATIONS}",
            hint="name the states that count under space: {oxidation_states: {Fe: [2, 3]}}",
        )
    grid = np.array(list(itertools.product(*options)), dtype=np.int64).reshape(-1, len(symbols), 2)
    low, gap = grid[..., 0], grid[..., 1]
    keep = (low < 0).any(1) & (low > 0).any(1)
    if is_ordered:
        pull = np.array([electronegativity(symbol) for symbol in symbols])
        cations, anions = np.where(low > 0, pull, -np.inf).max(1), np.where(low < 0, pull, np.inf).min(1)
        keep &= cations < anions
    return low[keep], gap[keep]


def _options(symbol: str, states: Sequence[int]) -> list[tuple[int, int]]:
    """(lower state, gap): neighbouring states of one sign where valences mix, and each state that belongs to no such pair."""
    known = sorted(set(states))
    pairs = [
        (low, high - low)
        for low, high in itertools.pairwise(known)
        if _has_mixed_valence(symbol) and low * high > 0 and high - low in _MIXED_GAPS
    ]
    paired = {low for low, _ in pairs} | {low + gap for low, gap in pairs}
    return pairs + [(state, 0) for state in known if state not in paired]


def _is_neutral(counts: Counts, low: Counts, gap: Counts) -> NDArray[np.bool_]:
    """(m,) whether some combination leaves a charge that raised atoms can cancel: sum n low + sum j gap = 0 with 0 <= j <= n."""
    found = np.zeros(len(counts), dtype=bool)
    if not len(low):
        return found
    step = np.gcd.reduce(gap, axis=1)
    for start in range(0, len(counts), max(1, _CHUNK // len(low))):
        part = slice(start, start + max(1, _CHUNK // len(low)))
        lacking = -(counts[part] @ low.T)
        most = counts[part] @ gap.T
        found[part] = ((lacking >= 0) & (lacking <= most) & (lacking % np.maximum(step, 1) == 0)).any(1)
    return found


@dataclass(frozen=True)
class FixedRatio:
    """Atoms of some elements in a fixed ratio, all of them there: Li to O as 1 to 2."""

    ratios: Mapping[str, int] = field(hash=False)

    def holds(self, elements: Sequence[str], counts: Counts) -> NDArray[np.bool_]:
        """(m,) which compositions have the ratio."""
        units = np.stack([counts[:, list(elements).index(symbol)] / share for symbol, share in self.ratios.items()], axis=1)
        return np.asarray((units > 0).all(1) & (np.ptp(units, axis=1) < 1e-9))

    def violation(self, counts: Mapping[str, int]) -> str:
        units = {counts.get(symbol, 0) / share for symbol, share in self.ratios.items()}
        if len(units) == 1 and 0 not in units:
            return ""
        told = " : ".join(self.ratios), " : ".join(str(counts.get(symbol, 0)) for symbol in self.ratios)
        return f"{told[0]} is {told[1]}, wanted {' : '.join(str(share) for share in self.ratios.values())}"


@dataclass(frozen=True)
class ValueBound:
    """A quantity that the composition alone decides is at least (sign +1) or at most (sign -1) a value, in its unit."""

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
        return f"{self.quantity} is {found}, allowed at {'least' if self.sign > 0 else 'most'} {self.value:g} {KNOWN[self.quantity].unit}"
