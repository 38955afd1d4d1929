"""Sources of a campaign pass the door: what cannot be read ends the reading, or is skipped and
counted, also in tables.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io.trajectory import Trajectory
from reading.texts import FRAME, cif

from campaign.config.schema import SourceConfig
from campaign.errors import InputError
from campaign.reading.structures import read_structures
from campaign.rounds.sources import read


def test_a_tables_bad_rows_are_refused_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["cif", "energy"])
        rows.writerows(
            [
                [cif(), -1.0],
                [cif("X1 X 0 0 0 1"), -2.0],
                [cif(head="_chemical_formula_sum 'Ni1'"), -3.0],
                [cif(), -4.0],
            ]
        )
    source = SourceConfig(path=str(path), columns={"energy_per_atom": "energy"})
    with pytest.raises(InputError, match=r"table\.csv, row 2.*'X' is no element"):
        list(read(path, source))
    with caplog.at_level(logging.WARNING):
        found = [
            entry.values for entry in read(path, source.model_copy(update={"on_error": "skip"}))
        ]
    assert found == [{"energy_per_atom": -1.0}, {"energy_per_atom": -4.0}]
    assert "2 skipped" in caplog.text


def test_files_without_labels_are_no_source_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(cif())
    with pytest.raises(InputError, match=r"a\.cif, block 'x': the file holds no labels"):
        list(
            read(
                tmp_path / "a.cif",
                SourceConfig(path="a.cif", columns={"energy_per_atom": "energy"}),
            )
        )


def test_energies_of_frames_come_by_their_key(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_text(FRAME)
    source = SourceConfig(path="a.extxyz", columns={"energy_per_atom": "energy"})
    assert [entry.values for entry in read(tmp_path / "a.extxyz", source)] == [
        {"energy_per_atom": -9.0}
    ]


def test_trajectories_are_read_and_damaged_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.traj"
    with Trajectory(str(path), "w") as file:
        file.write(bulk("Ni"))
        file.write(bulk("Cu"))
    assert [entry.crystal.formula for entry in read_structures(path)] == ["Ni1", "Cu1"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a\.traj"):
        list(read_structures(path))
