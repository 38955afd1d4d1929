"""Competing phases: labelled first and by the campaign's own oracle, kept for other campaigns of
that level, told where they lack.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import load
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.cli import app
from campaign.crystals.references import ordered_binary
from campaign.decide import ranking
from campaign.errors import InputError
from campaign.files import cache_folder
from campaign.ledger.debts import debts
from campaign.rounds import phases
from campaign.rounds.label_cache import LabelCache
from campaign.types import ENERGY_ABOVE_HULL, Crystal

ABOVE = ENERGY_ABOVE_HULL.name
STABLE: dict[str, Any] = {
    "objective": {"quantity": ABOVE, "direction": "minimize"},
    "space": {"elements": ["Ni", "Fe"], "max_fraction": 0.9},
    "generators": [{"use": "ordered_alloy", "count": 10, "params": {"atoms": [2, 4]}}],
    "surrogate": None,
    "acquisition": {"use": "random", "initial_labels": 4, "batch_size": 4},
    "budget": {"labels": 4},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("labels")


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A folder of phases: two of the space, one in another setting, one of a foreign element."""
    folder = tmp_path / "phases"
    folder.mkdir()
    pair = ordered_binary("Fe", "Ni")
    layered = Crystal(
        np.diag([2.5, 2.5, 7.0]),
        np.array([[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]]),
        [26, 26, 28, 28],
    )
    shifted = Crystal(pair.lattice, pair.fractional + 0.25, pair.numbers)
    for name, crystal in {
        "B2": pair,
        "layers": layered,
        "shifted": shifted,
        "AlNi": ordered_binary("Al", "Ni"),
    }.items():
        crystal.structure.to(str(folder / f"{name}.cif"))
    return folder


def test_phases_are_labelled_before_all_else_compete_and_are_no_finds(
    small: Callable[..., Campaign], known: Path
) -> None:
    campaign = small(**STABLE, phases={"path": str(known)})
    campaign.run()
    state = campaign.state()
    phases = [label for label in state.labels.values() if label.purpose == "known phase"]
    assert sorted(state.formula(label.candidate) for label in phases) == ["Fe1Ni1", "Fe2Ni2"]
    assert max(label.sequence for label in phases) < min(
        label.sequence for label in state.own_labels
    )
    assert {label.candidate for label in phases} <= {
        label.candidate for label in state.hull("lennard_jones").labels
    }  # type: ignore[union-attr]
    wanted = ranking.wanted_of(campaign.loaded.config, "lennard_jones")
    assert not {label.candidate for label in phases} & {
        item.label.candidate for item in ranking.ranked(state, wanted)
    }
    assert len(state.own_labels) == 4, "phases are outside the budget of labels, as references are"
    assert not debts(state)


def test_phases_that_are_not_known_may_be_finds(
    small: Callable[..., Campaign], known: Path
) -> None:
    campaign = small(**STABLE, phases={"path": str(known), "known": False})
    campaign.run()
    state = campaign.state()
    found = {
        item.label.purpose
        for item in ranking.ranked(
            state, ranking.wanted_of(campaign.loaded.config, "lennard_jones")
        )
    }
    assert found == {"", "phase"}


def test_another_campaign_takes_the_labels_of_the_same_level_alone(
    small: Callable[..., Campaign], known: Path, cache: Path
) -> None:
    first = small("first", **STABLE, phases={"path": str(known)})
    first.run()
    kept = sorted(cache.rglob("*.json"))
    assert len(kept) == 2
    second = small("second", **STABLE, phases={"path": str(known)})
    second.run()
    workers = {
        label.worker for label in second.state().labels.values() if label.purpose == "known phase"
    }
    assert workers == {"cache"}
    one, other = (
        {
            pair: label.values[ABOVE]
            for pair, label in c.state().labels.items()
            if label.purpose == "known phase"
        }
        for c in (first, second)
    )
    assert one.keys() == other.keys()
    deeper = small(
        "deeper",
        **STABLE,
        phases={"path": str(known)},
        oracles=[{"use": "lennard_jones", "params": {"epsilon": 0.3}}],
    )
    deeper.run()
    assert "cache" not in {label.worker for label in deeper.state().labels.values()}, (
        "another level's labels are another scale"
    )
    assert len(sorted(cache.rglob("*.json"))) == 4


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff\x00", b'{"fidelity":"x","candidate":"y","observations":[]}']
)
def test_a_damaged_cache_is_as_if_it_were_empty(
    small: Callable[..., Campaign], known: Path, cache: Path, damage: bytes
) -> None:
    crystal = ordered_binary("Fe", "Ni")
    (cache / "level").mkdir(parents=True)
    (cache / "level" / f"{crystal.id}.json").write_bytes(damage)
    assert LabelCache(cache).find(crystal.id, "level") is None


