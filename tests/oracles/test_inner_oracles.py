"""Oracles that screens and other oracles ask: settings as seen from the config's folder, and wrong
ones told before anything runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import load

from campaign.crystals.references import elemental
from campaign.errors import InputError
from campaign.types import Candidate, SearchSpace
from oracles.lammps.potentials import shipped_folder

SPACE = {"elements": ["Ni", "Al"], "max_fraction": 1.0}
GENERATOR = [{"use": "ordered_alloy", "params": {"atoms": [2]}}]
ASKING = {
    "relaxation": {"max_energy": -1.0},
    "above_hull": {},
    "phonons": {},
}


def config(folder: Path, use: str, params: dict[str, Any], oracle: str = "lammps") -> Any:
    screen = {"use": use, "params": {"oracle": oracle, "params": params, **ASKING[use]}}
    return load(folder, space=SPACE, generators=GENERATOR, screens={"extra": [screen]})


@pytest.mark.parametrize("use", ASKING)
def test_files_of_an_inner_oracle_lie_beside_the_config(tmp_path: Path, use: str) -> None:
    folder = shipped_folder()
    assert folder is not None
    shutil.copy(folder / "NiAlH_jea.eam.alloy", tmp_path / "mine.eam.alloy")
    loaded = config(tmp_path, use, {"potential": {"file": "mine.eam.alloy"}})
    (screen,) = loaded.parts.screens
    assert screen.judge(Candidate(elemental("Ni")), SearchSpace(("Ni", "Al"))).accepted


@pytest.mark.parametrize("use", ASKING)
def test_wrong_settings_of_an_inner_oracle_are_told_with_their_place(
    tmp_path: Path, use: str
) -> None:
    with pytest.raises(
        InputError,
        match=r"screens\.extra\.0\.params\.params\.potental: unknown key; did you mean 'potential'",
    ):
        _ = config(tmp_path, use, {"potental": "x"}).parts
    with pytest.raises(InputError, match="there is no oracle called 'lamps'") as raised:
        _ = config(tmp_path, use, {}, oracle="lamps").parts
    assert "did you mean 'lammps'" in raised.value.hint
    with pytest.raises(InputError, match="waits for the committee that a campaign trains"):
        _ = config(tmp_path, use, {"committee": True}, oracle="mace").parts
