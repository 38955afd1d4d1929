"""The screen of relaxed energies, on the closed-form oracle and by hand-made ones."""

from __future__ import annotations

import numpy as np

from campaign.crystals.lattice import supercell
from campaign.types import Candidate, Crystal, SearchSpace
from oracles.relaxation_screen import RelaxationScreen, RelaxationScreenConfig

SPACE = SearchSpace(("Ni", "Fe", "Cr"))
IDEAL = supercell("bcc", (2, 2, 2), ["Cr"] * 16)
POTENTIAL = {"potential": "wu_lee_su_2017"}


def screen(max_energy: float, max_release: float = 1.0) -> RelaxationScreen:
    config = RelaxationScreenConfig(
        oracle="lammps",
        params=POTENTIAL,
        max_energy=max_energy,
        max_release=max_release,
    )
    return RelaxationScreen(config)


def shaken(width: float) -> Crystal:
    rng = np.random.default_rng(0)
    moved = IDEAL.fractional + rng.normal(0, width, (16, 3)) @ np.linalg.inv(IDEAL.lattice)
    return Crystal(IDEAL.lattice, moved, IDEAL.numbers)


def test_a_crystal_near_its_minimum_passes_and_others_are_told_why() -> None:
    relaxed = screen(-4.0)
    assert relaxed.judge(Candidate(shaken(0.03)), SPACE).accepted
    far = relaxed.judge(Candidate(shaken(0.3)), SPACE)
    assert not far.accepted
    assert "relaxation releases" in far.reason
    assert "allowed up to 1" in far.reason
    high = screen(-5.0).judge(Candidate(IDEAL), SPACE)
    assert not high.accepted
    assert "eV/atom after relaxation, allowed up to -5" in high.reason


def test_what_has_no_energy_is_refused() -> None:
    verdict = screen(-4.0).judge(
        Candidate(IDEAL.with_numbers(np.full(16, 6, dtype=np.uint8))), SPACE
    )
    assert not verdict.accepted
    assert verdict.reason.startswith("no energy")
