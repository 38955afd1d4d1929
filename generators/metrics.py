"""How good generated crystals are: beside the crystals they should resemble, and beside what is
known. Usable on any generator.

Match rate: pymatgen's StructureMatcher with the tolerances of T. Xie et al., ICLR 2022 (stol 0.5,
angle_tol 10, ltol 0.3), which take some bcc and fcc cells of one ordering for the same; a crystal
that cannot be compared counts as no match. What is unique and novel is told by
``campaign.crystals.matching``, as the screens of a campaign tell it. Fingerprints:
``generators.fingerprints``. G-distances: ``campaign.crystals.gvectors``. Phases: common neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from campaign.crystals.gvectors import g_distance
from campaign.crystals.matching import Distinct, Matcher, equivalence_key, key_or_none
from campaign.crystals.neighbours import SCALED_CUTOFF, is_flat, length_scale, shortest_distance
from campaign.crystals.phases import Phase, classify
from campaign.types import Crystal
from generators.fingerprints import fingerprint

LEAST_DISTANCE, LEAST_VOLUME = 0.5, 0.1
STOL, ANGLE_TOL, LTOL = 0.5, 10.0, 0.3


@dataclass(frozen=True)
class Reconstruction:
    """Means over pairs. Distances that exist for no pair are not a number.

    ``g_distance`` is over the pairs of one composition; ``composition_error`` is half the summed
    difference of atomic fractions (1).
    """

    pairs: int
    match_rate: float
    fingerprint_distance: float
    g_distance: float
    cp_g_distance: float
    composition_error: float
    same_size: float
    valid: float


def is_valid(crystal: Crystal) -> bool:
    """Atoms at least 0.5 angstrom apart, a volume of at least 0.1 cubic angstrom, and charges that
    can balance (metals' always do).
    """
    has_shape = len(crystal) > 0 and not is_flat(
        crystal.lattice, SCALED_CUTOFF * length_scale(crystal.lattice, len(crystal))
    )
    has_room = (
        has_shape
        and crystal.volume >= LEAST_VOLUME
        and shortest_distance(crystal) >= LEAST_DISTANCE
    )
    return has_room and _is_balanced(frozenset(crystal.symbols), crystal.formula)


@lru_cache(maxsize=4096)
def _is_balanced(symbols: frozenset[str], formula: str) -> bool:
    from pymatgen.core import Composition, Element

    is_simple = len(symbols) == 1 or all(Element(symbol).is_metal for symbol in symbols)
    return is_simple or bool(Composition(formula).oxi_state_guesses(max_sites=-1))


def is_match(one: Crystal, other: Crystal) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=LTOL)
    return matcher.get_rms_dist(one.structure, other.structure) is not None


def phase_share(crystal: Crystal, phase: str) -> float:
    """The share of atoms whose neighbours are those of the phase: fcc, hcp, bcc or other."""
    return float((classify(crystal) == Phase[phase.upper()]).mean())


def composition_error(one: Crystal, other: Crystal) -> float:
    """Half the summed absolute difference of atomic fractions, 0 to 1."""
    share = [np.bincount(crystal.numbers, minlength=120) / len(crystal) for crystal in (one, other)]
    return float(0.5 * np.abs(share[0] - share[1]).sum())


def reconstruction(
    wanted: Sequence[Crystal], got: Sequence[Crystal], *, with_fingerprints: bool = True
) -> Reconstruction:
    """How near each crystal comes to the one at its place among those wanted."""
    found: dict[str, list[float]] = {
        name: [] for name in ("match", "fingerprint", "g", "cp", "composition", "size", "valid")
    }
    for one, other in zip(wanted, got, strict=True):
        valid = is_valid(other)
        found["valid"].append(valid)
        found["match"].append(valid and is_match(one, other))
        found["composition"].append(composition_error(one, other))
        found["size"].append(len(one) == len(other))
        if valid and len(one) == len(other):
            found["cp"].append(g_distance(one, other, by_element=False))
        if valid and one.formula == other.formula:
            found["g"].append(g_distance(one, other))
        if valid and with_fingerprints:
            found["fingerprint"].append(
                float(np.linalg.norm(fingerprint(one) - fingerprint(other)))
            )
    mean = {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
        for name, values in found.items()
    }
    return Reconstruction(
        len(found["match"]),
        mean["match"],
        mean["fingerprint"],
        mean["g"],
        mean["cp"],
        mean["composition"],
        mean["size"],
        mean["valid"],
    )


def generation(crystals: Sequence[Crystal], known: Sequence[Crystal] = ()) -> Mapping[str, float]:
    """Shares that are valid, that are no copy of another of the set, and no copy of a known one;
    the unique and novel are valid too.

    Copies differ by no more than the tolerances of a campaign's screens, whatever their cells and
    volumes.
    """
    valid = [crystal for crystal in crystals if is_valid(crystal)]
    unique, seen = Distinct(Matcher()), Distinct(Matcher())
    for crystal in known:
        seen.add(crystal.id, key_or_none(crystal), crystal)
    n_unique = n_novel = 0
    for crystal in valid:
        key = equivalence_key(crystal)
        if unique.find(crystal, key) is None:
            unique.add(crystal.id, key, crystal)
            n_unique += 1
            n_novel += seen.find(crystal, key) is None
    n = max(1, len(crystals))
    return {"valid": len(valid) / n, "unique": n_unique / n, "novel": n_novel / n}
