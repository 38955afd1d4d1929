"""What commands say before, during and after a campaign: data that a config names, plans, refusals,
pauses, formulas, ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import HELPERS, SMALL, load, merged
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app, template_folder
from campaign.crystals.lattice import supercell
from campaign.errors import InputError, StoppedByFailuresError
from campaign.ledger import LedgerReader
from campaign.report import write_report
from campaign.rounds import plan
from campaign.rounds.survey import survey
from campaign.views.progress import facts
from campaign.views.view import OpenView, View
from oracles.hull import Phase
from oracles.hull_view import _formula

Make = Callable[..., Campaign]
runner = CliRunner()


def cif(symbols: str, folder: Path, name: str, size: float = 1.0) -> Path:
    crystal = supercell("bcc", (2, 1, 1), symbols.split())
    structure = crystal.structure
    structure.scale_lattice(size * structure.volume)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    structure.to(filename=str(path), fmt="cif")
    return path


def told(home: Path, *arguments: str, **changes: Any) -> tuple[int, str]:
    path = home / "small.yaml"
    with path.open("w") as file:
        YAML().dump(merged(SMALL, changes), file)
    result = runner.invoke(app, [arguments[0], str(path), *arguments[1:]], env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_validate_reads_the_data_and_says_what_passes(tmp_path: Path) -> None:
    cif("Ni Ni Fe Cr", tmp_path / "pool", "a.cif")
    cif("Ni Fe Fe Cr", tmp_path / "pool", "b.cif")
    cif("Ni Fe Fe Cu", tmp_path / "pool", "c.cif")
    cif("Ni Fe Cr Cr", tmp_path / "pool", "d.cif", size=2.0)
    code, output = told(
        tmp_path,
        "validate",
        candidate_pools=[{"path": "pool"}],
        screens={"volume_per_atom": [2.0, 20.0]},
    )
    assert code == 0, output
    assert "4 crystals, 2 pass the screens" in output
    assert "1 refused by composition (such as: holds Cu" in output
    assert "1 refused by volume" in output


SCREENS = """
from campaign.types import Verdict

class Even:
    def judge(self, candidate, space):
        return Verdict(len(set(candidate.crystal.symbols)) != 2, "even", "of two elements")

class Dear(Even):
    is_costly = True

    def judge(self, candidate, space):
        raise RuntimeError("asked")
