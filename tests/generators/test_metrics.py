"""Metrics of generated crystals on cases whose answers are plain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from typer.testing import CliRunner

from campaign.cli import app
from campaign.crystals.lattice import supercell
from campaign.types import Crystal
from generators.fingerprints import SIZE, fingerprint
from generators.metrics import (
    composition_error,
    generation,
    is_match,
    is_valid,
    phase_share,
    reconstruction,
)

BCC = supercell("bcc", (2, 2, 2), ["Fe"] * 8 + ["Cr"] * 8)
FCC = supercell("fcc", (2, 2, 2), ["Fe"] * 8 + ["Cr"] * 8)


def shaken(crystal: Crystal, width: float) -> Crystal:
    rng = np.random.default_rng(0)
    return Crystal(
        crystal.lattice,
        crystal.fractional + rng.normal(0, width, (16, 3)) @ np.linalg.inv(crystal.lattice),
        crystal.numbers,
    )


def overlapping() -> Crystal:
    fractional = BCC.fractional.copy()
    fractional[1] = fractional[0] + 0.01
    return Crystal(BCC.lattice, fractional, BCC.numbers)


def test_validity() -> None:
    assert is_valid(BCC)
    assert not is_valid(overlapping())
    salt = np.array([11, 17] * 8, dtype=np.uint8)
    assert is_valid(BCC.with_numbers(salt))
    assert not is_valid(BCC.with_numbers(np.array([11] * 15 + [17], dtype=np.uint8)))


def test_a_crystal_matches_itself_seen_otherwise_and_no_other_phase() -> None:
    assert is_match(BCC, shaken(BCC, 0.02))
    assert not is_match(BCC, BCC.with_numbers(np.resize(np.array([26, 24], dtype=np.uint8), 16)))


def test_phase_shares() -> None:
    assert phase_share(shaken(BCC, 0.05), "bcc") == 1
    assert phase_share(shaken(FCC, 0.05), "fcc") == 1
    assert phase_share(FCC, "bcc") == 0


def test_composition_error_is_the_share_of_wrong_atoms() -> None:
    numbers = BCC.numbers.copy()
    numbers[:4] = 28
    assert composition_error(BCC, BCC.with_numbers(numbers)) == pytest.approx(0.25)
    assert composition_error(BCC, BCC) == 0


def test_reconstruction_of_the_same_is_perfect_and_of_the_broken_is_told() -> None:
    same = reconstruction([BCC, FCC], [BCC, FCC])
    assert (
        same.match_rate,
        same.fingerprint_distance,
        same.g_distance,
        same.cp_g_distance,
        same.valid,
    ) == (1, 0, 0, 0, 1)
    half = reconstruction([BCC, FCC], [overlapping(), FCC], with_fingerprints=False)
    assert half.valid == 0.5
    assert half.match_rate == 0.5
    assert half.cp_g_distance == 0
    swapped = reconstruction([BCC], [FCC], with_fingerprints=False)
    assert swapped.cp_g_distance == pytest.approx(1.3, abs=0.15)


def test_fingerprints_tell_phases_apart_and_not_the_view() -> None:
    one = fingerprint(BCC)
    assert one.shape == (SIZE,) == (61,)
    np.testing.assert_allclose(
        fingerprint(Crystal(BCC.lattice, BCC.fractional + 0.3, BCC.numbers)), one, atol=1e-6
    )
    assert np.linalg.norm(one - fingerprint(FCC)) > 0.5


def test_generation_counts_what_is_valid_once_and_new() -> None:
    nickel = FCC.with_numbers(np.full(16, 28, dtype=np.uint8))
    found = generation([BCC, shaken(BCC, 0.01), nickel, overlapping()], known=[nickel])
    assert found == {"valid": 0.75, "unique": 0.5, "novel": 0.25}


def test_the_command_prints_the_figures(tmp_path: Path) -> None:
    made, wanted = tmp_path / "made.extxyz", tmp_path / "wanted.extxyz"
    write(made, [shaken(BCC, 0.02).atoms, overlapping().atoms])
    write(wanted, [BCC.atoms, BCC.atoms])
    runner = CliRunner()
    done = runner.invoke(
        app, ["evaluate", "crystals", str(made), "--wanted", str(wanted), "--no-fingerprints"]
    )
    assert done.exit_code == 0, done.output
    figures = {
        row[0]: row[1]
        for row in (line.strip("│ ").split("│") for line in done.output.splitlines())
        if len(row) == 2
    }
    figures = {name.strip(): value.strip() for name, value in figures.items()}
    assert figures["valid"] == "0.5"
    assert figures["match rate"] == "0.5"
    assert float(figures["cp g distance"]) < 0.2
    assert "novel" not in figures
    write(wanted, [BCC.atoms])
    failed = runner.invoke(app, ["evaluate", "crystals", str(made), "--wanted", str(wanted)])
    assert failed.exit_code != 0
    assert "as many crystals" in f"{failed.output} {failed.exception}"
