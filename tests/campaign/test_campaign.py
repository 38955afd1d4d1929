"""Whole campaigns on the closed-form oracle: modes, stops, resume, config changes, tables, exports,
stories.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import HELPERS, label_set

from campaign.api import STOP_REQUEST, Campaign
from campaign.checkpoints import checkpoint_from_bytes
from campaign.decide import ranking
from campaign.errors import InputError, LedgerDamagedError, SurroundingsError
from campaign.ledger.artifacts import ArtifactStore
from campaign.report import write_report
from campaign.rounds.train import checkpoints_to_drop
from campaign.views import metrics
from campaign.views.explain import resolve, story
from campaign.views.export import export
from campaign.views.view import OpenView

Make = Callable[..., Campaign]


def test_rounds_wait_and_the_same_seed_gives_the_same_labels(small: Make) -> None:
    first, second = small("first"), small("second")
    assert first.run() == second.run() == "budget spent: 24 labels"
    assert label_set(first) == label_set(second)
    state = first.state()
    assert [len(record.decided.choices) for record in state.rounds if record.decided] == [
        9,
        5,
        5,
        5,
    ]
    for record in state.rounds[1:]:
        assert record.decided is not None
        assert record.decided.acquisition == "log_noisy_expected_improvement"
        assert record.decided.model_labels == record.decided.labels_at_decision
        assert record.decided.pending == ()
    assert small("third", seed=8).run()
    assert label_set(small("third", seed=8)) != label_set(first)


def test_a_campaign_in_pieces_gives_the_labels_of_the_whole(small: Make) -> None:
    whole = small("whole")
    whole.run()
    for labels in (9, 14, 24):
        pieces = small("pieces", budget={"labels": labels})
        assert pieces.run() == f"budget spent: {labels} labels"
    assert label_set(pieces) == label_set(whole)
    assert pieces.run() == "budget spent: 24 labels"
    assert len(pieces.state().sessions) == 4


def test_streaming_records_how_stale_the_model_was(small: Make) -> None:
    campaign = small(mode="streaming", budget={"labels": 40})
    campaign.run()
    decided = [
        record.decided
        for record in campaign.state().rounds
        if record.decided is not None and record.decided.model
    ]
    assert decided
    assert all(event.model_labels <= event.labels_at_decision for event in decided)
    assert any(event.pending for event in decided)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget": {"labels": None, "rounds": 2}}, "budget spent: 2 rounds"),
        ({"objective": {"target": 1000.0}}, "target reached: energy_per_atom"),
        ({"budget": {"oracle_seconds": {"lennard_jones": 1e-6}}}, "of lennard_jones"),
        (
            {
                "budget": {"cost": {"EUR": 1e-9}},
                "oracles": [{"use": "lennard_jones", "cost": {"per_hour": 2.0, "currency": "EUR"}}],
            },
            "budget spent: ",
        ),
        ({"budget": {"wall_time": 1e-6}}, "of running time"),
        (
            {"stopping": {"stagnation_rounds": 1}, "budget": {"labels": 500}},
            "stagnation: 1 rounds without",
        ),
        (
            {
                "generators": [{"use": "user_generators:Finite", "count": 5}],
                "stopping": {"empty_rounds": 2},
            },
            "search space exhausted",
        ),
    ],
)
def test_stops(small: Make, changes: dict[str, Any], reason: str) -> None:
    assert reason in small(**changes).run()


@pytest.mark.parametrize(
    "use",
    [
        "log_expected_improvement",
        "upper_confidence_bound",
        "thompson",
        "greedy_mean",
        "uncertainty",
        "random",
        "all",
    ],
)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_every_acquisition_runs_a_campaign(small: Make, use: str, direction: str) -> None:
    campaign = small(
        acquisition={"use": use}, objective={"direction": direction}, budget={"labels": 19}
    )
    campaign.run()
    decided = [record.decided for record in campaign.state().rounds if record.decided is not None]
    assert decided[-1].acquisition == use
    assert len(label_set(campaign)) == 19


def test_a_model_finds_better_labels_than_chance(small: Make) -> None:
    """Over five seeds the energies that the model chose are lower than those chosen at random from
    the same generators.
    """
    means = {}
    for use in ("log_noisy_expected_improvement", "random"):
        found = []
        for seed in range(5):
            campaign = small(
                f"{use}-{seed}",
                seed=seed,
                acquisition={"use": use},
                generators=[{"use": "random_alloy", "count": 40}],
            )
            campaign.run()
            found.append(
                np.mean(
                    [
                        label.values["energy_per_atom"]
                        for label in campaign.state().labels.values()
                        if label.round > 0
                    ]
                )
            )
        means[use] = np.mean(found)
    assert means["log_noisy_expected_improvement"] < means["random"]


def test_changed_settings(small: Make) -> None:
    small(budget={"labels": 9}).run()
    with pytest.raises(InputError, match="--accept-changes"):
        small(acquisition={"batch_size": 4}).run()
    changed = small(acquisition={"batch_size": 4})
    assert changed.run(accept_changes=True) == "budget spent: 24 labels"
    state = changed.state()
    assert state.config is not None
    assert set(state.config.accepted) == {"acquisition", "budget"}
    assert state.rounds[1].decided is not None
    assert len(state.rounds[1].decided.choices) == 4
    for refused in (
        {"seed": 8},
        {"oracles": [{"use": "lennard_jones", "params": {"epsilon": 0.2}}]},
    ):
        with pytest.raises(InputError, match="cannot change"):
            small(**refused).run(accept_changes=True)


def test_a_removed_oracle_does_not_hold_up_the_campaign(small: Make, tmp_path: Path) -> None:
    both = [
        {"use": "lennard_jones"},
        {"use": "lennard_jones", "name": "other", "params": {"epsilon": 0.5}},
    ]
    campaign = small(oracles=both)
    assert (
        campaign.run(on_change=lambda _: (tmp_path / "campaign" / STOP_REQUEST).touch())
        == "stop was asked for"
    )
    left = [pair for pair in campaign.state().pending if pair[1] == "other"]
    assert left
    assert small().run(accept_changes=True) == "budget spent: 24 labels"
    state = small().state()
    assert {(event.candidate, event.oracle) for _, _, event in state.failures} == set(left)
    assert all(record.ended is not None for record in state.rounds)


def test_a_budget_that_two_oracles_cannot_share_evenly_is_spent(small: Make) -> None:
    both = [
        {"use": "lennard_jones"},
        {"use": "lennard_jones", "name": "other", "params": {"epsilon": 0.5}},
    ]
    campaign = small(oracles=both, budget={"labels": 13})
    assert campaign.run() == "budget spent: 12 labels"
    assert all(
        record.decided is not None and record.decided.choices for record in campaign.state().rounds
    )


def test_the_folder_of_the_best_holds_the_best_alone(small: Make, tmp_path: Path) -> None:
    for labels in (9, 24):
        campaign = small(budget={"labels": labels})
        campaign.run()
        with campaign.view() as view:
            page = write_report(view, tmp_path / "campaign").read_text()
        names = {path.name for path in (tmp_path / "campaign" / "best").iterdir()}
        assert len(names) == min(labels, 20)
        assert all(name in page for name in names)


def test_training_is_keyed_work_with_a_gate(small: Make, tmp_path: Path) -> None:
    campaign = small(budget={"labels": 49})
    campaign.run()
    state = campaign.state()
    trained = state.checkpoints["cross_entropy_alloy"]
    assert len(trained) >= 3
    assert any(event.is_published for event in trained)
    assert all(
        event.is_published
        == (
            event.metrics["held_out_log_likelihood"]
            > event.metrics["held_out_log_likelihood_before"]
        )
        for event in trained
    )
    store = ArtifactStore(tmp_path / "campaign")
    kept = {path.name for path in store.folder.iterdir()}
    dropped = checkpoints_to_drop(state)
    assert kept == {event.checkpoint for event in trained} - dropped
    published = state.published("cross_entropy_alloy")
    assert published is not None
    checkpoint = checkpoint_from_bytes(store.read(published.checkpoint))
    assert checkpoint.tensors["sites"].sum(-1) == pytest.approx(np.ones((2, 8)))
    users = {
        event.checkpoint
        for record in state.rounds
        for event in record.proposed
        if event.generator == "cross_entropy_alloy"
    }
    assert published.checkpoint in users | {trained[-1].checkpoint}
    store.path(published.checkpoint).write_bytes(b"damaged")
    with pytest.raises(LedgerDamagedError, match="is damaged"):
        store.read(published.checkpoint)


def test_initial_data_and_pools_from_every_kind_of_source(small: Make, tmp_path: Path) -> None:
    source = small("source", budget={"labels": 12})
    source.run()
    reader = source.reader()
    export(source.state(), reader, tmp_path / "export")
    crystals = reader.crystals([candidate for candidate, _ in source.state().labels])
    reader.close()
    rows = [{"cif": c.structure.to(fmt="cif"), "e": -1.0 - i} for i, c in enumerate(crystals)]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    columns = {"energy_per_atom": "energy_per_atom"}
    sources = [
        {
            "path": str(tmp_path / "export" / "labels.extxyz"),
            "columns": columns,
            "oracle": "lennard_jones",
        },
        {
            "path": str(tmp_path / "export" / "labels.db"),
            "columns": columns,
            "oracle": "lennard_jones",
        },
        {"path": str(tmp_path / "source"), "columns": columns, "oracle": "lennard_jones"},
        {
            "path": str(tmp_path / "table.csv"),
            "columns": {"energy_per_atom": "e"},
            "oracle": "lennard_jones",
        },
    ]
    for i, item in enumerate(sources):
        taken = small(f"taken-{i}", initial_data=[item], budget={"labels": 10})
        taken.run()
        taken.run()
        state = taken.state()
        foreign = [label for label in state.labels.values() if label.source]
        assert len(foreign) == 12
        assert len(state.own_labels) == 10
        assert state.rounds[0].fitted is not None, "the model starts from the labels taken over"
        assert len(state.imports) == 1
    pool = small(
        "pool",
        generators=[],
        candidate_pools=[{"path": str(tmp_path / "export" / "cif")}],
        budget={"labels": 7},
    )
    pool.run()
    assert len(pool.state().labels) == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "missing.csv"}, "there is no"),
        (
            {"path": "table.csv", "columns": {"energy_per_atom": "energy"}},
            "there is no column 'energy'",
        ),
        ({"path": "table.csv", "columns": {"stiffness": "e"}}, "no oracle measures 'stiffness'"),
        ({"path": "table.csv", "structure_column": "structure"}, "there is no column 'structure'"),
        ({"path": "bad.csv"}, "row 1: no CIF"),
        ({"path": "word.txt"}, "word.txt: cannot tell from its name"),
    ],
)
def test_sources_that_cannot_be_read(
    small: Make, tmp_path: Path, source: dict[str, Any], message: str
) -> None:
    (tmp_path / "table.csv").write_text("cif,e\n")
    (tmp_path / "bad.csv").write_text("cif,e\nnonsense,1\n")
    (tmp_path / "word.txt").write_text("x")
    source = {**source, "path": str(tmp_path / source["path"]), "oracle": "lennard_jones"}
    with pytest.raises(InputError, match=message):
        small(initial_data=[source]).run()


def test_tables_exports_stories_and_the_report(small: Make, tmp_path: Path) -> None:
    campaign = small()
    campaign.run()
    labels, candidates, rounds = campaign.labels, campaign.candidates, campaign.rounds
    assert len(labels) == 24
    assert labels["energy_per_atom (eV/atom)"].notna().all()
    assert set(candidates["status"]) >= {"labelled", "accepted"}
    assert (candidates["status"] == "labelled").sum() == 24
    assert rounds["labels_so_far"].tolist() == [9, 14, 19, 24]
    assert rounds["best_so_far"].is_monotonic_decreasing
    reader, state = campaign.reader(), campaign.state()

    files = {path.name for path in export(state, reader, tmp_path / "out")}
    assert files == {"labels.parquet", "candidates.parquet", "cif", "labels.extxyz", "labels.db"}
    from ase.db import connect
    from ase.io import read

    images = read(tmp_path / "out" / "labels.extxyz", ":")
    assert sorted(image.info["candidate"] for image in images) == sorted(labels["candidate"])
    assert json.loads(images[0].info["units"]) == {"energy_per_atom": "eV/atom"}
    assert connect(tmp_path / "out" / "labels.db").count() == 24
    assert len(pd.read_parquet(tmp_path / "out" / "labels.parquet")) == 24
    with pytest.raises(InputError, match="cannot export vasp"):
        export(state, reader, tmp_path / "out", ("vasp",))

    child = next(
        r for r in candidates.itertuples() if r.status == "labelled" and r.parents and r.round > 0
    )
    view = OpenView(campaign.loaded, state, reader)
    headings = [heading for heading, _ in story(view, resolve(state, child.candidate[:12]))]
    assert [h for h in headings if h] == sorted([h for h in headings if h], key=ORDER.index)
    assert {"candidate", "proposed", "screened", "chosen", "labelled"} <= set(headings)
    with pytest.raises(InputError, match="no candidate's id begins"):
        resolve(state, "zz")

    page = write_report(view, tmp_path / "campaign").read_text()
    assert "http://" not in page.split("</script>")[-1]
    best = labels.sort_values("energy_per_atom (eV/atom)").iloc[0]
    assert best["candidate"] in page
    assert len(list((tmp_path / "campaign" / "best").glob("*.cif"))) == 20
    reader.close()


ORDER = [
    "candidate",
    "came from",
    "proposed",
    "screened",
    "not chosen",
    "chosen",
    "waiting",
    "failed",
    "labelled",
    "taught",
]


def test_figures_of_a_campaign_agree_with_its_rows(small: Make) -> None:
    campaign = small()
    campaign.run()
    state, objective = campaign.state(), campaign.objective
    series = ranking.best_so_far(state, campaign.wanted)
    values = [label.values["energy_per_atom"] for label, _ in series]
    assert [best for _, best in series] == list(np.minimum.accumulate(values))
    record = state.rounds[2]
    found = metrics.predictions(record, state, objective, "lennard_jones")
    errors = [item.value - item.mean for item in found]
    assert metrics.calibration(found)["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert 0 < metrics.busy_fraction(state, "lennard_jones", 1) <= 1


def test_folders_that_hold_something_else(small: Make, tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty and holds no campaign"):
        small().run()
    with pytest.raises(SurroundingsError, match="no campaign in"):
        Campaign.open(tmp_path / "nothing")


def test_user_modules_are_found_beside_the_config(small: Make) -> None:
    campaign = small(
        oracles=[{"use": "user_oracles:Density"}],
        objective={"quantity": "density", "direction": "maximize"},
    )
    campaign.run()
    assert {label.fidelity.rpartition("-")[0] for label in campaign.state().labels.values()} == {
        "Density"
    }
    assert HELPERS.name == "plugins"
