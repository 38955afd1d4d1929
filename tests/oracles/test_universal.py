"""Universal potentials by name: the kit passes, and a pair of swapped species is found. Skipped
where their packages are not installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from support import HELPERS, load

from campaign import plugins
from campaign.api import Campaign
from campaign.protocols import OracleSpec, PluginSpec
from campaign.testing import check_oracle, examine
from campaign.types import Crystal
from oracles.ase.potentials import POTENTIALS, home_of

SEVENNET = Path(__file__).resolve().parent.parent.parent / ".venv-sevennet" / "bin" / "python"
NICKEL, TUNGSTEN = 28, 74


def python_of(preset: str) -> tuple[str, ...]:
    """The command of the interpreter that has it; skips the test where there is none."""
    if preset == "sevennet":
        if not SEVENNET.exists():
            pytest.skip("no .venv-sevennet: make potentials")
        return (str(SEVENNET),)
    if home_of(POTENTIALS[preset].module) is None:
        pytest.skip('no CHGNet: pip install "oreloop[chgnet]"')
    return (sys.executable,)


PARAMS: dict[str, dict[str, Any]] = {"sevennet": {"checkpoint": "7net-0"}, "chgnet": {}}
INNER: dict[str, dict[str, Any]] = {
    "sevennet": {
        "call": "sevenn.calculator:SevenNetCalculator",
        "arguments": {"model": "7net-0", "device": "cpu"},
    },
    "chgnet": {
        "call": "chgnet.model.dynamics:CHGNetCalculator",
        "arguments": {"use_device": "cpu"},
    },
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("preset", PARAMS)
def test_the_kit_passes(preset: str) -> None:
    params = {**PARAMS[preset], "measure": ["bulk_modulus", "forces"]}
    findings = check_oracle(preset, params, elements=["Ni", "W"], python=python_of(preset))
    passed = {finding.check for finding in findings if finding.status == "passed"}
    assert {"elements by name", "rotation", "supercell", "clean-up"} <= passed
    assert ("several at once" in passed) == (preset == "sevennet")


def test_sevennet_asked_of_many_says_what_its_calculator_says() -> None:
    python = python_of("sevennet")
    calculator = {
        "calculator": INNER["sevennet"]["call"],
        "arguments": INNER["sevennet"]["arguments"],
    }
    measure = {"relax": "none", "measure": ["proposed"]}
    many, one = (
        plugins.build(
            PluginSpec(group="oracles", use=use, params={**params, **measure}, python=python)
        )
        for use, params in (("sevennet", PARAMS["sevennet"]), ("ase", calculator))
    )
    made = [
        bulk("NaCl", "rocksalt", a=5.5, cubic=True),
        bulk("Fe"),
        bulk("GaN", "wurtzite", a=3.2, c=5.2),
    ]
    for i, atoms in enumerate(made):
        atoms.rattle(0.1, seed=i)
    crystals = [Crystal.from_atoms(atoms) for atoms in made]
    for i, evaluation in many.evaluate_many(crystals):
        for found, expected in zip(
            evaluation.observations, one.evaluate(crystals[i]).observations, strict=True
        ):
            assert found.quantity == expected.quantity
            assert np.allclose(found.value, expected.value, atol=2e-4), found.quantity


@pytest.mark.timeout(400)
@pytest.mark.parametrize("preset", PARAMS)
def test_a_swapped_species_is_found(preset: str) -> None:
    arguments = {"inner": INNER[preset], "one": NICKEL, "other": TUNGSTEN}
    plugin = PluginSpec(
        group="oracles",
        use="ase",
        params={"calculator": "odd_calculators:Swapped", "arguments": arguments},
        module_folder=str(HELPERS),
        python=python_of(preset),
    )
    findings = examine(OracleSpec(name=preset, plugin=plugin), ["Ni", "W"])
    found = next(finding for finding in findings if finding.check == "elements by name")
    findings.close()  # type: ignore[attr-defined]
    assert found.status == "failed"
    assert "Two species are swapped" in found.detail


@pytest.mark.timeout(400)
@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_two_interpreters_label_in_one_campaign(executor: str, tmp_path: Path) -> None:
    """A potential of the main environment and SevenNet in its own, as two levels."""
    python = python_of("sevennet")
    loaded = load(
        tmp_path,
        space={"elements": ["Ni", "Cu"]},
        budget={"labels": 6},
        generators=[
            {
                "use": "random_alloy",
                "count": 6,
                "params": {"lattices": ["fcc"], "repeats": [1, 1, 1]},
            }
        ],
        surrogate=None,
        acquisition={"use": "random", "initial_labels": 3, "batch_size": 3},
        oracles=[
            {"use": "ase", "name": "emt", "params": {"calculator": "ase.calculators.emt:EMT"}},
            {"use": "sevennet", "python": python[0], "params": PARAMS["sevennet"]},
        ],
        fidelities={
            "levels": [
                {"oracle": "emt"},
                {"oracle": "sevennet", "start": "relaxed", "gate": {"best_fraction": 1.0}},
            ],
        },
        executor={"use": executor, "cpus": 2},
    )
    campaign = Campaign(tmp_path / "campaign", loaded)
    campaign.run()
    labels = campaign.state().labels
    assert {oracle for _, oracle in labels} == {"emt", "sevennet"}
    for (candidate, oracle), label in labels.items():
        assert -7 < label.values["energy_per_atom"] < 1, (candidate, oracle)