def test_a_cache_that_cannot_be_written_stops_nothing(
    small: Callable[..., Campaign], known: Path, cache: Path
) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder would be")
    campaign = small("first", **STABLE, phases={"path": str(known)})
    campaign.run()
    assert sum(label.purpose == "known phase" for label in campaign.state().labels.values()) == 2


def test_labels_of_the_users_own_code_are_not_kept_for_others(
    small: Callable[..., Campaign], known: Path, tmp_path: Path
) -> None:
    loaded = small(
        "first", **STABLE, phases={"path": str(known)}, oracles=[{"use": "lennard_jones"}]
    ).loaded
    assert phases.is_cacheable(loaded, "lennard_jones")
    (tmp_path / "mine_alone.py").write_text("class Inner: ...")
    component = loaded.config.oracles[0].model_copy(
        update={"params": {"inner": [{"use": "mine_alone:Inner"}]}}
    )
    config = loaded.config.model_copy(update={"oracles": (component,)})
    assert not phases.is_cacheable(replace(loaded, config=config, folder=tmp_path), "lennard_jones")


def test_a_label_of_the_cache_outside_the_window_is_not_believed(
    small: Callable[..., Campaign], known: Path, cache: Path
) -> None:
    small("first", **STABLE, phases={"path": str(known)}).run()
    for path in cache.rglob("*.json"):
        document = json.loads(path.read_bytes())
        document["observations"][0][1] = -1e6
        path.write_text(json.dumps(document))
    second = small(
        "second",
        **STABLE,
        phases={"path": str(known)},
        oracles=[{"use": "lennard_jones", "sanity": {"energy_per_atom": [-99, 99]}}],
    )
    second.run()
    labels = [label for label in second.state().labels.values() if label.purpose == "known phase"]
    assert len(labels) == 2
    assert "cache" not in {label.worker for label in labels}


def test_a_phase_that_fails_is_hull_debt(small: Callable[..., Campaign], known: Path) -> None:
    oracle = {"use": "lennard_jones", "sanity": {"energy_per_atom": [-5.0, 0.0]}}
    crowded = ordered_binary("Fe", "Ni")
    Crystal(crowded.lattice * 0.6, crowded.fractional, crowded.numbers).structure.to(
        str(known / "crowded.cif")
    )
    campaign = small(
        **STABLE, phases={"path": str(known)}, oracles=[oracle], screens={"same": "structure"}
    )
    campaign.run()
    (debt,) = debts(campaign.state())
    assert (debt.oracle, debt.formula, "crowded" in debt.name) == ("lennard_jones", "Fe1Ni1", True)
    assert "unphysical" in debt.reason
    for command in (["status", str(campaign.folder)], ["hull", str(campaign.folder)]):
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "hull debt" in result.output
        assert "crowded" in result.output


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ({"path": "nowhere"}, "phases: there is no"),
        ({"optimade": "http://127.0.0.1:9"}, "gave no ordered structure"),
    ],
)
def test_phases_that_cannot_be_had_are_told_before_anything_runs(
    small: Callable[..., Campaign], phases: dict[str, Any], told: str
) -> None:
    campaign = small(**STABLE, phases=phases)
    with pytest.raises(InputError, match=told) as error:
        campaign.run()
    assert error.value.hint
    assert not campaign.state().labels


def test_phases_need_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phases need a path"):
        load(tmp_path, **STABLE, phases={"known": True})


def test_foreign_phases_alone_are_told(small: Callable[..., Campaign], tmp_path: Path) -> None:
    ordered_binary("Al", "Ti").structure.to(str(tmp_path / "AlTi.cif"))
    with pytest.raises(InputError, match="none of 1 crystals can compete"):
        small(**STABLE, phases={"path": str(tmp_path / "AlTi.cif")}).run()
