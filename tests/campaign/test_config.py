"""Bad input gets one clear message: file, line, the wrong key, the nearest right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.data import chemical_symbols
from ruamel.yaml import YAML
from support import HELPERS, SMALL, load, merged

from campaign import plugins
from campaign.cli import template_folder
from campaign.config import loaded as configs
from campaign.config.schema import CampaignConfig
from campaign.errors import InputError, SurroundingsError
from oracles.mace import oracle as mace

ROOT = Path(__file__).resolve().parent.parent.parent


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def dumped(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    return path


def line_of(path: Path, word: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if word in line)


@pytest.mark.parametrize(
    ("changes", "word", "message"),
    [
        (
            {"space": {"max_fractoin": 0.9}},
            "max_fractoin",
            "unknown key 'space.max_fractoin'; did you mean 'max_fraction'",
        ),
        ({"modee": "rounds"}, "modee", "unknown key 'modee'; did you mean 'mode'"),
        ({"space": {"elements": ["Ni", "Xx"]}}, "Xx", "'Xx' is no chemical element"),
        ({"budget": {"labels": 0}}, "labels: 0", "expected at least 1, found 0"),
        ({"space": {"max_fraction": 0.2}}, "space", "no composition fits"),
        ({"acquisition": {"use": "luck"}}, "luck", "expected 'log_expected_improvement'"),
    ],
)
def test_wrong_keys_and_values_are_named_with_their_line(
    tmp_path: Path, changes: dict[str, Any], word: str, message: str
) -> None:
    path = dumped(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        configs.read(path)
    assert f"config.yaml, line {line_of(path, word)}:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generators": [{"use": "random_alloi"}]}, "did you mean 'random_alloy'"),
        (
            {"generators": [{"use": "random_alloy", "params": {"repeets": [2, 2, 2]}}]},
            "params.repeets: unknown key; did you mean 'repeats'",
        ),
        ({"generators": [{"use": "user_oracles:Densiti"}]}, "did you mean 'Density'"),
        ({"generators": [{"use": "no_such_module:Thing"}]}, "cannot import 'no_such_module'"),
        ({"objective": {"quantity": "energy"}}, "no oracle measures 'energy'"),
        (
            {"oracles": [{"use": "lammps_bulk_modulus"}], "space": {"elements": ["Ni", "Al"]}},
            "has no parameters for Al",
        ),
        (
            {"oracles": [{"use": "lammps_bulk_modulus", "params": {"potential": "x"}}]},
            "no potential 'x'",
        ),
        (
            {"oracles": [{"use": "lennard_jones", "sanity": {"energy": [0, 1]}}]},
            "sanity names 'energy'",
        ),
        ({"oracles": [{"use": "random_alloy"}]}, "there is no oracle called 'random_alloy'"),
    ],
)
def test_wrong_components_are_found_before_anything_runs(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        _ = load(HELPERS, **changes).parts
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generators": []}, "nothing proposes candidates"),
        ({"surrogate": None}, "asks a model"),
        ({"budget": {"labels": None}}, "nothing ends this campaign"),
        (
            {"oracles": [{"use": "lennard_jones"}, {"use": "lennard_jones"}]},
            "two are called 'lennard_jones'",
        ),
        ({"initial_data": [{"path": "x.csv", "columns": {"a": "b"}}]}, "say with oracle:"),
        ({"budget": {"oracle_seconds": {"other": 5}}}, "there is no oracle 'other'"),
        ({"budget": {"cost": {"EUR": 5}}}, "no oracle has a cost in 'EUR', only in nothing"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(HELPERS, **changes)


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the config"):
        configs.read(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="no valid YAML"):
        configs.read(write(tmp_path, "a: [1,"))
    with pytest.raises(InputError, match="mapping of settings"):
        configs.read(write(tmp_path, "- 1"))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_config_is_valid_and_stands_in_the_wheel(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foundation models are not downloaded here: a file stands in for them."""
    (tmp_path / "foundation.model").write_bytes(b"weights")
    monkeypatch.setattr(mace, "foundation_path", lambda _: tmp_path / "foundation.model")
    elements_of = mace.elements_of
    known = {tmp_path / "foundation.model": frozenset(chemical_symbols)}
    monkeypatch.setattr(mace, "elements_of", lambda file: known.get(file) or elements_of(file))
    assert (template_folder() / path.name).exists()
    loaded = configs.read(path)
    interpreters = [
        loaded.folder / oracle.python
        for oracle in loaded.config.oracles
        if isinstance(oracle.python, str)
    ]
    if not all(interpreter.exists() for interpreter in interpreters):
        pytest.skip("no .venv-sevennet: make potentials")
    assert loaded.parts.oracles


def test_the_shipped_json_schema_is_the_schemas_own() -> None:
    """`oreloop schema > configs/schema.json` writes it anew."""
    assert (
        json.loads((ROOT / "configs" / "schema.json").read_text())
        == CampaignConfig.model_json_schema()
    )


def physical_fields(schema: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for definition in schema["$defs"].values():
        for name, field in definition.get("properties", {}).items():
            found.append((name, field.get("description", "")))
    return found


def test_units_stand_in_every_physical_fields_description() -> None:
    wanted = {
        "wall_time": "(s)",
        "wall_limit": "(s)",
        "min_distance": "(angstrom)",
        "match_angle": "(degrees)",
        "memory": "(bytes",
    }
    described = dict(physical_fields(CampaignConfig.model_json_schema()))
    for name, unit in wanted.items():
        assert unit in described[name]


def test_shadowed_packages_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "oracles").mkdir()
    (tmp_path / "oracles" / "__init__.py").touch()
    plugins.check_installation()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "oracles", raising=False)
    with pytest.raises(SurroundingsError, match="'oracles' is found in"):
        plugins.check_installation()


def kinds(**changes: Any) -> dict[str, str]:
    old, new = load(HELPERS), load(HELPERS, **changes)
    before = {name: f.key for name, f in old.parts.fidelities.items()}
    after = {name: f.key for name, f in new.parts.fidelities.items()}
    return {
        change.key: change.kind
        for change in configs.changes(old.resolved(), new.resolved(), before, after)
    }


def test_changes_are_compared_by_meaning() -> None:
    assert kinds() == {}
    assert kinds(budget={"labels": 99}, failure_policy={"window": 3}) == {
        "budget": "free",
        "failure_policy": "free",
    }
    assert kinds(acquisition={"batch_size": 6}) == {"acquisition": "accept"}
    assert kinds(seed=8) == {"seed": "refused"}
    assert kinds(oracles=[{"use": "lennard_jones", "workers": 3}]) == {
        "oracles.lennard_jones.workers": "free"
    }
    found = kinds(oracles=[{"use": "lennard_jones", "params": {"epsilon": 0.2}}])
    assert [kind for key, kind in found.items() if "became" in key] == ["refused"]
    # A setting that is written out and equals the default means the same.
    assert kinds(oracles=[{"use": "lennard_jones", "workers": 1}]) == {}
