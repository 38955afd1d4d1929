"""Weights in a model registry: what a campaign begins with it keeps, however the alias moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from support import SMALL, load, merged
from typer.testing import CliRunner, Result

from campaign.api import CONFIG_COPY, Campaign
from campaign.checkpoints import checkpoint_to_bytes
from campaign.cli import app
from campaign.errors import InputError, SurroundingsError
from campaign.tracking import registry
from campaign.types import Checkpoint

STARTED = '''
from pydantic import BaseModel
from campaign.checkpoints import checkpoint_from_bytes
from campaign.parameters import WeightsPath

class Settings(BaseModel):
    weights: WeightsPath

class Started:
    """Proposes nothing, and has weights."""
    Config = Settings
    def __init__(self, config): self.value = checkpoint_from_bytes(config.weights.read_bytes()).tensors["value"]
    def generate(self, n, *, rng, context): return iter(())
'''  # noqa: E501
NAMED = "models:/alloys@production"


def weights(value: float) -> bytes:
    return checkpoint_to_bytes(Checkpoint(tensors={"value": np.array(value)}))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions; the alias is at the first."""
    folder = tmp_path_factory.mktemp("registry")
    uri = registry.registry_of(str(folder), folder)
    assert registry.register(uri, registry.target_of("alloys@production"), weights(1), folder) == 1
    assert registry.register(uri, registry.target_of("alloys@trial"), weights(2), folder) == 2
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_started.py").write_text(STARTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def document(store: Path, named: str = NAMED, **changes: Any) -> dict[str, Any]:
    own = {"use": "own_started:Started", "name": "own", "count": 1, "params": {"weights": named}}
    found: dict[str, Any] = merged(
        SMALL,
        {
            "tracking": {"uri": str(store)},
            "generators": [SMALL["generators"][0], own],
            "surrogate": None,
            "acquisition": {"use": "random"},
            "budget": {"labels": 9},
            **changes,
        },
    )
    return found


def value_of(campaign: Campaign) -> float:
    return float(campaign.loaded.parts.generators["own"].value)  # type: ignore[attr-defined]


def move(folder: Path, version: int) -> None:
    client = registry.places.client_of(registry.registry_of(str(folder), folder))
    client.set_registered_model_alias("alloys", "production", str(version))


def test_a_campaign_keeps_its_version_when_the_alias_moves_and_the_registry_is_away(
    home: Path, filled: Path
) -> None:
    store = home / "store"
    move(filled, 1)
    campaign = Campaign.create(home / "one", document(filled))
    assert value_of(campaign) == 1
    campaign.run()
    recorded = campaign.state().config
    assert recorded is not None
    assert recorded.config["generators"][1]["params"]["weights"] == "models:/alloys/1"
    kept = json.loads((campaign.folder / CONFIG_COPY).read_bytes())["config"]
    assert kept["generators"][1]["params"]["weights"] == "models:/alloys/1"
    move(filled, 2)
    more = document(filled, budget={"labels": 12})
    again = Campaign.create(home / "one", more)
    assert value_of(again) == 1
    again.run()
    assert len(again.state().labels) == 12
    assert value_of(Campaign.open(home / "one")) == 1
    assert value_of(Campaign.create(home / "two", more)) == 2
    away = document(store / "nowhere", tracking={"uri": "sqlite:////proc/none/mlflow.db"})
    assert value_of(Campaign.create(home / "one", away)) == 1


def test_what_is_not_there_is_told_with_what_is(home: Path, filled: Path) -> None:
    for named, expected in {
        "models:/alloy@production": "no model 'alloy' is registered; there are: alloys",
        "models:/alloys@prod": "no alias 'prod'; its aliases are: production, trial",
        "models:/alloys/9": "no version '9'",
    }.items():
        with pytest.raises(InputError, match=expected):
            Campaign.create(home / "one", document(filled, named))
    shutil.rmtree(home / "registered_models", ignore_errors=True)
    away = document(filled, tracking={"uri": "sqlite:////proc/none/mlflow.db"})
    with pytest.raises(SurroundingsError, match="does not answer"):
        Campaign.create(home / "one", away)
    with pytest.raises(InputError, match="no model registry is named"):
        Campaign.create(home / "one", document(filled, tracking={"uri": None}))


def test_a_config_without_registered_models_asks_no_registry(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert registry.pinned(loaded, tmp_path) is loaded


@pytest.mark.parametrize(
    "text", ["alloys", "alloys@", "@production", "a b@c", "alloys@v2", "a/b@c"]
)
def test_what_names_no_alias_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected NAME@ALIAS"):
        registry.target_of(text)


def register(*words: str) -> Result:
    return CliRunner().invoke(app, ["register", *words])


def test_the_command_registers_files_and_what_a_campaign_published_last(home: Path) -> None:
    store = home / "store"
    assert register("none.safetensors", "a@b", "--registry", str(store)).exit_code == 2
    (home / "text.safetensors").write_text("no weights")
    assert "expected weights" in register("text.safetensors", "a@b", "--registry", "store").output
    (home / "one.safetensors").write_bytes(weights(3))
    done = register("one.safetensors", "alloys@production", "--registry", str(store))
    assert "models:/alloys@production" in done.output
    with (home / "small.yaml").open("w") as file:
        YAML().dump(merged(SMALL, {"surrogate": None, "acquisition": {"use": "random"}}), file)
    campaign = Campaign.from_config(home / "small.yaml", home / "campaign")
    campaign.run()
    done = register("campaign", "alloys@production", "--registry", str(store))
    assert "alloys version 2 is production" in done.output, done.output
    found = Campaign.create(home / "other", document(store)).loaded
    assert found.config.generators[1].params["weights"] == "models:/alloys/2"
    last = campaign.state().published("cross_entropy_alloy")
    assert last is not None
    kept = (home / "registered_models" / "alloys" / "2.safetensors").read_bytes()
    assert kept == (campaign.folder / "artifacts" / last.checkpoint).read_bytes()
    wrong = register("campaign", "alloys@production", "--generator", "none", "--registry", "store")
    assert "there are: cross_entropy_alloy" in wrong.output.replace("\n", " ")
