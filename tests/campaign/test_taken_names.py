"""A module of the user's that has the name of one of Python's, or of an installed package, gives
one clear error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, load

from campaign.errors import InputError

ORACLE = """
from campaign.types import Evaluation, VOLUME_PER_ATOM
class Mine:
    quantities = (VOLUME_PER_ATOM,)
    def evaluate(self, crystal):
        return Evaluation.single(VOLUME_PER_ATOM, crystal.volume / len(crystal))
"""
CHANGES: dict[str, Any] = {"objective": {"quantity": "volume_per_atom"}}


@pytest.mark.parametrize(
    "name", ["random", "types", "calendar", "lammps", "numpy", "campaign", "oracles"]
)
@pytest.mark.parametrize("is_used", [True, False])
def test_taken_names_are_refused(tmp_path: Path, name: str, is_used: bool) -> None:
    (tmp_path / f"{name}.py").write_text(ORACLE)
    (tmp_path / "an_oracle_of_mine.py").write_text(ORACLE)
    module = name if is_used else "an_oracle_of_mine"
    with pytest.raises(
        InputError, match=f"has the name of .*{name!r}, which it would shadow"
    ) as error:
        _ = load(tmp_path, oracles=[{"use": f"{module}:Mine"}], **CHANGES).parts
    assert f"my_{name}.py" in error.value.hint


def test_free_names_and_tests_beside_them_are_fine(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    (tmp_path / "test.py").write_text("")
    (tmp_path / "a_free_name.py").write_text(ORACLE)
    assert load(tmp_path, oracles=[{"use": "a_free_name:Mine"}], **CHANGES).parts.oracles
    assert load(HELPERS).parts.oracles


def test_a_module_that_fails_on_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "breaks_on_import.py").write_text("1 / 0\n")
    with pytest.raises(
        InputError, match=r"'breaks_on_import' .* cannot be imported: ZeroDivisionError"
    ):
        _ = load(tmp_path, oracles=[{"use": "breaks_on_import:Mine"}], **CHANGES).parts
