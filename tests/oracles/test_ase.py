"""Oracles on ASE calculators: what is wrong with one is told before anything runs, and what changes
a label is in its level.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, load
from typer.testing import CliRunner

from campaign import plugins
from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import InputError
from campaign.protocols import PluginSpec
from oracles.ase.potentials import POTENTIALS, home_of

EMT = "ase.calculators.emt:EMT"
PYTHONS = {"own": None, "apart": [sys.executable]}
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such module": (
        {"calculator": "no_such_module:Thing"},
        "there is no module 'no_such_module'",
        "python:",
    ),
    "no such class": ({"calculator": "ase.calculators.emt:Emt"}, "has no 'Emt'", "module:Class"),
    "no calculator": ({"calculator": "odd_calculators:Empty"}, "is no ASE calculator", ""),
    "wrong arguments": (
        {"calculator": "odd_calculators:Empty", "arguments": {"alpha": 1}},
        "cannot be made",
        "arguments",
    ),
    "weights of another": (
        {"calculator": "odd_calculators:refuses"},
        "weights are of another network",
        "weights",
    ),
    "an element it lacks": ({"calculator": EMT}, "fails on a crystal of Fe", "leave Fe out"),
    "an element it does not state": (
        {"calculator": "odd_calculators:Fine", "elements": ["Ni", "Cr"]},
        "no parameters for Fe",
        "space",
    ),
    "no stress": (
        {"calculator": "odd_calculators:WithoutStress"},
        "gives no stress",
        "energy, forces and stress",
    ),
    "no forces": (
        {"calculator": "odd_calculators:WithoutForces"},
        "gives no forces",
        "energy, forces and stress",
    ),
    "not a number": (
        {"calculator": "odd_calculators:NotANumber"},
        "energy that is no finite number",
        "weights",
    ),
    "infinite": (
        {"calculator": "odd_calculators:InfiniteStress"},
        "stress that is no finite number",
        "weights",
    ),
    "wrong shape": ({"calculator": "odd_calculators:WrongShape"}, "forces of shape (3,)", ""),
    "no weights there": (
        {"calculator": "odd_calculators:Fine", "weights": "far/model.pth"},
        "there are no weights at",
        "path",
    ),
    "no weights to fill in": (
        {"calculator": "odd_calculators:Fine", "arguments": {"model": "{weights}"}},
        "there are none",
        "weights",
    ),
    "a call that fails": (
        {
            "calculator": "odd_calculators:Fine",
            "arguments": {"model": {"call": "no_such_module:load"}},
        },
        "there is no module 'no_such_module'",
        "python:",
    ),
}


def oracle(
    python: list[str] | None = None, use: str = "ase", **params: Any
) -> list[dict[str, Any]]:
    return [{"use": use, "params": params, "python": python}]


@pytest.mark.parametrize(
    ("fault", "python"),
    [*((fault, "own") for fault in FAULTS), *((fault, "apart") for fault in list(FAULTS)[::5])],
)
def test_what_is_wrong_with_a_calculator_is_told_before_anything_runs(
    fault: str, python: str
) -> None:
    params, message, hint = FAULTS[fault]
    with pytest.raises(InputError) as raised:
        _ = load(HELPERS, oracles=oracle(PYTHONS[python], **params)).parts
    assert message in raised.value.message
    assert hint in raised.value.hint
    assert "small.yaml" in raised.value.message
    assert "\n" not in raised.value.message


def test_weights_a_checkpoint_and_a_package_that_are_not_there_are_told() -> None:
    for use, params, message in (
        ("chgnet", {"weights": "nowhere.tar"}, "the weights of chgnet (0.3.0) are not here"),
        ("chgnet", {"checkpoint": "0.3.1"}, "did you mean '0.3.0'?"),
        (
            "mattersim",
            {},
            "the package mattersim is not installed in this interpreter; pip install",
        ),
    ):
        if home_of(POTENTIALS[use].module) is None and use != "mattersim":
            message = "is not installed in this interpreter"
        with pytest.raises(InputError) as raised:
            _ = load(HELPERS, oracles=oracle(use=use, **params)).parts
        assert message in str(raised.value)


def test_labels_by_any_calculator_come_from_either_interpreter_alike(tmp_path: Path) -> None:
    """And the packages of the oracle's own interpreter are in the ledger."""
    common = {"calculator": EMT, "measure": ["bulk_modulus"]}
    found: dict[str, dict[str, float]] = {}
    for name, python in PYTHONS.items():
        changes: dict[str, Any] = {
            "space": {"elements": ["Ni", "Cu", "Al"]},
            "objective": {"quantity": "bulk_modulus", "direction": "maximize"},
            "budget": {"labels": 3},
            "acquisition": {"use": "random", "initial_labels": 3, "batch_size": 1},
            "surrogate": None,
            "generators": [
                {
                    "use": "random_alloy",
                    "count": 4,
                    "params": {"lattices": ["fcc"], "repeats": [1, 1, 1]},
                }
            ],
        }
        loaded = load(tmp_path, oracles=oracle(python, **common), **changes)
        campaign = Campaign(tmp_path / name, loaded)
        campaign.run()
        found[name] = {
            pair[0]: label.values["bulk_modulus"] for pair, label in campaign.state().labels.items()
        }
        reader = campaign.reader()
        (versions,) = [
            event.versions
            for _, _, event in reader.events()
            if type(event).__name__ == "SessionStarted"
        ]  # type: ignore[attr-defined]
        reader.close()
        assert ("ase/python" in versions, "ase/numpy" in versions) == (
            name == "apart",
            name == "apart",
        )
    assert len(found["own"]) == 3
    assert found["own"] == found["apart"]
    assert all(20 < value < 400 for value in found["own"].values())


