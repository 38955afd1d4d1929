"""The conformance kit passes what ships and catches what is wrong; sentinels stop a campaign whose
oracle drifts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, load
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.errors import OracleDriftedError
from campaign.ledger import events as ev
from campaign.protocols import OracleSpec, PluginSpec
from campaign.testing import Finding, check_oracle, examine
from oracles.lammps import potentials

MEAM, LIBRARY = "MoCoNiVFeAlCr_2nn.meam", "library_2nn.meam"


def findings(
    use: str, elements: tuple[str, ...] = ("Ni", "Fe", "Cr"), **params: Any
) -> dict[str, Finding]:
    plugin = PluginSpec(group="oracles", use=use, params=params, module_folder=str(HELPERS))
    return {
        found.check: found
        for found in examine(OracleSpec(name="checked", plugin=plugin, wall_limit=30), elements)
    }


@pytest.mark.parametrize("use", ["lammps_bulk_modulus", "lennard_jones"])
def test_the_oracles_that_ship_pass(use: str) -> None:
    found = {finding.check: finding.status for finding in check_oracle(use)}
    assert {check for check, status in found.items() if status == "failed"} == set()
    for check in (
        "permutation",
        "rotation",
        "translation",
        "supercell",
        "order of species",
        "overlapping atoms",
        "empty cell",
        "clean-up",
    ):
        assert found[check] == "passed"


@pytest.mark.parametrize(
    ("how", "told"), [("mixes", "fails only one way"), ("forgets", "no answer for some"), ("", "")]
)
def test_answers_at_once_are_held_against_those_one_by_one(how: str, told: str) -> None:
    found = findings("user_oracles:MixedUp", how=how)["several at once"]
    assert found.status == ("failed" if told else "passed")
    assert told in found.detail


def test_forces_are_checked_too() -> None:
    found = findings("lammps", relax="none", measure=["forces"])
    assert {finding.status for finding in found.values()} <= {"passed", "skipped"}
    assert found["rotation"].status == found["elements by name"].status == "passed"


def test_a_copy_of_an_oracle_with_two_species_swapped_is_caught() -> None:
    found = findings("swapped_oracle:Swapped")
    assert {
        name: finding.detail for name, finding in found.items() if finding.status == "failed"
    }.keys() == {"elements by name"}
    assert "Two species are swapped" in found["elements by name"].detail
    assert "Cr" in found["elements by name"].detail


def swapped_files(folder: Path) -> dict[str, str]:
    """The MEAM files with the names of Ni and Fe exchanged everywhere, under a name that tells no
    elements: nothing contradicts itself.
    """
    shipped = potentials.shipped_folder()
    assert shipped is not None
    library = (shipped / LIBRARY).read_text()
    (folder / LIBRARY).write_text(
        library.replace("'Ni'", "'@'").replace("'Fe'", "'Ni'").replace("'@'", "'Fe'")
    )
    text = (shipped / MEAM).read_text()
    order = "Mo Co Ni V Fe Al Cr"
    assert order in text
    (folder / "alloy.meam").write_text(text.replace(order, "Mo Co Fe V Ni Al Cr"))
    return {"file": str(folder / "alloy.meam"), "library": str(folder / LIBRARY)}


def test_swapped_species_in_files_that_agree_with_themselves_are_caught(tmp_path: Path) -> None:
    potential = swapped_files(tmp_path)
    found = findings("lammps_bulk_modulus", potential=potential)
    assert found["elements by name"].status == "failed"
    assert "Ni behaves like Fe and Fe like Ni" in found["elements by name"].detail
    with pytest.raises(AssertionError, match="elements by name"):
        check_oracle("lammps_bulk_modulus", {"potential": potential}, elements=("Ni", "Fe"))


BROKEN = """
import os, subprocess, time
from campaign.types import ENERGY_PER_ATOM, Evaluation, Quantity
from oracles.analytic import LennardJones, LennardJonesConfig

class Broken:
    quantities = (ENERGY_PER_ATOM,)
    def __init__(self, how):
        self.how, self.model, self.calls = how, LennardJones(LennardJonesConfig()), 0
        self.quantities = (Quantity("energy_per_atom", "kJ/mol"),) if how == "units" else self.quantities
    def evaluate(self, crystal):
        if self.how == "hangs": time.sleep(1000)
        if self.how == "leaves processes" and self.calls == 0:
            self.calls = subprocess.Popen(["sleep", "15"], start_new_session=True).pid
        if self.how == "dies" and len(crystal) == 0: os._exit(3)
        energy = self.model.evaluate(crystal).value("energy_per_atom")
        if self.how == "noise":
            self.calls += 1
            energy += 1e-2 * self.calls
        if self.how == "total": energy *= len(crystal)
        if self.how == "rotation": energy += 0.01 * crystal.lattice[0, 0]
        if self.how == "order": energy += 0.001 * int(crystal.numbers[0])
        if self.how == "blind": energy = self.model.evaluate(crystal.with_numbers([28] * len(crystal))).value("energy_per_atom")
        if self.how == "ignores overlap": energy = max(-5.0, min(energy, -0.1))
        return Evaluation.single(self.quantities[0], energy)
