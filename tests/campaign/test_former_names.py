"""Settings under their earlier names are taken for those of today, with a word."""

from __future__ import annotations

import copy
import importlib
import logging
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML
from support import load

from campaign import parameters, plugins
from campaign.api import Campaign, _with_defaults
from campaign.config import loaded as configs
from campaign.config.schema import AcquisitionConfig, GeneratorConfig
from campaign.decide.replay import replay
from campaign.parameters import Parameters, truths_for_numbers
from campaign.plugins import ParameterError
from campaign.protocols import PluginSpec


def _below(model: type[Parameters]) -> Iterator[type[Parameters]]:
    for child in model.__subclasses__():
        yield child
        yield from _below(child)


def renamed(table: str = "former") -> list[tuple[type[Parameters], str]]:
    """Every model of ours with each of its settings that had another name, or that is no more
    (``gone``).
    """
    for package in ("campaign", "generators", "oracles", "surrogates"):
        for module in pkgutil.walk_packages([package], f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    models = {m for m in _below(Parameters) if not m.__module__.startswith("test")}
    return sorted(
        ((m, name) for m in models for name, _ in m._all(table)),
        key=lambda item: (item[0].__module__, item[0].__qualname__, item[1]),
    )


@pytest.fixture(autouse=True)
def _untold() -> None:
    parameters._tell_of.cache_clear()


def test_every_former_name_is_taken_for_the_one_of_today(caplog: pytest.LogCaptureFixture) -> None:
    found = renamed()
    assert len(found) > 15
    for model, name in found:
        former = dict(model._all("former"))[name]
        field = model.model_fields[name]
        assert former.name not in model.model_fields
        values = former.values or {field.default: field.default}
        for old, new in values.items():
            if new is PydanticUndefined:
                continue
            parameters._tell_of.cache_clear()
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                taken = model._take_former_names({former.name: old})
                model._take_former_names({former.name: old})
            assert taken == {name: new}
            if former.values:
                assert new in get_args(field.annotation)
            (told,) = caplog.messages
            assert former.name in told
            assert name in told
        with pytest.raises(ValueError, match=f"leave {former.name} out"):
            model._take_former_names({former.name: field.default, name: field.default})


def test_nobody_means_one_by_true_under_an_earlier_name_either() -> None:
    """A truth value where a number is asked for is told as it is under today's name."""
    for model, name in renamed():
        former = dict(model._all("former"))[name]
        taken = model.model_construct(**{name: 1})
        assert list(truths_for_numbers({name: True}, taken)) == [(name,)]
        assert list(truths_for_numbers({former.name: True}, taken)) == [(former.name,)]
    with pytest.raises(ParameterError, match="least_distance: expected a number"):
        plugins.build(
            PluginSpec(
                group="generators",
                use="random_crystal",
                params={"least_distance": True},
                elements=("Ni",),
            )
        )


def test_both_names_together_are_refused_where_a_config_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="leave least_distance out"):
        AcquisitionConfig(min_distance=0.1, least_distance=0.1)  # type: ignore[call-arg]
    with pytest.raises(Exception, match="leave strange_above out"):
        load(tmp_path, acquisition={"strange_above": 3.0, "trust_max": 3.0})


def test_what_is_no_more_is_told_where_it_stood_for_something(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert GeneratorConfig(use="random_alloy", oversampling=1) == GeneratorConfig(  # type: ignore[call-arg]
            use="random_alloy"
        )
        assert not caplog.messages
        GeneratorConfig(use="random_alloy", oversampling=4)  # type: ignore[call-arg]
    assert "oversampling is no more" in caplog.text


def test_every_setting_that_is_no_more_is_told_unless_it_stands_for_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = renamed("gone")
    names = {name for _, name in found}
    assert names >= {"betas", "clip", "held_out", "mutation", "smoothing", "weight_decay"}
    for model, name in found:
        nothing = dict(model._all("gone"))[name]
        assert name not in model.model_fields
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert model._take_former_names({name: nothing}) == {}
            assert not caplog.messages
            assert model._take_former_names({name: "another"}) == {}
        assert f"the setting {name} is no more" in caplog.text


def test_a_ledger_of_before_differs_in_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the config under the names of then, defaults and all."""
    generators = [{"use": "random_alloy", "params": {"lattices": ["fcc"], "repeats": [2, 2, 1]}}]
    loaded = load(tmp_path, generators=generators, budget={"labels": 14})
    campaign = Campaign(tmp_path / "campaign", loaded)
    campaign.run()
    today = loaded.resolved()
    then = copy.deepcopy(today)
    for old, new in (("least_distance", "min_distance"), ("strange_above", "trust_max")):
        then["acquisition"][old] = then["acquisition"].pop(new)
    then["generators"][0]["oversampling"] = 1
    levels = campaign.state().config
    assert levels is not None
    assert configs.changes(_with_defaults(then), today, levels.fidelities, levels.fidelities) == []
    assert not caplog.messages, "what a ledger holds is nobody's to change"
    path = tmp_path / "then.yaml"
    with path.open("w") as file:
        YAML().dump(then | {"budget": {"labels": 19}}, file)
    again = Campaign.from_config(path, tmp_path / "campaign")
    again.run()
    state = again.state()
    assert len(state.labels) == 19
    for index, record in enumerate(state.rounds):
        if record.decided is not None:
            assert replay(again, index) == record.decided.choices