def level(folder: Path, **params: Any) -> str:
    spec = PluginSpec(
        group="oracles",
        use="ase",
        params={"calculator": "odd_calculators:Fine", **params},
        module_folder=str(folder),
    )
    return plugins.fidelity_of(plugins.build(spec), spec).key


def test_what_changes_a_label_changes_its_level(tmp_path: Path) -> None:
    code = tmp_path / "odd_calculators.py"
    code.write_text((HELPERS / "odd_calculators.py").read_text())
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"first")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "part").write_bytes(b"first")
    plain = level(tmp_path)
    found = [
        plain,
        level(tmp_path, arguments={"model": "large"}),
        level(tmp_path, weights="7net-0"),
        level(tmp_path, weights="7net-l3i5"),
    ]
    found += [
        level(tmp_path, weights="model.pth"),
        level(tmp_path, weights="saved"),
        level(tmp_path, force_tolerance=1e-3),
    ]
    weights.write_bytes(b"other")
    (tmp_path / "saved" / "part").write_bytes(b"other")
    found += [
        level(tmp_path, weights="model.pth"),
        level(tmp_path, weights="saved"),
        level(tmp_path, calculator=EMT),
    ]
    assert len(set(found)) == len(found)
    assert level(tmp_path, device="cuda", residual_pressure=0.1) == plain


def test_the_table_of_universal_potentials_is_what_there_is() -> None:
    """Each has an oracle of its name, says how to get it, and is made by what its package has,
    where it is installed.
    """
    for name, potential in POTENTIALS.items():
        component = plugins.load(PluginSpec(group="oracles", use=name))
        assert component.preset == name
        assert potential.checkpoints
        home = home_of(potential.module)
        reason = plugins.unavailable(PluginSpec(group="oracles", use=name))
        assert (home is None) == (potential.install in reason)
        for checkpoint, about in potential.checkpoints.items():
            file = potential.file_of(checkpoint, home)
            assert file is None or file.exists(), f"{name} ships no {checkpoint}"
            assert about.theory


def test_potentials_are_listed_by_their_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    run = CliRunner()
    both = run.invoke(app, ["potentials", "Ni", "Fe"])
    assert both.exit_code == 0
    assert "7net-l3i5" in both.output
    assert "eam" in both.output
    assert "7net-l3i5" not in run.invoke(app, ["potentials", "Po"]).output
    wrong = run.invoke(app, ["potentials", "--python", "/no/such/python"])
    assert wrong.exit_code == InputError.exit_code
    assert "/no/such/python gives no answer" in wrong.output + (wrong.stderr or "")


def test_the_check_by_name_goes_to_the_interpreter_that_is_named() -> None:
    params = json.dumps({"calculator": EMT})
    done = CliRunner().invoke(
        app,
        [
            "oracle",
            "check",
            "ase",
            "--params",
            params,
            "--python",
            "/no/such/python",
            "--element",
            "Ni",
        ],
    )
    assert done.exit_code == InputError.exit_code
    assert "/no/such/python, is not there" in done.output + (done.stderr or "")