"""  # noqa: E501


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("units", "quantities and units"),
        ("noise", "same again"),
        ("total", "supercell"),
        ("rotation", "rotation"),
        ("order", "permutation"),
        ("blind", "order of species"),
        ("ignores overlap", "overlapping atoms"),
        ("dies", "empty cell"),
        ("hangs", "gives what it promises"),
        ("leaves processes", "clean-up"),
    ],
)
def test_each_way_to_be_wrong_is_found(tmp_path: Path, how: str, check: str) -> None:
    (tmp_path / "broken_oracle.py").write_text(BROKEN)
    plugin = PluginSpec(
        group="oracles",
        use="broken_oracle:Broken",
        params={"how": how},
        module_folder=str(tmp_path),
    )
    limit = 0.3 if how == "hangs" else 30.0
    found: dict[str, Finding] = {}
    for finding in examine(
        OracleSpec(name="broken", plugin=plugin, wall_limit=limit), ("Ni", "Fe")
    ):
        found[finding.check] = finding
        if how == "hangs" and finding.check == check:
            break
    assert found[check].status == "failed"


def test_the_command_tells_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HELPERS)
    wide = {"COLUMNS": "200"}
    good = CliRunner().invoke(
        app, ["oracle", "check", "lennard_jones", "--element", "Ni", "--element", "Fe"], env=wide
    )
    assert good.exit_code == 0, good.output
    bad = CliRunner().invoke(
        app,
        ["oracle", "check", "swapped_oracle:Swapped", "--element", "Fe", "--element", "Cr"],
        env=wide,
    )
    assert bad.exit_code == 1
    assert "Two species are swapped" in " ".join(bad.output.split())
    unknown = CliRunner().invoke(app, ["oracle", "check", "lennard_jone"])
    assert unknown.exit_code == 2


def watched(folder: Path, oracle: dict[str, Any], labels: int = 6, **sentinels: Any) -> Campaign:
    settings = {
        "oracles": [oracle],
        "objective": {"quantity": "bulk_modulus", "direction": "maximize"},
        "budget": {"labels": labels},
        "acquisition": {"use": "random", "initial_labels": 3, "batch_size": 3},
        "surrogate": None,
        "sentinels": {"every": 1, **sentinels},
    }
    return Campaign(folder, load(HELPERS, **settings))


def test_a_sentinel_stops_a_campaign_whose_oracle_swaps_species_later(tmp_path: Path) -> None:
    flag = tmp_path / "swap"
    oracle = {"use": "swapped_oracle:Swapped", "params": {"swap_when": str(flag)}}
    campaign = watched(tmp_path / "campaign", oracle)
    assert campaign.run() == "budget spent: 6 labels"
    state = campaign.state()
    occasions = {event.occasion for events in state.sentinels.values() for event in events}
    assert occasions == {"session 1", "round 1"}
    assert len(state.sentinels) == 6, "three elements and three ordered binaries"
    assert not set(state.sentinels) & set(state.labels), "sentinels are no labels"
    flag.touch()
    longer = watched(tmp_path / "campaign", oracle, labels=12)
    with pytest.raises(
        OracleDriftedError, match=r"has drifted: .* was .* \(session 1\), is .* \(session 2\)"
    ):
        longer.run()
    after = longer.state()
    assert len(after.own_labels) == 6, "nothing was labelled by the oracle that drifted"
    assert after.session_ended is not None
    assert "drifted" in after.session_ended.reason
    flag.unlink()
    assert longer.run() == "budget spent: 12 labels"


def test_a_sentinel_with_known_values_stops_a_campaign_on_swapped_files_at_once(
    tmp_path: Path,
) -> None:
    expected = [{"element": "Ni", "quantity": "energy_per_atom", "value": -4.45, "tolerance": 0.02}]
    files = swapped_files(tmp_path)
    wrong = watched(
        tmp_path / "wrong",
        {"use": "lammps_bulk_modulus", "params": {"potential": files}},
        expected=expected,
    )
    with pytest.raises(
        OracleDriftedError, match=r"energy_per_atom of Ni is -4.\d+, known is -4.45"
    ):
        wrong.run()
    assert not wrong.state().labels
    right = watched(
        tmp_path / "right",
        {"use": "lammps_bulk_modulus", "params": {"potential": MEAM}},
        labels=3,
        expected=expected,
    )
    assert right.run() == "budget spent: 3 labels"


def test_a_worker_whose_oracle_is_of_another_fidelity_does_not_start(tmp_path: Path) -> None:
    """A potential file that changed after the driver read it is noticed where the worker reads
    it.
    """
    shipped = potentials.shipped_folder()
    assert shipped is not None
    file = tmp_path / "FeCr.cdeam"
    shutil.copy(shipped / "FeCr.cdeam", file)
    oracle = {"use": "lammps_bulk_modulus", "params": {"potential": {"file": str(file)}}}
    settings = {"space": {"elements": ["Fe", "Cr"], "max_fraction": 0.9}, "sentinels": None}
    campaign = watched(tmp_path / "campaign", oracle)
    loaded = load(
        HELPERS, **{**json.loads(json.dumps(campaign.loaded.resolved())), **settings, "ledger": {}}
    )
    spec = loaded.oracle_spec(loaded.config.oracles[0])
    file.write_text(file.read_text().replace("Concentration", "concentration"))
    from campaign.errors import SurroundingsError
    from campaign.executors.worker import OracleWorker

    with pytest.raises(SurroundingsError, match="in its worker, the campaign's labels are"):
        OracleWorker(spec, "w", 1)


def test_sentinel_events_round_trip() -> None:
    event = ev.SentinelScored(
        key="sentinel/o/session 1/c",
        oracle="o",
        fidelity="f",
        candidate="c",
        occasion="session 1",
        observations=(ev.ObservationRow("energy_per_atom", -4.0, "eV/atom"),),
        message="",
        wall_seconds=0.1,
        worker="w",
    )
    assert ev.decode(ev.encode(event)) == event
