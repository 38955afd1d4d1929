"""The hull against hand-made numbers, refusals of mixed levels, and its screen, table and figure
from a ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.crystals.references import ordered_binary
from campaign.errors import InputError
from campaign.types import Candidate, SearchSpace
from oracles.hull import Hull, Phase, read_phases
from oracles.hull_screen import AboveHull, AboveHullConfig
from oracles.hull_view import figures, oracles_with_hull, phases_of

A, B = Phase("a", {"Fe": 1}, -8.0, "x"), Phase("b", {"Ni": 2}, -5.0, "x")
MIDDLE = Phase("ab", {"Fe": 1, "Ni": 1}, -6.6, "x")


def test_formation_energy_hull_and_decomposition_by_hand() -> None:
    hull = Hull([A, B, MIDDLE])
    assert hull.stability(MIDDLE).formation_energy == pytest.approx(-0.1)
    assert {phase.id for phase in hull.stable()} == {"a", "b", "ab"}
    quarter = hull.stability(Phase("aab", {"Fe": 0.75, "Ni": 0.25}, -7.28, "x"))
    # At x = 1/4 the hull lies half way between a and ab: formation energy -0.05; this one has -7.28
    # + 7.25 = -0.03.
    assert quarter.formation_energy == pytest.approx(-0.03)
    assert quarter.above_hull == pytest.approx(0.02)
    assert quarter.decomposition == pytest.approx({"a": 0.5, "ab": 0.5})


def test_a_new_phase_changes_the_version_and_the_energies_above_the_hull() -> None:
    hull = Hull([A, B])
    assert hull.stability(MIDDLE).above_hull == pytest.approx(-0.1), (
        "below the hull that does not hold it"
    )
    after = hull.with_phase(MIDDLE)
    assert after.version != hull.version
    assert after.stability(MIDDLE).above_hull == pytest.approx(0.0)
    assert Hull([MIDDLE, B, A]).version == after.version, "the order of phases does not matter"


def test_mixed_levels_and_missing_elements_are_refused() -> None:
    with pytest.raises(InputError, match="one calculator and settings, but these are of x, y"):
        Hull([A, Phase("b", {"Ni": 1}, -5.0, "y")])
    with pytest.raises(InputError, match="no phase of Ni alone"):
        Hull([A, MIDDLE])
    hull = Hull([A, B])
    with pytest.raises(InputError, match="do not mix"):
        hull.stability(Phase("z", {"Fe": 1}, -8.0, "y"))
    with pytest.raises(InputError, match="no phases with Cr"):
        hull.stability(Phase("z", {"Cr": 1}, -8.0, "x"))


def test_phases_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "phases.csv"
    path.write_text("id,formula,energy_per_atom,fidelity\nl10,FeNi,-6.6,x\n")
    (phase,) = read_phases(path)
    assert phase == Phase("l10", {"Fe": 1.0, "Ni": 1.0}, -6.6, "x")
    path.write_text("id,formula\nl10,FeNi\n")
    with pytest.raises(InputError, match=r"expected a CSV|energy_per_atom"):
        read_phases(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,formula,energy_per_atom,fidelity\na,FeNi,-6.6,x\na,FeNi3,-5.6,x\n",
            "row 2: the id 'a' stands in row 1 too",
        ),
        (
            "id,formula,energy_per_atom,fidelity\na,FeNi,nan,x\n",
            "row 1, 'energy_per_atom': nan is no value",
        ),
        (
            'id,formula,energy_per_atom,fidelity\na,FeNi,"-6,6",x\n',
            "row 1, 'energy_per_atom': expected a number",
        ),
        (
            "id,formula,energy_per_atom,fidelity\na,FeQq,-6.6,x\n",
            "row 1, 'formula': 'FeQq' is no formula",
        ),
        ("id,formula,energy_per_atom,fidelity\n,FeNi,-6.6,x\n", "row 1, 'id': is empty"),
        (
            "id,formula,energy_per_atom (GPa),fidelity\na,FeNi,-6.6,x\n",
            "cannot become|of the cell or per atom",
        ),
    ],
)
def test_phases_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "phases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_phases(path)


def test_phases_in_another_unit(tmp_path: Path) -> None:
    path = tmp_path / "phases.csv"
    path.write_text("id;formula;energy_per_atom (meV/atom);fidelity\nl10;FeNi;-6600;x\n")
    (phase,) = read_phases(path)
    assert phase.energy_per_atom == pytest.approx(-6.6)


def test_a_hull_has_each_phase_once() -> None:
    with pytest.raises(InputError, match="two phases 'a'"):
        Hull([A, Phase("a", {"Ni": 1}, -5.0, "x")])
    with pytest.raises(InputError, match="'b' has no finite energy"):
        Hull([A, Phase("b", {"Ni": 1}, float("nan"), "x")])


def test_the_screen_refuses_what_lies_far_above_the_hull(tmp_path: Path) -> None:
    space = SearchSpace(("Fe", "Ni"))
    crystal = ordered_binary("Fe", "Ni")
    strict = AboveHull(
        AboveHullConfig(oracle="lammps", params={"relax": "none"}, largest=0.0)
    ).judge(Candidate(crystal), space)
    assert not strict.accepted
    assert strict.screen == "above_hull"
    assert "eV/atom above hull" in strict.reason
    assert (
        AboveHull(AboveHullConfig(oracle="lammps", largest=1.0))
        .judge(Candidate(crystal), space)
        .accepted
    )
    path = tmp_path / "phases.csv"
    path.write_text("id,formula,energy_per_atom,fidelity\nl10,FeNi,-6.6,other-level\n")
    with pytest.raises(InputError, match="one calculator and settings"):
        AboveHull(AboveHullConfig(oracle="lammps", phases=path)).judge(Candidate(crystal), space)


LADDER: dict[str, Any] = {
    "space": {"elements": ["Fe", "Ni"], "max_fraction": 0.8},
    "objective": {"quantity": "formation_energy_per_atom", "direction": "minimize"},
    "generators": [{"use": "ordered_alloy", "count": 60, "params": {"atoms": [2, 3]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 6, "batch_size": 4},
    "budget": {"labels": None, "rounds": 4},
    "oracles": [{"use": "lennard_jones"}, {"use": "lammps"}],
    "fidelities": {
        "levels": [
            {"oracle": "lennard_jones"},
            {"oracle": "lammps", "gate": {"best_fraction": 0.3}, "labels": 4},
        ],
        "audit": {"every": 2, "sample": 1},
    },
}


def test_a_ternary_has_a_figure_for_each_pair_and_one_for_all(
    small: Callable[..., Campaign],
) -> None:
    campaign = small(
        generators=[{"use": "ordered_alloy", "count": 60, "params": {"atoms": [2, 3]}}],
        space={"elements": ["Ni", "Fe", "Cr"], "max_fraction": 0.8},
        surrogate=None,
        acquisition={"use": "random", "initial_labels": 30, "batch_size": 10},
        references={},
        budget={"labels": 30},
    )
    campaign.run()
    by_title = {title.split(" at ")[0]: figure for title, figure in figures(campaign.state())}
    assert {"Hull of Cr-Fe", "Hull of Cr-Ni", "Hull of Fe-Ni"} <= by_title.keys()
    drawn = {part.name: part for part in by_title["Hull of Cr-Fe-Ni"].data}
    state = campaign.state()
    phases = Hull(phases_of(state, *oracles_with_hull(state)))
    assert set(drawn["stable"].hovertext) == {phase.id for phase in phases.stable()}
    assert len(drawn["tie lines"].a) == 3 * len(phases.tie_lines()), "from, to, and a break"


def test_tie_lines_join_what_is_stable_beside_each_other() -> None:
    corners = [Phase(element, {element: 1}, 0.0, "level") for element in ("Al", "Ni", "Ti")]
    deep = Phase("deep", {"Al": 1, "Ni": 1}, -1.0, "level")
    ternary = Phase("ternary", {"Al": 1, "Ni": 1, "Ti": 1}, -1.0, "level")
    high = Phase("high", {"Al": 1, "Ti": 1}, 0.2, "level")
    hull = Hull([*corners, deep, ternary, high])
    pairs = {frozenset((one.id, other.id)) for one, other in hull.tie_lines()}
    outside = [("Al", "deep"), ("deep", "Ni"), ("Ni", "Ti"), ("Al", "Ti")]
    inside = [("ternary", name) for name in ("Al", "Ni", "Ti", "deep")]
    assert pairs == {frozenset(pair) for pair in outside + inside}


def test_table_and_figures_from_a_campaigns_ledger(
    small: Callable[..., Campaign], tmp_path: Path
) -> None:
    campaign = small(**LADDER)
    campaign.run()
    state = campaign.state()
    hull = Hull(phases_of(state, "lammps"))
    for phase in hull.phases:
        stored = state.labels[phase.id, "lammps"].values["formation_energy_per_atom"]
        assert hull.stability(phase).formation_energy == pytest.approx(stored, abs=1e-9)
    titles = [title for title, _ in figures(state)]
    assert [title.split(" at ")[0] for title in titles] == ["Hull of Fe-Ni", "Hull of Fe-Ni"], (
        "one for each level"
    )
    result = CliRunner().invoke(
        app, ["hull", str(campaign.folder), "--oracle", "lammps"], env={"COLUMNS": "180"}
    )
    assert result.exit_code == 0, result.output
    assert "above hull (eV/atom)" in result.output
    assert "stable" in result.output
