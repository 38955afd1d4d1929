"""Errors of the user's own code are told as theirs, with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, merged

from campaign.api import Campaign
from campaign.blame import OwnCodeError, own_frame, theirs
from campaign.config import loaded as configs
from campaign.errors import InputError, StoppedByFailuresError
from campaign.executors.worker import ComputeWorker

OWN = """
import numpy as np
from campaign.types import Quantity

class Unmade:
    quantities = (Quantity("energy_per_atom", "eV/atom"),)
    def __init__(self):
        raise KeyError("model")                                  # line 8
    def evaluate(self, crystal): ...

class Breaks:
    quantities = (Quantity("energy_per_atom", "eV/atom"),)
    def evaluate(self, crystal):
        return np.linalg.inv(np.zeros((2, 2)))                   # line 14

class Divides:
    def generate(self, n, *, rng, context):
        yield 1 / 0                                              # line 18

class Numbers:
    def generate(self, n, *, rng, context):
        return [3]

class Judge:
    def judge(self, candidate, space):
        return {}["x"]                                           # line 26

class Silent:
    def judge(self, candidate, space): ...

class Model:
    def fit(self, candidates, values, *, previous=None):
        raise RuntimeError("no fit")                             # line 33
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module lies, which is imported once."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_parts.py").write_text(OWN)
    return folder


def run(home: Path, folder: Path, changes: dict[str, Any]) -> None:
    loaded = configs.validate(merged(SMALL, changes), folder=home, source=Path("c.yaml"))
    _ = loaded.parts
    Campaign(folder / "campaign", loaded).run()


@pytest.mark.parametrize(
    ("changes", "message", "line"),
    [
        ({"oracles": [{"use": "own_parts:Unmade"}]}, "KeyError: 'model' (own_parts.py, line 8)", 8),
        (
            {"generators": [{"use": "own_parts:Divides"}]},
            "ZeroDivisionError: division by zero (own_parts.py, line 18)",
            18,
        ),
        (
            {"screens": {"extra": [{"use": "own_parts:Judge"}]}},
            "KeyError: 'x' (own_parts.py, line 26)",
            26,
        ),
        (
            {"surrogate": {"use": "own_parts:Model"}},
            "RuntimeError: no fit (own_parts.py, line 33)",
            33,
        ),
    ],
)
def test_what_a_component_raises_is_told_with_its_place(
    home: Path, tmp_path: Path, changes: dict[str, Any], message: str, line: int
) -> None:
    with pytest.raises(InputError) as caught:
        run(home, tmp_path, changes)
    assert f"code of your own failed: {message}" in caught.value.message
    assert f"mend {home / 'own_parts.py'}, line {line}, in " in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"generators": [{"use": "own_parts:Numbers"}]},
            "the generator own_parts:Numbers gave int, expected pairs",
        ),
        (
            {"screens": {"extra": [{"use": "own_parts:Silent"}]}},
            "the screen Silent gave NoneType, expected a Verdict",
        ),
    ],
)
def test_answers_of_a_wrong_kind_are_told(
    home: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(home, tmp_path, changes)


def test_failures_of_an_oracle_name_its_own_line_where_a_library_raised(
    home: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        StoppedByFailuresError, match=r"LinAlgError: Singular matrix \(own_parts.py, line 14\)"
    ):
        run(
            home,
            tmp_path,
            {"oracles": [{"use": "own_parts:Breaks"}], "failure_policy": {"window": 3}},
        )


def test_a_module_that_lacks_another_is_told_by_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "lacking_parts.py").write_text("\nimport no_such_library\n")
    changes = {"generators": [{"use": "lacking_parts:Thing"}]}
    with pytest.raises(InputError) as caught:
        _ = configs.validate(merged(SMALL, changes), folder=tmp_path, source=Path("c.yaml")).parts
    assert "No module named 'no_such_library' (lacking_parts.py, line 2)" in caught.value.message
    assert "install what holds 'no_such_library'" in caught.value.hint


def test_errors_of_ours_and_of_libraries_stay_as_they_are() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        ComputeWorker(1).perform(json.loads, "{")
    assert own_frame(caught.value) is not None, "this test is the user's own"
    assert caught.value.__traceback__ is not None
    assert own_frame(caught.value.with_traceback(caught.value.__traceback__.tb_next)) is None
    with pytest.raises(OwnCodeError, match=r"JSONDecodeError: .* \(test_blame.py, line"), theirs():
        json.loads("{")
