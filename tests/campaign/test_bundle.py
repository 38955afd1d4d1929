"""An evidence bundle holds all that is needed to check a campaign, and a changed one is found out,
however it was changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML
from support import SMALL, merged
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.bundle import verify, write_bundle
from campaign.bundle.verifying import _code_of
from campaign.cli import app
from campaign.errors import InputError
from campaign.views.view import OpenView

MODULE = """
from pathlib import Path
from pydantic import BaseModel
from campaign.parameters import ConfigPath
from campaign.types import ENERGY_PER_ATOM, Evaluation
from weighed_by import factor

class Weighed:
    class Config(BaseModel):
        weights: ConfigPath
    quantities = (ENERGY_PER_ATOM,)
    def __init__(self, config):
        self.weight = float(config.weights.read_text())
    def evaluate(self, crystal):
        return Evaluation.single(ENERGY_PER_ATOM, -factor(self.weight) * float(crystal.numbers.mean()))
"""  # noqa: E501


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a campaign whose project and folder are gone."""
    home = tmp_path_factory.mktemp("home")
    (home / "weighed.py").write_text(MODULE)
    (home / "weighed_by.py").write_text("def factor(weight): return weight / 2\n")
    (home / "data").mkdir()
    (home / "data" / "weights.txt").write_text("0.5")
    changes = {
        "oracles": [{"use": "weighed:Weighed", "params": {"weights": "data/weights.txt"}}],
        "budget": {"labels": 14},
    }
    with (home / "case.yaml").open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    campaign = Campaign.from_config(home / "case.yaml", home / "camp")
    campaign.run()
    target = tmp_path_factory.mktemp("published") / "bundle"
    reader = campaign.reader()
    write_bundle(OpenView(campaign.loaded, campaign.state(), reader), target)
    with pytest.raises(InputError, match="already"):
        write_bundle(OpenView(campaign.loaded, campaign.state(), reader), target)
    reader.close()
    shutil.rmtree(home)
    return target


@pytest.fixture
def bundle(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "bundle"))


def failed(bundle: Path, sample: int = 4) -> list[str]:
    return [
        check.name
        for check in verify(bundle, sample=sample, runs_code=True)
        if check.status == "failed"
    ]


def sign_again(bundle: Path) -> None:
    """The list of files as one who tampers would write it."""
    path = bundle / "ro-crate-metadata.json"
    document = json.loads(path.read_bytes())
    for item in document["@graph"]:
        if "sha256" in item:
            item["sha256"] = hashlib.sha256((bundle / item["@id"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(document))


def with_history(bundle: Path, change: Callable[[str], str]) -> None:
    """The journal's text changed, its checksums made to hold."""
    path = bundle / "ledger" / "journal.jsonl"
    lines = [change(line[9:]) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{zlib.crc32(line.encode()):08x} {line}\n" for line in lines))


def test_a_bundle_verifies_without_the_campaign(bundle: Path) -> None:
    checks = list(verify(bundle, sample=4, runs_code=True))
    assert [check.status for check in checks] == ["passed"] * 7, checks
    assert "14 labels" in checks[1].detail
    assert (bundle / "weighed.py").exists()
    assert (bundle / "weighed_by.py").exists()
    assert "energy_per_atom" in (bundle / "methods.md").read_text()


def test_the_command_tells_what_holds_and_exits_so(bundle: Path) -> None:
    fine = CliRunner().invoke(app, ["verify", str(bundle), "--sample", "1"])
    assert fine.exit_code == 0, fine.output
    other = CliRunner().invoke(
        app, ["verify", str(bundle), "--sample", "0", "--fingerprint", "abc"]
    )
    assert other.exit_code == 2
    assert "expected abc" in other.output
    nothing = CliRunner().invoke(app, ["verify", str(bundle.parent)])
    assert nothing.exit_code == 2
    assert "no evidence bundle" in " ".join(nothing.output.split())


def test_code_that_came_with_a_bundle_runs_only_where_asked_for(bundle: Path) -> None:
    (bundle / "weighed.py").write_text("raise SystemExit('was run')")
    sign_again(bundle)
    *_, last = verify(bundle)
    assert (last.status, last.name) == ("skipped", "labels again")
    assert "--run-code" in last.detail


@pytest.mark.parametrize(
    ("oracle", "named"),
    [
        ({"use": "ase", "params": {"calculator": "os:system"}}, "os:system"),
        ({"use": "lennard_jones", "python": "./program"}, "./program"),
        ({"use": "vasp", "params": {"command": ["rm", "all"]}}, "rm"),
        ({"use": "committee", "params": {"members": [{"use": "mine:Oracle"}]}}, "mine:Oracle"),
        ({"use": "mace", "params": {"model": "inputs/1-a.model"}}, "inputs/1-a.model"),
        (
            {
                "use": "lammps",
                "params": {"potential": "Ni99.eam.alloy"},
                "sanity": {"energy_per_atom": [-9, 0]},
            },
            "",
        ),
    ],
)
def test_all_that_would_run_as_code_is_seen(oracle: dict[str, Any], named: str) -> None:
    assert next(_code_of(oracle), "") == named


@pytest.mark.parametrize(
    "name",
    [
        "labels.parquet",
        "ledger/journal.jsonl",
        "report.html",
        "weighed.py",
        "config.yaml",
        "labels.extxyz",
    ],
)
def test_any_changed_file_is_found_out(bundle: Path, name: str) -> None:
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert failed(bundle) == ["files"]


def test_missing_and_foreign_files_are_found_out(bundle: Path) -> None:
    (bundle / "methods.md").rename(bundle / "other.md")
    (check,) = [check for check in verify(bundle) if check.name == "files"]
    assert "methods.md is missing" in check.detail
    assert "other.md is not of the bundle" in check.detail


def test_a_table_that_does_not_follow_from_the_history_is_found_out(bundle: Path) -> None:
    table = pd.read_parquet(bundle / "best.parquet")
    table["energy_per_atom (eV/atom)"] -= 0.1
    table.to_parquet(bundle / "best.parquet")
    sign_again(bundle)
    assert failed(bundle) == ["history and tables"]


def test_a_structure_that_does_not_follow_from_the_history_is_found_out(bundle: Path) -> None:
    path = bundle / "labels.extxyz"
    path.write_text(path.read_text().replace("Fe ", "Ni ", 1))
    sign_again(bundle)
    assert failed(bundle) == ["history and tables"]


def test_a_history_that_oracles_do_not_confirm_is_found_out(bundle: Path) -> None:
    with_history(bundle, lambda line: line.replace('"energy_per_atom",-6', '"energy_per_atom",-9'))
    sign_again(bundle)
    again = [
        check for check in verify(bundle, sample=4, runs_code=True) if check.name.endswith("again")
    ]
    assert len(again) == 4
    assert all(check.status == "failed" for check in again)


def test_other_oracles_do_not_confirm_anything(bundle: Path) -> None:
    (bundle / "weighed_by.py").write_text("def factor(weight): return weight / 3\n")
    sign_again(bundle)
    assert len(failed(bundle, sample=2)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: '{"@graph": [1]}',
        lambda text: '{"@graph": []}',
    ],
)
def test_an_unreadable_list_of_files_is_told(bundle: Path, damage: Callable[[str], str]) -> None:
    path = bundle / "ro-crate-metadata.json"
    path.write_text(damage(path.read_text()))
    assert failed(bundle) == ["files"]


def test_a_history_with_a_gap_is_told(bundle: Path) -> None:
    path = bundle / "ledger" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    sign_again(bundle)
    assert "history and tables" in failed(bundle)
