"""What is looked at needs the campaign's folder alone: not the project, its modules or its
potentials.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from support import SMALL, merged
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import InputError

MODULE = """
from campaign.types import Evaluation, Quantity
SIZE = Quantity("size", "1")
class Size:
    quantities = (SIZE,)
    def evaluate(self, crystal):
        return Evaluation.single(SIZE, float(crystal.numbers.sum()))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a campaign whose project is gone."""
    home = tmp_path_factory.mktemp("home")
    (home / "gone_with_the_project.py").write_text(MODULE)
    with (home / "case.yaml").open("w") as file:
        changes = {
            "oracles": [{"use": "gone_with_the_project:Size"}],
            "objective": {"quantity": "size"},
            "budget": {"labels": 10},
            "acquisition": {"batch_size": 2},
        }
        YAML().dump(merged(SMALL, changes), file)
    folder = tmp_path_factory.mktemp("odd ? # % folder") / "camp"
    Campaign.from_config(home / "case.yaml", folder).run()
    shutil.rmtree(home)
    return folder


def test_views_work_without_the_project(
    ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    best = next(iter((Campaign.open(ended).labels).candidate))
    for arguments in (
        ["status", str(ended)],
        ["report", str(ended)],
        ["export", str(ended), "--formats", "extxyz"],
        ["list", str(ended.parent)],
        ["compare", str(ended), str(ended)],
        ["explain", str(ended), best],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
    assert len(Campaign.open(ended).rounds) == len(Campaign.open(ended).state().rounds)


def test_going_on_names_what_is_missing(ended: Path) -> None:
    sys.modules.pop("gone_with_the_project", None)
    with pytest.raises(InputError, match="cannot import 'gone_with_the_project'"):
        Campaign.open(ended).run()


def test_the_ledger_lies_in_its_folder_whatever_this_is_called(ended: Path) -> None:
    assert (ended / "ledger.db").exists()
    assert {path.name for path in ended.parent.iterdir()} == {"camp"}
