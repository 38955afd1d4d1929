"""What was found: stable by the hull as it stands, unique by the screens' matcher, novel beside a
table of the known.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import load
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import InputError
from campaign.report.finds import found_of, hits
from campaign.report.found import found, known_crystals, tallies
from campaign.types import Crystal
from campaign.views.view import OpenView


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("searched")
    changes = {
        "objective": {"quantity": "energy_above_hull", "direction": "minimize"},
        "space": {"elements": ["Ni", "Fe", "Cr"], "max_fraction": 1.0},
        "generators": [{"use": "ordered_alloy", "count": 40, "params": {"atoms": [2, 4]}}],
        "acquisition": {"use": "hull", "initial_labels": 8, "batch_size": 4},
        "budget": {"labels": 24},
    }
    campaign = Campaign(folder / "campaign", load(folder, **changes))
    campaign.run()
    return campaign


def rattled(crystal: Crystal, seed: int) -> Crystal:
    """The same crystal, twice as large, at another volume and out of place by 0.005 angstrom."""
    atoms = crystal.atoms.repeat((2, 1, 1))
    atoms.set_cell(atoms.cell * 1.04, scale_atoms=True)
    atoms.rattle(0.005, seed=seed)
    return Crystal.from_atoms(atoms)


def test_stable_unique_and_novel_by_hand(searched: Campaign, tmp_path: Path) -> None:
    state, reader = searched.state(), searched.reader()
    rows = found(state, reader, "lennard_jones", tolerance=0.005)
    assert [row.label.sequence for row in rows] == sorted(row.label.sequence for row in rows)
    assert all(row.is_stable == (row.above_hull <= 0.005) for row in rows)
    stable = [row for row in rows if row.is_stable]
    assert 0 < len(stable) < len(rows)
    for row in rows:
        if row.copy_of:
            earlier = next(other for other in rows if other.label.candidate == row.copy_of)
            assert earlier.label.sequence < row.label.sequence
            assert (
                earlier.crystal.structure.composition.reduced_formula
                == row.crystal.structure.composition.reduced_formula
            )

    first = next(row for row in stable if row.is_unique)
    rattled(first.crystal, 1).atoms.write(tmp_path / "known-7.cif")
    rattled(first.crystal.with_numbers(np.full(len(first.crystal), 29)), 1).atoms.write(
        tmp_path / "foreign.cif"
    )
    known = known_crystals(tmp_path, searched.loaded.config.space.elements)
    assert len(known) == 1
    again = {
        row.label.candidate: row
        for row in found(state, reader, "lennard_jones", tolerance=0.005, known=known)
    }
    assert "known-7" in again[first.label.candidate].known_as
    assert not again[first.label.candidate].is_new
    before, after = (tallies(list(some), lambda item: "")[""] for some in (rows, again.values()))
    assert (after.labelled, after.stable, after.unique) == (
        before.labelled,
        before.stable,
        before.unique,
    )
    assert after.novel == before.novel - 1
    assert first.space_group
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert first.prototype
    reader.close()


def test_references_are_no_finds(searched: Campaign) -> None:
    reader = searched.reader()
    rows = found_of(OpenView(searched.loaded, searched.state(), reader), tolerance=10.0)
    assert all(row.label.purpose == "" for row in rows)
    assert len(rows) == 24
    reader.close()


def test_the_command_tells_terms_and_writes_every_hit(
    searched: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    target = tmp_path / "hits.csv"
    result = CliRunner().invoke(
        app, ["found", str(searched.folder), "--tolerance", "0.005", "--target", str(target)]
    )
    assert result.exit_code == 0, result.output
    assert "at most 0.005 eV/atom above the hull" in result.output
    assert "no table of the known" in result.output
    written = pd.read_csv(target)
    reader = searched.reader()
    assert len(written) == len(
        hits(found_of(OpenView(searched.loaded, searched.state(), reader), tolerance=0.005))
    )
    reader.close()
    assert written["above hull (eV/atom)"].is_monotonic_increasing


def test_the_report_has_them(searched: Campaign) -> None:
    result = CliRunner().invoke(app, ["report", str(searched.folder)])
    assert result.exit_code == 0, result.output
    page = (searched.folder / "report.html").read_text()
    assert "Stable and unique" in page
    assert "Not compared with a table of the known" in page


def test_bad_tables_and_hulls_are_told(searched: Campaign, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["found", str(searched.folder), "--known", str(tmp_path / "gone.csv")]
    )
    assert result.exit_code == 2
    assert "there is no table" in " ".join(result.output.split())
    plain = Campaign(tmp_path / "plain", load(tmp_path, budget={"labels": 9}))
    plain.run()
    reader = plain.reader()
    with pytest.raises(InputError, match="no hull"):
        found(plain.state(), reader, "lennard_jones")
    reader.close()
