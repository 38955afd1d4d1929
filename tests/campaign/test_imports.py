"""Imports are sets: screened as proposals are, compared with the last import, and never paid for
twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from support import load

from campaign.api import Campaign
from campaign.config import loaded as configs
from campaign.decide import ranking
from campaign.errors import InputError
from campaign.ledger import events as ev
from campaign.ledger.leaders import Wanted
from campaign.types import Objective
from campaign.views.explain import story
from campaign.views.export import export
from campaign.views.view import OpenView

LOWEST = Objective("energy_per_atom", "minimize")
PLAIN: dict[str, Any] = {
    "space": {"elements": ["Ni", "Fe"], "max_fraction": 1.0},
    "generators": [],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 4, "batch_size": 4},
    "budget": {"labels": 20},
    "stopping": {"empty_rounds": 1},
}


def cell(symbols: str, a: float = 2.9, shift: float = 0.0, gap: float = 0.5, **info: Any) -> Atoms:
    """Two atoms, bcc where ``gap`` is a half."""
    atoms = Atoms(
        symbols, scaled_positions=[[shift] * 3, [shift + gap] * 3], cell=[a] * 3, pbc=True
    )
    atoms.info.update(info)
    return atoms


def loaded(folder: Path, **changes: Any) -> configs.LoadedConfig:
    return load(folder, **{**PLAIN, **changes})


def campaign(folder: Path, **changes: Any) -> Campaign:
    return Campaign(folder / "campaign", loaded(folder, **changes))


def pool(folder: Path, *images: Atoms) -> list[dict[str, Any]]:
    write(folder / "pool.extxyz", list(images), format="extxyz")
    return [{"path": "pool.extxyz"}]


def data(folder: Path, *images: Atoms, **source: Any) -> list[dict[str, Any]]:
    write(folder / "data.extxyz", list(images), format="extxyz")
    return [
        {
            "path": "data.extxyz",
            "columns": {"energy_per_atom": "E"},
            "oracle": "lennard_jones",
            **source,
        }
    ]


def test_pools_pass_the_screens_and_each_volume_is_a_crystal_of_its_own(tmp_path: Path) -> None:
    images = (
        cell("NiFe"),
        cell("Fe2"),
        cell("NiCu"),
        cell("NiFe", gap=0.05),
        cell("NiFe", shift=0.3),
        cell("NiFe", a=3.0),
    )
    run = campaign(
        tmp_path,
        space={"elements": ["Ni", "Fe"], "max_fraction": 0.6},
        candidate_pools=pool(tmp_path, *images),
    )
    run.run()
    found = run.candidates
    assert found["status"].tolist() == [
        "labelled",
        "refused",
        "refused",
        "refused",
        "refused",
        "labelled",
    ]
    assert found["screen"].tolist() == [
        "",
        "composition",
        "composition",
        "distance",
        "duplicate",
        "",
    ]


def test_what_is_appended_to_a_pool_is_labelled_and_nothing_else_again(tmp_path: Path) -> None:
    images = [cell("NiFe"), cell("Ni2"), cell("Fe2")]
    campaign(tmp_path, candidate_pools=pool(tmp_path, *images)).run()
    run = campaign(tmp_path, candidate_pools=pool(tmp_path, *images, cell("NiFe", a=3.1)))
    run.run()
    events = [event for _, _, event in run.reader().events() if isinstance(event, ev.Labelled)]
    assert len(events) == len({event.candidate for event in events}) == 4


def test_the_same_file_as_data_and_pool_keeps_the_measurements(tmp_path: Path) -> None:
    images = [cell("NiFe", E=-4.0), cell("Ni2", E=-5.0)]
    run = campaign(
        tmp_path,
        initial_data=data(tmp_path, *images),
        candidate_pools=pool(tmp_path, *images, cell("Fe2")),
    )
    run.run()
    labels = run.labels
    assert labels["energy_per_atom (eV/atom)"].tolist()[:2] == [-4.0, -5.0]
    assert len(labels) == 3


def test_corrected_and_deleted_rows_change_best_and_references(tmp_path: Path) -> None:
    wrong = [
        cell("NiFe", E=-45.1),
        cell("Ni2", E=-4.4),
        cell("Fe2", E=-9.9),
        cell("Fe2", a=3.0, E=-5.0),
    ]
    right = [cell("NiFe", E=-4.51), cell("Ni2", E=-4.4), cell("Fe2", a=3.0, E=-5.0)]
    fresh = campaign(
        tmp_path / "fresh",
        initial_data=data(_made(tmp_path / "fresh"), *right),
        candidate_pools=pool(tmp_path / "fresh", cell("Ni2")),
    )
    fresh.run()
    campaign(
        tmp_path, initial_data=data(tmp_path, *wrong), candidate_pools=pool(tmp_path, cell("Ni2"))
    ).run()
    run = campaign(
        tmp_path, initial_data=data(tmp_path, *right), candidate_pools=pool(tmp_path, cell("Ni2"))
    )
    with pytest.raises(
        InputError, match=r"changes 1: .*-45.1 eV/atom became .*-4.51[\s\S]*withdraws 1: .*-9.9"
    ):
        run.run()
    best = ranking.best(run.state(), run.wanted)
    assert best is not None
    assert best.values["energy_per_atom"] == -45.1, "nothing changes before it is accepted"
    run.run(accept_changes=True)
    state, expected = run.state(), fresh.state()
    assert {pair: label.values for pair, label in state.labels.items()} == {
        p: label.values for p, label in expected.labels.items()
    }
    assert state.elemental == expected.elemental
    for objective in (LOWEST, Objective("formation_energy_per_atom", "minimize")):
        one, other = (
            ranking.best(one, Wanted("lennard_jones", (objective,))) for one in (state, expected)
        )
        assert one is not None
        assert other is not None
        assert (one.candidate, one.values) == (other.candidate, other.values)
    back = campaign(
        tmp_path, initial_data=data(tmp_path, *wrong), candidate_pools=pool(tmp_path, cell("Ni2"))
    )
    back.run(accept_changes=True)
    assert min(back.labels["energy_per_atom (eV/atom)"]) == -45.1, (
        "what was withdrawn may come back"
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_two_values_of_one_crystal(tmp_path: Path) -> None:
    images = [
        cell("NiFe", E=-4.0),
        cell("NiFe", E=-4.2),
        cell("NiFe", shift=0.25, E=-4.4),
        cell("Fe2", E=-3.0),
    ]
    with pytest.raises(InputError, match="structure 1, structure 2, structure 3 are one crystal"):
        campaign(
            tmp_path,
            initial_data=data(tmp_path, *images),
            candidate_pools=pool(tmp_path, cell("Ni2")),
        ).run()
    run = campaign(
        tmp_path,
        initial_data=data(tmp_path, *images, replicates="mean"),
        candidate_pools=pool(tmp_path, cell("Ni2")),
    )
    run.run()
    first, *_ = run.state().labels.values()
    (observation,) = first.observations
    assert observation.value == pytest.approx(-4.2)
    assert observation.noise == pytest.approx(0.2 / 3**0.5)


def test_the_sanity_window_holds_for_imports(tmp_path: Path) -> None:
    oracles = [{"use": "lennard_jones", "sanity": {"energy_per_atom": [-10, 0]}}]
    with pytest.raises(
        InputError, match=r"structure 2: energy_per_atom of -45\.1 eV/atom lies outside"
    ):
        campaign(
            tmp_path,
            oracles=oracles,
            initial_data=data(tmp_path, cell("NiFe", E=-4.0), cell("Fe2", E=-45.1)),
            candidate_pools=pool(tmp_path, cell("Ni2")),
        ).run()


def test_a_source_with_several_levels_names_one(tmp_path: Path) -> None:
    ladder = campaign(
        tmp_path,
        candidate_pools=pool(tmp_path, cell("NiFe"), cell("Ni2"), cell("Fe2")),
        oracles=[
            {"use": "lennard_jones", "name": "cheap"},
            {"use": "lennard_jones", "name": "dear", "params": {"epsilon": 1.0}},
        ],
        fidelities={
            "levels": [{"oracle": "cheap"}, {"oracle": "dear", "gate": {"best_fraction": 0.5}}]
        },
    )
    ladder.run()
    source = {
        "path": "campaign",
        "columns": {"energy_per_atom": "energy_per_atom"},
        "oracle": "lennard_jones",
    }
    taken = Campaign(
        tmp_path / "taken",
        loaded(
            tmp_path, initial_data=[source], candidate_pools=pool(tmp_path, cell("NiFe", a=3.2))
        ),
    )
    with pytest.raises(InputError, match="cheap, dear gave labels of energy_per_atom"):
        taken.run()
    named = [{**source, "from_oracle": "dear"}]
    taken = Campaign(
        tmp_path / "taken",
        loaded(tmp_path, initial_data=named, candidate_pools=pool(tmp_path, cell("NiFe", a=3.2))),
    )
    taken.run()
    theirs = [
        label.values["energy_per_atom"]
        for label in ladder.state().labels.values()
        if label.oracle == "dear"
    ]
    ours = [
        label.values["energy_per_atom"] for label in taken.state().labels.values() if label.source
    ]
    assert sorted(ours) == sorted(theirs)


def test_a_tightened_space_holds_for_those_who_wait(tmp_path: Path) -> None:
    images = [
        cell("Fe2"),
        cell("NiFe"),
        cell("Ni2"),
        cell("Fe2", a=3.0),
        cell("NiFe", a=3.0),
        cell("Fe2", a=3.1),
    ]
    few = {
        "acquisition": {"use": "random", "initial_labels": 1, "batch_size": 9},
        "budget": {"labels": 1},
    }
    campaign(tmp_path, candidate_pools=pool(tmp_path, *images), **few).run()
    run = campaign(
        tmp_path,
        candidate_pools=pool(tmp_path, *images),
        space={"elements": ["Ni", "Fe"], "max_fraction": {"Fe": 0.5}},
        acquisition=few["acquisition"],
    )
    run.run(accept_changes=True)
    later = [label.candidate for label in run.state().own_labels if label.round > 0]
    assert later
    assert all((run.crystal(candidate).numbers == 26).mean() <= 0.5 for candidate in later)
    refused = run.candidates[run.candidates["status"] == "refused"]
    assert set(refused["screen"]) == {"composition"}


def test_pools_are_never_cut(tmp_path: Path) -> None:
    images = [cell("NiFe", a=2.8 + 0.01 * i) for i in range(30)]
    small = {"use": "random", "initial_labels": 2, "batch_size": 2, "pool_size": 5}
    run = campaign(
        tmp_path, candidate_pools=pool(tmp_path, *images), acquisition=small, budget={"labels": 4}
    )
    run.run()
    assert [record.decided.pool_size for record in run.state().rounds if record.decided] == [30, 28]


def test_names_and_facts_travel_with_their_candidates(tmp_path: Path) -> None:
    images = [
        cell("NiFe", material_id="mp-7", note="from the shelf"),
        cell("Fe2", material_id="mp-8"),
    ]
    run = campaign(tmp_path, candidate_pools=pool(tmp_path, *images))
    run.run()
    assert run.candidates["material_id"].tolist() == ["mp-7", "mp-8"]
    assert set(run.labels["name"]) == {"structure 1", "structure 2"}
    reader, state = run.reader(), run.state()
    identity = run.candidates["candidate"][0]
    assert ("", "material_id: mp-7") in list(story(OpenView(run.loaded, state, reader), identity))
    export(state, reader, tmp_path / "out")
    reader.close()
    from ase.db import connect
    from ase.io import read

    assert {
        atoms.info["material_id"] for atoms in read(tmp_path / "out" / "labels.extxyz", ":")
    } == {"mp-7", "mp-8"}
    assert {
        row.data["facts"]["material_id"] for row in connect(tmp_path / "out" / "labels.db").select()
    } == {"mp-7", "mp-8"}


def test_older_imports_still_fold(tmp_path: Path) -> None:
    run = campaign(tmp_path, candidate_pools=pool(tmp_path, cell("NiFe"), cell("Fe2")))
    run.run()
    known = run.state().imports[0]
    from campaign.ledger.state import CampaignState

    state = CampaignState()
    rows = tuple(ev.ImportedRow(row.candidate, row.equivalence, ()) for row in known.rows)
    state.apply(
        1,
        0.0,
        ev.decode(
            ev.encode(
                ev.Imported(
                    key="import/candidate_pools/x/",
                    source="p",
                    sha256="x",
                    oracle="",
                    fidelity="",
                    rows=rows,
                )
            )
        ),
    )
    assert list(state.unlabelled) == [row.candidate for row in rows]
    assert list(state.imported) == [("candidate_pools", "p", "")]


def test_total_energies_become_those_per_atom(tmp_path: Path) -> None:
    small, large = cell("NiFe", energy=-8.9), cell("NiFe").repeat((2, 2, 2))
    large.info["energy"] = -71.2
    write(tmp_path / "data.extxyz", [small, large], format="extxyz")
    source = {
        "path": "data.extxyz",
        "columns": {"energy_per_atom": "energy"},
        "oracle": "lennard_jones",
    }
    run = campaign(
        tmp_path,
        initial_data=[source],
        candidate_pools=pool(tmp_path, cell("Ni2")),
        budget={"labels": 1},
    )
    run.run()
    found = [
        label.values["energy_per_atom"] for label in run.state().labels.values() if label.source
    ]
    assert found
    assert np.allclose(found, -4.45)


def test_sources_are_checked_with_the_config(tmp_path: Path) -> None:
    column = {"path": "p.csv", "columns": {"energy_per_atom": "E"}}
    with pytest.raises(InputError, match=r"candidate_pools p.csv: say with oracle:"):
        loaded(tmp_path, candidate_pools=[column])
    named = {**column, "oracle": "lennard_jones"}
    with pytest.raises(InputError, match=r"initial_data names p.csv twice"):
        loaded(tmp_path, candidate_pools=[{"path": "x.csv"}], initial_data=[named, named])