"""


def test_validate_asks_screens_that_a_config_adds_unless_they_are_costly(tmp_path: Path) -> None:
    (tmp_path / "my_screens.py").write_text(SCREENS)
    cif("Ni Ni Fe Cr", tmp_path / "pool", "a.cif")
    cif("Ni Fe Fe Fe", tmp_path / "pool", "b.cif")
    extra = [{"use": "my_screens:Even"}, {"use": "my_screens:Dear"}]
    code, output = told(
        tmp_path,
        "validate",
        candidate_pools=[{"path": "pool"}],
        screens={"extra": extra, "volume_per_atom": [2, 50]},
    )
    assert code == 0, output
    assert "2 crystals, 1 pass the screens, 1 refused by even (such as: of two elements)" in output
    assert "my_screens:Dear computes and was not asked" in output


def test_people_have_all_the_time_that_they_need_unless_the_config_limits_it(
    tmp_path: Path,
) -> None:
    params = {"folder": str(tmp_path / "lab"), "quantities": {"energy_per_atom": "eV/atom"}}
    oracles: list[dict[str, Any]] = [
        {"use": "ask_tell", "params": params},
        {"use": "ask_tell", "name": "soon", "wall_limit": 5, "params": params},
    ]
    oracles.append({"use": "lennard_jones"})
    loaded = load(tmp_path, oracles=oracles)
    limits = {
        oracle.label: loaded.oracle_spec(oracle).wall_limit for oracle in loaded.config.oracles
    }
    assert limits == {"ask_tell": math.inf, "soon": 5, "lennard_jones": 600}


def test_validate_names_all_that_is_wrong_in_the_data(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "bad.cif").write_text("data_x\n_cell_length_a oops\n")
    (tmp_path / "table.csv").write_text("structure,energy\n,\n")
    data = [
        {"path": "missing.extxyz"},
        {"path": "pool"},
        {"path": "table.csv", "structure_column": "cif"},
    ]
    code, output = told(tmp_path, "validate", candidate_pools=data)
    assert code == 2
    for part in ("missing.extxyz", "bad.cif", "there is no column 'cif'"):
        assert part in " ".join(output.split()), part


def test_an_exhausted_space_says_who_refused_and_why(small: Make) -> None:
    campaign = small(
        screens={"min_distance": 9.0}, stopping={"empty_rounds": 2}, budget={"labels": 5}
    )
    reason = campaign.run()
    assert reason.startswith(
        "search space exhausted: 2 rounds in a row found nothing new to label; of 24 proposals "
        "24 were refused: "
    )
    assert "24 by distance (such as: two atoms" in reason
    assert "local_search proposed nothing" in reason
    output = runner.invoke(app, ["status", str(campaign.folder)], env={"COLUMNS": "300"}).output
    assert "24 by distance" in output


def test_a_paused_oracle_says_why(small: Make) -> None:
    campaign = small(
        oracles=[{"use": "lennard_jones", "sanity": {"energy_per_atom": [50, 60]}}],
        failure_policy={"window": 3},
    )
    with pytest.raises(StoppedByFailuresError):
        campaign.run()
    output = runner.invoke(app, ["status", str(campaign.folder)], env={"COLUMNS": "400"}).output
    (line,) = (line for line in output.splitlines() if line.startswith("oracle lennard_jones"))
    assert "of its last 3 attempts failed" in line
    assert "most often unphysical: " in line
    assert any(event.message[:40] in line for _, _, event in campaign.state().failures)


def test_a_wrong_id_is_no_damaged_ledger(small: Make) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    with pytest.raises(InputError, match="no such candidate: 'ffff'"):
        campaign.crystal("ffff")
    identity = campaign.candidates["candidate"][0]
    assert campaign.crystal(identity).id == identity


def test_formulas_are_made_of_whole_numbers() -> None:
    for counts, expected in (
        ({"Cu": 9, "Zr": 7}, "Cu9Zr7"),
        ({"Zr": 14, "Cu": 18}, "Cu9Zr7"),
        ({"Fe": 53, "Ni": 1}, "Fe53Ni"),
        ({"Ni": 0.25, "Fe": 0.75}, "Fe3Ni"),
        ({"Fe": 4}, "Fe"),
    ):
        assert _formula(Phase("a", counts, 0.0, "x")) == expected


def test_a_template_comes_with_the_files_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        runner.invoke(app, ["init", "mine/three.yaml", "--template", "three_generators"]).exit_code
        == 0
    )
    for path in (template_folder() / "structures").glob("*.cif"):
        assert (tmp_path / "mine" / "structures" / path.name).read_bytes() == path.read_bytes()
    (tmp_path / "mine" / "structures" / "FeNi_L10.cif").write_text("my own")
    result = runner.invoke(app, ["init", "mine/again.yaml", "--template", "three_generators"])
    assert result.exit_code == 2
    assert (tmp_path / "mine" / "structures" / "FeNi_L10.cif").read_text() == "my own"
    assert not (tmp_path / "mine" / "again.yaml").exists()


def test_validate_downloads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import urllib.request

    from campaign.parameters import without_downloads
    from oracles.mace.oracle import Mace, MaceConfig

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("validate reaches for the network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(urllib.request, "urlretrieve", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with without_downloads():
        oracle = Mace(MaceConfig(foundation="small"))
        assert {"W", "B", "Ta"} <= oracle.elements
        assert "not here" in str(oracle.level.settings)


def test_known_nets_that_are_missing_are_not_made(tmp_path: Path) -> None:
    from generators.cvae.commands import _names_of

    with pytest.raises(InputError, match=r"there is no .*missing.db"):
        _names_of(tmp_path / "missing.db", None)  # type: ignore[arg-type]
    assert not (tmp_path / "missing.db").exists()


def test_a_plan_counts_deciding_and_takes_structures_of_pools(tmp_path: Path) -> None:
    for i, symbols in enumerate(("Ni Ni Fe Cr", "Ni Fe Fe Cr", "Ni Fe Cr Cr", "Ni Ni Cr Cr")):
        cif(symbols, tmp_path / "pool", f"{i}.cif")
    only_pool = load(
        tmp_path,
        candidate_pools=[{"path": "pool"}],
        generators=[],
        surrogate=None,
        acquisition={"use": "random"},
    )
    found = plan.measure(only_pool, 2)
    assert found.oracles[0].tried == 2
    assert found.oracles[0].labels == 4, "no more than the pool holds"
    assert found.candidates == 4
    assert found.wall_seconds is not None


def test_a_plan_tells_the_time_that_a_run_takes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    oracle = {"use": "user_oracles:Counting", "params": {"log": str(log), "seconds": 0.05}}
    loaded = load(HELPERS, oracles=[oracle])
    found = plan.measure(loaded)
    began = time.monotonic()
    Campaign(tmp_path / "real", loaded).run()
    took = time.monotonic() - began
    assert found.deciding is not None
    assert found.deciding.later > 0
    assert found.rounds == 4
    assert found.wall_seconds is not None
    assert found.wall_seconds >= 24 * 0.05
    assert found.wall_seconds / 4 < took < 4 * found.wall_seconds


def test_what_labels_cost_is_told_before_and_after(tmp_path: Path) -> None:
    """10 EUR and 36 kWh an hour of a worker: by the worker time that the ledger holds."""
    log = tmp_path / "log"
    oracle = {
        "use": "user_oracles:Counting",
        "params": {"log": str(log), "seconds": 0.05},
        "cost": {"per_hour": 10.0, "currency": "EUR"},
    }
    loaded = load(
        HELPERS,
        surrogate=None,
        acquisition={"use": "random", "initial_labels": 3},
        budget={"labels": 6, "cost": {"EUR": 5}},
        oracles=[oracle],
    )
    found = plan.measure(loaded, 2, workers=64, labels=6400)
    (row,) = found.oracles
    assert row.labels == 6400
    assert row.wall_seconds == pytest.approx(100 * row.seconds)
    assert (row.cost, row.currency) == (pytest.approx(6400 * row.seconds * 10 / 3600), "EUR")
    campaign = Campaign(tmp_path / "real", loaded)
    campaign.run()
    cost = 10 * campaign.state().busy_seconds["Counting"] / 3600
    assert facts(View(loaded, campaign.state()))["cost"] == f"{cost:.4g} of 5 EUR"
    with closing(LedgerReader(campaign.folder)) as reader:
        assert (
            f"{cost:.4g} of 5 EUR"
            in write_report(OpenView(loaded, campaign.state(), reader), campaign.folder).read_text()
        )


def test_a_plan_counts_each_candidate_at_each_oracle_and_levels_by_their_gates(
    tmp_path: Path,
) -> None:
    names = ("a", "b")
    oracles = [{"use": "lennard_jones", "name": name} for name in names]
    config = load(HELPERS, oracles=oracles, budget={"labels": 30}).config
    assert plan.expected_candidates(config, []) == 15
    assert plan.expected_labels(config, 15) == {"a": 15, "b": 15}
    levels = [{"oracle": "a"}, {"oracle": "b", "gate": {"best_fraction": 0.1}}]
    ladder = load(
        HELPERS,
        oracles=oracles,
        fidelities={"levels": levels},
        surrogate=None,
        acquisition={"use": "random"},
    ).config
    assert plan.expected_labels(ladder, 45) == {"a": 45, "b": 5}


def test_a_survey_counts_values(tmp_path: Path) -> None:
    from ase.io import write

    images = [
        supercell("bcc", (2, 1, 1), symbols).atoms
        for symbols in (["Ni", "Ni", "Fe", "Cr"], ["Ni", "Fe", "Fe", "Cr"])
    ]
    for image in images:
        image.info["e"] = -4.0
    write(tmp_path / "data.extxyz", images)
    source = {"path": "data.extxyz", "columns": {"energy_per_atom": "e"}, "oracle": "lennard_jones"}
    (found,) = survey(load(tmp_path, initial_data=[source]))
    assert str(found) == "2 crystals, 2 with energy_per_atom, 2 pass the screens"
