"""What is wrong with settings, told in a person's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, merged

from campaign.backtest import config as backtests
from campaign.config import loaded as configs
from campaign.config.schema import CampaignConfig
from campaign.errors import InputError
from campaign.study import config as studies

WRONG: tuple[Any, ...] = (
    None,
    "x y",
    "",
    -1,
    1.5,
    10**30,
    float("nan"),
    True,
    [],
    [3],
    ["x", None],
    {},
    {"foo": 1},
    {"use": "luck"},
)
INTERNALS = (
    "pydantic",
    "type=",
    "input_value",
    "http",
    "Input should",
    "Value error",
    "valid dictionary",
    "instance of",
    "[",
    "function-",
)


def refusals(validate: Callable[..., Any], documents: Iterator[dict[str, Any]]) -> Iterator[str]:
    for document in documents:
        try:
            found = validate(document, folder=Path(), source=Path("c.yaml"))
            getattr(found, "parts", None)
        except InputError as error:
            yield f"{error.message} {error.hint}"


def bad_campaigns() -> Iterator[dict[str, Any]]:
    """Every key of the first two storeys with values of every kind."""
    inner = {
        "objective": "quantity",
        "space": "elements",
        "budget": "labels",
        "executor": "use",
        "acquisition": "batch_size",
    }
    for value in WRONG:
        for key in CampaignConfig.model_fields:
            yield {**SMALL, key: value}
        for key, below in inner.items():
            yield merged(SMALL, {key: {below: value}})
        for key in ("use", "workers", "params", "python", "sanity"):
            yield merged(SMALL, {"oracles": [{"use": "lennard_jones", key: value}]})
        for key in ("repeats", "lattices", "repeets"):
            yield merged(SMALL, {"generators": [{"use": "random_alloy", "params": {key: value}}]})
        yield merged(SMALL, {"surrogate": {"use": "gp", "params": {"descriptors": value}}})


def test_no_message_shows_how_it_was_checked() -> None:
    told = list(refusals(configs.validate, bad_campaigns()))
    assert len(told) > 200
    for message in told:
        plain = message.replace("['", "").replace("']", "")
        for word in INTERNALS:
            if word == "[" and ("found [" in message or "got [" in message or "[]" in message):
                continue
            assert word not in plain, message


def test_nor_do_studies_and_backtests() -> None:
    study = {
        "name": "a",
        "value": {"use": "backtest", "path": "b.yaml", "strategy": "s"},
        "space": {"x": {"use": "float", "low": 0, "high": 1}},
    }
    found = list(
        refusals(
            studies.validate,
            ({**study, key: value} for key in studies.StudyConfig.model_fields for value in WRONG),
        )
    )
    backtest = {"name": "a", "campaign": SMALL, "strategies": {"random": {}}}
    keys = backtests.BacktestConfig.model_fields
    found += refusals(
        backtests.validate,
        ({**backtest, key: value} for key in keys for value in (None, "x y", -1, [3], {"foo": 1})),
    )
    assert len(found) > 100
    for message in found:
        for word in INTERNALS[:8]:
            assert word not in message, message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budget": {"labels": "many"}},
            "c.yaml: budget.labels: expected a whole number, found 'many'",
        ),
        ({"budget": 3}, "c.yaml: budget: expected settings, one `key: value` a line, found 3"),
        ({"objective": {"direction": "minimise"}}, "found 'minimise'; did you mean 'minimize'?"),
        (
            {"oracles": [{"use": "lennard_jones", "python": 3}]},
            "c.yaml: oracles.0.python: expected text or a list, found 3",
        ),
        (
            {"space": {"min_fraction": {"Ni": "x"}}},
            "c.yaml: space.min_fraction.Ni: expected a number, found 'x'",
        ),
        (
            {"name": "a b"},
            "c.yaml: name: expected letters, digits and . _ - with a letter or digit at the "
            "start, found 'a b'",
        ),
        ({"oracles": []}, "c.yaml: oracles: expected a list of at least 1, found 0"),
    ],
)
def test_expected_and_found_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        configs.validate(merged(SMALL, changes), folder=Path(), source=Path("c.yaml"))
    assert message in caught.value.message


def test_unknown_keys_of_inner_settings_are_compared_with_those_beside_them() -> None:
    changes = {"generators": [{"use": "pcdvae", "params": {"training": {"epocs": 3}}}]}
    with pytest.raises(InputError) as caught:
        _ = configs.validate(merged(SMALL, changes), folder=Path(), source=Path("c.yaml")).parts
    assert (
        "generators.0.params.training.epocs: unknown key; did you mean 'epochs'?"
        in caught.value.message
    )
