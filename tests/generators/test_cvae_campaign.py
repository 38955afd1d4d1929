"""A campaign of carbon frameworks, what it found, names of nets, and the command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from carbon_cases import TARGET, labelled_crystals
from support import SMALL, merged
from typer.testing import CliRunner

from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes
from campaign.cli import app
from campaign.config import loaded as configs
from campaign.errors import InputError
from generators.cvae import crystal_nets
from generators.cvae.commands import nets_of
from generators.cvae.data import (
    read_crystals,
)
from generators.cvae.environment import prototype
from generators.cvae.store import from_checkpoint


@pytest.fixture(scope="module")
def carbon(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Random frameworks, labelled by REBO; then the conditional VAE is trained on them, proposes,
    and its proposals are labelled.
    """
    folder = tmp_path_factory.mktemp("carbon")
    learning = {
        "epochs": 10,
        "hidden": 64,
        "latent": 8,
        "components": 3,
        "descriptions": 5,
        "best": 1.0,
    }
    environment = {
        "target": TARGET,
        "sites": {"atoms": [4, 40], "sites": [1, 3]},
        "refine": {"restarts": 1},
    }
    changes = {
        "space": {"elements": ["C"], "max_fraction": 1.0},
        "budget": {"labels": 60, "rounds": 2},
        "generators": [
            {
                "use": "random_environment",
                "count": 16,
                "params": {**environment, "forest": {"tries": 60}, "min_labels": 10},
            },
            {
                "use": "cvae",
                "count": 10,
                "params": {
                    **environment,
                    "conditions": "data",
                    "min_labels": 10,
                    "training": learning,
                    "latent": {"steps": 10},
                },
            },
        ],
        "acquisition": {"use": "all", "initial_labels": 40, "batch_size": 40},
        "screens": {
            "min_distance": 1.1,
            "volume_per_atom": [4, 40],
            "extra": [{"use": "local_environment", "params": {"target": TARGET}}],
        },
        "oracles": [
            {
                "use": "lammps",
                "params": {"potential": "CH.rebo", "residual_pressure": 5.0, "residual_force": 0.5},
            }
        ],
        "failure_policy": {"not_converged": {"retries": 0}},
    }
    loaded = configs.validate(merged(SMALL, changes), folder=folder, source=folder / "carbon.yaml")
    campaign = Campaign(folder / "campaign", loaded)
    campaign.run()
    return campaign


def test_a_campaign_finds_frameworks_and_learns_from_them(carbon: Campaign) -> None:
    state = carbon.state()
    makers = {
        event.generator for record in state.candidates.values() for event, _ in record.proposals
    }
    assert makers == {"random_environment", "cvae"}
    (grown, *_) = state.checkpoints["random_environment"]
    assert grown.is_published
    assert grown.metrics["tried"] == 60
    assert any(
        event.generator == "random_environment" and event.checkpoint == grown.checkpoint
        for record in state.candidates.values()
        for event, _ in record.proposals
    ), "it proposes by what it learned"
    labelled = {
        event.generator
        for candidate, _ in state.labels
        for event, _ in state.candidates[candidate].proposals
    }
    assert labelled == makers
    nets: dict[tuple[int, str], list[str]] = {}
    for record in state.candidates.values():
        for event, row in record.proposals:
            nets.setdefault((event.round, event.generator), []).append(str(row.condition["net"]))
    assert all(len(set(some)) == len(some) for some in nets.values()), (
        "a generator proposes each net once"
    )
    labelled_records = [state.candidates[candidate] for candidate, _ in state.labels]
    known = {
        str(row.condition["net"])
        for record in labelled_records
        for event, row in record.proposals
        if event.round == 0
    }
    later = {net for (turn, _), some in nets.items() if turn > 0 for net in some}
    assert known
    assert later
    assert not known & later, "no net that is labelled is proposed again"


def test_nets_are_ranked_counted_and_named(carbon: Campaign, tmp_path: Path) -> None:
    from ase.db import connect

    found, counts = nets_of(carbon.folder)
    energies = [net.energy for net in found]
    assert energies == sorted(energies)
    assert (
        counts["labelled"]
        >= counts["with the target's bonds after relaxation"]
        >= counts["unique"]
        == len(found)
        > 0
    )
    assert counts["unique, within 0.55 eV/atom"] == sum(energy <= 0.55 for energy in energies)
    with connect(tmp_path / "known.db") as known:
        known.write(found[0].crystal.atoms, topology="found")
        known.write(prototype("diamond").atoms, topology="dia")
    named, counts = nets_of(carbon.folder, tmp_path / "known.db")
    assert [net.name for net in named].count("found") == 1
    assert counts["of the 1 known nets"] == 1, "diamond has not the target's bonds"
    told = CliRunner().invoke(
        app, ["nets", str(carbon.folder), "--known", str(tmp_path / "known.db"), "--most", "3"]
    )
    assert told.exit_code == 0, told.output
    assert "found" in told.output
    with pytest.raises(InputError, match="expected an ASE database"):
        nets_of(carbon.folder, tmp_path / "known.cif")


FAKE_JULIA = """#!{python}
import sys
from ase.io import read
assert sys.argv[1:3] == ["--startup-file=no", "-e"] and "determine_topology" in sys.argv[3]
if {broken}:
    sys.exit("ERROR: ArgumentError: Package CrystalNets not found")
for path in sys.argv[4:]:
    print(path.rpartition("/")[2], "dia" if len(read(path)) == {diamond} else "", sep="\\t")
"""


@pytest.mark.parametrize("broken", [False, True])
def test_names_of_crystal_nets_come_where_a_julia_has_it(
    broken: bool,
    carbon: Campaign,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stand-in for Julia: what is asked of it, and what is made of its answer. The real one
    cannot be installed in every place.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    crystals = [prototype("diamond"), prototype("graphite")]
    assert crystal_nets.names(crystals) == ["", ""], "no Julia"
    julia = tmp_path / "julia"
    julia.write_text(
        FAKE_JULIA.format(python=sys.executable, broken=broken, diamond=len(crystals[0]))
    )
    julia.chmod(0o755)
    assert crystal_nets.names(crystals) == (["", ""] if broken else ["dia", ""])
    assert ("CrystalNets not found" in caplog.text) == broken
    told = CliRunner().invoke(app, ["nets", str(carbon.folder), "--most", "3"])
    assert told.exit_code == 0, told.output


def test_the_command_trains_on_known_crystals(tmp_path: Path) -> None:
    from ase.io import write

    crystals = [item.candidate.crystal for item in labelled_crystals(12)]
    write(tmp_path / "known.extxyz", [crystal.atoms for crystal in crystals])
    target = tmp_path / "carbon.safetensors"
    arguments = [
        "train",
        "cvae",
        str(tmp_path / "known.extxyz"),
        str(target),
        "--set",
        "target={prototypes: [graphite], bonds: {C-C: 1.872}}",
        "--set",
        "training={epochs: 2, descriptions: 4, subgroups: 2}",
    ]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    model, tables = from_checkpoint(checkpoint_from_bytes(target.read_bytes()))
    assert model.is_conditional
    assert len(tables) == 12
    bad = CliRunner().invoke(app, [*arguments, "--set", "target.bonds=C-C"])
    assert bad.exit_code == 2
    assert "target.bonds" in bad.output
    with pytest.raises(InputError, match="there is no"):
        read_crystals(tmp_path / "missing.db")
